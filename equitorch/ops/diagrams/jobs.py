"""ANALYSIS and SYNTHESIS as a few launches of a kernel that adds up what belongs to each entry of a result.

Nothing here depends on n: where something begins is a polynomial in n, by its coefficients, and a stride is a
power of n. Places count rows, which are all channels of an entry.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from equitorch.ops.diagrams.reference import reading
from equitorch.reps.diagram_plan import Plan

TENSOR, SCRATCH, PARTS, SECTORS = 0, 1, 2, 3  # numbers of pieces of memory; a sector each from the last on
_TOGETHER = 32  # jobs of one launch
_INLINE = 2  # terms of a buffer that are added again wherever it is read, so that it need not be made

Polynomial = tuple[int, ...]


class Place(NamedTuple):
    """Where a buffer of a sample is: the piece of memory, the first row, how far apart its rows are."""

    memory: int
    first: Polynomial
    step: int


class Term(NamedTuple):
    """Entries of a buffer that are added to those of a result.

    Attributes:
        place: of the buffer.
        axes: for each axis of the buffer the axis of the result, or -1 where it is summed over.
        equal: pairs of axes of the result whose indices have to be equal.
        joined: pairs of axes of the result that are joined by the form, whose entry is a factor.
        scale: the power of the scale that is a factor.
        parts: 0; or how many sums there are of which each row is cut in parts, ``place.first`` being which.
    """

    place: Place
    axes: tuple[int, ...]
    equal: tuple[tuple[int, int], ...] = ()
    joined: tuple[tuple[int, int], ...] = ()
    scale: int = 0
    parts: int = 0


class Job(NamedTuple):
    """A buffer with ``rank`` axes, as a sum of terms: one that is summed over, or any that are not."""

    place: Place
    rank: int
    terms: tuple[Term, ...]

    @property
    def summed(self) -> bool:
        """Whether it is a sum over an index."""
        return any(term.parts or -1 in term.axes for term in self.terms)


class Level(NamedTuple):
    """Jobs of one launch; a kernel keeps a named tuple as it is."""

    jobs: tuple[Job, ...]


class Sizes(NamedTuple):
    """Rows of a sample in each piece of memory."""

    rows: tuple[Polynomial, ...]


class AxisSums(NamedTuple):
    """Sums of the tensor over each of two or three neighbouring axes, in one pass.

    Attributes:
        order: number of axes of the tensor.
        axis: the first of them.
        places: of the sums over each; ``SKIP`` where it is not asked for.
    """

    order: int
    axis: int
    places: tuple[Place, ...]


class Launches(NamedTuple):
    """What is computed, one launch after the other.

    Attributes:
        axes: first.
        levels: then these, jobs that are done together.
        sizes: of memory.
        slots: how many sums are cut in parts.
    """

    axes: tuple[AxisSums, ...]
    levels: tuple[Level, ...]
    sizes: Sizes
    slots: int


SKIP = Place(-1, (0,), 1)


@functools.lru_cache(maxsize=256)
def analysis_launches(key: str, form: str, split: bool, wide: bool) -> Launches:
    """From the tensor to its sectors.

    Args:
        key: which halves.
        form: what pairs are contracted with.
        split: whether an axis is too long for one program, so that sums over it come in parts.
        wide: whether sectors have the precision that sums are computed in; else no sum is read from there.

    >>> launches = analysis_launches("2|partition:0:0|partition:1:0", "", False, True)
    >>> [len(level.jobs) for level in launches.levels]  # diagonal, trace, total; before, sums over axes
    [3]
    """
    plan, views = reading(key)
    places, scratch = _analysis_places(plan, key, wide)
    passes = _axis_passes(plan, form)
    fused = [number for _, numbers in passes for number in numbers if number]
    depth, levels = {0: 0}, dict[int, list[Job]]()
    for number, ((source, labels), rank) in enumerate(
        zip(plan.reductions, plan.ranks()[1:], strict=True), start=1
    ):
        depth[number] = depth[source] + 1
        term = Term(places[source], labels, scale=1)
        if number in fused:
            depth[number] = int(split)
            slot = Place(PARTS, (fused.index(number),), 1)
            term = Term(slot, tuple(range(rank)), scale=1, parts=len(fused))
        if depth[number]:
            levels.setdefault(depth[number], []).append(Job(places[number], rank, (term,)))
    for sector, group in enumerate(views):
        for half, (source, labels) in enumerate(group):
            to = Place(SECTORS + sector, (half,), len(group))
            if places[source] != to:
                job = Job(to, max(labels, default=-1) + 1, (Term(places[source], labels),))
                levels.setdefault(depth[source] + 1, []).append(job)
    axes = []
    for axis, numbers in passes:
        cut = [Place(PARTS, (fused.index(b),), 1) if b and split else places[b] for b in numbers]
        found = [place if b else SKIP for b, place in zip(numbers, cut, strict=True)]
        axes.append(AxisSums(plan.order, axis, tuple(found)))
    ordered = [levels[level] for level in sorted(levels)]
    return Launches(tuple(axes), _divided(ordered), _sizes(key, scratch), len(fused))


@functools.lru_cache(maxsize=256)
def synthesis_launches(key: str, form: str) -> Launches:
    """From the sectors to the tensor, each entry of which is written once.

    >>> (level,) = synthesis_launches("2|partition:0:0|partition:1:0|partition:2:0>", "").levels
    >>> [(job.rank, len(job.terms)) for job in level.jobs]
    [(2, 7)]
    """
    plan, views = reading(key)
    ranks = plan.ranks()
    terms: list[list[Term]] = [[] for _ in ranks]
    height = [0] * len(ranks)
    levels, scratch = dict[int, list[Job]](), list[int]()
    for sector, group in enumerate(views):
        for half, (source, labels) in enumerate(group):
            place = Place(SECTORS + sector, (half,), len(group))
            terms[source].append(_spread(place, labels))
    for number in range(len(plan.reductions), 0, -1):
        source, labels = plan.reductions[number - 1]
        found = terms[number]
        if len(found) > _INLINE:
            place = _allot(scratch, ranks[number])
            levels.setdefault(height[number], []).append(Job(place, ranks[number], tuple(found)))
            height[number] += 1
            found = [Term(place, tuple(range(ranks[number])))]
        height[source] = max(height[source], height[number])
        terms[source] += [_repeated(term, labels, form) for term in found]
    ordered = [levels[level] for level in sorted(levels)]
    if terms[0]:
        ordered.append([Job(Place(TENSOR, (0,), 1), plan.order, tuple(terms[0]))])
    return Launches((), _divided(ordered), _sizes(key, scratch), 0)


def evaluate(polynomial: Iterable[int], n: int) -> int:
    """The value of a polynomial.

    >>> evaluate((1, 0, 2), 5)
    51
    """
    return sum(coefficient * n**power for power, coefficient in enumerate(polynomial))


def _analysis_places(plan: Plan, key: str, wide: bool) -> tuple[list[Place], list[int]]:
    """Of the tensor and of each sum, in a sector where that is a half, and the scratch memory it takes."""
    places = {0: Place(TENSOR, (0,), 1)}
    read = {reduction.source for reduction in plan.reductions}
    for sector, group in enumerate(reading(key).views):
        for half, (source, labels) in enumerate(group):
            if labels == tuple(range(len(labels))) and (wide or source not in read):
                places.setdefault(source, Place(SECTORS + sector, (half,), len(group)))
    scratch: list[int] = []
    for number, rank in enumerate(plan.ranks()):
        if number not in places:
            places[number] = _allot(scratch, rank)
    return [places[number] for number in range(len(places))], scratch


def _allot(scratch: list[int], rank: int) -> Place:
    """The next n ** rank rows of scratch memory."""
    place = Place(SCRATCH, tuple(scratch) or (0,), 1)
    scratch += [0] * (rank + 1 - len(scratch))
    scratch[rank] += 1
    return place


def _axis_passes(plan: Plan, form: str) -> list[tuple[int, list[int]]]:
    """Neighbouring axes of the tensor over which sums are taken in one pass: the first, the sums' numbers."""
    wanted: dict[int, int] = {}
    for number, (source, labels) in enumerate(plan.reductions, start=1):
        if source == 0 and not form and labels.count(-1) == 1:
            wanted[labels.index(-1)] = number
    passes, axis = [], 0
    while plan.order - axis > 1:
        count = 2 if plan.order - axis in (2, 4) else 3
        numbers = [wanted.get(a, 0) for a in range(axis, axis + count)]
        if sum(map(bool, numbers)) > 1:
            passes.append((axis, numbers))
        axis += count
    return passes


