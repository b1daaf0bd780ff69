"""The sphere under e3nn's names: its grid, and the harmonics as Legendre functions times waves.

:mod:`equitorch.reps.sphere` has the same things with exact quadratures, in float64. Here the signatures, the
points and the defaults are those of ``e3nn.o3``; values are computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from equitorch.reps.irreps import Irreps
from equitorch.reps.sphere import legendre_at, waves

Device = torch.device | str | None


def s2_grid(
    res_beta: int, res_alpha: int, dtype: torch.dtype | None = None, device: Device = None
) -> tuple[Tensor, Tensor]:
    """The angles of e3nn's grid: beta = (i + 1/2) pi / res_beta and alpha = 2 pi j / res_alpha.

    Args:
        res_beta: number of latitudes.
        res_alpha: number of longitudes.
        dtype: of the result; PyTorch's default if not given.
        device: of the result.

    Shape:
        -> (res_beta,) and (res_alpha,)

    >>> s2_grid(2, 4)[0]  # 45 and 135 degrees from the pole
    tensor([0.7854, 2.3562])
    """
    beta, alpha = _angles(res_beta, res_alpha)
    return _cast(beta, dtype, device), _cast(alpha, dtype, device)


def spherical_harmonics_s2_grid(
    lmax: int, res_beta: int, res_alpha: int, dtype: torch.dtype | None = None, device: Device = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The orthonormal harmonics on e3nn's grid, as a factor of beta and one of alpha.

    Args:
        lmax: highest degree.
        res_beta: number of latitudes.
        res_alpha: number of longitudes.
        dtype: of the result; PyTorch's default if not given.
        device: of the result.

    Shape:
        -> betas (res_beta,), alphas (res_alpha,), polar factors (res_beta, (lmax + 1)^2),
        waves (res_alpha, 2 lmax + 1)

    >>> [tuple(t.shape) for t in spherical_harmonics_s2_grid(2, 6, 5)]
    [(6,), (5,), (6, 9), (5, 5)]
    """
    beta, alpha = _angles(res_beta, res_alpha)
    polar = legendre_at(range(lmax + 1), beta.cos(), beta.sin())
    all_four = beta, alpha, polar, waves(lmax, alpha)
    betas, alphas, shb, sha = (_cast(t, dtype, device) for t in all_four)
    return betas, alphas, shb, sha


class Legendre:
    """The polar factors of the orthonormal harmonics of some degrees, as a function of cos and sin of beta.

    Args:
        ls: the degrees, in any order.

    Shape:
        z = cos(beta), y = sin(beta): (...) -> (..., sum of 2 l + 1)

    >>> Legendre([1])(torch.tensor(1.0), torch.tensor(0.0))  # at the pole only m = 0 is left
    tensor([0.0000, 0.4886, 0.0000])
    """

    def __init__(self, ls: Iterable[int]) -> None:
        self.ls = list(ls)

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        return legendre_at(self.ls, *torch.broadcast_tensors(z, y))

    def __repr__(self) -> str:
        return f"Legendre({self.ls})"


def spherical_harmonics_alpha(l: int, alpha: Tensor) -> Tensor:
    """The waves of orders -l to l: sqrt2 sin(m alpha), 1, sqrt2 cos(m alpha).

    Shape:
        alpha: (...) -> (..., 2 l + 1)

    >>> spherical_harmonics_alpha(1, torch.tensor(0.0))
    tensor([0.0000, 1.0000, 1.4142])
    """
    return waves(l, alpha)


def spherical_harmonics_alpha_beta(
    l: int | Iterable[int] | Irreps, alpha: Tensor, beta: Tensor, *, normalization: str = "integral"
) -> Tensor:
    r"""Harmonics of the direction R_y(alpha) R_x(beta) e_y, by its angles.

    .. math:: Y_{lm}(\alpha, \beta) = T_m(\alpha) \, P_{lm}(\cos \beta)

    Args:
        l: a degree, several, or the irreps whose degrees are meant.
        alpha: longitude, radians. Shape (...).
        beta: angle from the pole y. Shape (...).
        normalization: "integral" (orthonormal), "component" (the squares of degree l sum to 2 l + 1) or
            "norm" (to 1).

    Shape:
        -> (..., sum of 2 l + 1)

    Raises:
        ValueError: if the normalization is unknown.

    >>> spherical_harmonics_alpha_beta(1, torch.tensor(0.0), torch.tensor(0.0), normalization="component")
    tensor([0.0000, 1.7321, 0.0000])
    """
    ls = [l] if isinstance(l, int) else l.ls if isinstance(l, Irreps) else list(l)
    if normalization not in ("integral", "component", "norm"):
        raise ValueError(
            "spherical_harmonics_alpha_beta expects normalization to be one of integral, component, norm, "
            f"got {normalization!r}"
        )
    top = max(ls, default=0)
    column = [top + m for degree in ls for m in range(-degree, degree + 1)]
    y = legendre_at(ls, *torch.broadcast_tensors(beta.cos(), beta.sin())) * waves(top, alpha)[..., column]
    if normalization == "integral":
        return y
    parts = y.split([2 * degree + 1 for degree in ls], dim=-1)
    share = [1.0 if normalization == "component" else 1 / (2 * degree + 1) for degree in ls]
    scaled = [part * math.sqrt(4 * math.pi * s) for part, s in zip(parts, share, strict=True)]
    return torch.cat(scaled, dim=-1)


