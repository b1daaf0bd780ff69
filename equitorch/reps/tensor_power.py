"""Tensor powers of the space on which a group of matrices acts, and products of different groups."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
import string

import torch
from torch import Tensor

from equitorch.reps.automorphism import Automorphism
from equitorch.reps.cartesian import CartesianTensor
from equitorch.reps.irreps import Irrep, Irreps
from equitorch.reps.matrix_groups import MatrixGroup
from equitorch.reps.rep import Rep, kron


class TensorPower:
    """Tensors with ``order`` indices, each of which a group of n x n matrices acts on; rows in C order.

    Args:
        group: "S" permutations, "A" even ones, "B" signed ones, "O" and "SO" orthogonal, "Sp" symplectic
            matrices, "O(p,q)" and "SO(p,q)" for a form with p positive, then q negative axes, or
            an ``Automorphism``.
        n: dimension, p + q for "O(p,q)".
        order: number of indices; 0 for an invariant number.
        form: of Sp: "block" for (0, 1; -1, 0), "interleaved" for blocks (0, 1; -1, 0) along the diagonal.
        symmetric: whether the tensors are symmetric. The rows are then the independent entries in C order,
            each times the square root of how often it occurs: an orthonormal basis.

    Raises:
        ValueError: if there is no such group, or the order is not a whole number of 0 or more.

    >>> TensorPower("O(1,3)", 4, 2).group, TensorPower("O", 3, 2, symmetric=True).dim
    ('O(1,3)', 6)
    """

    def __init__(
        self, group: str | Automorphism, n: int, order: int, *, form: str = "block", symmetric: bool = False
    ) -> None:
        if not _is_whole(order) or order < 0:
            raise ValueError(f"TensorPower expects an order of 0 or more, got {order!r}")
        if not _is_whole(n):
            raise ValueError(f"TensorPower expects a whole number of dimensions, got n = {n!r}")
        self.n, self.order = int(n), int(order)
        self.matrix_group = MatrixGroup.named(group, self.n, form)
        self.symmetric = symmetric and order > 1

    @property
    def group(self) -> str:
        return self.matrix_group.symbol

    @property
    def family(self) -> str:
        """What its diagrams depend on: "S", "A", "B", "O", "SO", "Sp" or "Aut"."""
        return self.matrix_group.family

    @property
    def dim(self) -> int:
        return math.comb(self.n + self.order - 1, self.order) if self.symmetric else self.n**self.order

    @property
    def basis(self) -> Tensor:
        """The orthonormal tensors that the rows count. Shape (dim, n ** order), float64."""
        if not self.symmetric:
            return torch.eye(self.dim, dtype=torch.float64, device="cpu")
        return _symmetric_basis(self.n, self.order).clone()

    @property
    def irreps(self) -> Irreps:
        """What it decomposes into, for O(3) and SO(3).

        >>> TensorPower("O", 3, 3).irreps
        1x0o+3x1o+2x2o+1x3o
        """
        if self.order == 0:
            return Irreps([(1, Irrep(0, 1 if self.group == "O(3)" else 0))])
        return self._cartesian().irreps

    @property
    def change_of_basis(self) -> Tensor:
        """The orthogonal matrix from rows to rows of ``irreps``. Shape (dim, dim), float64."""
        if self.order == 0:
            return torch.ones(1, 1, dtype=torch.float64, device="cpu")
        return self._cartesian().change_of_basis

    def with_order(self, order: int) -> TensorPower:
        """All tensors of another order under the same group."""
        other = TensorPower.__new__(TensorPower)
        other.matrix_group, other.n, other.order, other.symmetric = self.matrix_group, self.n, order, False
        return other

    def lie_generators(self) -> Tensor:
        one = torch.eye(self.n, dtype=torch.float64, device="cpu")
        a = self.matrix_group.lie_generators()
        total = torch.zeros(len(a), 1, 1, dtype=torch.float64, device="cpu")
        for index in range(self.order):
            before = torch.eye(self.n**index, dtype=torch.float64, device="cpu")
            total = kron(total, one) + kron(before, a)
        return self._restrict(total)

    def discrete_generators(self) -> Tensor:
        return self.matrix(self.matrix_group.discrete_generators())

    def matrix(self, g: Tensor) -> Tensor:
        one = torch.ones(*g.shape[:-2], 1, 1, dtype=g.dtype, device=g.device)
        return self._restrict(functools.reduce(kron, [g] * self.order, one))

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """``matrix(g) @ x``, one index after the other, without making the matrix.

        Args:
            g: an element. Shape (n, n).
            x: a feature. Shape (..., dim, channels).

        >>> power = TensorPower("S", 3, 4)
        >>> g, x = torch.eye(3)[[1, 2, 0]], torch.randn(81, 2)
        >>> torch.allclose(power.act(g, x), power.matrix(g) @ x)
        True
        """
        if x.ndim < 2 or x.shape[-2] != self.dim:
            raise ValueError(
                f"{self} has features of shape (..., {self.dim}, channels), got {tuple(x.shape)}"
            )
        channels = x.shape[-1]
        rows = self.basis.to(x).T @ x if self.symmetric else x
        rows = rows.movedim(-2, 0).reshape((self.n,) * self.order + (-1,))
        for index in range(self.order):
            rows = torch.tensordot(g.to(x), rows, ([1], [index])).movedim(0, index)
        rows = rows.reshape(self.n**self.order, *x.shape[:-2], channels).movedim(0, -2)
        return self.basis.to(x) @ rows if self.symmetric else rows

    def _cartesian(self) -> CartesianTensor:
        if self.group not in ("O(3)", "SO(3)"):
            raise ValueError(f"only tensors of O(3) and SO(3) decompose into irreps here, got {self}")
        indices = string.ascii_lowercase[: self.order]
        exchanges = [
            indices[:i] + indices[i + 1] + indices[i] + indices[i + 2 :] for i in range(self.order - 1)
        ]
        return CartesianTensor("=".join([indices, *(exchanges if self.symmetric else [])]), group=self.group)

    def _restrict(self, matrices: Tensor) -> Tensor:
        if not self.symmetric:
            return matrices
        basis = self.basis.to(matrices)
        return basis @ matrices @ basis.T

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorPower) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[MatrixGroup, int, bool]:
        return self.matrix_group, self.order, self.symmetric

    def __repr__(self) -> str:
        return f"TensorPower({self.group}, order {self.order}{', symmetric' * self.symmetric})"


class Outer:
    """The tensor product of representations of *different* groups, under the product of the groups.

    An element of the product is the block diagonal matrix of an element of each group. Rows are in C order.

    Args:
        reps: one representation of each group.

    Raises:
        ValueError: if there is none.

    >>> molecule = Outer(TensorPower("S", 5, 1), TensorPower("O", 3, 1))  # five points in space
    >>> molecule.group, molecule.dim
    ('S(5) x O(3)', 15)
    """

    def __init__(self, *reps: Rep) -> None:
        if not reps:
            raise ValueError("Outer expects a representation of each group, got none")
        self.reps = reps

    @property
    def group(self) -> str:
        return " x ".join(rep.group for rep in self.reps)

    @property
    def dim(self) -> int:
        return math.prod(rep.dim for rep in self.reps)

    def lie_generators(self) -> Tensor:
        return self._one_at_a_time([rep.lie_generators() for rep in self.reps])

    def discrete_generators(self) -> Tensor:
        return self._one_at_a_time([rep.discrete_generators() for rep in self.reps])

    def matrix(self, g: Tensor) -> Tensor:
        blocks, start = [], 0
        for rep in self.reps:
            n = defining_dim(rep.group)
            blocks.append(rep.matrix(g[..., start : start + n, start : start + n]))
            start += n
        return functools.reduce(kron, blocks)

    def _one_at_a_time(self, generators: list[Tensor]) -> Tensor:
        """Matrices of single factors, with the identity for the others. Shape (count, dim, dim)."""
        sizes = [rep.dim for rep in self.reps]
        made = [torch.zeros(0, self.dim, self.dim, dtype=torch.float64, device="cpu")]
        for place, matrices in enumerate(generators):
            before, after = (math.prod(part) for part in (sizes[:place], sizes[place + 1 :]))
            left, right = (torch.eye(size, dtype=torch.float64, device="cpu") for size in (before, after))
            made.append(kron(kron(left, matrices), right))
        return torch.cat(made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outer) and self.reps == other.reps

    def __hash__(self) -> int:
        return hash(self.reps)

    def __repr__(self) -> str:
        return f"Outer({', '.join(map(str, self.reps))})"


def defining_dim(group: str) -> int:
    """The size of the matrices of a group, or of a product of groups, by its symbol.

    >>> defining_dim("S(5) x O(1,3)")
    9
    """
    return sum(MatrixGroup.of_symbol(symbol).n for symbol in group.split(" x "))


def _is_whole(number: object) -> bool:
    return isinstance(number, numbers.Integral) and not isinstance(number, bool)


def symmetric_entries(n: int, order: int) -> tuple[Tensor, Tensor]:
    """For each entry of a tensor the row of the symmetric basis, and its component there, float64.

    >>> symmetric_entries(2, 2)
    (tensor([0, 1, 1, 2]), tensor([1.0000, 0.7071, 0.7071, 1.0000], dtype=torch.float64))
    """
    ascending = itertools.combinations_with_replacement(range(n), order)
    number = {entry: row for row, entry in enumerate(ascending)}
    every = itertools.product(range(n), repeat=order)
    rows = torch.tensor([number[tuple(sorted(entry))] for entry in every], device="cpu")
    return rows, torch.bincount(rows).to(torch.float64).rsqrt()[rows]


@functools.cache
def _symmetric_basis(n: int, order: int) -> Tensor:
    rows, components = symmetric_entries(n, order)
    basis = torch.zeros(math.comb(n + order - 1, order), n**order, dtype=torch.float64, device="cpu")
    basis[rows, torch.arange(n**order, device="cpu")] = components
    return basis
