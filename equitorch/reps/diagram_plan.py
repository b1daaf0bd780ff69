r"""The plan that reads all halves of diagrams off one tensor with few sums, and writes them back.

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
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from equitorch.reps.halves import Half, Sector, halves
from equitorch.reps.partitions import Blocks


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
def analysis_plan(order: int, wanted: tuple[Sector, ...]) -> Plan:
    """The cheapest way to all halves of the wanted sectors: each distinct sum once, from the smallest tensor.

    A sum over a block of a tensor with d other axes reads n^(d+1) numbers, whichever block is last; so every
    distinct set of closed blocks is made once, from one of those with a block less.

    >>> from equitorch.reps.halves import sectors
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
