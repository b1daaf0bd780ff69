"""Where products of functions on the sphere are evaluated: exact grids, and tables of values and slopes."""

from __future__ import annotations

import torch
from torch import Tensor

from equitorch.reps.sphere import SphereGrid, legendre, waves


def product_grid(
    *lmaxs: int, latitudes: int | None = None, longitudes: int | None = None, exact: bool = True
) -> SphereGrid:
    """The grid on which an integral over a product of functions of these degrees is exact.

    Args:
        lmaxs: highest degree of each factor; of a product that is read up to lmax_out, that too.
        latitudes: another number of latitudes than the smallest that is exact.
        longitudes: another number of longitudes.
        exact: refuse a grid that is too coarse.

    Raises:
        ValueError: if the grid asked for is too coarse, and ``exact`` holds.

    >>> product_grid(4, 4, 4).points.shape
    torch.Size([7, 13, 3])
    """
    if not lmaxs or min(lmaxs) < 0:
        raise ValueError(f"product_grid expects a degree >= 0 for each factor, got {lmaxs}")
    degree = sum(lmaxs)
    least = degree // 2 + 1, degree + 1
    asked = (
        least[0] if latitudes is None else latitudes,
        least[1] if longitudes is None else longitudes,
    )
    if exact and (asked[0] < least[0] or asked[1] < least[1]):
        raise ValueError(
            f"a product of degrees {', '.join(map(str, lmaxs))} needs {least[0]} x {least[1]} points "
            f"(latitudes x longitudes) to be exact, got {asked[0]} x {asked[1]}; "
            "pass exact=False to accept its aliasing"
        )
    return SphereGrid.exact(degree, latitudes=asked[0], longitudes=asked[1])


def table(grid: SphereGrid, lmax: int, component: str) -> Tensor:
    r"""Orthonormal harmonics on a grid, or a component of their gradients.

    Args:
        grid: the points.
        lmax: highest degree.
        component: "value" for Y, "polar" for dY / d beta, "azimuthal" for (dY / d alpha) / sin(beta).

    Shape:
        -> (points, (lmax + 1)^2), float64, points latitude by latitude

    >>> table(product_grid(1, 1, 1), 1, "value").shape
    torch.Size([8, 4])
    """
    column = [lmax + m for l in range(lmax + 1) for m in range(-l, l + 1)]
    polar = polar_part(grid.beta, lmax, component)[:, None]
    wave = wave_part(grid.alpha, lmax, component)[None, :, column]
    return (polar * wave).flatten(0, 1)


def polar_part(beta: Tensor, lmax: int, component: str) -> Tensor:
    """The factor of ``table`` that depends on beta: P, P' or P / sin(beta). Shape (..., (lmax + 1)^2).

    P' follows from P'_lm = m cot(beta) P_lm - sqrt((l - m)(l + m + 1)) P_l,m+1.
    """
    value = legendre(lmax, beta)
    if component == "value":
        return value
    over = value / beta.sin()[..., None]
    if component == "azimuthal":
        return over
    degrees = [(l, abs(m)) for l in range(lmax + 1) for m in range(-l, l + 1)]
    own = torch.tensor([m for _, m in degrees], dtype=torch.float64, device="cpu")
    next_ = [l * l + l + min(m + 1, l) for l, m in degrees]
    factor = torch.tensor(
        [(l - m) * (l + m + 1) for l, m in degrees], dtype=torch.float64, device="cpu"
    ).sqrt()
    return own * beta.cos()[..., None] * over - factor * value[..., next_]


def wave_part(alpha: Tensor, lmax: int, component: str) -> Tensor:
    """The factor of ``table`` that depends on alpha: T_m or T'_m. Shape (..., 2 lmax + 1)."""
    wave = waves(lmax, alpha)
    if component != "azimuthal":
        return wave
    m = torch.arange(-lmax, lmax + 1, dtype=alpha.dtype, device="cpu")
    return -m * wave.flip(-1)
