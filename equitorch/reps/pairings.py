"""Pairings of vertices, with or without free ones: the diagrams of orthogonal and symplectic groups.

A pairing is a partition (a restricted growth string, see ``equitorch.reps.partitions``) into blocks of two;
free vertices are blocks of one. Products compose as those of partitions do, up to the sign of
``symplectic_sign``. Here are inner products, dimensions by Young diagrams, and the rules that pick a
linearly independent subset.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator

from equitorch.reps.partitions import Partition, blocks_of, num_blocks, permutation_sign


@functools.cache
def pairings(m: int, singles: int = 0) -> tuple[Partition, ...]:
    """Partitions of m vertices into pairs and so many single vertices, in lexicographic order.

    >>> pairings(4)
    ((0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0))
    """
    found: list[tuple[Partition, tuple[int, ...]]] = [((), ())]  # with the blocks that are single so far
    for done in range(m):
        longer = []
        for p, alone in found:
            fresh = num_blocks(p)
            longer += [((*p, b), tuple(other for other in alone if other != b)) for b in alone]
            longer.append(((*p, fresh), (*alone, fresh)))
        left = m - done - 1
        found = [(p, alone) for p, alone in longer if abs(len(alone) - singles) <= left]
    return tuple(p for p, alone in found if len(alone) == singles)


def orthogonal_gram(p: Partition, q: Partition, n: int) -> int:
    """The inner product of two pairings as maps: n to the number of loops of their union.

    >>> orthogonal_gram((0, 0, 1, 1), (0, 1, 0, 1), 3)
    3
    """
    return int(n ** len(_walk(_partners(p), _partners(q), range(len(p)))[0]))


def free_gram(p: Partition, q: Partition, n: int) -> int:
    r"""The inner product of two diagrams with n free vertices, on which a Levi-Civita symbol stands.

    .. math:: n! \, n^{\text{loops}} \, \mathrm{sgn}(\sigma)

    if every open path of the union joins a free vertex of p to one of q, sigma being that bijection; else 0.

    >>> free_gram((0, 1), (0, 1), 2)
    2
    """
    loops, paths = _walk(_partners(p), _partners(q), range(len(p)))
    from_p, to_q = _free(p), set(_free(q))
    image = {}
    for path in paths:
        for a, b in ((path[0], path[-1]), (path[-1], path[0])):
            if a in from_p and b in to_q:
                image[a] = b
    if len(image) != n or len(paths) != n:
        return 0
    sign = permutation_sign([image[a] for a in from_p])
    return math.factorial(n) * int(n ** len(loops)) * sign


def symplectic_gram(p: Partition, q: Partition, n: int) -> int:
    r"""The inner product of two pairings with a form Omega on every pair a < b, all vertices in one row.

    .. math:: \prod_{\text{loops}} (-1)^{q} \, n \prod_{\text{arcs}} \pm 1

    for a loop of 2 q arcs, each arc counting 1 where it is walked from its smaller vertex.

    >>> symplectic_gram((0, 0, 1, 1), (0, 1, 1, 0), 4)
    -4
    """
    product = 1
    for loop in _walk(_partners(p), _partners(q), range(len(p)))[0]:
        product *= n * (-1) ** (len(loop) // 2 + _descents([*loop, loop[0]]))
    return product


def symplectic_sign(p: Partition, q: Partition, middle: int) -> int:
    """The sign s in D_p @ D_q == s * n**c * D_r for diagrams of Sp(n); r and c are those of ``compose``.

    A pair within a row stands for Omega from its smaller vertex, a pair across rows for the identity.

    >>> symplectic_sign((0, 0), (0, 0), 2)  # Omega[a, b] Omega[a, b] == n
    1
    """
    top = len(p) - middle
    row = [0] * top + [1] * middle + [2] * (len(q) - middle)
    below = {a + top: b + top for a, b in _partners(q).items()}
    loops, paths = _walk(_partners(p), below, range(len(row)))
    exponent = 0
    for walk in [*paths, *([*loop, loop[0]] for loop in loops)]:
        if walk[0] > walk[-1]:
            walk = walk[::-1]
        flat = [(a, b) for a, b in itertools.pairwise(walk) if row[a] == row[b]]
        exponent += sum(a > b for a, b in flat) + len(flat) // 2
    return (-1) ** exponent


def longest_increasing(p: Partition) -> int:
    """The longest increasing subsequence of the involution that exchanges partners and fixes free vertices.

    >>> longest_increasing((0, 0, 1, 1)), longest_increasing((0, 1, 1, 0))
    (2, 1)
    """
    partners = _partners(p)
    return _longest([partners.get(vertex, vertex) for vertex in range(len(p))])


def most_crossing(p: Partition) -> int:
    """The largest number of mutually crossing pairs, vertices on a circle.

    >>> most_crossing((0, 1, 0, 1)), most_crossing((0, 1, 1, 0))
    (2, 1)
    """
    arcs = sorted(block for block in blocks_of(p) if len(block) == 2)
    across = ([b for a, b in arcs if a <= cut < b] for cut in range(len(p)))
    return max(map(_longest, across), default=0)


def count_orthogonal(n: int, m: int) -> int:
    """The dimension of the tensors with m indices that O(n) leaves alone.

    >>> [count_orthogonal(2, m) for m in range(7)]
    [1, 0, 1, 0, 3, 0, 10]
    """
    return sum(_tableaux(s) for s in _shapes(m) if len(s) <= n and not any(part % 2 for part in s))


def count_pseudoscalar(n: int, m: int) -> int:
    """The dimension of the tensors with m indices that rotations leave alone and mirrors change the sign of.

    >>> [count_pseudoscalar(3, m) for m in range(7)]
    [0, 0, 0, 1, 0, 6, 0]
    """
    return sum(_tableaux(s) for s in _shapes(m) if len(s) == n and all(part % 2 for part in s))


def count_symplectic(n: int, m: int) -> int:
    """The dimension of the tensors with m indices that Sp(n) leaves alone.

    >>> [count_symplectic(2, m) for m in range(7)]
    [1, 0, 1, 0, 2, 0, 5]
    """
    even = (s for s in _shapes(m) if len(s) <= n and len(s) % 2 == 0 and s[::2] == s[1::2])
    return sum(map(_tableaux, even))


@functools.cache
def count_semistandard(content: tuple[int, ...], max_rows: int) -> Counter[tuple[int, ...]]:
    """Kostka numbers: the semistandard tableaux of a content for each Young diagram of few enough rows.

    >>> dict(count_semistandard((2, 1), 2))
    {(2, 1): 1, (3,): 1}
    """
    counts: Counter[tuple[int, ...]] = Counter({(): 1})
    for size in content:
        longer: Counter[tuple[int, ...]] = Counter()
        for shape, count in counts.items():
            for wider in _with_strip(shape, size, max_rows):
                longer[wider] += count
        counts = longer
    return counts


def _with_strip(shape: tuple[int, ...], size: int, max_rows: int) -> Iterator[tuple[int, ...]]:
    """Young diagrams with so many boxes more, no two of them in a column."""
    rows = (*shape, 0)[:max_rows]
    room = [before - row for before, row in zip((math.inf, *rows), rows, strict=False)]
    for added in itertools.product(*(range(int(min(size, most)) + 1) for most in room)):
        if sum(added) == size:
            yield tuple(row + more for row, more in zip(rows, added, strict=True) if row + more)


def _shapes(m: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Young diagrams with m boxes, as row lengths."""
    if m == 0:
        yield ()
    for first in range(min(m, m if largest is None else largest), 0, -1):
        for rest in _shapes(m - first, first):
            yield (first, *rest)


