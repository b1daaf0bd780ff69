"""Groups of permutations by chains of stabilisers: their elements, their orbits, and how many there are.

A permutation is the tuple of its images of 0..n-1. A chain holds, at level i, a permutation that fixes
0..i-1 for each image of i that there is; the size of the group is the product of the lengths of its levels.
Generators are *strong* if those that fix 0..i-1 generate the subgroup that fixes 0..i-1, for every i.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Permutation: TypeAlias = tuple[int, ...]
Chain: TypeAlias = list[dict[int, Permutation]]
_FEW = 5000  # permutations that are listed to count orbits


def times(g: Permutation, h: Permutation) -> Permutation:
    """First h, then g."""
    return tuple([g[i] for i in h])


def inverse(g: Permutation) -> Permutation:
    """The permutation that undoes it."""
    return tuple(sorted(range(len(g)), key=g.__getitem__))


def orbit(point: int, generators: Sequence[Permutation]) -> dict[int, Permutation]:
    """What a point is taken to, and by which product of the generators.

    >>> list(orbit(0, [(1, 2, 0)]))
    [0, 1, 2]
    """
    identity: Permutation = tuple(range(len(generators[0]))) if generators else ()
    found = {point: identity}
    queue = [point]
    for here in queue:
        for g in generators:
            if g[here] not in found:
                found[g[here]] = times(g, found[here])
                queue.append(g[here])
    return found


def levels(strong: Sequence[Permutation], n: int) -> Chain:
    """The chain of strong generators."""
    identity = tuple(range(n))
    chain = []
    for level in range(n):
        fixing = [g for g in strong if g[:level] == identity[:level]]
        chain.append(orbit(level, fixing) if fixing else {level: identity})
    return chain


def chain_of(generators: Sequence[Permutation], n: int) -> Chain:
    """The chain of any generators, by Schreier and Sims."""
    identity = tuple(range(n))
    strong = [g for g in generators if g != identity]
    chain: Chain = [{} for _ in range(n)]
    level = n - 1
    while level >= 0:
        fixing = [g for g in strong if g[:level] == identity[:level]]
        chain[level] = orbit(level, fixing) if fixing else {level: identity}
        residue = _first_residue(chain, level, fixing, identity)
        if residue is None:
            level -= 1
        else:
            strong.append(residue)
            level = next(i for i in range(n) if residue[i] != i)
    return chain


def strong_generators(chain: Chain, n: int) -> Iterator[Permutation]:
    """For each level, from the last, the least permutations that its orbit needs beyond those before."""
    found: list[Permutation] = []
    for level in reversed(range(n)):
        reached = orbit(level, found)
        for image in sorted(chain[level]):
            if image in reached:
                continue
            g = chain[level][image]
            for i in range(level + 1, n):  # make the image of i as small as what fixes 0..i-1 allows
                g = times(g, chain[i][min(chain[i], key=g.__getitem__)])
            found.append(g)
            yield g
            reached = orbit(level, found)


def elements(chain: Chain) -> NDArray[np.int64]:
    """All permutations of the group. Shape (size, n)."""
    found = np.arange(len(chain))[None]
    for level in reversed(chain):
        if len(level) > 1:
            found = np.concatenate([np.array(g)[found] for g in level.values()])
    return found


@functools.lru_cache(maxsize=1024)
def stabiliser(strong: tuple[Permutation, ...], n: int, point: int) -> tuple[Permutation, ...]:
    """Strong generators of the subgroup that fixes a point: random elements of it, until its size is right.

    >>> stabiliser(((0, 2, 1), (1, 0, 2)), 3, 2)
    ((1, 0, 2),)
    """
    chain = levels(strong, n)
    moved = orbit(point, strong) if strong else {point: tuple(range(n))}
    size = math.prod(map(len, chain)) // len(moved)
    draw = random.Random(0)
    back = {image: inverse(g) for image, g in moved.items()}
    choices = [list(level.values()) for level in chain if len(level) > 1]
    kept: list[Permutation] = []
    smaller: Chain = [{i: tuple(range(n))} for i in range(n)]
    while math.prod(map(len, smaller)) < size:
        g = functools.reduce(times, map(draw.choice, choices))
        residue, level = _sift(smaller, times(back[g[point]], g))
        if level < n:
            kept.append(residue)
            for i in range(level + 1):
                if any(residue[x] not in smaller[i] for x in smaller[i]):
                    smaller[i] = orbit(i, [h for h in kept if _fixes(h, i)])
    return tuple(kept)


def orbit_table(strong: tuple[Permutation, ...], n: int, m: int) -> NDArray[np.int64]:
    """For each m-tuple of points the number of its orbit, counted by first tuples. Shape (n,) * m.

    Tuples that begin with x are those that begin with the first point of its orbit, moved; and these are
    told apart by the subgroup that fixes this point.
    """
    if m == 0:
        return np.zeros((), dtype=np.int64)
    if not strong:
        return np.arange(n**m).reshape((n,) * m)
    if m <= 2:
        return _small_table(strong, n, m)
    table, count = np.empty((n,) * m, dtype=np.int64), 0
    for first, moved in _point_orbits(strong, n).items():
        rest = orbit_table(stabiliser(strong, n, first), n, m - 1)
        for image, g in moved.items():
            part, back = rest, np.array(inverse(g))
            for axis in range(m - 1):
                part = part.take(back, axis)
            table[image] = part + count
        count += int(rest.max()) + 1
    return table


@functools.lru_cache(maxsize=4096)
def count_orbits(strong: tuple[Permutation, ...], n: int, m: int) -> int:
    """The number of orbits of m-tuples of points: by fixed points of a small group, else by stabilisers.

    >>> [count_orbits(((1, 2, 0),), 3, m) for m in range(4)]
    [1, 1, 3, 9]
    """
    if m == 0 or not strong:
        return int(n**m)
    chain = levels(strong, n)
    if math.prod(map(len, chain)) <= _FEW:
        return count_symmetric_orbits(strong, n, (1,) * m)
    if m <= 2:
        return int(_small_table(strong, n, m).max()) + 1
    orbits = _point_orbits(strong, n)
    fixed = sum(len(moved) == 1 for moved in orbits.values())
    others = (point for point, moved in orbits.items() if len(moved) > 1)
    rest = sum(count_orbits(stabiliser(strong, n, point), n, m - 1) for point in others)
    return rest + (fixed * count_orbits(strong, n, m - 1) if fixed else 0)


def count_symmetric_orbits(strong: tuple[Permutation, ...], n: int, orders: tuple[int, ...]) -> int:
    """The number of orbits of several multisets of points, of sizes ``orders``: the mean of what is fixed."""
    types = _fixed_points(strong, n) if max(orders, default=1) == 1 else _cycle_types(strong, n)
    total = 0
    for cycles, count in types.items():
        total += count * math.prod(_fixed_multisets(cycles, order) for order in orders)
    return total // sum(types.values())


def count_table(table: NDArray[np.int64], orders: tuple[int, ...]) -> int:
    """The same from the table of orbits of all points in a row: what exchanges of places join."""
    orbits, first = np.unique(table, return_index=True)
    places = np.array(np.unravel_index(first, table.shape))
    label = orbits
    ends = set(itertools.accumulate(orders))
    moves = []
    for place in range(1, table.ndim):
        if place not in ends:
            exchanged = places.copy()
            exchanged[[place - 1, place]] = places[[place, place - 1]]
            moves.append(table[tuple(exchanged)])
    return int(_joined(label, moves).max()) + 1


def _small_table(strong: Sequence[Permutation], n: int, m: int) -> NDArray[np.int64]:
    index = np.arange(n**m).reshape((n,) * m)
    moves = []
    for g in strong:
        moved = index
        for axis in range(m):
            moved = moved.take(g, axis)
        moves.append(moved.reshape(-1))
    return _joined(index.reshape(-1), moves).reshape(index.shape)


def _joined(label: NDArray[np.int64], moves: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Labels 0, 1, ... of what any of the moves connect, counted by first members."""
    before = None
    while before is None or not np.array_equal(label, before):
        before = label
        for move in moves:
            label = np.minimum(label, label[move])
            np.minimum.at(label, move, label.copy())
        label = label[label]
    return np.unique(label, return_inverse=True)[1].reshape(-1)


