"""The interface that every kind of feature shares, and how to make new representations of old ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Rep(Protocol):
    """A real representation of a matrix group: how the rows of a feature answer to an element of the group.

    Layers, equivariance tests and coupling tables are written against these five facts and never against a
    concrete kind. A feature of this kind is a tensor of shape (..., dim, channels).

    The group is named by its usual symbol, ``"O(3)"``, ``"SO(3)"``, ``"S(5)"``, ``"Sp(4)"``, ``"O(1,3)"``; an
    element of it is the matrix by which it acts on its defining space: orthogonal 3x3 matrices for O(3),
    permutation matrices for S(5).
    """

    @property
    def group(self) -> str:
        """Symbol of the group, e.g. ``"O(3)"``."""
        ...

    @property
    def dim(self) -> int:
        """Number of rows."""
        ...

    def lie_generators(self) -> Tensor:
        """Infinitesimal elements, in an order fixed by the group: shape (a, dim, dim), float64, CPU.

        For O(3) and SO(3) these are the rotations about x, y, z. Finite groups have a = 0.
        """
        ...

    def discrete_generators(self) -> Tensor:
        """What generates the group beside the infinitesimal elements: shape (b, dim, dim), float64, CPU.

        For O(3) this is the inversion r -> -r alone; for SO(3) there is none.
        """
        ...

    def matrix(self, g: Tensor) -> Tensor:
        """Matrix of an element: (..., n, n) -> (..., dim, dim), in the dtype and on the device of g."""
        ...


@dataclass(frozen=True)
class Dual:
    """The representation on linear forms: the inverse transpose of ``rep``.

    The same as ``rep`` wherever its matrices are orthogonal; different for O(p,q) and Sp(n).

    >>> from equitorch.reps import Irreps
    >>> Dual(Irreps("1o")).dim
    3
    """

    rep: Rep

    @property
    def group(self) -> str:
        return self.rep.group

    @property
    def dim(self) -> int:
        return self.rep.dim

    def lie_generators(self) -> Tensor:
        return -self.rep.lie_generators().mT

    def discrete_generators(self) -> Tensor:
        return torch.linalg.inv(self.rep.discrete_generators()).mT

    def matrix(self, g: Tensor) -> Tensor:
        return torch.linalg.inv(self.rep.matrix(g)).mT


@dataclass(frozen=True)
class DirectSum:
    """Several representations of one group below each other: block diagonal matrices.

    Raises:
        ValueError: if there is no summand, or two belong to different groups.

    >>> from equitorch.reps import Irreps
    >>> DirectSum((Irreps("0e+1o"), Dual(Irreps("1o")))).dim
    7
    """

    reps: tuple[Rep, ...]

    def __post_init__(self) -> None:
        common_group(self.reps)

    @property
    def group(self) -> str:
        return self.reps[0].group

    @property
    def dim(self) -> int:
        return sum(rep.dim for rep in self.reps)

    def lie_generators(self) -> Tensor:
        return block_diagonal([rep.lie_generators() for rep in self.reps])

    def discrete_generators(self) -> Tensor:
        return block_diagonal([rep.discrete_generators() for rep in self.reps])

    def matrix(self, g: Tensor) -> Tensor:
        return block_diagonal([rep.matrix(g) for rep in self.reps])


@dataclass(frozen=True)
class KroneckerProduct:
    """The tensor product of several representations of one group, rows in row-major order of the factors.

    Raises:
        ValueError: if there is no factor, or two belong to different groups.

    >>> from equitorch.reps import Irreps
    >>> KroneckerProduct((Irreps("1o"), Irreps("2e"))).dim
    15
    """

    reps: tuple[Rep, ...]

    def __post_init__(self) -> None:
        common_group(self.reps)

    @property
    def group(self) -> str:
        return self.reps[0].group

    @property
    def dim(self) -> int:
        return functools.reduce(lambda size, rep: size * rep.dim, self.reps, 1)

    def lie_generators(self) -> Tensor:
        total, size = self.reps[0].lie_generators(), self.reps[0].dim
        for rep in self.reps[1:]:
            left, right = (torch.eye(n, dtype=total.dtype, device=total.device) for n in (size, rep.dim))
            total, size = kron(total, right) + kron(left, rep.lie_generators()), size * rep.dim
        return total

    def discrete_generators(self) -> Tensor:
        return functools.reduce(kron, [rep.discrete_generators() for rep in self.reps])

    def matrix(self, g: Tensor) -> Tensor:
        return functools.reduce(kron, [rep.matrix(g) for rep in self.reps])


@dataclass(frozen=True, eq=False, repr=False)
class ChangedBasis:
    """``rep`` in other coordinates: rows y = basis @ x.

    A basis with fewer rows than columns restricts ``rep`` to an invariant subspace; its rows are orthonormal.

    Attributes:
        rep: the representation in its own coordinates.
        basis: invertible, or with orthonormal rows that span an invariant subspace. Shape (dim, rep.dim).

    Raises:
        ValueError: if ``basis`` does not have ``rep.dim`` columns.
    """

    rep: Rep
    basis: Tensor

    def __post_init__(self) -> None:
        if self.basis.ndim != 2 or self.basis.shape[1] != self.rep.dim:
            raise ValueError(
                f"ChangedBasis of {self.rep} expects a basis of shape (dim, {self.rep.dim}), "
                f"got {tuple(self.basis.shape)}"
            )

    @property
    def group(self) -> str:
        return self.rep.group

    @property
    def dim(self) -> int:
        return self.basis.shape[0]

    def lie_generators(self) -> Tensor:
        return self._conjugate(self.rep.lie_generators())

    def discrete_generators(self) -> Tensor:
        return self._conjugate(self.rep.discrete_generators())

    def matrix(self, g: Tensor) -> Tensor:
        return self._conjugate(self.rep.matrix(g))

    def __repr__(self) -> str:
        return f"ChangedBasis({self.rep}, {self.basis.shape[0]} x {self.basis.shape[1]})"

    def _conjugate(self, matrices: Tensor) -> Tensor:
        basis = self.basis.to(torch.float64)
        square = basis.shape[0] == basis.shape[1]
        back = torch.linalg.inv(basis) if square else basis.T
        return basis.to(matrices) @ matrices @ back.to(matrices)


def common_group(reps: Sequence[Rep]) -> str:
    """The group that all of ``reps`` belong to.

    Raises:
        ValueError: if there is no representation, something else among them, or two of different groups.
    """
    for rep in reps:
        if not hasattr(rep, "group"):
            raise ValueError(
                f"expected representations such as Irreps('1o') or TensorPower('S', 5, 2), got {rep!r}"
            )
    groups = {rep.group: rep for rep in reps}
    if len(groups) != 1:
        got = ", ".join(f"{rep} of {group}" for group, rep in groups.items()) or "none"
        raise ValueError(f"expected one or more representations of one group, got {got}")
    return next(iter(groups))


def intertwiners(x: Rep, y: Rep, *, tolerance: float = 1e-8) -> Tensor:
    """An orthonormal basis of the linear maps from ``x`` to ``y`` that commute with the group.

    Solved as a null space of the generators: the slow and general way, exact up to round-off.

    Shape:
        -> (count, y.dim, x.dim), float64

    >>> from equitorch.reps import Irreps
    >>> intertwiners(Irreps("0e+1o"), Irreps("2x1o")).shape
    torch.Size([2, 6, 4])
    """
    maps = invariants(KroneckerProduct((y, Dual(x))), tolerance=tolerance)
    return maps.unflatten(-1, (y.dim, x.dim))


def invariants(rep: Rep, *, tolerance: float = 1e-8) -> Tensor:
    """An orthonormal basis of the vectors that the group leaves alone. Shape (count, rep.dim), float64."""
    one = torch.eye(rep.dim, dtype=torch.float64, device="cpu")
    conditions = torch.cat([rep.lie_generators(), rep.discrete_generators() - one])
    square = torch.einsum("aij,aik->jk", conditions, conditions)
    values, vectors = torch.linalg.eigh(square)
    return vectors[:, values < tolerance].T.contiguous()


def block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Matrices (..., m, n) put along the diagonal of one, for every batch index."""
    width = sum(block.shape[-1] for block in blocks)
    rows, before = [], 0
    for block in blocks:
        after = width - before - block.shape[-1]
        rows.append(torch.nn.functional.pad(block, (before, after)))
        before += block.shape[-1]
    return torch.cat(rows, dim=-2)


def kron(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker product of matrices, batch axes broadcast: (..., m, n), (..., p, q) -> (..., mp, nq)."""
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    return product.flatten(-4, -3).flatten(-2, -1)
