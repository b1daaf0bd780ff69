"""Spherical harmonics as modules, for some degrees in some order."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from equitorch.ops import spherical_harmonics
from equitorch.reps import Irrep, Irreps, spherical_harmonics_alpha_beta

NORMALIZATIONS = ("integral", "component", "norm")


class SphericalHarmonics(nn.Module):
    r"""The real harmonics of vectors, of the degrees asked for: e3nn's values, of any degree.

    See :func:`equitorch.ops.spherical_harmonics`, which gives all degrees up to one. Like e3nn's module, and
    unlike that function, it is ``"integral"`` unless another normalization is given.

    Args:
        irreps_out: irreps with the parity of harmonics, a degree, or several in any order.
        normalize: take the harmonics of the directions; else homogeneous polynomials of the vectors.
        normalization: on the unit sphere, "integral": orthonormal; "component": the squares of degree l sum
            to 2 l + 1; "norm": to 1.
        irreps_in: "1o" for polar vectors, "1e" for axial ones; by ``irreps_out`` if not given.

    Shape:
        x: (..., 3) -> (..., irreps_out.dim)

    Raises:
        ValueError: for another ``irreps_in``, another parity, an unknown normalization, or no degree.

    Source:
        Conventions: Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.o3.SphericalHarmonics``).

    >>> SphericalHarmonics("0e+2e", normalize=True, normalization="component")(torch.randn(10, 3)).shape
    torch.Size([10, 6])
    """

    def __init__(
        self,
        irreps_out: int | Iterable[int] | str | Irreps,
        normalize: bool,
        normalization: str = "integral",
        irreps_in: Irreps | str | None = None,
    ) -> None:
        super().__init__()
        _check_normalization("SphericalHarmonics", normalization)
        named = None if _are_degrees(irreps_out) else Irreps(irreps_out)  # type: ignore[arg-type]
        if irreps_in is None:
            axial = named is not None and any(ir.l % 2 and ir.p == 1 for _, ir in named)
            irreps_in = "1e" if axial else "1o"
        self.irreps_in = Irreps(irreps_in)
        if self.irreps_in not in (Irreps("1o"), Irreps("1e")):
            raise ValueError(
                f"SphericalHarmonics expects irreps_in of 1o (polar) or 1e (axial), got {self.irreps_in}"
            )
        p = self.irreps_in[0].ir.p
        for _, ir in named or ():
            if ir.p != p**ir.l:
                raise ValueError(
                    f"SphericalHarmonics of {self.irreps_in} expects {Irrep(ir.l, p**ir.l)} in irreps_out, "
                    f"got {ir}"
                )
        self.ls = named.ls if named is not None else _degrees(irreps_out)
        if not self.ls or min(self.ls) < 0:
            raise ValueError(f"SphericalHarmonics expects at least one degree >= 0, got {irreps_out!r}")
        self.irreps_out = Irreps([(1, Irrep(l, p**l)) for l in self.ls]).simplify()
        self.normalize, self.normalization, self.lmax = normalize, normalization, max(self.ls)

    def forward(self, x: Tensor) -> Tensor:
        y = spherical_harmonics(self.lmax, x, self.normalize, self.normalization)
        if self.ls == list(range(self.lmax + 1)):
            return y
        return torch.cat([y[..., l * l : (l + 1) ** 2] for l in self.ls], dim=-1)

    def extra_repr(self) -> str:
        return f"{self.irreps_out}, normalize={self.normalize}, normalization={self.normalization!r}"


class SphericalHarmonicsAlphaBeta(nn.Module):
    """The harmonics of directions given by angles: see :func:`equitorch.reps.spherical_harmonics_alpha_beta`.

    Args:
        l: a degree, several, or the irreps whose degrees are meant.
        normalization: "integral", "component" or "norm".

    Shape:
        alpha, beta: (...) -> (..., sum of 2 l + 1)

    >>> SphericalHarmonicsAlphaBeta([0, 1])(torch.zeros(5), torch.zeros(5)).shape
    torch.Size([5, 4])
    """

    def __init__(self, l: int | Iterable[int] | Irreps, normalization: str = "integral") -> None:
        super().__init__()
        _check_normalization("SphericalHarmonicsAlphaBeta", normalization)
        self.ls = l.ls if isinstance(l, Irreps) else _degrees(l)
        self.normalization = normalization

    def forward(self, alpha: Tensor, beta: Tensor) -> Tensor:
        return spherical_harmonics_alpha_beta(self.ls, alpha, beta, normalization=self.normalization)

    def extra_repr(self) -> str:
        return f"{self.ls}, normalization={self.normalization!r}"


def _check_normalization(name: str, normalization: str) -> None:
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"{name} expects normalization to be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}"
        )


def _are_degrees(spec: object) -> bool:
    """Whether degrees are meant, and not irreps, of ours or of e3nn."""
    return not isinstance(spec, (str, Irreps)) and not hasattr(spec, "num_irreps")


def _degrees(ls: object) -> list[int]:
    return [ls] if isinstance(ls, int) else [int(l) for l in ls]  # type: ignore[attr-defined]
