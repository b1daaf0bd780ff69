"""Products of a feature with itself as a function on the sphere, up to a given order."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.rows import expect_dtype
from equitorch.ops.sphere_power import sphere_polynomial


class GauntManyBody(nn.Module):
    r"""Polynomials of a node's feature as a function on the sphere, with weights of the node's species.

    .. math:: z_{l m} = \sum_{\nu=1}^{N} \frac{W_{s \nu l}}{\sigma_{\nu l}} \int Y_{l m} \, X^\nu,
        \qquad X = \sum_{l m} x_{l m} Y_{l m}

    channel by channel. All orders are evaluated on one exact grid: no product is truncated between. A degree
    l of x has parity (-1)^l, and so has the result. For rows x of unit variance, sigma makes the mean square
    of the rows of every order and degree one; weights begin with variance 1 / N.

    Args:
        lmax_in: highest degree of the feature.
        lmax_out: highest degree of the result.
        channels: of both.
        correlation: the highest order N.
        species: the number of species.
        rank: None: a weight for each order and degree. R: sums of R products of weights for each order (and
            species) and weights for each degree; with R = 1 one analysis serves all orders.

    Attributes:
        weight: (species, correlation, lmax_out + 1, channels); with a rank (species, rank, correlation,
            channels).
        degree_weight: None; with a rank (rank, lmax_out + 1, channels).

    Shape:
        x: (..., (lmax_in + 1)^2, channels), index: (...), int64 -> (..., (lmax_out + 1)^2, channels)

    Raises:
        ValueError: if a number makes no sense, or the feature or the index has another shape.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216 (many-body interactions by Gaunt products).

    >>> layer = GauntManyBody(2, 1, 16, correlation=3, species=2)
    >>> layer(torch.randn(10, 9, 16), torch.zeros(10, dtype=torch.int64)).shape
    torch.Size([10, 4, 16])
    """

    def __init__(
        self,
        lmax_in: int,
        lmax_out: int,
        channels: int,
        *,
        correlation: int = 3,
        species: int = 1,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.lmax_in, self.lmax_out, self.channels = lmax_in, lmax_out, channels
        self.correlation, self.species, self.rank = correlation, species, rank
        for name, least in (
            ("lmax_in", 0),
            ("lmax_out", 0),
            ("channels", 0),
            ("correlation", 1),
            ("species", 1),
        ):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise ValueError(
                    f"GauntManyBody expects {name} to be a whole number >= {least}, got {given!r}"
                )
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
            raise ValueError(f"GauntManyBody expects a rank >= 1, or None, got {rank!r}")
        moments = power_moments(lmax_in, lmax_out, correlation)
        if rank is None:
            self.weight = nn.Parameter(torch.empty(species, correlation, lmax_out + 1, channels))
            self.degree_weight = None
            reached = (moments > 0).sum(0).clamp(min=1)
            self.scale = Constant((_inverse_root(moments) * (correlation / reached) ** 0.5)[:, :, None])
        else:
            self.weight = nn.Parameter(torch.empty(species, rank, correlation, channels))
            self.degree_weight = nn.Parameter(torch.empty(rank, lmax_out + 1, channels))
            by_order, by_degree = _separated(moments)
            self.scale, self.degree_scale = Constant(by_order[:, None]), Constant(by_degree[:, None])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit mean square out, over all orders and on average over the weights, for unit variance in."""
        nn.init.normal_(self.weight, std=self.correlation**-0.5)
        if self.degree_weight is not None:
            if self.rank == 1:
                nn.init.ones_(self.degree_weight)
            else:
                nn.init.normal_(self.degree_weight, std=(self.rank or 1) ** -0.5)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        rows = (self.lmax_in + 1) ** 2
        if x.ndim < 2 or x.shape[-2:] != (rows, self.channels) or index.shape != x.shape[:-2]:
            raise ValueError(
                f"{self} expects x of shape (..., {rows}, {self.channels}) and an index of shape (...), "
                f"got {tuple(x.shape)} and {tuple(index.shape)}"
            )
        expect_dtype(self, x, self.weight)
        nodes = x.reshape(index.numel(), *x.shape[-2:])
        out = self._polynomial(nodes, index.reshape(-1))
        return out.reshape(*x.shape[:-2], *out.shape[-2:])

    def _polynomial(self, x: Tensor, index: Tensor) -> Tensor:
        weight = self.weight * self.scale.value
        if self.degree_weight is None:
            return sphere_polynomial(x, weight, index, self.lmax_out)
        by_degree = self.degree_weight * self.degree_scale.value
        if self.rank != 1:  # as many analyses as orders are cheaper, or no dearer
            full = torch.einsum("srnc,rlc->snlc", weight, by_degree)
            return sphere_polynomial(x, full, index, self.lmax_out)
        out = sphere_polynomial(x, weight[:, 0, :, None], index, self.lmax_out)
        sizes = torch.arange(1, 2 * self.lmax_out + 2, 2, device=x.device)
        return out * by_degree[0].repeat_interleave(sizes, dim=0)

    def __repr__(self) -> str:
        rank = "" if self.rank is None else f", rank={self.rank}"
        return (
            f"GauntManyBody({self.lmax_in} -> {self.lmax_out}, channels={self.channels}, "
            f"correlation={self.correlation}, species={self.species}{rank})"
        )


