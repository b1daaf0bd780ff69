"""Equivariant polynomials: the linearly independent symmetric maps from copies of a feature to an irrep."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.irreps import Irrep, Irreps, IrrepsLike

_DEPENDENT = 1e-6  # a combination of unit polynomials shorter than this is a sum of those before it


@dataclass(frozen=True, eq=False)
class Coupled:
    r"""A polynomial map into one irrep: rows of the input themselves, or sums of products of two such maps.

    .. math:: P_k = \sum_t c_t \sqrt{2l+1} \sum_{ij} C^{l_t, l'_t, l}_{ijk} \, L_{t,i} \, R_{t,j}

    with unit-norm 3j symbols C. Two maps that share a factor hold the same object.

    Attributes:
        ir: how the value transforms.
        degree: in the input.
        start: the first row of the input it is, where it has no terms.
        terms: coefficient, left and right factor of each product.
    """

    ir: Irrep
    degree: int
    start: int = 0
    terms: tuple[tuple[float, Coupled, Coupled], ...] = ()

    def __repr__(self) -> str:
        return f"Coupled({self.ir}, degree {self.degree})"


_Part: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # row, factors (entries, degree), value


class Monomials(NamedTuple):
    """Polynomials by their nonzero coefficients: sum over t of ``value[t] * prod(x[factors[:, t]])``.

    Attributes:
        factors: rows of the input that are multiplied, ascending. Shape (degree, entries).
        column: which map an entry belongs to. Shape (entries,).
        row: and which of its rows. Shape (entries,).
        value: coefficients, float64. Shape (entries,).
    """

    factors: NDArray[np.int64]
    column: NDArray[np.int64]
    row: NDArray[np.int64]
    value: NDArray[np.float64]


def symmetric_maps(irreps_in: IrrepsLike, ir_out: Irrep | str, degree: int) -> tuple[Coupled, ...]:
    """A basis of the equivariant homogeneous polynomials of one degree, with values in one irrep.

    The basis is orthonormal: as symmetric tensors with ``degree`` indices in the input, the rows of different
    maps are orthogonal, and each has unit norm.

    Args:
        irreps_in: how the rows of the argument transform; copies of an irrep count separately.
        ir_out: how the values transform.
        degree: 1 for linear maps, 2 for quadratic ones, and so on.

    Raises:
        ValueError: if ``degree`` is not a positive whole number.

    Source:
        Drautz 2019, Phys. Rev. B 99, 014104 (products of the atomic base); Dusson et al. 2022,
        J. Comput. Phys. 454, 110946 (why the coupled products must be reduced).

    >>> [len(symmetric_maps("0e+1o+2e", "0e", degree)) for degree in (1, 2, 3)]
    [1, 3, 5]
    """
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise ValueError(f"symmetric_maps expects a degree of 1 or more, got {degree!r}")
    return _Powers.of(Irreps(irreps_in).copies).maps(Irrep(ir_out), degree)


def monomials(maps: Sequence[Coupled]) -> Monomials:
    """The coefficients of polynomials of one degree, products of the same rows collected.

    >>> found = monomials(symmetric_maps("1o", "0e", 2))  # x.x / 3**0.5
    >>> found.factors.tolist(), found.value.round(3).tolist()
    ([[0, 1, 2], [0, 1, 2]], [0.577, 0.577, 0.577])
    """
    expanded: dict[Coupled, _Part] = {}
    parts = [_expand(node, expanded) for node in maps]
    degree = maps[0].degree if maps else 0
    index = np.concatenate([np.zeros((0, degree), np.int64), *[p[1] for p in parts]])
    column = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
    row = np.concatenate([np.zeros(0, np.int64), *[p[0] for p in parts]])
    value = np.concatenate([np.zeros(0), *[p[2] for p in parts]])
    return Monomials(index.T, column, row, value)


def coupled_powers(irreps_in: IrrepsLike, degree: int) -> tuple[Coupled, ...]:
    """Every way to couple a feature with itself from the left, one irrep at a time: MACE's columns.

    These span the same polynomials as ``symmetric_maps``, most of them many times over. Each step multiplies
    every map so far, in their order, by every irrep of the input, in order, into every irrep of the
    product, degrees rising; and then sorts by irrep, equal ones left in their order. From four factors on,
    only irreps of natural parity up to degree 11 are kept.

    Source:
        Batatia et al. 2022, arXiv:2206.07697 (generalised Clebsch-Gordan coefficients).

    >>> len([node for node in coupled_powers("0e+1o+2e", 3) if node.ir in (Irrep("0e"), Irrep("1o"))])
    32
    """
    blocks = _Powers.of(Irreps(irreps_in).copies).blocks
    nodes = list(blocks)
    for power in range(2, degree + 1):
        nodes = [
            Coupled(ir, power, terms=((1.0, left, block),))
            for left, block in itertools.product(nodes, blocks)
            for ir in left.ir * block.ir
            if degree < 4 or (ir.l <= 11 and ir.p in (0, (-1) ** ir.l))
        ]
        nodes.sort(key=lambda node: node.ir)
    return tuple(nodes)


@functools.cache
def from_coupled_powers(irreps_in: Irreps, ir_out: Irrep, degree: int) -> NDArray[np.float64]:
    """Coefficients of each of ``coupled_powers`` with values in one irrep in the basis ``symmetric_maps``.

    Shape:
        -> (symmetric maps, coupled powers)

    >>> from_coupled_powers(Irreps("1o"), Irrep("1o"), 3).round(3)
    array([[0.745, 0.   , 0.667]])
    """
    basis = symmetric_maps(irreps_in, ir_out, degree)
    columns = [node for node in coupled_powers(irreps_in, degree) if node.ir == ir_out]
    rows = _first_rows([*basis, *columns])
    return rows[: len(basis)] @ rows[len(basis) :].T


def tensor_norm(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Square of the norm of each monomial as a symmetric tensor: one over its distinct orders.

    Shape:
        index: (degree, entries), ascending -> (entries,)

    >>> tensor_norm(np.array([[0, 0], [0, 1]]))  # x x and x y
    array([1. , 0.5])
    """
    degree, entries = index.shape
    orders = np.full(entries, float(math.factorial(degree)))
    run = np.ones(entries)
    for before, after in itertools.pairwise(index):
        run = np.where(before == after, run + 1, 1.0)
        orders /= run
    return 1 / orders


class _Powers:
    """The maps from one input, built where they are asked for and kept, so that they share their factors."""

    @staticmethod
    @functools.cache
    def of(copies: tuple[Irrep, ...]) -> _Powers:
        return _Powers(copies)

    def __init__(self, copies: tuple[Irrep, ...]) -> None:
        starts = [s.start for s in Irreps(copies).slices()]
        self.blocks = [Coupled(ir, 1, start) for ir, start in zip(copies, starts, strict=True)]
        self._single: dict[tuple[int, int], list[Coupled]] = {}
        self._chains: dict[tuple[tuple[int, int], ...], list[Coupled]] = {}
        self._maps: dict[tuple[Irrep, int], tuple[Coupled, ...]] = {}

    def maps(self, ir: Irrep, degree: int) -> tuple[Coupled, ...]:
        if (ir, degree) not in self._maps:
            found = []
            for chosen in itertools.combinations_with_replacement(range(len(self.blocks)), degree):
                groups = [(block, len(list(same))) for block, same in itertools.groupby(chosen)]
                found += self._into(ir, tuple(sorted(groups, key=self._rank)))
            self._maps[ir, degree] = tuple(found)
        return self._maps[ir, degree]

    def _rank(self, group: tuple[int, int]) -> tuple[int, int, int]:
        """Powers first, then high degrees: what is multiplied last is then a few rows of the input."""
        block, power = group
        return -power, -self.blocks[block].ir.l, block

    def _into(self, ir: Irrep, groups: tuple[tuple[int, int], ...]) -> list[Coupled]:
        *first, last = groups
        if not first:
            return [node for node in self._power(*last) if node.ir == ir]
        return _products(self._chain(tuple(first)), self._power(*last), ir)

    def _chain(self, groups: tuple[tuple[int, int], ...]) -> list[Coupled]:
        """All couplings of powers of different blocks, from the left."""
        if groups not in self._chains:
            *first, last = groups
            right = self._power(*last)
            self._chains[groups] = _products(self._chain(tuple(first)), right) if first else right
        return self._chains[groups]

    def _power(self, block: int, power: int) -> list[Coupled]:
        """The symmetric power of a single block, as an orthonormal basis of each irrep in it."""
        if power == 1:
            return [self.blocks[block]]
        if (block, power) not in self._single:
            one = self.blocks[block]
            candidates = [
                Coupled(ir, power, terms=((1.0, left, one),))
                for left in self._power(block, power - 1)
                for ir in left.ir * one.ir
            ]
            irs = sorted({node.ir for node in candidates})
            kept = [_independent([node for node in candidates if node.ir == ir]) for ir in irs]
            self._single[block, power] = list(itertools.chain.from_iterable(kept))
        return self._single[block, power]


def _products(left: list[Coupled], right: list[Coupled], only: Irrep | None = None) -> list[Coupled]:
    """Products of polynomials in different variables, again of unit norm."""
    products = []
    for a, b in itertools.product(left, right):
        scale = math.sqrt(math.comb(a.degree + b.degree, a.degree))
        irs = [ir for ir in a.ir * b.ir if only in (None, ir)]
        products += [Coupled(ir, a.degree + b.degree, terms=((scale, a, b),)) for ir in irs]
    return products


def _independent(candidates: list[Coupled]) -> list[Coupled]:
    """Gram and Schmidt on symmetric tensors; by Schur's lemma any one row tells, the first one here."""
    rows = _first_rows(candidates)
    kept: list[Coupled] = []
    basis, mixes = np.zeros((0, rows.shape[1])), np.zeros((0, len(candidates)))
    for number, row in enumerate(rows):
        mix = np.eye(len(candidates))[number]
        for _ in range(2):  # once more, against round-off
            along = basis @ row
            row, mix = row - along @ basis, mix - along @ mixes
        length = np.linalg.norm(row)
        if length > _DEPENDENT:
            basis, mixes = np.vstack([basis, row / length]), np.vstack([mixes, mix / length])
            used = [(float(c), node) for c, node in zip(mixes[-1], candidates, strict=True) if c]
            terms = tuple((c * scale, a, b) for c, node in used for scale, a, b in node.terms)
            kept.append(Coupled(candidates[0].ir, candidates[0].degree, terms=terms))
    return kept


def _first_rows(maps: Sequence[Coupled]) -> NDArray[np.float64]:
    """The first row of each map as a symmetric tensor, in an orthonormal basis. Shape (maps, ...)."""
    index, column, row, value = monomials(maps)
    first = row == 0
    place, where = np.unique(index[:, first], axis=1, return_inverse=True)
    rows = np.zeros((len(maps), place.shape[1]))
    rows[column[first], where.reshape(-1)] = value[first]
    return rows * np.sqrt(tensor_norm(place))


def _expand(node: Coupled, known: dict[Coupled, _Part]) -> _Part:
    """Row, index (entries, degree) and value of every monomial of one map."""
    if node not in known:
        if not node.terms:
            rows = np.arange(node.ir.dim)
            known[node] = rows, (node.start + rows)[:, None], np.ones(node.ir.dim)
        else:
            parts = [
                _multiplied(c, _expand(a, known), _expand(b, known), (a, b, node)) for c, a, b in node.terms
            ]
            known[node] = _collected(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return known[node]


def _multiplied(
    factor: float,
    left: _Part,
    right: _Part,
    nodes: tuple[Coupled, Coupled, Coupled],
) -> _Part:
    """One product of two maps, coupled; monomials not yet collected."""
    symbol = factor * math.sqrt(nodes[2].ir.dim) * real_3j(*(node.ir.l for node in nodes))
    i, j = (
        side.reshape(-1)
        for side in np.meshgrid(*(np.arange(len(s[0])) for s in (left, right)), indexing="ij")
    )
    coefficient = symbol[left[0][i], right[0][j]] * (left[2][i] * right[2][j])[:, None]
    pair, row = np.nonzero(coefficient)
    index = np.concatenate([left[1][i[pair]], right[1][j[pair]]], axis=1)
    return row, np.sort(index, axis=1), coefficient[pair, row]


def _collected(row: NDArray[np.int64], index: NDArray[np.int64], value: NDArray[np.float64]) -> _Part:
    """Equal monomials added up, those that cancel left out."""
    base = int(index.max(initial=0)) + 1
    code = functools.reduce(lambda total, digit: total * base + digit, index.T, row)
    _, first, back = np.unique(code, return_index=True, return_inverse=True)
    total = np.bincount(back.reshape(-1), weights=value, minlength=len(first))
    kept = np.abs(total) > 1e-12
    return row[first][kept], index[first][kept], total[kept]
