"""How many equivariant maps there are between two representations, by formula and without any matrix.

Maps from X to Y are the invariants of Y times X, since every representation here is its own dual. So a
representation is written as a sum of products, one factor for each group of a product of groups: symmetric
powers of the defining representation, or the multiplicities of irreps.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from typing import NamedTuple, TypeAlias

import numpy as np

from equitorch.reps.cartesian import CartesianTensor
from equitorch.reps.diagrams import count_invariants
from equitorch.reps.irreps import Irrep, Irreps
from equitorch.reps.matrix_groups import MatrixGroup
from equitorch.reps.pairings import count_semistandard
from equitorch.reps.rep import ChangedBasis, DirectSum, Dual, KroneckerProduct, Rep
from equitorch.reps.tensor_power import Outer, TensorPower


class _Power(NamedTuple):
    """A product of symmetric powers of the defining representation, of these orders."""

    group: MatrixGroup
    orders: tuple[int, ...]


_Multiplicities: TypeAlias = tuple[tuple[Irrep, int], ...]
_Factor: TypeAlias = _Power | _Multiplicities
_Term: TypeAlias = tuple[_Factor, ...]


def count_maps(x: Rep, y: Rep) -> int | None:
    """The dimension of the equivariant maps from one representation to another, None if no formula is known.

    >>> count_maps(TensorPower("S", 50, 4), TensorPower("S", 50, 4))
    4140
    """
    xs, ys = _terms(x), _terms(y)
    if xs is None or ys is None:
        return None
    total = 0
    for (a, times_a), (b, times_b) in itertools.product(Counter(xs).items(), Counter(ys).items()):
        counts = [_count(*pair) for pair in zip(a, b, strict=True)]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        total += times_a * times_b * math.prod(known)
    return total


def count_symmetric(family: str, n: int, orders: tuple[int, ...]) -> int:
    """The dimension of the invariants of a product of symmetric powers, of these orders, of n dimensions.

    Orbits of permutations are multisets of n vectors of whole numbers that add up to ``orders``: one vector
    for each point. For matrices, sums of Kostka numbers over the Young diagrams that have an invariant.

    >>> [count_symmetric("S", n, (2, 2)) for n in (2, 3, 4, 5)]
    [5, 8, 9, 9]
    """
    orders = tuple(sorted(order for order in orders if order))
    m = sum(orders)
    if len(orders) == m:
        return count_invariants(family, n, m)
    if family in ("S", "A", "B"):
        signed = sum(_sums_of_vectors(orders, n, family == "B", distinct=False)[: n + 1])
        if family != "A" or n < 2:
            return signed
        apart = _sums_of_vectors(orders, n, False, distinct=True)
        return signed + sum(apart[n - 1 : n + 1])  # n points apart, with or without one that is zero
    total = 0
    for shape, count in count_semistandard(orders, n).items():
        if family == "Sp":
            total += count * (len(shape) % 2 == 0 and shape[::2] == shape[1::2])
        else:
            total += count * all(part % 2 == 0 for part in shape)
            total += count * (family == "SO" and len(shape) == n and all(part % 2 for part in shape))
    return total


@functools.cache
def _sums_of_vectors(orders: tuple[int, ...], n: int, even: bool, *, distinct: bool) -> list[int]:
    """How many multisets, or sets, of 0..n nonzero vectors of whole numbers add up to ``orders``."""
    most = min(n, sum(orders))
    table = np.zeros((most + 1, *(order + 1 for order in orders)), dtype=object)
    table[(0,) * table.ndim] = 1
    for vector in itertools.product(*(range(order + 1) for order in orders)):
        if not any(vector) or (even and sum(vector) % 2):
            continue
        above = tuple(slice(part, None) for part in vector)
        below = tuple(slice(None, order + 1 - part) for order, part in zip(orders, vector, strict=True))
        for size in reversed(range(most)) if distinct else range(most):
            table[size + 1][above] += table[size][below]
    last = table.reshape(most + 1, -1)[:, -1]
    return [int(count) for count in last] + [0] * (n - most)


def _terms(rep: Rep) -> list[_Term] | None:
    """Summands, each with a factor for every group of a product of groups."""
    if isinstance(rep, TensorPower):
        orders = (rep.order,) if rep.symmetric else (1,) * rep.order
        return [(_Power(rep.matrix_group, orders),)]
    if isinstance(rep, (Irreps, Irrep, CartesianTensor)):
        irreps = Irreps([(1, rep)]) if isinstance(rep, Irrep) else _irreps_of(rep)
        return [(_collected(Counter(irreps.copies)),)]
    if isinstance(rep, Dual) or (isinstance(rep, ChangedBasis) and rep.basis.shape[0] == rep.basis.shape[1]):
        return _terms(rep.rep)
    if not isinstance(rep, (DirectSum, Outer, KroneckerProduct)):
        return None
    parts = [_terms(part) for part in rep.reps]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if isinstance(rep, DirectSum):
        return [term for part in known for term in part]
    if isinstance(rep, Outer):
        return [tuple(itertools.chain(*chosen)) for chosen in itertools.product(*known)]
    return [functools.reduce(_multiplied, chosen) for chosen in itertools.product(*known)]


def _irreps_of(rep: Irreps | CartesianTensor) -> Irreps:
    return rep if isinstance(rep, Irreps) else rep.irreps


def _multiplied(x: _Term, y: _Term) -> _Term:
    return tuple(_product(a, b) for a, b in zip(x, y, strict=True))


def _product(a: _Factor, b: _Factor) -> _Factor:
    if isinstance(a, _Power) and isinstance(b, _Power):
        return _Power(a.group, a.orders + b.orders)
    found: Counter[Irrep] = Counter()
    for (left, i), (right, j) in itertools.product(_multiplicities(a), _multiplicities(b)):
        for ir in left * right:
            found[ir] += i * j
    return _collected(found)


def _count(a: _Factor, b: _Factor) -> int | None:
    if isinstance(a, _Power) and isinstance(b, _Power):
        orders = a.orders + b.orders
        if a.group.permutations is None:
            return count_symmetric(a.group.family, a.group.n, orders)
        return a.group.permutations.count_orbits(orders)
    known = dict(_multiplicities(b))
    return sum(times * known.get(ir, 0) for ir, times in _multiplicities(a))


@functools.cache
def _multiplicities(factor: _Factor) -> _Multiplicities:
    """Of the irreps of O(3) or SO(3); a symmetric power of vectors has degrees k, k - 2, ..."""
    if not isinstance(factor, _Power):
        return factor
    parity = 0 if factor.group.family == "SO" else 1
    total: _Factor = ((Irrep(0, parity), 1),)
    for order in factor.orders:
        p = parity * (-1) ** order
        total = _product(total, tuple((Irrep(l, p), 1) for l in range(order % 2, order + 1, 2)))
    return _multiplicities(total)


def _collected(found: Counter[Irrep]) -> _Multiplicities:
    return tuple(sorted(found.items()))
