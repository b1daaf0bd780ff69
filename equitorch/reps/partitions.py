"""Set partitions: the diagrams of permutation groups, with their products, inner products and inversion.

A partition of m vertices is its restricted growth string: the block of each vertex, blocks counted in the
order of their first vertex. ``(0, 1, 0)`` joins vertices 0 and 2. A pairing is a partition too, with
blocks of two; see ``equitorch.reps.pairings``.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Partition: TypeAlias = tuple[int, ...]
Blocks: TypeAlias = tuple[tuple[int, ...], ...]


@functools.cache
def set_partitions(m: int, max_blocks: int | None = None) -> tuple[Partition, ...]:
    """All partitions of m vertices into at most ``max_blocks`` blocks, in lexicographic order.

    >>> set_partitions(3)
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2))
    """
    limit = m if max_blocks is None else max_blocks
    found: list[Partition] = [()]
    for _ in range(m):
        found = [(*p, b) for p in found for b in range(min(max(p, default=-1) + 2, limit))]
    return tuple(found)


def normal_form(labels: Sequence[Hashable]) -> Partition:
    """The partition that joins vertices of equal label.

    >>> normal_form("abca")
    (0, 1, 2, 0)
    """
    number: dict[Hashable, int] = {}
    return tuple(number.setdefault(label, len(number)) for label in labels)


def blocks_of(partition: Partition) -> Blocks:
    """The blocks as tuples of vertices, by first vertex.

    >>> blocks_of((0, 1, 0))
    ((0, 2), (1,))
    """
    blocks: list[list[int]] = [[] for _ in range(num_blocks(partition))]
    for vertex, block in enumerate(partition):
        blocks[block].append(vertex)
    return tuple(map(tuple, blocks))


def from_blocks(blocks: Sequence[Sequence[int]]) -> Partition:
    """The partition with the given blocks, in any order.

    >>> from_blocks([(1,), (2, 0)])
    (0, 1, 0)
    """
    label = {vertex: number for number, block in enumerate(blocks) for vertex in block}
    return normal_form([label[vertex] for vertex in range(len(label))])


def num_blocks(partition: Partition) -> int:
    """How many blocks there are."""
    return max(partition, default=-1) + 1


@functools.cache
def stirling2(m: int, t: int) -> int:
    """The number of partitions of m vertices into exactly t blocks."""
    if m == 0 or t == 0:
        return int(m == t)
    return t * stirling2(m - 1, t) + stirling2(m - 1, t - 1)


def bell(m: int) -> int:
    """The number of all partitions of m vertices.

    >>> [bell(m) for m in range(7)]
    [1, 1, 2, 5, 15, 52, 203]
    """
    return sum(stirling2(m, t) for t in range(m + 1))


def join(p: Partition, q: Partition) -> Partition:
    """The finest partition coarser than both."""
    return normal_form(_components(len(p), _edges(p) + _edges(q)))


def is_coarser(theta: Partition, pi: Partition) -> bool:
    """Whether every block of ``pi`` lies in one of ``theta``; a partition is coarser than itself."""
    return len(set(zip(pi, theta, strict=True))) == num_blocks(pi)


def coarsenings(pi: Partition) -> Iterator[Partition]:
    """All partitions whose blocks are unions of blocks of ``pi``, itself included."""
    for merge in set_partitions(num_blocks(pi)):
        yield tuple(merge[block] for block in pi)


def moebius(pi: Partition, theta: Partition) -> int:
    r"""The Moebius function of the lattice of partitions.

    .. math:: \mu(\pi, \theta) = \prod_{B \in \theta} (-1)^{b-1} (b-1)!

    for b the number of blocks of pi in B; zero unless theta is coarser than pi. It inverts
    ``D[pi] == sum(X[theta] for theta in coarsenings(pi))``.

    >>> moebius((0, 1, 2), (0, 0, 0))
    2
    """
    if not is_coarser(theta, pi):
        return 0
    merged = [block for _, block in set(zip(pi, theta, strict=True))]
    counts = [merged.count(block) for block in range(num_blocks(theta))]
    return math.prod((-1) ** (b - 1) * math.factorial(b - 1) for b in counts)


def compose(p: Partition, q: Partition, middle: int) -> tuple[Partition, int]:
    """The diagram of a product: D_p @ D_q == n**c * D_r; returns r and c.

    Args:
        p: vertices of the result, then ``middle`` ones.
        q: ``middle`` vertices, then those of the argument.
        middle: how many vertices meet.

    >>> compose((0, 1), (0, 1), 1)  # ones @ ones == n * ones
    ((0, 1), 1)
    """
    top, bottom = len(p) - middle, len(q) - middle
    if middle < 0 or top < 0 or bottom < 0:
        raise ValueError(f"compose expects {middle} vertices to meet, got diagrams of {len(p)} and {len(q)}")
    edges = _edges(p) + [(a + top, b + top) for a, b in _edges(q)]
    component = _components(top + middle + bottom, edges)
    outer = [*component[:top], *component[top + middle :]]
    return normal_form(outer), len(set(component) - set(outer))


def tensor_product(p: Partition, q: Partition, top: tuple[int, int]) -> Partition:
    """The diagram of the Kronecker product of D_p and D_q, which have top[0] and top[1] vertices in front.

    >>> tensor_product((0, 0), (0, 1), (1, 1))  # kron(identity, ones)
    (0, 1, 0, 2)
    """
    left, right = [(0, b) for b in p], [(1, b) for b in q]
    return normal_form(left[: top[0]] + right[: top[1]] + left[top[0] :] + right[top[1] :])


def partition_gram(p: Partition, q: Partition, n: int) -> int:
    """The inner product of D_p and D_q: n to the number of blocks of their join."""
    return int(n ** num_blocks(join(p, q)))


def partition_tensor(partition: Partition, n: int) -> NDArray[np.float64]:
    """D: one where indices agree inside every block. Shape (n, ..., n), float64.

    >>> partition_tensor((0, 0), 2)
    array([[1., 0.],
           [0., 1.]])
    """
    return _spread(partition, np.ones((n,) * num_blocks(partition)), n)


def orbit_tensor(partition: Partition, n: int) -> NDArray[np.float64]:
    """X: one where indices agree exactly inside blocks. Shape (n, ..., n), float64."""
    distinct = sign_values(num_blocks(partition), n) != 0
    return _spread(partition, distinct.astype(np.float64), n)


def sign_tensor(partition: Partition, n: int) -> NDArray[np.float64]:
    """J: the sign of the permutation that lists the values of the blocks, zero where two agree.

    Raises:
        ValueError: unless there are n or n - 1 blocks; with n - 1, the missing value is appended.

    >>> sign_tensor((0, 1), 3)[0]
    array([ 0.,  1., -1.])
    """
    if num_blocks(partition) not in (n, n - 1):
        raise ValueError(
            f"a sign diagram for n = {n} expects {n - 1} or {n} blocks, got {num_blocks(partition)}"
        )
    return _spread(partition, sign_values(num_blocks(partition), n), n)


@functools.cache
def sign_values(t: int, n: int) -> NDArray[np.float64]:
    """Signs of the lists of t distinct values, the missing ones appended in order. Shape (n,) * t."""
    table = np.zeros((n,) * t)
    for values in itertools.permutations(range(n), t):
        table[values] = permutation_sign([*values, *(v for v in range(n) if v not in values)])
    return table


def permutation_sign(values: Sequence[int]) -> int:
    """1 or -1: the parity of the number of inversions.

    >>> permutation_sign([1, 0, 2])
    -1
    """
    return (-1) ** sum(a > b for a, b in itertools.combinations(values, 2))


def _edges(partition: Partition, /) -> list[tuple[int, int]]:
    """Enough pairs of vertices to join the blocks."""
    first: dict[int, int] = {}
    return [(first.setdefault(block, vertex), vertex) for vertex, block in enumerate(partition)]


def _components(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """A label for the connected component of each vertex."""
    label = list(range(count))
    for a, b in edges:
        old, new = label[a], label[b]
        if old != new:
            label = [new if other == old else other for other in label]
    return label


def _spread(partition: Partition, values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """A tensor with one index for each vertex from one with an index for each block; zero elsewhere."""
    out = np.zeros((n,) * len(partition))
    index = np.indices(values.shape)
    out[tuple(index[block] for block in partition)] = values
    return out
