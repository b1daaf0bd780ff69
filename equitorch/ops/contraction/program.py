"""Polynomials as lists of products: how a contraction is evaluated, and how that is differentiated."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equitorch.reps import Irrep, Irreps
from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.symmetric_power import Coupled, symmetric_maps

Entries = NDArray[np.float64]  # row, left, right, value: shape (entries, 4)


@dataclass(frozen=True, eq=False)
class Program:
    r"""Rows of numbers, each the sum of products of two rows before it.

    .. math:: r_o = \sum_t v_t \, r_{a_t} \, r_{b_t}

    The first rows are given: those of a node, then those of its species. Its derivative is a program of the
    same kind, which takes the cotangents of the results as more rows of the node and of the species.

    Attributes:
        nodes: number of rows given for each node.
        species: number of rows given for each species.
        start: where the products of each computed row begin. Shape (computed rows + 1,).
        left: first factor of each product. Shape (products,).
        right: second factor of each product.
        value: coefficient of each product, float64.
        node_out: rows that are results of each node.
        species_out: rows whose sums over the nodes of one species are results.
    """

    nodes: int
    species: int
    start: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    node_out: NDArray[np.int32]
    species_out: NDArray[np.int32]

    @property
    def given(self) -> int:
        return self.nodes + self.species

    def levels(self) -> list[NDArray[np.int64]]:
        """Computed rows, counted from the first of them, in groups that need only the groups before them."""
        depth = np.zeros(self.given + len(self.start) - 1, dtype=np.int64)
        for row, (begin, end) in enumerate(zip(self.start, self.start[1:], strict=False), self.given):
            factors = np.concatenate([self.left[begin:end], self.right[begin:end]])
            depth[row] = depth[factors].max(initial=0) + 1
        return [np.flatnonzero(depth[self.given :] == d) for d in range(1, depth.max(initial=0) + 1)]

    def adjoint(self, *, nodes: bool = True, species: bool = True) -> Program:
        """The program of the derivative: cotangents of the given rows from those of the results.

        Args:
            nodes: whether cotangents of the rows of nodes are wanted.
            species: whether cotangents of the rows of species are wanted.
        """
        more_nodes, more_species = len(self.node_out), len(self.species_out)
        old = np.arange(self.given + len(self.start) - 1)
        new = old + more_nodes * (old >= self.nodes) + more_species * (old >= self.given)
        count = len(old) + more_nodes + more_species
        cotangent = count + len(old) - 1 - old  # of later rows first
        cotangent[self.node_out] = self.nodes + np.arange(more_nodes)
        cotangent[self.species_out] = self.given + more_nodes + np.arange(more_species)
        row = np.repeat(np.arange(len(self.start) - 1) + self.given, np.diff(self.start))
        entries = [np.stack([new[row], new[self.left], new[self.right], self.value], axis=1)]
        for own, other in ((self.left, self.right), (self.right, self.left)):
            entries.append(np.stack([cotangent[own], cotangent[row], new[other], self.value], axis=1))
        given = self.nodes + more_nodes, self.species + more_species
        wanted = cotangent[: self.nodes * nodes], cotangent[self.nodes : self.nodes + self.species * species]
        return assemble(np.concatenate(entries), given, wanted)


def assemble(
    entries: Entries, given: tuple[int, int], wanted: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> Program:
    """A program of the products that the results need.

    Args:
        entries: row, left factor, right factor and coefficient of each product. Factors that are neither
            given nor computed are zero, and a row comes after its factors. Shape (products, 4).
        given: numbers of rows given for each node and for each species.
        wanted: the results of each node and of each species; none of them is a factor of another row.
    """
    entries = _merged(entries)
    target, left, right = (entries[:, k].astype(np.int64) for k in range(3))
    total = sum(given)
    size = 1 + max(
        target.max(initial=0), left.max(initial=0), right.max(initial=0), total, *map(_last, wanted)
    )
    exists = _closure(np.arange(size) < total, lambda known: (target, known[left] & known[right]))
    live = exists[left] & exists[right]
    is_wanted = np.zeros(size, dtype=bool)
    is_wanted[np.concatenate(wanted)] = True
    pairs = np.concatenate([left, right])
    needed = _closure(is_wanted, lambda known: (pairs, np.tile(known[target] & live, 2)))
    kept = np.flatnonzero(live & needed[target])
    computed = np.union1d(np.concatenate(wanted), np.unique(target[kept])).astype(np.int64)
    place = np.arange(size)
    place[computed] = total + np.arange(len(computed))
    kept = kept[np.argsort(target[kept], kind="stable")]
    start = np.searchsorted(target[kept], np.append(computed, size))
    index = (start, place[left[kept]], place[right[kept]], *(place[rows] for rows in wanted))
    begin, a, b, node_out, species_out = (x.astype(np.int32) for x in index)
    return Program(*given, begin, a, b, entries[kept, 3].copy(), node_out, species_out)


def _last(rows: NDArray[np.int64]) -> int:
    return int(rows.max(initial=0))


def _merged(entries: Entries) -> Entries:
    """Equal products in one, those that cancel left out."""
    keys = np.concatenate([entries[:, :1], np.sort(entries[:, 1:3], axis=1)], axis=1).astype(np.int64)
    base = int(keys.max(initial=0)) + 1
    code, first, back = np.unique(
        (keys[:, 0] * base + keys[:, 1]) * base + keys[:, 2], return_index=True, return_inverse=True
    )
    value = np.bincount(back.reshape(-1), weights=entries[:, 3], minlength=len(code))
    merged = np.concatenate([keys[first], value[:, None]], axis=1)
    return merged[np.abs(value) > 1e-12]


def _closure(
    marked: NDArray[np.bool_],
    step: Callable[[NDArray[np.bool_]], tuple[NDArray[np.int64], NDArray[np.bool_]]],
) -> NDArray[np.bool_]:
    """Mark rows until no further one follows from those that are marked."""
    marked, before = marked.copy(), -1
    while (count := int(marked.sum())) != before:
        before = count
        rows, follow = step(marked)
        marked[rows[follow]] = True
    return marked


@functools.cache
def paths(
    irreps_in: str, irreps_out: str, correlation: tuple[int, ...]
) -> tuple[tuple[int, int, Coupled], ...]:
    """Degree, copy of the output, and polynomial of every weight, in the order of the weights.

    Args:
        irreps_in: how the rows of the argument transform.
        irreps_out: how the rows of the result transform.
        correlation: the highest degree for each copy of the output.
    """
    copies = Irreps(irreps_out).copies
    return tuple(
        (degree, copy, node)
        for degree in range(1, max(correlation, default=0) + 1)
        for copy, (ir, highest) in enumerate(zip(copies, correlation, strict=True))
        if degree <= highest
        for node in symmetric_maps(irreps_in, ir, degree)
    )


@functools.cache
def program(irreps_in: str, irreps_out: str, correlation: tuple[int, ...], derivative: str = "") -> Program:
    """The contraction, or what is found by differentiating it.

    Args:
        irreps_in: how the rows of the argument transform.
        irreps_out: how the rows of the result transform.
        correlation: the highest degree for each copy of the output.
        derivative: one letter for each time: by the rows of nodes ("n"), of species ("s"), or both ("b").
    """
    if not derivative:
        return _Horner(irreps_in, irreps_out, correlation).program()
    before, last = program(irreps_in, irreps_out, correlation, derivative[:-1]), derivative[-1]
    return before.adjoint(nodes=last in "nb", species=last in "sb")


class _Horner:
    """Builds the contraction so that weights enter just before the last product of each path.

    Paths that end with the same product share it: their first factors are added up, each with its weight.
    """

    def __init__(self, irreps_in: str, irreps_out: str, correlation: tuple[int, ...]) -> None:
        self.paths = paths(irreps_in, irreps_out, correlation)
        self.irreps_out = Irreps(irreps_out)
        self.given = Irreps(irreps_in).dim, len(self.paths)
        self.next = sum(self.given)
        self.entries: list[Entries] = [np.zeros((0, 4))]
        self.first: dict[Coupled, int] = {}

    def program(self) -> Program:
        results = [self._output(copy, ir) for copy, ir in enumerate(self.irreps_out.copies)]
        rows = np.concatenate([np.zeros(0, np.int64), *results])
        return assemble(np.concatenate(self.entries), self.given, (rows, np.zeros(0, np.int64)))

    def _output(self, copy: int, ir: Irrep) -> NDArray[np.int64]:
        sums: dict[tuple[Irrep, Coupled], list[tuple[int, float, Coupled]]] = {}
        linear = []
        for number, (_, to, node) in enumerate(self.paths, self.given[0]):
            if to == copy and not node.terms:
                linear.append((number, 1.0, node))
            elif to == copy:
                for c, left, right in node.terms:
                    sums.setdefault((left.ir, right), []).append((number, c, left))
        factors = [
            ((self._sum(terms, ir_left), ir_left), (self._value(node), node.ir))
            for (ir_left, node), terms in sums.items()
        ]
        out = self._sum(linear, ir)
        for first, last in factors:
            self._couple(out, 1.0, first, last, ir)
        return out + np.arange(ir.dim)

    def _sum(self, terms: Sequence[tuple[int, float, Coupled]], ir: Irrep) -> int:
        """Rows of a sum of polynomials, each times its weight: the first of them."""
        rows = [(weight, c, self._value(node)) for weight, c, node in terms]
        first = self._new(ir)
        k = np.arange(ir.dim)
        for weight, c, row in rows:
            self.entries.append(np.stack(np.broadcast_arrays(first + k, weight, row + k, c), axis=1))
        return first

    def _value(self, node: Coupled) -> int:
        """Rows of a polynomial: the first of them."""
        if not node.terms:
            return node.start
        if node not in self.first:
            factors = [(c, (self._value(a), a.ir), (self._value(b), b.ir)) for c, a, b in node.terms]
            self.first[node] = self._new(node.ir)
            for c, left, right in factors:
                self._couple(self.first[node], c, left, right, node.ir)
        return self.first[node]

    def _couple(
        self, out: int, c: float, left: tuple[int, Irrep], right: tuple[int, Irrep], ir: Irrep
    ) -> None:
        symbol = real_3j(left[1].l, right[1].l, ir.l)
        i, j, k = np.nonzero(symbol)
        value = c * math.sqrt(ir.dim) * symbol[i, j, k]
        self.entries.append(np.stack([out + k, left[0] + i, right[0] + j, value], axis=1))

    def _new(self, ir: Irrep) -> int:
        self.next += ir.dim
        return self.next - ir.dim