@functools.lru_cache(maxsize=64)
def _fixed_points(strong: tuple[Permutation, ...], n: int) -> Counter[tuple[int, ...]]:
    """How many permutations there are that fix so many points."""
    images = elements(levels(strong, n))
    return Counter((int(count),) for count in (images == np.arange(n)).sum(axis=1))


@functools.lru_cache(maxsize=64)
def _cycle_types(strong: tuple[Permutation, ...], n: int) -> Counter[tuple[int, ...]]:
    """How many permutations there are with so many cycles of each length 1..n."""
    images = elements(levels(strong, n))
    here, left = images, np.ones(images.shape, dtype=bool)
    counts = np.zeros((len(images), n), dtype=np.int64)
    for length in range(1, n + 1):
        closed = (here == np.arange(n)) & left
        counts[:, length - 1] = closed.sum(axis=1) // length
        left &= ~closed
        if not left.any():
            break
        here = np.take_along_axis(images, here, axis=1)
    return Counter(map(tuple, counts.tolist()))


@functools.lru_cache(maxsize=4096)
def _fixed_multisets(cycles: tuple[int, ...], order: int) -> int:
    """Multisets of so many points that are made of whole cycles: a coefficient of prod (1 - t^c)^-1."""
    if order == 1:
        return cycles[0]
    ways = [1] + [0] * order
    for length, count in enumerate(cycles[:order], start=1):
        for size in range(order, -1, -1) if count else ():
            ways[size] = sum(
                ways[size - length * i] * math.comb(count + i - 1, i) for i in range(size // length + 1)
            )
    return ways[order]


def _point_orbits(strong: tuple[Permutation, ...], n: int) -> dict[int, dict[int, Permutation]]:
    """The orbits of points by their first points."""
    found: dict[int, dict[int, Permutation]] = {}
    seen: set[int] = set()
    for point in range(n):
        if point not in seen:
            found[point] = orbit(point, strong)
            seen |= set(found[point])
    return found


def _fixes(g: Permutation, level: int) -> bool:
    return all(g[i] == i for i in range(level))


def _sift(chain: Chain, g: Permutation) -> tuple[Permutation, int]:
    """What is left of a permutation, and the first level that does not know it; n if all do."""
    for i, level in enumerate(chain):
        if g[i] not in level:
            return g, i
        if g[i] != i:
            g = times(inverse(level[g[i]]), g)
    return g, len(chain)


def _first_residue(
    chain: Chain, level: int, fixing: list[Permutation], identity: Permutation
) -> Permutation | None:
    """A permutation that the levels below should know and do not, if there is one."""
    below = [{i: identity} for i in range(level + 1)] + chain[level + 1 :]
    for (point, u), g in itertools.product(chain[level].items(), fixing):
        left, where = _sift(below, times(inverse(chain[level][g[point]]), times(g, u)))
        if where < len(identity):
            return left
    return None
