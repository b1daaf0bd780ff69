"""Groups of permutations: the symmetries of a graph, or whatever some permutations generate."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.partitions import normal_form
from equitorch.reps.permutations import (
    Permutation,
    chain_of,
    count_orbits,
    count_symmetric_orbits,
    count_table,
    elements,
    levels,
    orbit,
    orbit_table,
    strong_generators,
    times,
)

Array: TypeAlias = NDArray[np.int64]
_MOST_TUPLES = 1 << 26  # in a table of orbits
_MOST_ELEMENTS = 50_000  # that are listed to count orbits of multisets


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
        colours: of the points of a graph or matrix; a symmetry keeps them. Chemical elements, say.

    Raises:
        ValueError: if it is none of these, or there is not one colour for each point.

    >>> square = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
    >>> square, square.size
    (Aut(4; (1 3), (0 1)(2 3)), 8)
    >>> square == Automorphism(np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]))
    True
    """

    def __init__(self, graph: Any, *, colours: Sequence[Hashable] | None = None) -> None:
        if isinstance(graph, (list, tuple)):
            if colours is not None:
                raise ValueError("Automorphism expects colours beside a graph or a matrix, not permutations")
            self.n, given = _checked(graph)
            chain = chain_of(given, self.n)
        else:
            matrix = _relation(graph, colours)
            self.n = len(matrix)
            chain = levels(_symmetries(matrix), self.n)
        self.size = math.prod(map(len, chain))
        self.generators = tuple(strong_generators(chain, self.n))

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
        return map(tuple, elements(levels(self.generators, self.n)).tolist())

    def random(self, uniform: Sequence[float]) -> Permutation:
        """A permutation made of n numbers in [0, 1): uniform in the group, if they are uniform."""
        chain = levels(self.generators, self.n)
        element = tuple(range(self.n))
        for level, place in zip(chain, uniform, strict=True):
            element = times(element, level[sorted(level)[int(place * len(level))]])
        return element

    def orbits(self, m: int) -> Array:
        """For each m-tuple of points the number of its orbit, counted by first tuples. Shape (n,) * m.

        >>> Automorphism([(1, 2, 0)]).orbits(2)
        array([[0, 1, 2],
               [2, 0, 1],
               [1, 2, 0]])
        """
        if m < 0:
            raise ValueError(f"{self} has tuples of 0 or more points, got m = {m}")
        if self.n**m > _MOST_TUPLES:
            raise ValueError(f"{self} has {self.n**m} {m}-tuples, too many to list")
        return _orbits(self, m)

    def count_orbits(self, orders: Sequence[int]) -> int | None:
        """The number of orbits of tuples of multisets of points, of sizes ``orders``; ones for m-tuples.

        None if they are not all one, and neither the group nor the tuples are few enough to list.

        >>> Automorphism([(1, 2, 0)]).count_orbits((1, 1)), Automorphism([(1, 2, 0)]).count_orbits((2,))
        (3, 2)
        """
        orders = tuple(order for order in orders if order)
        if all(order == 1 for order in orders):
            return count_orbits(self.generators, self.n, len(orders))
        if self.size <= _MOST_ELEMENTS:
            return count_symmetric_orbits(self.generators, self.n, orders)
        m = sum(orders)
        return count_table(self.orbits(m), orders) if self.n**m <= _MOST_TUPLES else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Automorphism) and self.symbol == other.symbol

    def __hash__(self) -> int:
        return hash(self.symbol)

    def __repr__(self) -> str:
        return self.symbol


@functools.lru_cache(maxsize=32)
def _orbits(group: Automorphism, m: int) -> Array:
    table = orbit_table(group.generators, group.n, m)
    table.flags.writeable = False
    return table


def _checked(generators: Sequence[Sequence[int]]) -> tuple[int, list[Permutation]]:
    found = [tuple(int(image) for image in g) for g in generators]
    n = len(found[0]) if found else 0
    if not n or any(sorted(g) != list(range(n)) for g in found):
        raise ValueError(
            f"Automorphism expects permutations of 0..n-1 as lists of images, got {list(generators)}; "
            "give an adjacency matrix as an array"
        )
    return n, found


