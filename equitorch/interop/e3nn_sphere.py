"""e3nn's modules about functions on the sphere and on SO(3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.interop.e3nn_dropin import DropIn, Keep
from equitorch.interop.e3nn_pointwise import Scaled
from equitorch.ops.harmonics import spherical_harmonics as harmonics
from equitorch.reps import Irreps
from equitorch.reps.irreps import IrrepsLike
from equitorch.reps.rotation import rand_angles


class SphericalHarmonics(nn.Module):
    """``e3nn.o3.SphericalHarmonics``, for any degree, with zero gradient at the origin.

    Args:
        irreps_out: degrees: one, several in any order, or irreps, whose parities must be possible.
        normalize: take the harmonics of the directions.
        normalization: "integral", "component" or "norm"; see :func:`equitorch.ops.spherical_harmonics`.
        irreps_in: "1o" for a vector, "1e" for an axial one; read off ``irreps_out`` unless given.

    Shape:
        x: (..., 3) -> (..., irreps_out.dim)

    Raises:
        ValueError: if a parity is impossible, or ``irreps_in`` is no vector.

    Source:
        Conventions: Geiger, Smidt 2022, arXiv:2207.09453 (e3nn).

    >>> SphericalHarmonics("2e+0e", True)(torch.randn(10, 3)).shape
    torch.Size([10, 6])
    """

    def __init__(
        self,
        irreps_out: int | IrrepsLike | Sequence[int],
        normalize: bool,
        normalization: str = "integral",
        irreps_in: IrrepsLike = None,
    ) -> None:
        super().__init__()
        if normalization not in ("integral", "component", "norm"):
            raise ValueError(
                "SphericalHarmonics expects normalization of integral, component or norm, "
                f"got {normalization!r}"
            )
        self.normalize, self.normalization = normalize, normalization
        wanted, degrees = _degrees(irreps_out)
        axial = wanted is not None and any(ir.p == 1 and ir.l % 2 for _, ir in wanted)
        given = None if irreps_in is None else Irreps(irreps_in)
        self.irreps_in = Irreps("1e" if axial else "1o") if given is None else given
        if self.irreps_in not in (Irreps("1o"), Irreps("1e")):
            raise ValueError(
                f"SphericalHarmonics expects irreps_in of 1o (a vector) or 1e (an axial one), got {irreps_in}"
            )
        parity = self.irreps_in[0].ir.p
        for _, ir in wanted or ():
            if ir.p not in (0, parity**ir.l):
                raise ValueError(
                    f"the harmonics of {self.irreps_in[0].ir} of degree {ir.l} are "
                    f"{Irreps([(1, (ir.l, parity**ir.l))])[0].ir}, got {ir} in irreps_out={irreps_out}"
                )
        self.irreps_out = Irreps([(1, (l, parity**l)) for l in degrees]).simplify()
        self._lmax = max(degrees)
        self._rows = _runs(degrees)

    def forward(self, x: Tensor) -> Tensor:
        y = harmonics(self._lmax, x, self.normalize, self.normalization)
        if self._rows == [(0, self._lmax)]:
            return y
        return torch.cat([y[..., a * a : (b + 1) ** 2] for a, b in self._rows], dim=-1)

    def extra_repr(self) -> str:
        return f"{self.irreps_out}, normalize={self.normalize}, {self.normalization}"


def _degrees(spec: Any) -> tuple[Irreps | None, list[int]]:
    """The irreps, if ``spec`` names any, and the degrees in order."""
    irreps = None
    if isinstance(spec, Integral):
        degrees = [int(spec)]
    elif _counts(spec):
        degrees = [int(l) for l in spec]
    else:
        irreps = Irreps(spec)
        degrees = irreps.ls
    if not degrees or min(degrees) < 0:
        raise ValueError(f"spherical harmonics expect at least one degree, none negative, got {spec!r}")
    return irreps, degrees


def _counts(spec: Any) -> bool:
    """Whether it lists numbers; an irrep, which is a pair of numbers, does not."""
    listed = isinstance(spec, Iterable) and not isinstance(spec, str) and not hasattr(spec, "p")
    return listed and all(isinstance(l, Integral) for l in spec)


def _runs(degrees: Sequence[int]) -> list[tuple[int, int]]:
    """Degrees that follow one another, as (first, last)."""
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(degrees), start=1) if b != a + 1), len(degrees)]
    return [(degrees[a], degrees[b - 1]) for a, b in pairwise(starts)]


class ToS2Grid(DropIn):
    """``e3nn.o3.ToS2Grid``."""

    attributes = ("lmax", "res_beta", "res_alpha")
    sha: Tensor
    shb: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        _take_buffers(self, theirs, keep)

    @property
    def grid(self) -> Tensor:
        """Points of the grid. Shape (res_beta, res_alpha, 3)."""
        return _grid(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("mbi,...i->...bm", self.shb, x) @ self.sha.mT


class FromS2Grid(DropIn):
    """``e3nn.o3.FromS2Grid``."""

    attributes = ("lmax", "res_beta", "res_alpha")
    sha: Tensor
    shb: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        _take_buffers(self, theirs, keep)

    @property
    def grid(self) -> Tensor:
        """Points of the grid. Shape (res_beta, res_alpha, 3)."""
        return _grid(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("mbi,...bm->...i", self.shb, x @ self.sha)


def _take_buffers(ours: nn.Module, theirs: nn.Module, keep: Keep) -> None:
    for name, value in theirs._buffers.items():  # where one tensor may have two names
        ours.register_buffer(name, keep(value))


def _grid(module: Any) -> Tensor:
    from equitorch.reps.rotation import angles_to_xyz

    beta, alpha = torch.meshgrid(module.betas, module.alphas, indexing="ij")
    return angles_to_xyz(alpha, beta)


class S2Activation(DropIn):
    """``e3nn.nn.S2Activation``."""

    attributes = ("irreps_in", "irreps_out", "random_rot")
    random_rot: bool

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.to_s2 = ToS2Grid(theirs.to_s2, keep)
        self.from_s2 = FromS2Grid(theirs.from_s2, keep)
        self.act = Scaled(theirs.act, keep)
        self._in, self._out = Irreps(theirs.irreps_in), Irreps(theirs.irreps_out)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self._in.dim:
            raise ValueError(
                f"S2Activation expects features of shape (..., {self._in.dim}), got {tuple(features.shape)}"
            )
        if not self.random_rot:
            return self.from_s2(self.act(self.to_s2(features)))
        angles = rand_angles(dtype=features.dtype, device=features.device)
        turned = features @ self._in.D_from_angles(*angles).mT
        return self.from_s2(self.act(self.to_s2(turned))) @ self._out.D_from_angles(*angles)


class SO3Grid(DropIn):
    """``e3nn.o3.SO3Grid``."""

    attributes = ("res_alpha", "res_beta", "res_gamma")
    D: Tensor
    qw: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        _take_buffers(self, theirs, keep)

    def to_grid(self, features: Tensor) -> Tensor:
        """(..., components) -> (..., res_alpha, res_beta, res_gamma)."""
        flat = self.D.flatten(0, 2)
        return (features @ flat.mT / flat.shape[1] ** 0.5).unflatten(-1, self.D.shape[:3])

    def from_grid(self, features: Tensor) -> Tensor:
        """(..., res_alpha, res_beta, res_gamma) -> (..., components)."""
        flat = self.D.flatten(0, 2)
        weighted = (features * self.qw[:, None]).flatten(-3)
        return weighted @ flat * flat.shape[1] ** 0.5


class SO3Activation(DropIn):
    """``e3nn.nn.SO3Activation``."""

    attributes = ("lmax_in", "lmax_out")

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.grid_in, self.grid_out = SO3Grid(theirs.grid_in, keep), SO3Grid(theirs.grid_out, keep)
        self.act = Scaled(theirs.act, keep)

    def forward(self, features: Tensor) -> Tensor:
        return self.grid_out.from_grid(self.act(self.grid_in.to_grid(features)))