def _spread(place: Place, labels: Sequence[int]) -> Term:
    """A half, where its buffer's axes of equal label agree."""
    axes = tuple([labels.index(label) for label in range(max(labels, default=-1) + 1)])
    equal = [(labels.index(label), axis) for axis, label in enumerate(labels) if labels.index(label) != axis]
    return Term(place, axes, tuple(equal))


def _repeated(term: Term, labels: Sequence[int], form: str) -> Term:
    """A term of a sum as one of what was summed, by the labels of that."""

    def moved(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(labels.index(a), labels.index(b)) for a, b in pairs]

    axes = tuple([labels.index(axis) for axis in term.axes])
    first, *others = [axis for axis, label in enumerate(labels) if label < 0]
    fresh = [(first, other) for other in others]
    equal, joined = moved(term.equal), moved(term.joined)
    if form:
        joined += fresh
    else:
        equal += fresh
    return Term(term.place, axes, tuple(equal), tuple(joined), term.scale + 1)


def _divided(levels: Iterable[Sequence[Job]]) -> tuple[Level, ...]:
    return tuple(
        Level(tuple(jobs[start : start + _TOGETHER]))
        for jobs in levels
        for start in range(0, len(jobs), _TOGETHER)
    )


def _sizes(key: str, scratch: list[int]) -> Sizes:
    plan, views = reading(key)
    sectors = [
        (*[0] * (sector.rank + sector.alternating), len(group))
        for sector, group in zip(plan.sectors, views, strict=True)
    ]
    return Sizes(((*[0] * plan.order, 1), tuple(scratch) or (0,), (0,), *sectors))
