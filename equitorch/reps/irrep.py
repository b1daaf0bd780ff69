"""One irreducible representation of O(3) or SO(3)."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from equitorch.reps.angular_momentum import so3_generators
from equitorch.reps.rotation import angles_to_matrix, axis_angle_to_matrix, quaternion_to_matrix
from equitorch.reps.wigner import wigner_D

if TYPE_CHECKING:
    from equitorch.reps.irreps import Irreps, IrrepsLike

WORD = re.compile(r"\s*(?:(\d+)\s*x\s*)?(\d+)\s*([eoy]?)\s*")
_LETTER = {1: "e", -1: "o", 0: ""}

IrrepLike: TypeAlias = Any  # an Irrep of ours or of e3nn, MulIr, "1o", (1, -1)


class TurnsBy:
    """The matrix of a representation from any coordinates of a rotation, under e3nn's names."""

    def matrix(self, g: Tensor) -> Tensor:
        """Matrix of an element: shape (..., 3, 3) -> (..., dim, dim)."""
        raise NotImplementedError

    def D_from_matrix(self, R: Tensor) -> Tensor:
        """``matrix`` under another name."""
        return self.matrix(R)

    def D_from_angles(self, alpha: Tensor, beta: Tensor, gamma: Tensor, k: Tensor | None = None) -> Tensor:
        """``matrix`` of R_y(alpha) R_x(beta) R_y(gamma), after k inversions."""
        return self.matrix(_inverted(angles_to_matrix(alpha, beta, gamma), k))

    def D_from_quaternion(self, q: Tensor, k: Tensor | None = None) -> Tensor:
        """``matrix`` of the rotation by unit quaternions (..., 4), after k inversions."""
        return self.matrix(_inverted(quaternion_to_matrix(q), k))

    def D_from_axis_angle(self, axis: Tensor, angle: Tensor) -> Tensor:
        """``matrix`` of the rotation about axes (..., 3) by angles (...)."""
        return self.matrix(axis_angle_to_matrix(axis, angle))


@dataclass(frozen=True, order=True, init=False, repr=False)
class Irrep(TurnsBy):
    """One irreducible representation: degree ``l`` and parity ``p``.

    The parity is 1 (``e``) or -1 (``o``) for O(3), and 0 for an irrep of SO(3), which is written without a
    letter. ``"1y"`` takes the parity (-1)^l of the harmonics. Irreps sort by (l, p), so odd precedes even.

    Args:
        l: the degree, or something that says all: ``"1o"``, ``(1, -1)``, an ``Irrep`` of ours or of e3nn.
        p: the parity, where ``l`` is a number.

    Raises:
        ValueError: if that is not an irrep.

    >>> Irrep("1o"), Irrep(2, 1), Irrep("3y"), Irrep("1").group, Irrep("1o").dim
    (1o, 2e, 3o, 'SO(3)', 3)
    >>> list(Irrep("1o") * Irrep("1e"))
    [0o, 1o, 2o]
    """

    l: int
    p: int

    def __init__(self, l: IrrepLike, p: int | None = None) -> None:
        degree, parity = read_irrep(l) if p is None else (l, p)
        try:
            degree, parity = operator.index(degree), operator.index(parity)
        except TypeError:
            degree = -1
        if degree < 0 or parity not in _LETTER:
            given = repr(l) if p is None else f"l={l}, p={p}"
            raise ValueError(
                f"an irrep needs l >= 0 and p of 1, -1 or 0 (0: SO(3), no parity), got {given}; "
                "write e.g. '1o', or '1' for SO(3)"
            )
        object.__setattr__(self, "l", degree)
        object.__setattr__(self, "p", parity)

    def __repr__(self) -> str:
        return f"{self.l}{_LETTER[self.p]}"

    def __iter__(self) -> Iterator[int]:
        return iter((self.l, self.p))

    def __mul__(self, other: IrrepLike) -> Iterator[Irrep]:
        """The irreps of the tensor product, degrees rising."""
        other = Irrep(other)
        if self.group != other.group:
            raise ValueError(
                f"{self} of {self.group} and {other} of {other.group} have no product; drop the parity"
            )
        return iter([Irrep(l, self.p * other.p) for l in range(abs(self.l - other.l), self.l + other.l + 1)])

    def __rmul__(self, copies: int) -> Irreps:
        from equitorch.reps.irreps import Irreps

        return Irreps([(copies, self)])

    def __add__(self, other: IrrepsLike) -> Irreps:
        from equitorch.reps.irreps import Irreps

        return Irreps(self) + Irreps(other)

    @staticmethod
    def iterator(lmax: int | None = None) -> Iterator[Irrep]:
        """All irreps of O(3), the natural parity first: 0e, 0o, 1o, 1e, 2e, ..."""
        for l in itertools.count() if lmax is None else range(lmax + 1):
            yield Irrep(l, (-1) ** l)
            yield Irrep(l, -((-1) ** l))

    @property
    def group(self) -> str:
        return "O(3)" if self.p else "SO(3)"

    @property
    def dim(self) -> int:
        return 2 * self.l + 1

    def is_scalar(self) -> bool:
        """Whether nothing in the group changes it: 0e, or 0 of SO(3)."""
        return self.l == 0 and self.p != -1

    def without_parity(self) -> Irrep:
        """The same degree as an irrep of SO(3)."""
        return Irrep(self.l, 0)

    def lie_generators(self) -> Tensor:
        return so3_generators(self.l)

    def discrete_generators(self) -> Tensor:
        one = torch.eye(self.dim, dtype=torch.float64, device="cpu")
        return one.expand(abs(self.p), -1, -1) * self.p

    def matrix(self, g: Tensor) -> Tensor:
        return self._with_parity(wigner_D(self.l, g), g)

    def _with_parity(self, natural: Tensor, g: Tensor) -> Tensor:
        if self.p in (0, (-1) ** self.l):
            return natural
        return natural * torch.linalg.det(g).sign()[..., None, None]


def read_irrep(spec: IrrepLike) -> tuple[int, int]:
    """Degree and parity, not yet checked, of whatever names an irrep."""
    if isinstance(spec, str):
        found = WORD.fullmatch(spec)
        if found is None or found[1] is not None:
            raise ValueError(f"cannot read {spec!r} as an irrep; write e.g. '1o', or '1' for SO(3)")
        return degree_and_parity(found[2], found[3])
    spec = getattr(spec, "ir", spec)  # a MulIr
    if hasattr(spec, "l") and hasattr(spec, "p"):  # an Irrep, of ours or of e3nn
        return spec.l, spec.p
    if isinstance(spec, (tuple, list)) and len(spec) == 2:
        return spec[0], spec[1]
    raise ValueError(f"cannot read {spec!r} as an irrep; write e.g. '1o', or '1' for SO(3)")


def degree_and_parity(degree: str, letter: str) -> tuple[int, int]:
    """What the two halves of ``"1o"`` mean."""
    l = int(degree)
    return l, {"e": 1, "o": -1, "y": (-1) ** l, "": 0}[letter]


def _inverted(R: Tensor, k: Tensor | None) -> Tensor:
    return R if k is None else R * (1 - 2 * (k % 2)).to(R)[..., None, None]
