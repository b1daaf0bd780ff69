r"""Diagrams cut at their through strands, and the plan that reads all lower halves off one tensor.

A diagram from k inputs to l outputs is a lower half, a permutation and an upper half. A half is a partition
of its own vertices whose blocks are marked: a *through* block goes on to the other side, a *closed* one is
summed over (below) or copied to (above), an *alternating* one is an index of a Levi-Civita symbol.
Through block i of the upper half meets through block sigma[i] of the lower one. All maps of a pair of
sectors together are

    ANALYSIS   z[h]: (batch, n, ..., n, channels) for each lower half h, d axes
    MIX        one matrix product: (batch n^d, d! lower channels_in) to (batch n^d, upper channels_out)
    SYNTHESIS  the transpose of ANALYSIS, for the upper halves

Five kinds of halves, and the groups that they serve:

    "partition"  through and closed blocks of any size                      S; and A, with "sign"
    "even"       closed blocks of even size; strands join equal parities    B
    "pairing"    single through vertices, closed pairs                      O, Sp, O(p,q); and SO, with "free"
    "sign"       through and alternating blocks of any size, none closed    A
    "free"       single through and alternating vertices, closed pairs      SO, SO(p,q)

**Layout.** The tensor that a plan reads has an axis of size n for each vertex: x (batch, n, .., n, channels)
is a free view of (batch, n^k, channels). ``Plan.reductions`` are done in their order: number r reads
``buffers[source]`` and makes ``buffers[r + 1]``; ``buffers[0]`` is x. Labels say what becomes of each axis of
the source: axes with equal labels are read along their common diagonal, label -1 is summed over, label
a >= 0 is axis a of the result. Each reduction closes one block, so that a scale for each closed block is one
factor for each reduction. For pairings exactly two axes have the label -1, the smaller vertex first, and the
sum is ``sum_ab form[a, b] x[.. a .. b ..]`` with the form of the group: the identity, eta or Omega.
``Plan.views`` say how each half is seen in a buffer, with labels again, none of them -1: a strided view,
never a copy. Axes 0..d-1 of a half are its through blocks, those after them its alternating blocks, each in
order of first vertex (kind "even": odd blocks before even ones).

**MIX** for weights W[sigma, lower, upper]: ``y[upper][i_0 .. i_(d-1)] += W z[lower][j]`` with
``j[sigma[a]] = i[a]``, that is, ``z.permute(sigma)``. With alternating blocks, a Levi-Civita symbol turns the
alternating axes of z to those of y. Kind "free": ``sum_b eps[a.., b..] z[i.., b..]``, a the upper ones (each
raised with the inverse form for SO(p,q)), b the lower ones. Kind "sign": through axes stand in the symbol
too, and are not summed over: ``upper.parity * sum_b eps[i.., a.., b..] z[i.., b..]``; where there are but
n - 1 blocks, one more index of the symbol is summed over.

**SYNTHESIS** by the plan of the upper halves, from its end: add each half along its view into a zeroed
buffer; then for reductions from the last to the first, add ``buffers[r + 1]``, repeated along the diagonal
of the summed axes (times the form), into ``buffers[source]``; ``buffers[0]`` is the result.

**Order.** Halves of a sector are sorted by (restricted growth string, marks of the blocks), marks 0 closed,
1 through, 2 alternating; permutations are in lexicographic order; pairs of sectors as ``sector_pairs`` lists
them. Weights are stored in this order; it never changes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
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


class Reduction(NamedTuple):
    """One sum of ANALYSIS: see the module.

    Attributes:
        source: the buffer it reads.
        labels: for each axis of the source, the axis of the result, or -1 where it is summed over.
    """

    source: int
    labels: tuple[int, ...]


class View(NamedTuple):
    """Where a half is found: see the module.

    Attributes:
        source: the buffer.
        labels: for each axis of the buffer, the axis of the half.
    """

    source: int
    labels: tuple[int, ...]


class Plan(NamedTuple):
    """ANALYSIS of a tensor with ``order`` axes; read backwards, SYNTHESIS. Contains no n.

    Attributes:
        order: number of axes of the tensor.
        sectors: those asked for, in that order.
        halves: of each sector.
        reductions: the sums, each after what it reads.
        views: for each sector and half, where to find it.
    """

    order: int
    sectors: tuple[Sector, ...]
    halves: tuple[tuple[Half, ...], ...]
    reductions: tuple[Reduction, ...]
    views: tuple[tuple[View, ...], ...]

    @property
    def key(self) -> str:
        """A string that ``plan_of_key`` makes the plan from; custom ops take it as an argument.

        >>> analysis_plan(2, (Sector("partition", (1,)), Sector("sign", (0,), 2))).key
        '2|partition:1:0|sign:0:2'
        """
        words = [f"{s.kind}:{','.join(map(str, s.through))}:{s.alternating}" for s in self.sectors]
        return "|".join([str(self.order), *words])

    def ranks(self) -> tuple[int, ...]:
        """Number of axes of each buffer, x first."""
        ranks = [self.order]
        for reduction in self.reductions:
            ranks.append(max(reduction.labels, default=-1) + 1)
        return tuple(ranks)


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
    above = set(sectors(kind, order_out))
    pairs = [(sector, sector) for sector in sectors(kind, order_in) if sector in above]
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


@functools.cache
def analysis_plan(order: int, wanted: tuple[Sector, ...]) -> Plan:
    """The cheapest way to all halves of the wanted sectors: each distinct sum once, from the smallest tensor.

    A sum over a block of a tensor with d other axes reads n^(d+1) numbers, whichever block is last; so every
    distinct set of closed blocks is made once, from one of those with a block less.

    >>> plan = analysis_plan(2, sectors("partition", 2))
    >>> [tuple(reduction) for reduction in plan.reductions]  # sum over rows, trace, over columns, total
    [(0, (-1, 0)), (0, (-1, -1)), (0, (0, -1)), (1, (-1,))]
    """
    made = tuple(halves(order, sector) for sector in wanted)
    parents = _parents({half.closed for group in made for half in group})
    number: dict[Blocks, int] = {(): 0}
    reductions = []
    for closed in sorted(parents, key=lambda blocks: (len(blocks), blocks)):
        parent = parents[closed]
        number[closed] = len(number)
        reductions.append(Reduction(number[parent], _labels(order, parent, _remaining(order, closed))))
    views = tuple(
        tuple(
            View(number[half.closed], _labels(order, half.closed, half.through + half.alternating))
            for half in group
        )
        for group in made
    )
    return Plan(order, wanted, made, tuple(reductions), views)


def plan_of_key(key: str) -> Plan:
    """The plan with this ``Plan.key``.

    >>> plan_of_key("2|partition:1:0").key
    '2|partition:1:0'
    """
    order, *words = key.split("|")
    wanted = []
    for word in words:
        kind, through, alternating = word.split(":")
        wanted.append(Sector(kind, tuple(map(int, through.split(","))), int(alternating)))
    return analysis_plan(int(order), tuple(wanted))


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


def _parents(wanted: set[Blocks]) -> dict[Blocks, Blocks]:
    """What each set of closed blocks is made from; sets that are needed anyway are preferred."""
    levels: list[set[Blocks]] = [set() for _ in range(max(map(len, wanted), default=0) + 1)]
    for closed in wanted:
        levels[len(closed)].add(closed)
    parents = {}
    for level in range(len(levels) - 1, 0, -1):
        below = levels[level - 1]
        for closed in sorted(levels[level]):
            options = [closed[:i] + closed[i + 1 :] for i in range(level)]
            sizes = [(options[i] not in below, len(closed[i]), -i) for i in range(level)]
            parents[closed] = options[min(range(level), key=sizes.__getitem__)]
            below.add(parents[closed])
    return parents


def _labels(order: int, closed: Blocks, blocks: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """For each vertex that is not in ``closed``, which of ``blocks`` it is in, or -1."""
    label = [-1] * order
    for number, block in enumerate(blocks):
        for vertex in block:
            label[vertex] = number
    gone = {vertex for block in closed for vertex in block}
    return tuple([label[vertex] for vertex in range(order) if vertex not in gone])


def _remaining(order: int, closed: Blocks) -> list[tuple[int, ...]]:
    gone = {vertex for block in closed for vertex in block}
    return [(vertex,) for vertex in range(order) if vertex not in gone]
