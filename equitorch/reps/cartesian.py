"""Tensor powers of a vector with index symmetries, and their way to irreps and back."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.irreps import Irrep, Irreps
from equitorch.reps.rep import ChangedBasis, KroneckerProduct, Rep

_SMALL = 1e-9  # below this, what is left of a projected basis vector is round-off


@dataclass(frozen=True)
class CartesianTensor:
    r"""A tensor of rank n whose indices may be exchanged as a formula says.

    ``"ij=ji"`` is a symmetric matrix, ``"ij=-ji"`` an antisymmetric one, ``"ijkl=jikl=klij"`` an elastic
    tensor. Every index turns like a polar vector (x, y, z), so that the inversion acts by (-1)^n.

    As a representation its rows are the independent components, in an orthonormal basis: one row for each
    orbit of entries under the symmetries, in row-major order of its first entry; xx, sqrt2 xy, sqrt2 xz, yy,
    sqrt2 yz, zz for a symmetric matrix, and plainly the nine entries for ``"ij"``. The irreps of the same
    tensor come in the order, basis and signs of e3nn's ``CartesianTensor``.

    Args:
        formula: index letters, then equal permutations of them, with a minus where the sign changes.
        pseudo: whether the inversion changes the sign once more.
        group: ``"O(3)"``, or ``"SO(3)"`` for irreps without parity.

    Raises:
        ValueError: if the formula cannot be read, or allows no tensor but zero.

    >>> elastic = CartesianTensor("ijkl=jikl=klij")
    >>> elastic.irreps, elastic.dim
    (2x0e+2x2e+1x4e, 21)
    >>> CartesianTensor("ij=ji").to_irreps(torch.eye(3))
    tensor([1.7321, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000])
    """

    formula: str
    pseudo: bool = False
    group: str = "O(3)"

    def __post_init__(self) -> None:
        if self.group not in ("O(3)", "SO(3)"):
            raise ValueError(f"CartesianTensor expects group 'O(3)' or 'SO(3)', got {self.group!r}")
        if not index_symmetries(self.formula) or not len(_orbit_basis(self.formula)):
            raise ValueError(f"the index symmetries {self.formula!r} allow no tensor but zero")

    @property
    def rank(self) -> int:
        """Number of indices."""
        return len(_indices(self.formula))

    @property
    def dim(self) -> int:
        return len(_orbit_basis(self.formula))

    @property
    def irreps(self) -> Irreps:
        """What it decomposes into, sorted."""
        parity = (-1) ** (self.rank + self.pseudo) if self.group == "O(3)" else 0
        return Irreps([(1, Irrep(l, parity)) for l, _ in _irreps_basis(self.formula)]).simplify()

    @property
    def basis(self) -> Tensor:
        """The orthonormal tensors that the rows count. Shape (dim, 3, ..., 3), float64."""
        return torch.tensor(_orbit_basis(self.formula), device="cpu").unflatten(1, (3,) * self.rank)

    @property
    def irreps_basis(self) -> Tensor:
        """The orthonormal tensors that the rows of ``irreps`` count. Shape (dim, 3, ..., 3), float64."""
        joined = np.concatenate([tensors for _, tensors in _irreps_basis(self.formula)])
        return torch.tensor(joined, device="cpu").unflatten(1, (3,) * self.rank)

    @property
    def change_of_basis(self) -> Tensor:
        """The orthogonal matrix from rows to rows of ``irreps``. Shape (dim, dim), float64."""
        return self.irreps_basis.flatten(1) @ self.basis.flatten(1).T

    def to_irreps(self, tensor: Tensor, *, channels: bool = False) -> Tensor:
        """The rows of ``irreps`` of a tensor; what violates the symmetries is projected out.

        Args:
            tensor: Cartesian entries. Shape (..., 3, ..., 3), or (..., 3, ..., 3, channels).
            channels: whether the last axis counts channels.

        Shape:
            -> (..., dim), or (..., dim, channels)
        """
        return self._expand(self.irreps_basis, tensor, channels)

    def from_irreps(self, rows: Tensor, *, channels: bool = False) -> Tensor:
        """The tensor whose rows of ``irreps`` are given: the inverse of ``to_irreps``.

        Args:
            rows: components. Shape (..., dim), or (..., dim, channels).
            channels: whether the last axis counts channels.

        Shape:
            -> (..., 3, ..., 3), or (..., 3, ..., 3, channels)
        """
        return self._collect(self.irreps_basis, rows, channels)

    def to_rows(self, tensor: Tensor, *, channels: bool = False) -> Tensor:
        """The independent components of a tensor, as this representation counts them; see ``to_irreps``."""
        return self._expand(self.basis, tensor, channels)

    def from_rows(self, rows: Tensor, *, channels: bool = False) -> Tensor:
        """The tensor with the given independent components; see ``from_irreps``."""
        return self._collect(self.basis, rows, channels)

    def lie_generators(self) -> Tensor:
        return self._rep().lie_generators()

    def discrete_generators(self) -> Tensor:
        return self._rep().discrete_generators()

    def matrix(self, g: Tensor) -> Tensor:
        return self._rep().matrix(g)

    def _rep(self) -> Rep:
        odd = 0 if self.group == "SO(3)" else -1
        factors = [Irrep(0, odd)] * self.pseudo + [Irrep(1, odd)] * self.rank
        return ChangedBasis(KroneckerProduct(tuple(factors)), self.basis.flatten(1))

    def _expand(self, basis: Tensor, tensor: Tensor, channels: bool) -> Tensor:
        last = tensor.ndim - channels
        if last < self.rank or tuple(tensor.shape[last - self.rank : last]) != (3,) * self.rank:
            wanted = ", ".join(["..."] + ["3"] * self.rank + ["channels"] * channels)
            raise ValueError(f"{self} expects a tensor of shape ({wanted}), got {tuple(tensor.shape)}")
        flat = tensor.flatten(last - self.rank, last - 1)
        matrix = basis.flatten(1).to(tensor)
        return matrix @ flat if channels else flat @ matrix.T

    def _collect(self, basis: Tensor, rows: Tensor, channels: bool) -> Tensor:
        axis = -2 if channels else -1
        if rows.ndim < 1 + channels or rows.shape[axis] != self.dim:
            wanted = ", ".join(["...", str(self.dim)] + ["channels"] * channels)
            raise ValueError(f"{self} expects rows of shape ({wanted}), got {tuple(rows.shape)}")
        matrix = basis.flatten(1).to(rows)
        flat = matrix.T @ rows if channels else rows @ matrix
        return flat.unflatten(axis, (3,) * self.rank)


def _indices(formula: str) -> str:
    return formula.replace(" ", "").split("=")[0]


@functools.cache
def index_symmetries(formula: str) -> frozenset[tuple[int, tuple[int, ...]]]:
    """The group of signed permutations that a formula generates; empty if minus the identity is one."""
    indices, *others = formula.replace(" ", "").split("=")
    if not indices.isalpha() or len(set(indices)) != len(indices):
        raise ValueError(
            f"cannot read index symmetries {formula!r}: write distinct letters first, e.g. 'ij=-ji'"
        )
    generators = set()
    for other in others:
        sign, letters = (-1, other[1:]) if other.startswith("-") else (1, other)
        if sorted(letters) != sorted(indices):
            raise ValueError(
                f"cannot read index symmetries {formula!r}: {other!r} does not permute {indices!r}"
            )
        generators.add((sign, tuple(indices.index(letter) for letter in letters)))
    identity = (1, tuple(range(len(indices))))
    group, new = {identity}, {identity}
    while new:
        products = {(s * t, tuple(p[i] for i in q)) for s, p in new for t, q in generators}
        new = products - group
        group |= new
    return frozenset() if (-1, identity[1]) in group else frozenset(group)


@functools.cache
def _orbit_basis(formula: str) -> NDArray[np.float64]:
    """One orthonormal tensor for each orbit of entries that the signs do not force to zero: (dim, 3^rank)."""
    rank, group = len(_indices(formula)), index_symmetries(formula)
    seen: set[int] = set()
    rows = []
    for entry in itertools.product(range(3), repeat=rank):
        if _place(entry) in seen:
            continue
        row = np.zeros(3**rank)
        for sign, order in group:
            row[_place([entry[i] for i in order])] += sign
        seen.update(np.nonzero(row)[0].tolist(), [_place(entry)])
        if row.any():
            rows.append(row / np.linalg.norm(row))
    return np.array(rows).reshape(len(rows), 3**rank)


def _place(entry: tuple[int, ...] | list[int]) -> int:
    return functools.reduce(lambda place, i: 3 * place + i, entry, 0)


@functools.cache
def _irreps_basis(formula: str) -> list[tuple[int, NDArray[np.float64]]]:
    """Degrees and orthonormal tensors (2 l + 1, 3^rank) of the irreps, sorted by degree.

    The vectors are coupled from the left; within a degree, the combinations of paths that have the
    symmetries are picked by Gram and Schmidt from the rows of the projector, first coefficient positive.
    """
    orbit = _orbit_basis(formula)
    paths = _coupled_paths(len(_indices(formula)))
    found = []
    for l in sorted({degree for degree, _ in paths}):
        forms = np.stack([form for degree, form in paths if degree == l])  # (paths, 2 l + 1, 3^rank)
        inside = forms[:, 0] @ orbit.T  # by Schur's lemma any one component tells
        for mix in orthonormal_rows(inside @ inside.T):
            found.append((l, np.tensordot(mix, forms, axes=1)))
    return found


@functools.cache
def _coupled_paths(rank: int) -> list[tuple[int, NDArray[np.float64]]]:
    """All ways to couple ``rank`` vectors from the left: degrees, orthonormal tensors (2 l + 1, 3^rank)."""
    if rank == 1:
        return [(1, np.eye(3))]
    paths = []
    for left, form in _coupled_paths(rank - 1):
        for l in range(abs(left - 1), left + 2):
            symbol = real_3j(l, left, 1) * math.sqrt(2 * l + 1)
            paths.append((l, np.einsum("ijk,jx->ixk", symbol, form).reshape(2 * l + 1, -1)))
    return sorted(paths, key=lambda path: path[0])


def orthonormal_rows(projector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Gram and Schmidt on the rows of a projector, first coefficients positive: an orthonormal basis."""
    rows: list[NDArray[np.float64]] = []
    for row in projector:
        for other in rows:
            row = row - (row @ other) * other
        if np.linalg.norm(row) > _SMALL:
            row = row / np.linalg.norm(row)
            row[np.abs(row) < _SMALL] = 0.0
            rows.append(row * np.sign(row[np.nonzero(row)[0][0]]))
    return rows
