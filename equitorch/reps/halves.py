"""Diagrams cut at their through strands: all maps of a group from few halves, without a list of diagrams.

A diagram from k inputs to l outputs is a lower half, a permutation and an upper half. A half is a partition
of its own vertices whose blocks are marked: a *through* block goes on to the other side, a *closed* one is
summed over (below) or copied to (above), an *alternating* one is an index of a Levi-Civita symbol.
Through block i of the upper half meets through block sigma[i] of the lower one. All maps of a pair of
sectors together are

    ANALYSIS   z[h]: (batch, n, ..., n, channels) for each lower half h, d axes
    MIX        one matrix product: (batch n^d, d! lower channels_in) to (batch n^d, upper channels_out)
    SYNTHESIS  the transpose of ANALYSIS, for the upper halves

and ``equitorch.reps.diagram_plan`` says how, step by step.

Five kinds of halves, and the groups that they serve:

    "partition"  through and closed blocks of any size                      S; and A, with "sign"
    "even"       closed blocks of even size; strands join equal parities    B
    "pairing"    single through vertices, closed pairs                      O, Sp, O(p,q); and SO, with "free"
    "sign"       through and alternating blocks of any size, none closed    A
    "free"       single through and alternating vertices, closed pairs      SO, SO(p,q)

**Order.** Halves of a sector are sorted by (restricted growth string, marks of the blocks), marks 0 closed,
1 through, 2 alternating; permutations are in lexicographic order; pairs of sectors as ``sector_pairs`` lists
them. Weights are stored in this order; it never changes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from equitorch.reps.pairings import pairings
from equitorch.reps.partitions import (
    Blocks,
    Partition,
    blocks_of,
    from_blocks,
    permutation_sign,
    set_partitions,
    stirling2,
)

_KIND: dict[str, tuple[str, str]] = {
    "S": ("partition", ""),
    "A": ("partition", "sign"),
    "B": ("even", ""),
    "O": ("pairing", ""),
    "SO": ("pairing", "free"),
    "Sp": ("pairing", ""),
}


class Sector(NamedTuple):
    """Which strands leave a half.

    Attributes:
        kind: of the half; see the module.
        through: how many through blocks; for "even" how many odd ones and how many even ones.
        alternating: how many alternating blocks; 0 except for "sign" and "free".

    >>> Sector("partition", (2,)).permutations
    ((0, 1), (1, 0))
    """

    kind: str
    through: tuple[int, ...]
    alternating: int = 0

    @property
    def rank(self) -> int:
        """Number of through axes, d."""
        return sum(self.through)

    @property
    def permutations(self) -> tuple[tuple[int, ...], ...]:
        """The ways to join the strands to those of another half, in lexicographic order."""
        return _permutations(self.through)


class Half(NamedTuple):
    """One half of a diagram: marked blocks of the vertices 0..order-1.

    Attributes:
        order: number of vertices.
        through: blocks that go on to the other half, as axes of z count them.
        closed: blocks that are summed over or copied to.
        alternating: blocks that are indices of a Levi-Civita symbol.
    """

    order: int
    through: Blocks
    closed: Blocks
    alternating: Blocks = ()

    @property
    def partition(self) -> Partition:
        """The restricted growth string of all blocks."""
        return from_blocks(self.through + self.closed + self.alternating)

    @property
    def parity(self) -> int:
        """Sign of the permutation that sorts through, then alternating blocks by first vertex."""
        return permutation_sign([block[0] for block in self.through + self.alternating])


@functools.cache
def halves(order: int, sector: Sector) -> tuple[Half, ...]:
    """All halves of a sector, in the order in which weights are stored.

    >>> [half.closed for half in halves(2, Sector("partition", (1,)))]
    [(), ((0,),), ((1,),)]
    """
    return tuple(_halves(order, sector))


@functools.cache
def count_halves(order: int, sector: Sector) -> int:
    """The length of ``halves``, without making them where there is a formula."""
    d, a = sector.rank, sector.alternating
    if sector.kind in ("pairing", "free"):
        rest = order - d - a
        if rest < 0 or rest % 2:
            return 0
        return math.comb(order, rest) * math.comb(d + a, a) * math.prod(range(rest - 1, 0, -2))
    if sector.kind == "sign":
        return stirling2(order, d + a) * math.comb(d + a, a)
    if sector.kind == "partition":
        return sum(stirling2(order, j) * math.comb(j, d) for j in range(d, order + 1))
    return len(halves(order, sector))


def sectors(kind: str, order: int) -> tuple[Sector, ...]:
    """The sectors of ``kind`` without alternating blocks that have halves of this order, ranks ascending.

    >>> [sector.through for sector in sectors("pairing", 3)]
    [(1,), (3,)]
    """
    if kind == "even":
        found = [Sector(kind, (odd, d - odd)) for d in range(order + 1) for odd in range(d + 1)]
    else:
        found = [Sector(kind, (d,)) for d in range(order + 1)]
    return tuple(sector for sector in found if count_halves(order, sector))


@functools.cache
def sector_pairs(group: str, n: int, order_out: int, order_in: int) -> tuple[tuple[Sector, Sector], ...]:
    """Which sectors of outputs and inputs together make all the diagrams of a group.

    Args:
        group: a family: "S", "A", "B", "O", "SO" or "Sp"; O(p,q) and SO(p,q) are like O and SO.
        n: dimension; the extra diagrams of A and SO depend on it, nothing else.
        order_out: number of outputs, l.
        order_in: number of inputs, k.

    Raises:
        ValueError: if the group is not known.

    >>> [upper.through for upper, lower in sector_pairs("S", 8, 2, 2)]
    [(0,), (1,), (2,)]
    """
    if group not in _KIND:
        raise ValueError(f"sector_pairs knows {', '.join(_KIND)}, got {group!r}")
    kind, extra = _KIND[group]
    small, large = sorted((order_out, order_in))
    pairs = [(sector, sector) for sector in sectors(kind, small) if count_halves(large, sector)]
    if not extra or (group == "A" and n < 2):
        return tuple(pairs)
    for d in range(min(order_out, order_in) + 1):
        wholes = [n] if extra == "free" else [n - 1 - d, n - d]
        for whole, up in itertools.product(wholes, range(order_out - d + 1)):
            upper, lower = (Sector(extra, (d,), a) for a in (up, whole - up))
            if whole >= up and count_halves(order_out, upper) and count_halves(order_in, lower):
                pairs.append((upper, lower))
    return tuple(pairs)


def join_halves(upper: Half, permutation: tuple[int, ...], lower: Half) -> Partition:
    """The whole diagram, outputs first: a partition of the l + k vertices.

    >>> join_halves(Half(1, ((0,),), ()), (0,), Half(2, ((1,),), ((0,),)))
    (0, 1, 0)
    """
    label = [-1] * (upper.order + lower.order)
    blocks = upper.through + upper.closed + upper.alternating
    for number, block in enumerate(blocks):
        for vertex in block:
            label[vertex] = number
    strands = [lower.through[j] for j in permutation]
    for number, block in enumerate(strands):
        for vertex in block:
            label[upper.order + vertex] = number
    for number, block in enumerate(lower.closed + lower.alternating, start=len(blocks)):
        for vertex in block:
            label[upper.order + vertex] = number
    seen: dict[int, int] = {}
    return tuple([seen.setdefault(number, len(seen)) for number in label])


def _halves(order: int, sector: Sector) -> Iterator[Half]:
    kind, d, a = sector.kind, sector.rank, sector.alternating
    if kind not in ("partition", "even", "pairing", "sign", "free"):
        raise ValueError(f"halves knows partition, even, pairing, sign and free, got {kind!r}")
    if kind in ("pairing", "free"):
        for partition in pairings(order, d + a):
            blocks = blocks_of(partition)
            single = tuple(block for block in blocks if len(block) == 1)
            pairs = tuple(block for block in blocks if len(block) == 2)
            for chosen, rest in _chosen(len(single), a):
                yield Half(order, _pick(single, rest), pairs, _pick(single, chosen))
        return
    for partition in set_partitions(order):
        blocks = blocks_of(partition)
        if kind == "sign":
            if len(blocks) == d + a:
                for chosen, rest in _chosen(len(blocks), a):
                    yield Half(order, _pick(blocks, rest), (), _pick(blocks, chosen))
        elif kind == "partition":
            for chosen, rest in _chosen(len(blocks), d):
                yield Half(order, _pick(blocks, chosen), _pick(blocks, rest))
        else:
            odd = tuple(block for block in blocks if len(block) % 2)
            even = tuple(block for block in blocks if len(block) % 2 == 0)
            if len(odd) == sector.through[0]:
                for chosen, rest in _chosen(len(even), sector.through[1]):
                    yield Half(order, odd + _pick(even, chosen), _pick(even, rest))


@functools.cache
def _chosen(count: int, size: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Subsets of given size and what they leave, so that their 0/1 masks ascend."""
    subsets = reversed(list(itertools.combinations(range(count), size)))
    return tuple((subset, tuple(i for i in range(count) if i not in subset)) for subset in subsets)


def _pick(blocks: Blocks, positions: Iterable[int]) -> Blocks:
    return tuple([blocks[i] for i in positions])


@functools.cache
def _permutations(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Permutations of sum(sizes) things that keep consecutive groups of these sizes, lexicographic."""
    found: list[tuple[int, ...]] = [()]
    for size in sizes:
        start = len(found[0])
        found = [p + q for p in found for q in itertools.permutations(range(start, start + size))]
    return tuple(found)
