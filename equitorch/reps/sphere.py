"""Rows of harmonics as functions on the sphere: quadrature grids, and the way there and back.

The sphere has the polar axis y, like everything here: the point at (beta, alpha) is
(sin beta sin alpha, cos beta, sin beta cos alpha), and a harmonic is a Legendre function of beta times a wave
in alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from equitorch.reps.rotation import angles_to_xyz

_NORMS = {
    "integral": lambda l: 1.0,
    "component": lambda l: math.sqrt(4 * math.pi),
    "norm": lambda l: math.sqrt(4 * math.pi / (2 * l + 1)),
}


@dataclass(frozen=True, eq=False)
class SphereGrid:
    """Points on circles of latitude, and their weights in an integral over the sphere.

    Attributes:
        beta: angle of each latitude from the pole y, rising. Shape (latitudes,), float64.
        alpha: longitudes, uniform. Shape (longitudes,), float64.
        weight: of one point of each latitude; 4 pi in all. Shape (latitudes,), float64.

    >>> grid = SphereGrid.exact(4)
    >>> grid.points.shape, round(grid.weight.sum().item() * 5 / math.pi, 12)
    (torch.Size([3, 5, 3]), 4.0)
    """

    beta: Tensor
    alpha: Tensor
    weight: Tensor

    @staticmethod
    def exact(degree: int, *, latitudes: int | None = None, longitudes: int | None = None) -> SphereGrid:
        """The smallest product grid that integrates polynomials of ``degree`` exactly.

        Gauss-Legendre nodes in cos(beta), floor(degree / 2) + 1 of them, and degree + 1 uniform longitudes;
        both are sharp. To multiply functions of degrees L1 and L2 and read the result up to degree L3, ask
        for degree L1 + L2 + L3.

        Args:
            degree: what to integrate exactly.
            latitudes: another number of latitudes, if given; with fewer the grid is no longer exact.
            longitudes: another number of longitudes, if given.
        """
        if degree < 0:
            raise ValueError(f"SphereGrid.exact expects a degree >= 0, got {degree}")
        count = degree // 2 + 1 if latitudes is None else latitudes
        around = degree + 1 if longitudes is None else longitudes
        node, weight = np.polynomial.legendre.leggauss(count)
        beta = torch.tensor(np.arccos(node[::-1]), device="cpu")
        return SphereGrid(
            beta, _uniform(around), torch.tensor(weight[::-1] * 2 * math.pi / around, device="cpu")
        )

    @staticmethod
    def e3nn(res_beta: int, res_alpha: int) -> SphereGrid:
        """The grid of e3nn: latitudes (i + 1/2) pi / res_beta, for an even number of them.

        Its weights integrate polynomials of degree < res_beta exactly, if res_alpha also exceeds the degree.

        Source:
            Kostelec and Rockmore 2008, J. Fourier Anal. Appl. 14, 145 (weights).
        """
        if res_beta % 2 or res_beta < 2:
            raise ValueError(f"SphereGrid.e3nn expects an even number of latitudes, got {res_beta}")
        beta = (torch.arange(res_beta, dtype=torch.float64, device="cpu") + 0.5) * (math.pi / res_beta)
        odd = torch.arange(1, res_beta, 2, dtype=torch.float64, device="cpu")
        weight = beta.sin() * (torch.sin(beta[:, None] * odd) / odd).sum(dim=1)
        return SphereGrid(beta, _uniform(res_alpha), weight * (4 * math.pi / res_alpha) / weight.sum())

    @property
    def points(self) -> Tensor:
        """Unit vectors. Shape (latitudes, longitudes, 3), float64."""
        return angles_to_xyz(self.alpha, self.beta[:, None])


def to_grid(
    grid: SphereGrid, lmax: int, *, normalization: str = "component", scale: Tensor | None = None
) -> Tensor:
    r"""The matrix that evaluates rows on a grid: f(p) = sum over l, m of x_lm Y_lm(p).

    Args:
        grid: the points.
        lmax: highest degree.
        normalization: of the harmonics: ``"component"`` (|Y_l|^2 = 2 l + 1), ``"integral"`` (orthonormal) or
            ``"norm"`` (|Y_l|^2 = 1).
        scale: another factor for each degree. Shape (lmax + 1,).

    Shape:
        -> (latitudes, longitudes, (lmax + 1)^2), float64

    >>> to_grid(SphereGrid.exact(4), 2).shape
    torch.Size([3, 5, 9])
    """
    return _integral_table(grid, lmax) * _factors(lmax, normalization, scale)


def from_grid(
    grid: SphereGrid, lmax: int, *, normalization: str = "component", scale: Tensor | None = None
) -> Tensor:
    r"""The matrix that reads rows off a grid: x_lm = integral of f Y_lm over that of Y_lm^2.

    The inverse of ``to_grid`` with the same arguments wherever the grid is exact to degree 2 lmax, and the
    projection onto degrees <= lmax where it is exact to lmax + the degree of f.

    Shape:
        -> (latitudes, longitudes, (lmax + 1)^2), float64; contract it with f over the first two axes

    >>> grid = SphereGrid.exact(4)
    >>> both = torch.einsum("bai,baj->ij", from_grid(grid, 2), to_grid(grid, 2))
    >>> torch.allclose(both, torch.eye(9, dtype=torch.float64))
    True
    """
    weighted = _integral_table(grid, lmax) * grid.weight[:, None, None]
    return weighted / _factors(lmax, normalization, scale)


def legendre(lmax: int, beta: Tensor) -> Tensor:
    r"""The polar part of the harmonics: Y_lm(beta, alpha) = P_l|m|(cos beta) T_m(alpha).

    Orthonormal, without the Condon-Shortley sign: :math:`2 \pi \int P_{lm}^2 \, d\cos\beta = 1`.
    Stable at any degree, and differentiable.

    Args:
        lmax: highest degree.
        beta: angles from the pole, in [0, pi]. Shape (...).

    Shape:
        beta: (...) -> (..., (lmax + 1)^2), columns l^2 + l + m, those of m and -m alike

    Source:
        Holmes and Featherstone 2002, J. Geodesy 76, 279 (recursion in l at fixed order).

    >>> legendre(1, torch.tensor(0.0))  # at the pole only m = 0 is left
    tensor([0.2821, 0.0000, 0.4886, 0.0000])
    """
    return legendre_at(range(lmax + 1), beta.cos(), beta.sin())


def legendre_at(ls: Iterable[int], y: Tensor, s: Tensor) -> Tensor:
    """As ``legendre``, as polynomials of y = cos(beta) and s = sin(beta), of the degrees asked for.

    Order m has the factor s^m and no other s, so that s = 1 leaves P_lm / s^m, a polynomial of y alone.

    Shape:
        y, s: (...) -> (..., sum of 2 l + 1)
    """
    ls = list(ls)
    top = max(ls, default=0)
    table: dict[tuple[int, int], Tensor] = {(0, 0): torch.full_like(y, math.sqrt(0.25 / math.pi))}
    for m in range(top + 1):
        if m:
            table[m, m] = math.sqrt((2 * m + 1) / (2 * m)) * s * table[m - 1, m - 1]
        for l in range(m + 1, top + 1):
            ahead = math.sqrt((4 * l * l - 1) / (l * l - m * m))
            value = y * table[l - 1, m]
            if l > m + 1:
                value = value - math.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1)) * table[l - 2, m]
            table[l, m] = ahead * value
    columns = [table[l, abs(m)] for l in ls for m in range(-l, l + 1)]
    return torch.stack(columns, dim=-1) if columns else y.new_zeros(*y.shape, 0)


def harmonics_at(lmax: int, directions: Tensor) -> Tensor:
    r"""The orthonormal harmonics of unit vectors, as polynomials: for constants and analysis.

    .. math:: Y_{l, \pm m} = \frac{P_{lm}(y)}{s^m} \sqrt2 \, \{\Re, \Im\} (z + i x)^m

    ``equitorch.ops.spherical_harmonics`` is the fast one.

    Shape:
        directions: (..., 3) -> (..., (lmax + 1)^2)

    >>> harmonics_at(1, torch.tensor([0.0, 0.0, 1.0]))
    tensor([0.2821, 0.0000, 0.0000, 0.4886])
    """
    x, y, z = directions.unbind(-1)
    even, odd = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(lmax):
        even, odd = [*even, z * even[-1] - x * odd[-1]], [*odd, z * odd[-1] + x * even[-1]]
    wave = [math.sqrt(2) * w for w in odd[:0:-1]] + [even[0]] + [math.sqrt(2) * w for w in even[1:]]
    columns = [lmax + m for l in range(lmax + 1) for m in range(-l, l + 1)]
    polar = legendre_at(range(lmax + 1), y, torch.ones_like(y))
    return polar * torch.stack([wave[column] for column in columns], dim=-1)


def waves(lmax: int, alpha: Tensor) -> Tensor:
    """The azimuthal part: T_m = sqrt2 cos(m alpha), T_0 = 1, T_-m = sqrt2 sin(m alpha).

    Shape:
        alpha: (...) -> (..., 2 lmax + 1), columns lmax + m

    >>> waves(1, torch.tensor(0.0))
    tensor([0.0000, 1.0000, 1.4142])
    """
    m = torch.arange(1, lmax + 1, dtype=alpha.dtype, device=alpha.device)
    angle = alpha[..., None] * m
    sine, cosine = math.sqrt(2) * angle.sin(), math.sqrt(2) * angle.cos()
    return torch.cat([sine.flip(-1), torch.ones_like(alpha)[..., None], cosine], dim=-1)


def _integral_table(grid: SphereGrid, lmax: int) -> Tensor:
    column = [lmax + m for l in range(lmax + 1) for m in range(-l, l + 1)]
    return legendre(lmax, grid.beta)[:, None] * waves(lmax, grid.alpha)[None, :, column]


def _factors(lmax: int, normalization: str, scale: Tensor | None) -> Tensor:
    if normalization not in _NORMS:
        raise ValueError(f"normalization expects one of {sorted(_NORMS)}, got {normalization!r}")
    factors = torch.tensor(
        [_NORMS[normalization](l) for l in range(lmax + 1)], dtype=torch.float64, device="cpu"
    )
    if scale is not None:
        if tuple(scale.shape) != (lmax + 1,):
            raise ValueError(
                f"scale expects a factor for each of {lmax + 1} degrees, got {tuple(scale.shape)}"
            )
        factors = factors * scale
    return factors.repeat_interleave(torch.arange(1, 2 * lmax + 2, 2, device="cpu"))


def _uniform(longitudes: int) -> Tensor:
    return torch.arange(longitudes, dtype=torch.float64, device="cpu") * (2 * math.pi / longitudes)