def degree_shares(lmax: int, normalization: str) -> Tensor:
    """Factors of orthonormal harmonics that give every degree the same share of a function's mean square.

    For "component" that is so with coefficients of unit variance, for "norm" with degrees of unit norm; the
    mean square is then one. "integral" changes nothing.

    Shape:
        -> (lmax + 1,), float64

    Raises:
        ValueError: if the normalization is unknown.

    >>> degree_shares(1, "integral")
    tensor([1., 1.], dtype=torch.float64)
    """
    degrees = torch.arange(lmax + 1, dtype=torch.float64, device="cpu")
    if normalization == "integral":
        return torch.ones_like(degrees)
    if normalization not in ("component", "norm"):
        raise ValueError(
            f"the sphere's normalization is one of component, norm, integral, got {normalization!r}"
        )
    size = 2 * degrees + 1 if normalization == "component" else torch.ones_like(degrees)
    return (4 * math.pi / (lmax + 1) / size).sqrt()


def rfft(x: Tensor, l: int) -> Tensor:
    """The sums of a function on uniform longitudes against the waves of orders -l to l, by a fast transform.

    Args:
        x: values at alpha = 2 pi j / res. Shape (..., res).
        l: highest order, below res / 2.

    Shape:
        -> (..., 2 l + 1)

    Raises:
        ValueError: if there are not enough longitudes for that order.

    >>> rfft(torch.ones(5), 1)[1]
    tensor(5.)
    """
    if x.shape[-1] < 2 * l + 1:
        raise ValueError(
            f"rfft(x, {l}) expects x with at least {2 * l + 1} longitudes in its last axis, "
            f"got {tuple(x.shape)}"
        )
    spectrum = torch.fft.rfft(x, dim=-1)[..., : l + 1]
    waved = spectrum[..., 1:] * math.sqrt(2)
    return torch.cat([-waved.imag.flip(-1), spectrum[..., :1].real, waved.real], dim=-1)


def irfft(x: Tensor, res: int) -> Tensor:
    """The sum of the waves of orders -l to l at uniform longitudes, by a fast transform.

    Args:
        x: one coefficient for each wave. Shape (..., 2 l + 1).
        res: number of longitudes, at least 2 l + 1. (e3nn asks for an odd number.)

    Shape:
        -> (..., res)

    Raises:
        ValueError: if there are not enough longitudes for the highest order.

    >>> irfft(torch.tensor([0.0, 2.0, 0.0]), 5)
    tensor([2., 2., 2., 2., 2.])
    """
    l = x.shape[-1] // 2
    if res < x.shape[-1] or x.shape[-1] % 2 == 0:
        raise ValueError(
            f"irfft(x, {res}) expects x with an odd number 2 l + 1 <= {res} of coefficients, "
            f"got {tuple(x.shape)}"
        )
    real = torch.cat([x[..., l : l + 1], x[..., l + 1 :] * math.sqrt(0.5)], dim=-1)
    imag = torch.cat([torch.zeros_like(x[..., :1]), x[..., :l].flip(-1) * -math.sqrt(0.5)], dim=-1)
    return torch.fft.irfft(torch.complex(real, imag), n=res, dim=-1) * res


def _angles(res_beta: int, res_alpha: int) -> tuple[Tensor, Tensor]:
    beta = (torch.arange(res_beta, dtype=torch.float64, device="cpu") + 0.5) * (math.pi / res_beta)
    return beta, torch.arange(res_alpha, dtype=torch.float64, device="cpu") * (2 * math.pi / res_alpha)


def _cast(x: Tensor, dtype: torch.dtype | None, device: Device) -> Tensor:
    return x.to(device or torch.get_default_device(), dtype or torch.get_default_dtype())