def _relation(graph: Any, colours: Sequence[Hashable] | None) -> Array:
    """A matrix of small numbers that is equal where a symmetry may not tell entries apart."""
    if hasattr(graph, "nodes") and hasattr(graph, "edges"):
        weights = _edge_labels(graph)
    elif isinstance(graph, Tensor):
        dense = graph.detach().cpu().to_dense()
        weights = (dense.double() if dense.is_floating_point() else dense).numpy()
    else:
        weights = np.asarray(graph.toarray() if hasattr(graph, "toarray") else graph)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise ValueError(
            "Automorphism expects a networkx graph, a square adjacency matrix or a list of permutations, "
            f"got {type(graph).__name__} of shape {weights.shape}"
        )
    n = len(weights)
    if colours is not None and len(colours) != n:
        raise ValueError(f"Automorphism expects a colour for each of {n} points, got {len(colours)}")
    relation = np.unique(weights, return_inverse=True)[1].reshape(n, n)
    if colours is not None:
        relation = relation + np.diag(normal_form(colours)) * n * n
    return np.unique(relation * relation.max(initial=1) * 2 + relation.T, return_inverse=True)[1].reshape(
        n, n
    )


def _edge_labels(graph: Any) -> Array:
    """A number for all the weights together of the edges from one point to another; 0 for no edge."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    weights: dict[tuple[int, int], list[Any]] = {}
    for a, b, weight in graph.edges(data="weight", default=1):
        for pair in (
            {(place[a], place[b])} if graph.is_directed() else {(place[a], place[b]), (place[b], place[a])}
        ):
            weights.setdefault(pair, []).append(weight)
    found = {pair: frozenset(Counter(several).items()) for pair, several in weights.items()}
    labels = np.zeros((len(place), len(place)), dtype=np.int64)
    for pair, label in zip(found, normal_form(list(found.values())), strict=True):
        labels[pair] = label + 1
    return labels


def _symmetries(matrix: Array) -> list[Permutation]:
    """Permutations that generate those which leave a matrix alone, from the last point to the first."""
    n = len(matrix)
    colours = [_refined(matrix, np.diagonal(matrix).copy())]  # with 0, 1, 2, ... points told apart
    for point in range(n):
        colours.append(_apart(matrix, colours[-1], point))
    found: list[Permutation] = []
    for level in reversed(range(n)):
        refused: set[int] = set()
        reached = orbit(level, found)
        for image in np.flatnonzero(colours[level] == colours[level][level]).tolist():
            if image in reached or image in refused:
                continue
            g = _match(matrix, colours[level + 1], _apart(matrix, colours[level], image))
            if g is None:
                refused |= set(orbit(image, found))
            else:
                found.append(g)
                reached = orbit(level, found)
    return found


def _match(matrix: Array, one: Array, two: Array) -> Permutation | None:
    """A symmetry that takes the colours ``one`` to the colours ``two``; branch, refine, try again."""
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
    one = _apart(matrix, one, int(np.flatnonzero(one == colour)[0]))
    for image in np.flatnonzero(two == colour):
        found = _match(matrix, one, _apart(matrix, two, int(image)))
        if found is not None:
            return found
    return None


def _apart(matrix: Array, colours: Array, point: int) -> Array:
    """Refined colours with one point told apart."""
    if np.count_nonzero(colours == colours[point]) == 1:
        return colours
    colours = colours.copy()
    colours[point] = colours.max() + 1
    return _refined(matrix, colours)


def _refined(matrix: Array, colours: Array) -> Array:
    """Colours told apart by the colours of what is related to them, until that says nothing new.

    Numbers of colours depend on nothing but the structure, so that two results compare. Sums of hashes stand
    for multisets; should two collide, colours are merely coarser, which a search can do with.
    """
    count = 0
    colours = np.unique(colours, return_inverse=True)[1].reshape(-1)
    while colours.max() + 1 > count:
        count = colours.max() + 1
        seen = _hash(matrix * count + colours).sum(axis=1, dtype=np.uint64) >> np.uint64(1)
        order = np.stack([colours, seen.astype(np.int64)])
        by = np.lexsort(order[::-1])
        steps = (np.diff(order[:, by], axis=1) != 0).any(axis=0)
        colours[by] = np.concatenate([[0], np.cumsum(steps)])
    return colours


def _hash(numbers: Array) -> NDArray[np.uint64]:
    """Numbers of 64 bits that look random, each a function of its argument (splitmix64)."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


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
