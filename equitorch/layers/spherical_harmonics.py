"""Spherical harmonics as modules, for some degrees in some order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.ops import spherical_harmonics
from equitorch.reps import Irrep, Irreps, spherical_harmonics_alpha_beta
from equitorch.reps.irreps import IrrepsLike

_NORMALIZATIONS = ("component", "integral", "norm")


class SphericalHarmonics(nn.Module):
    r"""The real harmonics of vectors, of the degrees asked for: e3nn's values, of any degree.

    See :func:`equitorch.ops.spherical_harmonics`, which gives all degrees up to one, and whose defaults it
    has: numbers of order one, as every layer here wants them. e3nn's own module of this name is "integral"
    by default, that is smaller by :math:`\sqrt{4 \pi}`.

    Args:
        irreps_out: irreps with the parity of harmonics, a degree, or several in any order.
        normalize: take the harmonics of the directions; else homogeneous polynomials of the vectors.
        normalization: on the unit sphere, "component": the squares of degree l sum to 2 l + 1; "integral":
            orthonormal; "norm": they sum to 1.
        irreps_in: "1o" for polar vectors, "1e" for axial ones, "1" without parity; by ``irreps_out`` if not
            given.

    Shape:
        x: (..., 3) -> (..., irreps_out.dim)

    Raises:
        ValueError: for another ``irreps_in``, another parity, an unknown normalization, or no degree.

    Source:
        Conventions: Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.o3.SphericalHarmonics``).

    >>> SphericalHarmonics("0e+2e")(torch.randn(10, 3)).shape
    torch.Size([10, 6])
    """

    def __init__(
        self,
        irreps_out: int | Iterable[int] | IrrepsLike,
        normalize: bool = True,
        normalization: str = "component",
        irreps_in: IrrepsLike = None,
    ) -> None:
        super().__init__()
        _check_normalization("SphericalHarmonics", normalization)
        self.ls, named = _degrees("SphericalHarmonics", irreps_out)
        self.irreps_in = Irreps(_vector(named) if irreps_in is None else irreps_in)
        if self.irreps_in not in (Irreps("1o"), Irreps("1e"), Irreps("1")):
            raise ValueError(
                f"SphericalHarmonics expects irreps_in of 1o (polar), 1e (axial) or 1, got {self.irreps_in}"
            )
        p = self.irreps_in[0].ir.p
        made = [Irrep(l, p**l if p else 0) for l in self.ls]
        for wanted, ir in zip([] if named is None else named.copies, made, strict=False):
            if wanted != ir:
                raise ValueError(
                    f"SphericalHarmonics of {self.irreps_in} expects {ir} in irreps_out, got {wanted}"
                )
        self.irreps_out = Irreps([(1, ir) for ir in made]).simplify()
        self.normalize, self.normalization, self.lmax = normalize, normalization, max(self.ls)
        self._runs = _runs(self.ls)

    def forward(self, x: Tensor) -> Tensor:
        y = spherical_harmonics(self.lmax, x, self.normalize, self.normalization)
        parts = [y.narrow(-1, a * a, (b + 1) ** 2 - a * a) for a, b in self._runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def extra_repr(self) -> str:
        return f"{self.irreps_out}, normalize={self.normalize}, normalization={self.normalization!r}"


class SphericalHarmonicsAlphaBeta(nn.Module):
    """The harmonics of directions given by angles: see :func:`equitorch.reps.spherical_harmonics_alpha_beta`.

    Args:
        l: a degree, several, or the irreps whose degrees are meant.
        normalization: "component", "integral" or "norm", as in :class:`SphericalHarmonics`.

    Shape:
        alpha, beta: (...) -> (..., sum of 2 l + 1)

    >>> SphericalHarmonicsAlphaBeta([0, 1])(torch.zeros(5), torch.zeros(5)).shape
    torch.Size([5, 4])
    """

    def __init__(self, l: int | Iterable[int] | IrrepsLike, normalization: str = "component") -> None:
        super().__init__()
        _check_normalization("SphericalHarmonicsAlphaBeta", normalization)
        self.ls, _ = _degrees("SphericalHarmonicsAlphaBeta", l)
        self.normalization = normalization

    def forward(self, alpha: Tensor, beta: Tensor) -> Tensor:
        return spherical_harmonics_alpha_beta(self.ls, alpha, beta, normalization=self.normalization)

    def extra_repr(self) -> str:
        return f"{self.ls}, normalization={self.normalization!r}"


def _check_normalization(name: str, normalization: str) -> None:
    if normalization not in _NORMALIZATIONS:
        raise ValueError(
            f"{name} expects normalization to be one of {', '.join(_NORMALIZATIONS)}, got {normalization!r}"
        )


def _degrees(name: str, spec: Any) -> tuple[list[int], Irreps | None]:
    """The degrees in order, and the irreps, if ``spec`` names any: an irrep, too, is a pair of numbers."""
    is_irrep = hasattr(spec, "l") and hasattr(spec, "p")
    listed = list(spec) if isinstance(spec, Iterable) and not isinstance(spec, str) else [spec]
    if not is_irrep and all(isinstance(l, Integral) and not isinstance(l, bool) for l in listed):
        ls, irreps = [int(l) for l in listed], None
    else:
        irreps = Irreps([(1, (spec.l, spec.p))] if is_irrep else spec)
        ls = irreps.ls
    if not ls or min(ls) < 0:
        raise ValueError(f"{name} expects at least one degree >= 0, got {spec!r}")
    return ls, irreps


def _vector(irreps_out: Irreps | None) -> str:
    """The kind of vectors that has these harmonics."""
    if irreps_out is None or irreps_out.group == "O(3)":
        return "1e" if any(ir.l % 2 and ir.p == 1 for _, ir in irreps_out or ()) else "1o"
    return "1"


def _runs(ls: Sequence[int]) -> list[tuple[int, int]]:
    """Degrees that follow one another, as (first, last)."""
    starts = [0, *(n for n, (a, b) in enumerate(pairwise(ls), start=1) if b != a + 1), len(ls)]
    return [(ls[a], ls[b - 1]) for a, b in pairwise(starts)]
