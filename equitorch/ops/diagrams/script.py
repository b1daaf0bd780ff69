"""ANALYSIS, MIX and SYNTHESIS of one sample as a list of simple instructions.

The instructions are those of ``instructions.py``.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equitorch.ops.diagrams.instructions import AXES, JOINED, Axis, Instructions, Place
from equitorch.ops.diagrams.instructions import OPERATIONS as OPERATIONS
from equitorch.ops.diagrams.program import without_whole
from equitorch.ops.diagrams.reference import reading
from equitorch.reps.diagram_plan import Plan

_LARGE = 1 << 12  # numbers of a sample that does not stay in the nearest cache
_WIDE = 256  # numbers of a long row


class Script(NamedTuple):
    """Instructions, and the memory that they need.

    Attributes:
        before: instructions to be done once.
        each: instructions for each sample.
        steps: for each piece of memory, how far it is from one sample to the next.
        scratch: numbers of the last piece of memory, for intermediate results.
        shared: numbers of the one before the last, kept from ``before``.
        shapes: of the results for a sample.
        expected: of a map: rows of the input, shapes of the weights.
        work: additions and multiplications for a sample.
    """

    before: NDArray[np.int64]
    each: NDArray[np.int64]
    steps: NDArray[np.int64]
    scratch: int
    shared: int
    shapes: tuple[tuple[int, ...], ...]
    expected: tuple[int | tuple[int, ...], ...]
    work: int


@functools.lru_cache(maxsize=512)
def analysis_script(key: str, n: int, channels: int, form: str) -> Script:
    """From memory 0, the tensor, to memory 1, 2, .., a sector each."""
    shapes = _shapes(key, n, channels)
    writer = _Writer()
    sectors = [(1 + number, 0) for number in range(len(shapes))]
    scratch = writer.analysis(key, n, channels, form, (0, 0), sectors, (len(shapes) + 2, 0))
    return writer.script([n ** _order(key) * channels, *map(math.prod, shapes)], scratch, 0, shapes)


@functools.lru_cache(maxsize=512)
def synthesis_script(key: str, n: int, channels: int, form: str) -> Script:
    """From memory 1, 2, .., a sector each, to memory 0, the tensor."""
    shapes = _shapes(key, n, channels)
    writer = _Writer()
    sectors = [(1 + number, 0) for number in range(len(shapes))]
    scratch = writer.synthesis(key, n, channels, form, (0, 0), sectors, (len(shapes) + 2, 0), 2)
    whole = (n ** _order(key), channels)
    return writer.script([math.prod(whole), *map(math.prod, shapes)], scratch, 0, (whole,))


@functools.lru_cache(maxsize=512)
def linear_script(
    key_in: str, key_out: str, n: int, form: str, channels_in: int, channels_out: int, biased: bool
) -> Script:
    """From memory 0, the input, and memory 2, 3, .., weights and a bias, to memory 1, the output."""
    rest, whole = without_whole(key_in)
    lower, upper = _shapes(key_in, n, channels_in), _shapes(key_out, n, channels_out)
    names = [word.rstrip("<>") for word in key_in.split("|")[1:]]
    weights = [word.rstrip("<>") for word in key_out.split("|")[1:]]
    shared = 2 + len(weights) + biased
    scratch = shared + 1
    writer, size = _Writer(), 0
    places: dict[str, Place] = {}
    for name, itself, shape in zip(names, whole, lower, strict=True):
        places[name] = (0, 0) if itself else (scratch, size)
        size += 0 if itself else math.prod(shape)
    found = [places[name] for name, itself in zip(names, whole, strict=True) if not itself]
    size += writer.analysis(rest, n, channels_in, form, (0, 0), found, (scratch, size))
    mixed, packed, work = [], 0, 0
    expected: list[int | tuple[int, ...]] = [n ** _order(key_in)]
    sectors, constant = reading(key_out)[0].sectors, (0, channels_out)
    for number, (word, shape) in enumerate(zip(key_out.split("|")[1:], upper, strict=True)):
        below = lower[names.index(weights[number])]
        depth, columns, permutations = math.prod(below[1:]), math.prod(shape[1:]), _permutations(word)
        times = permutations if word.endswith(">") else 1
        each, halves = columns // times, below[1] * times // permutations
        expected.append((permutations, halves, channels_in, each // channels_out, channels_out))
        axes = [(depth, columns, each), (times, each, depth * each)]
        writer.before.move("put", (shared, packed), (2 + number, 0), each, axes)
        writer.each.product(
            (scratch, size), places[weights[number]], (shared, packed), shape[0], depth, columns
        )
        if biased and sectors[number].rank + sectors[number].alternating == 0:
            writer.each.move("add", (scratch, size), (shared - 1, 0), columns, [])
            constant = (columns // channels_out, channels_out)
        mixed.append((scratch, size))
        packed, size = packed + depth * columns, size + shape[0] * columns
        work += shape[0] * depth * columns
    size += writer.synthesis(key_out, n, channels_out, form, (1, 0), mixed, (scratch, size), 0)
    whole_out = (n ** _order(key_out), channels_out)
    steps = [n ** _order(key_in) * channels_in, math.prod(whole_out), *[0] * (len(weights) + biased)]
    expected += [constant] if biased else []
    return writer.script(steps, size, packed, (whole_out,), tuple(expected), work)


class _Writer:
    """Collects instructions."""

    def __init__(self) -> None:
        self.before, self.each = Instructions(), Instructions()

    def script(
        self,
        steps: Sequence[int],
        scratch: int,
        shared: int,
        shapes: tuple[tuple[int, ...], ...],
        expected: tuple[int | tuple[int, ...], ...] = (),
        work: int = 0,
    ) -> Script:
        moved = np.array([*steps, 0, 0], dtype=np.int64)
        work += 2 * sum(steps) + 100
        return Script(self.before.table(), self.each.table(), moved, scratch, shared, shapes, expected, work)

    def analysis(
        self, key: str, n: int, channels: int, form: str, tensor: Place, sectors: list[Place], scratch: Place
    ) -> int:
        """All halves; returns how much scratch memory that takes."""
        plan, views = reading(key)
        large = n * channels > _WIDE  # then sums of whole rows are worth a copy
        apart = {i for i, (_, labels) in enumerate(plan.reductions, 1) if large and labels[-1] >= 0}
        places, size = _places(plan, views, sectors, n, channels, tensor, scratch, apart)
        for number, (source, labels) in enumerate(plan.reductions, start=1):
            (memory, offset), strides = places[source]
            place, there = places[number]
            axes = [(n, a, b) for a, b in zip(there, _strides(labels, strides), strict=True)][::-1]
            for part, (positive, count, start, stride) in enumerate(_sums(labels, strides, n, form)):
                factor = 2 if positive else 3
                kind = "more" if part else "sum"
                self.each.move(
                    kind, place, (memory, offset + start), channels, axes, factor, (count, 0, stride)
                )
        for sector, group, (memory, offset) in zip(plan.sectors, views, sectors, strict=True):
            there = _c_order(sector.rank + sector.alternating, n, len(group) * channels)
            for half, (source, labels) in enumerate(group):
                to, (origin, strides) = (memory, offset + half * channels), places[source]
                if to != origin:
                    axes = [(n, a, b) for a, b in zip(there, _strides(labels, strides), strict=True)][::-1]
                    self.each.move("put", to, origin, channels, axes)
        return size

    def synthesis(
        self,
        key: str,
        n: int,
        channels: int,
        form: str,
        tensor: Place,
        sectors: list[Place],
        scratch: Place,
        scale: int,
    ) -> int:
        """The transpose of ``analysis``, with 2 as ``scale``; or 0 for none, and with sectors for scratch."""
        plan, views = reading(key)
        apart = range(1 + len(plan.reductions)) if scale else ()
        places, size = _places(plan, views, sectors, n, channels, tensor, scratch, apart)
        if size:
            self.each.move("fill", scratch, scratch, size, [])
        dense: list[tuple[Place, list[int], int]] = []
        sparse: list[tuple[Place, Place, list[Axis], int]] = []
        for sector, group, (memory, offset) in zip(plan.sectors, views, sectors, strict=True):
            here = _c_order(sector.rank + sector.alternating, n, len(group) * channels)
            for half, (source, labels) in enumerate(group):
                origin, (to, strides) = (memory, offset + half * channels), places[source]
                if sector.rank == plan.order:
                    dense.append((origin, [here[label] for label in labels], 0))
                elif to != origin:
                    axes = [(n, a, b) for a, b in zip(_strides(labels, strides), here, strict=True)][::-1]
                    if source:
                        self.each.move("add", to, origin, channels, axes)
                    else:
                        sparse.append((tensor, origin, axes, 0))
        for number in range(len(plan.reductions), 0, -1):
            source, labels = plan.reductions[number - 1]
            (memory, offset), strides = places[source]
            place, here = places[number]
            if not source and not form and labels.count(-1) == 1:
                dense.append((place, [here[a] if a >= 0 else 0 for a in labels], scale))
                continue
            axes = [(n, a, b) for a, b in zip(_strides(labels, strides), here, strict=True)][::-1]
            for positive, count, start, stride in _sums(labels, strides, n, form):
                every = [(count, stride, 0), *axes]
                factor = scale if positive else scale + 1
                move = ((memory, offset + start), place, every, factor)
                if source:
                    self.each.move("add", *move[:2], channels, every, factor)
                else:
                    sparse.append(move)
        self._dense(dense, tensor, n, channels, plan.order)
        for to, origin, axes, factor in sparse:
            self.each.move("add", to, origin, channels, axes, factor)
        return size

    def _dense(
        self, terms: list[tuple[Place, list[int], int]], tensor: Place, n: int, channels: int, order: int
    ) -> None:
        """What is added to every entry of the tensor, row by row if the tensor is large."""
        there = _c_order(order, n, channels)
        if not terms:
            self.each.move("fill", tensor, tensor, n**order * channels, [])
            return
        if 2 <= len(terms) <= JOINED and order < AXES and not any(factor for _, _, factor in terms):
            self.each.join(
                tensor, [origin for origin, _, _ in terms], channels, n, there, [h for _, h, _ in terms]
            )
            return
        by_rows = order > 1 and n**order * channels > _LARGE
        first = len(self.each.rows)
        for number, (origin, here, factor) in enumerate(terms):
            axes = [(n, a, b) for a, b in zip(there, here, strict=True)][::-1]
            begin = len(self.each.rows)
            kept = axes[:-1] if by_rows else axes
            self.each.move("add" if number else "put", tensor, origin, channels, kept, factor)
            if by_rows:
                for row in self.each.rows[begin:]:
                    row[17:19] = axes[-1][1:]
        if by_rows:
            self.each.rows[first][15:17] = [len(self.each.rows) - first, n]


def _order(key: str) -> int:
    return int(key.split("|")[0])


def _permutations(word: str) -> int:
    return math.prod(math.factorial(int(count)) for count in word.split(":")[1].split(","))


def _shapes(key: str, n: int, channels: int) -> tuple[tuple[int, int, int], ...]:
    """Rows, halves and channels of each sector."""
    plan, views = reading(key)
    ranks = [sector.rank + sector.alternating for sector in plan.sectors]
    return tuple([(n**rank, len(group), channels) for rank, group in zip(ranks, views, strict=True)])


def _places(
    plan: Plan,
    views: Sequence[Sequence[tuple[int, Sequence[int]]]],
    sectors: Sequence[Place],
    n: int,
    channels: int,
    tensor: Place,
    scratch: Place,
    apart: Container[int],
) -> tuple[list[tuple[Place, list[int]]], int]:
    """Where the tensor and the result of each reduction are, with strides; and how much scratch that takes.

    A result that is a half as it is needs none, unless it is among those ``apart``, or rows are short.
    """
    halves: dict[int, tuple[Place, list[int]]] = {}
    for sector, group, (memory, offset) in zip(plan.sectors, views, sectors, strict=True):
        strides = _c_order(sector.rank + sector.alternating, n, len(group) * channels)
        for half, (source, labels) in enumerate(group):
            if source not in apart and channels >= 8 and [*labels] == [*range(len(strides))]:
                halves.setdefault(source, ((memory, offset + half * channels), strides))
    places, size = [(tensor, _c_order(plan.order, n, channels))], 0
    for number, rank in enumerate(plan.ranks()[1:], start=1):
        if number in halves:
            places.append(halves[number])
        else:
            places.append(((scratch[0], scratch[1] + size), _c_order(rank, n, channels)))
            size += n**rank * channels
    return places, size


def _c_order(rank: int, n: int, row: int) -> list[int]:
    return [row * n ** (rank - 1 - axis) for axis in range(rank)]


def _strides(labels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The stride of each axis of a view: the sum over the axes that have its label."""
    found = [0] * (max(labels, default=-1) + 1)
    for label, stride in zip(labels, strides, strict=True):
        if label >= 0:
            found[label] += stride
    return found


def _sums(
    labels: Sequence[int], strides: Sequence[int], n: int, form: str
) -> list[tuple[bool, int, int, int]]:
    """What is summed: sign, how many entries, the first of them, the stride from one to the next."""
    strides = [s for label, s in zip(labels, strides, strict=True) if label < 0]
    both, half = sum(strides), n // 2
    if form == "Sp:block":
        return [(True, half, half * strides[1], both), (False, half, half * strides[0], both)]
    if form == "Sp:interleaved":
        return [(True, half, strides[1], 2 * both), (False, half, strides[0], 2 * both)]
    found = re.fullmatch(r"O\((\d+),\s*(\d+)\)", form)
    if found is None:
        return [(True, n, 0, both)]
    positive = int(found[1])
    return [(True, positive, 0, both), (False, n - positive, positive * both, both)]