def _tableaux(shape: tuple[int, ...]) -> int:
    """The number of standard tableaux, by hook lengths."""
    columns = [sum(part > j for part in shape) for j in range(shape[0] if shape else 0)]
    hooks = (part - j + columns[j] - i - 1 for i, part in enumerate(shape) for j in range(part))
    return math.factorial(sum(shape)) // math.prod(hooks)


def _longest(values: list[int]) -> int:
    """Length of the longest increasing subsequence, by patience sorting."""
    tops: list[int] = []
    for value in values:
        place = bisect.bisect_left(tops, value)
        tops[place : place + 1] = [value]
    return len(tops)


def _descents(walk: list[int]) -> int:
    return sum(a > b for a, b in itertools.pairwise(walk))


def _partners(p: Partition) -> dict[int, int]:
    pairs = [block for block in blocks_of(p) if len(block) == 2]
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def _free(p: Partition) -> list[int]:
    return [block[0] for block in blocks_of(p) if len(block) == 1]


def _walk(
    first: dict[int, int], second: dict[int, int], vertices: range
) -> tuple[list[list[int]], list[list[int]]]:
    """The loops and open paths, as lists of vertices, that the arcs of both pairings make together."""
    left = dict.fromkeys(vertices)
    ends = [v for v in left if v not in first or v not in second]
    loops: list[list[int]] = []
    paths: list[list[int]] = []
    for start in [*ends, *list(left)]:
        if start not in left:
            continue
        walk, arcs, others, here = [], first, second, start
        if start in ends and start not in first:
            arcs, others = second, first
        while here in left:
            del left[here]
            walk.append(here)
            here = arcs.get(here, here)
            arcs, others = others, arcs
        (paths if start in ends else loops).append(walk)
    return loops, paths
