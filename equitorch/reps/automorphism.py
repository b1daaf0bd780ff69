"""Groups of permutations: the symmetries of a graph, or whatever some permutations generate."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Permutation: TypeAlias = tuple[int, ...]
Array: TypeAlias = NDArray[np.int64]


class Automorphism:
    """The symmetries of a graph, or the group that some permutations generate; stands for a group's name.

    Two objects are equal if they are the same group, however it was given: ``generators`` is a strong
    generating set that depends on nothing else.

    Attributes:
        n: number of points.
        size: number of permutations.
        generators: images of 0..n-1 under each of them.

    Args:
        graph: a networkx graph, directed or not, whose points are counted in the order of its nodes; the edge
            attribute "weight" is respected, other attributes are not. Or a square matrix (array or tensor) of
            which simultaneous permutations of rows and columns are asked that leave it alone. Or a list of
            permutations, each the images of 0..n-1.

    Raises:
        ValueError: if it is none of these.

    >>> square = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
    >>> square, square.size
    (Aut(4; (1 3), (0 1)(2 3)), 8)
    >>> square == Automorphism(np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]))
    True
    """

    def __init__(self, graph: Any) -> None:
        if isinstance(graph, (list, tuple)):
            self.n, given = _checked(graph)
            chain = _chain_of(given, self.n)
        else:
            matrix = _relation(graph)
            self.n = len(matrix)
            chain = _levels(_symmetries(matrix), self.n)
        self.size = math.prod(map(len, chain))
        self.generators = tuple(_strong_generators(chain, self.n))

    @property
    def symbol(self) -> str:
        """The name of the group, from which ``Automorphism.of_symbol`` makes it again."""
        return f"Aut({self.n}; {', '.join(map(_cycles, self.generators)) or 'id'})"

    @staticmethod
    def of_symbol(symbol: str) -> Automorphism:
        """The group with this ``symbol``.

        >>> Automorphism.of_symbol("Aut(3; (0 1))").generators
        ((1, 0, 2),)
        """
        found = re.fullmatch(r"Aut\((\d+); (.*)\)", symbol)
        if found is None:
            raise ValueError(f"a group of permutations is written e.g. 'Aut(4; (0 1)(2 3))', got {symbol!r}")
        n = int(found[1])
        generators = []
        for word in found[2].split(", "):
            images = list(range(n))
            for cycle in re.findall(r"\(([\d ]+)\)", word):
                points = list(map(int, cycle.split()))
                for a, b in zip(points, points[1:] + points[:1], strict=True):
                    images[a] = b
            generators.append(tuple(images))
        return Automorphism(generators)

    def elements(self) -> Iterator[Permutation]:
        """All permutations of the group, of which there are ``size``."""
        chain = _levels(self.generators, self.n)
        found = [tuple(range(self.n))]
        for level in reversed(range(self.n)):
            found = [_times(g, h) for g in chain[level].values() for h in found]
        return iter(found)

    def random(self, uniform: Sequence[float]) -> Permutation:
        """A permutation made of n numbers in [0, 1): uniform in the group, if they are uniform."""
        chain = _levels(self.generators, self.n)
        element = tuple(range(self.n))
        for orbit, place in zip(chain, uniform, strict=True):
            element = _times(element, orbit[sorted(orbit)[int(place * len(orbit))]])
        return element

    def orbits(self, m: int) -> Array:
        """For each m-tuple of points the number of its orbit, counted by first tuples. Shape (n,) * m.

        >>> Automorphism([(1, 2, 0)]).orbits(2)
        array([[0, 1, 2],
               [2, 0, 1],
               [1, 2, 0]])
        """
        return _orbits(self, m)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Automorphism) and self.symbol == other.symbol

    def __hash__(self) -> int:
        return hash(self.symbol)

    def __repr__(self) -> str:
        return self.symbol


_Chain: TypeAlias = list[
    dict[int, Permutation]
]  # at level i: for each image of i a permutation fixing 0..i-1


@functools.cache
def _orbits(group: Automorphism, m: int) -> Array:
    size = group.n**m
    if size > 1 << 26:
        raise ValueError(f"{group} has {size} {m}-tuples, too many to list")
    index = np.arange(size).reshape((group.n,) * m)
    moves = []
    for g in group.generators:
        moved = index
        for axis in range(m):
            moved = moved.take(g, axis)
        moves.append(moved.reshape(-1))
    label, before = index.reshape(-1), None
    while before is None or not np.array_equal(label, before):
        before = label
        for move in moves:
            label = np.minimum(label, label[move])
            np.minimum.at(label, move, label.copy())
        label = label[label]
    return np.unique(label, return_inverse=True)[1].reshape(index.shape)


def _checked(generators: Sequence[Sequence[int]]) -> tuple[int, list[Permutation]]:
    found = [tuple(int(image) for image in g) for g in generators]
    n = len(found[0]) if found else 0
    if not n or any(sorted(g) != list(range(n)) for g in found):
        raise ValueError(
            f"Automorphism expects permutations of 0..n-1 as lists of images, got {list(generators)}; "
            "give an adjacency matrix as an array"
        )
    return n, found


def _relation(graph: Any) -> Array:
    """A matrix of small numbers that is equal where a symmetry may not tell entries apart."""
    if hasattr(graph, "nodes") and hasattr(graph, "edges"):
        place = {node: i for i, node in enumerate(graph.nodes)}
        weights = np.zeros((len(place), len(place)))
        for a, b, weight in graph.edges(data="weight", default=1.0):
            weights[place[a], place[b]] += weight
            if not graph.is_directed() and a != b:
                weights[place[b], place[a]] += weight
    else:
        weights = graph.detach().cpu().numpy() if isinstance(graph, Tensor) else np.asarray(graph)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise ValueError(
            "Automorphism expects a networkx graph, a square matrix or a list of permutations, "
            f"got {type(graph).__name__} of shape {weights.shape}"
        )
    pairs = np.stack([weights, weights.T], axis=-1).reshape(-1, 2)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(weights.shape)


def _symmetries(matrix: Array) -> list[Permutation]:
    """Permutations that generate those which leave a matrix alone, from the last point to the first."""
    n = len(matrix)
    found: list[Permutation] = []
    for level in reversed(range(n)):
        start = np.diagonal(matrix).astype(np.int64) * (n + 1)
        start[:level] = -1 - np.arange(level)
        refused: set[int] = set()
        orbit = _orbit(level, found)
        for image in range(level + 1, n):
            if image in orbit or image in refused:
                continue
            one, two = start.copy(), start.copy()
            one[level], two[image] = -1 - n, -1 - n
            g = _match(matrix, one, two)
            if g is None:
                refused |= set(_orbit(image, found))
            else:
                found.append(g)
                orbit = _orbit(level, found)
    return found


def _match(matrix: Array, one: Array, two: Array) -> Permutation | None:
    """A symmetry that takes the colours ``one`` to the colours ``two``; refine, branch, try again."""
    one, two = _refine(matrix, one, two)
    if not np.array_equal(np.sort(one), np.sort(two)):
        return None
    n, counts = len(matrix), np.bincount(one)
    g = np.empty(n, dtype=np.int64)
    g[np.argsort(one, kind="stable")] = np.argsort(two, kind="stable")
    if np.array_equal(matrix[np.ix_(g, g)], matrix):  # often, even where colours leave a choice
        return tuple(g.tolist())
    if counts.max() == 1:
        return None
    colour = min((c for c in range(len(counts)) if counts[c] > 1), key=lambda c: counts[c])
    one = one.copy()
    one[np.flatnonzero(one == colour)[0]] = len(counts)
    for image in np.flatnonzero(two == colour):
        trial = two.copy()
        trial[image] = len(counts)
        found = _match(matrix, one, trial)
        if found is not None:
            return found
    return None


def _refine(matrix: Array, one: Array, two: Array) -> tuple[Array, Array]:
    """Colours told apart by the colours of what is related to them, until that says nothing new."""
    n, count = len(matrix), 0
    colours = np.unique(np.concatenate([one, two]), return_inverse=True)[1]
    while colours.max() + 1 > count:
        count = colours.max() + 1
        rows = [np.sort(matrix * count + part, axis=1) for part in (colours[:n], colours[n:])]
        signature = np.column_stack([colours, np.concatenate(rows)])
        colours = np.unique(signature, axis=0, return_inverse=True)[1].reshape(-1)
    return colours[:n], colours[n:]


def _times(g: Permutation, h: Permutation) -> Permutation:
    """First h, then g."""
    return tuple([g[i] for i in h])


def _inverse(g: Permutation) -> Permutation:
    return tuple(sorted(range(len(g)), key=g.__getitem__))


def _orbit(point: int, generators: Sequence[Permutation]) -> dict[int, Permutation]:
    """What a point is taken to, and by which product of the generators."""
    identity: Permutation = tuple(range(len(generators[0]))) if generators else ()
    found = {point: identity}
    queue = [point]
    for here in queue:
        for g in generators:
            if g[here] not in found:
                found[g[here]] = _times(g, found[here])
                queue.append(g[here])
    return found


def _levels(strong: Sequence[Permutation], n: int) -> _Chain:
    """The chain of a strong generating set: one that contains generators of each level."""
    identity = tuple(range(n))
    chain = []
    for level in range(n):
        fixing = [g for g in strong if g[:level] == identity[:level]]
        chain.append(_orbit(level, fixing) if fixing else {level: identity})
    return chain


def _chain_of(generators: Sequence[Permutation], n: int) -> _Chain:
    """Schreier and Sims: at level i, the orbit of i under the permutations of the group that fix 0..i-1."""
    identity = tuple(range(n))
    strong = [g for g in generators if g != identity]
    chain: _Chain = [{} for _ in range(n)]
    level = n - 1
    while level >= 0:
        fixing = [g for g in strong if g[:level] == identity[:level]]
        chain[level] = _orbit(level, fixing) if fixing else {level: identity}
        residue = _first_residue(chain, level, fixing, identity)
        if residue is None:
            level -= 1
        else:
            strong.append(residue)
            level = next(i for i in range(n) if residue[i] != i)
    return chain


def _first_residue(
    chain: _Chain, level: int, fixing: list[Permutation], identity: Permutation
) -> Permutation | None:
    """A permutation that the levels below should know and do not, if there is one."""
    for point, u in chain[level].items():
        for g in fixing:
            left = _times(_inverse(chain[level][g[point]]), _times(g, u))
            for i in range(level + 1, len(identity)):
                if left[i] not in chain[i]:
                    return left
                if left[i] != i:
                    left = _times(_inverse(chain[i][left[i]]), left)
    return None


def _strong_generators(chain: _Chain, n: int) -> Iterator[Permutation]:
    """For each level, from the last, the least permutations that its orbit needs beyond those before."""
    found: list[Permutation] = []
    for level in reversed(range(n)):
        reached = _orbit(level, found)
        for image in sorted(chain[level]):
            if image in reached:
                continue
            g = chain[level][image]
            for i in range(level + 1, n):  # make the image of i as small as what fixes 0..i-1 allows
                g = _times(g, chain[i][min(chain[i], key=g.__getitem__)])
            found.append(g)
            yield g
            reached = _orbit(level, found)


def _cycles(g: Permutation) -> str:
    left, text = set(range(len(g))), ""
    for start in range(len(g)):
        if start in left and g[start] != start:
            cycle = [start]
            while g[cycle[-1]] != start:
                cycle.append(g[cycle[-1]])
            left -= set(cycle)
            text += f"({' '.join(map(str, cycle))})"
    return text
