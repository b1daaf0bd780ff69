"""The product of a feature with a mixture of its own channels, as functions on the sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equitorch.layers.gaunt import GauntTensorProduct, deviation, sphere_irreps
from equitorch.layers.linear import Linear


class GauntSelfInteraction(nn.Module):
    r"""The product of a feature with a mixture of its channels, as functions on the sphere.

    .. math:: z = \text{product}(x, A x) - \bar z_{0e}

    with a :class:`Linear` map A, orthogonal at the start, and a :class:`GauntTensorProduct`. Weights of the
    result and the shift of its invariants begin where, for independent rows x of unit variance, the result
    has unit variance and no mean; both know how far A x is x itself. The bracket of a single channel with
    itself is zero.

    Args:
        lmax: highest degree of the feature.
        channels: of the feature and of the result.
        lmax_out: highest degree of the result; lmax unless given.
        parity: "even", "odd" or "full".
        rank: number of products that are summed.
        backend: as in :func:`equitorch.ops.gaunt.gaunt_product`.

    Shape:
        x: (..., (lmax + 1)^2, channels) -> (..., (lmax_out + 1)^2, channels); "full": twice as many rows

    Raises:
        ValueError: if an option makes no sense, or x has another shape.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216; what it begins with is our derivation.

    >>> GauntSelfInteraction(2, 16)(torch.randn(10, 9, 16)).shape
    torch.Size([10, 9, 16])
    """

    def __init__(
        self,
        lmax: int,
        channels: int,
        *,
        lmax_out: int | None = None,
        parity: str = "even",
        rank: int = 1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        top = lmax if lmax_out is None else lmax_out
        self.product = GauntTensorProduct(lmax, lmax, top, channels, parity, rank, backend)
        self.mixture = Linear(sphere_irreps(lmax, parity), channels, channels, bias=False)
        self.shift = None if parity == "odd" else nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Unit variance and no mean, for unit variance in."""
        self.product.reset_parameters()
        degrees, channels = self.product.weight1.shape[1:]
        matrices = self.mixture.weight.view(degrees, channels, channels)
        correlation = matrices.new_empty(degrees, channels)
        for matrix, own in zip(matrices, correlation, strict=True):
            nn.init.orthogonal_(matrix, gain=channels**0.5)
            own.copy_(matrix.diagonal() / channels**0.5)
        variance = self.product.variance(correlation)
        self.product.weight3.div_(deviation(variance))
        if self.shift is not None:
            self.shift.copy_(-self._mean(correlation))

    def _mean(self, correlation: Tensor) -> Tensor:
        """Of the invariant row: the sum of (2 l + 1) / sqrt(4 pi) times the weights of degree l."""
        product = self.product
        last = (product.weight3 * product.scale3.value).reshape(product.rank, -1, product.channels)[:, 0]
        sizes = torch.arange(1, 2 * product.lmax1 + 2, 2).repeat(2 if product.parity == "full" else 1)
        one = sizes.to(last)[:, None] / (4 * math.pi) ** 0.5 * correlation
        return torch.einsum("rac,rac,rc,ac->c", product.weight1, product.weight2, last, one)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.product(x, self.mixture(x))
        if self.shift is None:
            return z
        return torch.cat([z[..., :1, :] + self.shift, z[..., 1:, :]], dim=-2)