def power_moments(lmax_in: int, lmax_out: int, orders: int) -> Tensor:
    r"""Mean square of a row of each power of a random function whose rows are independent unit normals.

    .. math:: E[A_{lm}(X^\nu)^2] = 2 \pi \int P_l(t) \, E[X^\nu X'^\nu](t) \, dt, \qquad
        E[X^\nu X'^\nu] = \sum_{j} \frac{1}{j!} \left(\frac{\nu!}{((\nu - j)/2)! \, 2^{(\nu - j)/2}}\right)^2
        \sigma^{2(\nu - j)} K(t)^j

    with the covariance K(t) of two points at distance arccos t, sigma^2 = K(1), and j of the parity of nu.

    Shape:
        -> (orders, lmax_out + 1), float64

    >>> power_moments(1, 1, 2)[0].tolist()  # the function itself
    [1.0, 1.0]
    """
    points, weight = np.polynomial.legendre.leggauss((orders * lmax_in + lmax_out) // 2 + 1)
    polynomials = np.polynomial.legendre.legvander(points, max(lmax_in, lmax_out))
    covariance = polynomials[:, : lmax_in + 1] @ (2 * np.arange(lmax_in + 1) + 1) / (4 * np.pi)
    variance = (lmax_in + 1) ** 2 / (4 * np.pi)
    moments = np.zeros((orders, lmax_out + 1))
    for order in range(1, orders + 1):
        mean = np.zeros_like(points)
        for j in range(order % 2, order + 1, 2):
            pairs = (order - j) // 2
            hermite = math.factorial(order) / (math.factorial(pairs) * 2**pairs)
            mean += hermite**2 / math.factorial(j) * variance ** (2 * pairs) * covariance**j
        moments[order - 1] = 2 * np.pi * (weight * mean) @ polynomials[:, : lmax_out + 1]
        moments[order - 1, order * lmax_in + 1 :] = 0  # above all degrees of the power
    found = torch.tensor(moments, dtype=torch.float64, device="cpu")
    found[0, : lmax_in + 1] = 1
    return found


def _inverse_root(moments: Tensor) -> Tensor:
    return torch.where(moments > 0, moments, 1).rsqrt()


def _separated(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Factors for orders and for degrees whose products make the sum over orders right for each degree."""
    by_order = (_inverse_root(moments).log() * (moments > 0)).sum(1) / (moments > 0).sum(1).clamp(min=1)
    by_order = by_order.exp()
    by_degree = (moments * by_order[:, None] ** 2).mean(0)
    return by_order, _inverse_root(by_degree)
