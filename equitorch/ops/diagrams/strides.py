"""A reading as tables of strides, for kernels that walk through memory.

Tensors are flat, channels innermost. A *step* is one reduction and a *place* is one half; every number in
the tables is one of int64, counted in numbers (not bytes).
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equitorch.ops.diagrams.reference import form_entries, reading

_MOST_AXES = 8
STEP, PLACE, TERM = 7 + 2 + _MOST_AXES, 7 + 2 + _MOST_AXES, 3 + 2 + _MOST_AXES
"""Numbers in a row of a table."""


class Strides(NamedTuple):
    """Tables for one reading, dimension and number of channels.

    A source is the tensor (0) or scratch memory (1). *Dense* are whatever SYNTHESIS adds to every entry of
    the tensor: it does so in one pass, by ``terms``. *Outer axes* are their number, the number of entries
    that they have together, and their strides.

    Attributes:
        steps: for each reduction: source, offset there, offset of the result in scratch, length of the inner
            run, strides of the first and second summed index, dense; then outer axes.
        places: for each half: source, offset there, sector, offset in a row, dense, length and stride of the
            last axis; then outer axes.
        terms: for each dense place (source 0, the whole sector) or step (source 1): source, offset there,
            stride of the last axis of the tensor; then its outer axes.
        sectors: for each sector: its halves, which are side by side in a row, and rows of a sample.
        form: for each index the other index that a form pairs it with, and the entry of the form there.
        whole: the first sector whose halves are permutations of the tensor itself, or -1.
        scratch: numbers of scratch memory for a sample.
        order: axes of the tensor.
        code: all of this in one array, as ``unpack`` in ``cpu.py`` reads it.
    """

    steps: NDArray[np.int64]
    places: NDArray[np.int64]
    terms: NDArray[np.int64]
    sectors: NDArray[np.int64]
    form: NDArray[np.int64]
    whole: int
    scratch: int
    order: int
    code: NDArray[np.int64]


@functools.lru_cache(maxsize=512)
def strides(key: str, n: int, channels: int, form: str) -> Strides:
    """The tables of a reading."""
    plan, views = reading(key)
    sizes = [n**rank * channels for rank in plan.ranks()[1:]]
    starts = [0, *itertools.accumulate(sizes, initial=0)]
    steps, places, terms, sectors = [], [], [], []
    whole = next((i for i, sector in enumerate(plan.sectors) if sector.rank == plan.order), -1)
    for number, (sector, group) in enumerate(zip(plan.sectors, views, strict=True)):
        rank, row = sector.rank + sector.alternating, len(group) * channels
        sectors.append([len(group), n**rank])
        for half, (source, labels) in enumerate(group):
            axes, place = _merged(labels, n, channels, rank), half * channels
            where = [int(source > 0), starts[source], number, place, int(number == whole)]
            places.append([*where, *_last(axes, n), *_outer(axes[:-1], n)])
            if number == whole:
                axes = [row * n ** (rank - 1 - label) for label in labels]
                terms.append([0, place, _last(axes, n)[1], *_outer(axes[:-1], n)])
    for number, (source, labels) in enumerate(plan.reductions, start=1):
        dense = not form and source == 0 and labels.count(-1) == 1
        where = [int(source > 0), starts[source], starts[number]]
        run, one, two, *axes = _step(labels, n, channels, form)
        steps.append([*where, run, one, two, int(dense), *_outer(axes, n)])
        if dense:
            rank = plan.order - 1
            axes = [channels * n ** (rank - 1 - label) if label >= 0 else 0 for label in labels]
            terms.append([1, starts[number], axes[-1], *_outer(axes[:-1], n)])
    _, partner, sign = form_entries(form, n)
    tables = (
        _table(steps, STEP),
        _table(places, PLACE),
        _table(terms, TERM),
        _table(sectors, 2),
        np.array([partner, sign], dtype=np.int64).T,
    )
    head = [n, channels, n**plan.order * channels, plan.order, sum(sizes), whole, *map(len, tables[:4])]
    code = np.concatenate([head, *(table.reshape(-1) for table in tables)])
    return Strides(*tables, whole, sum(sizes), plan.order, code)


def _table(rows: list[list[int]], width: int) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _step(labels: tuple[int, ...], n: int, channels: int, form: str) -> list[int]:
    """Inner run, strides of the summed indices and of the outer axes."""
    rank = max(labels, default=-1) + 1
    axes = _merged(labels, n, channels, rank)
    each = [channels * n ** (len(labels) - 1 - axis) for axis, label in enumerate(labels) if label < 0]
    summed = each if form else [sum(each), 0]
    run = channels
    while axes and axes[-1] == run:
        axes.pop()
        run *= n
    return [run, *summed, *axes]


def _merged(labels: tuple[int, ...], n: int, channels: int, rank: int) -> list[int]:
    """The stride of each axis of a view: the sum over the axes that have its label."""
    found = [0] * rank
    for axis, label in enumerate(labels):
        if label >= 0:
            found[label] += channels * n ** (len(labels) - 1 - axis)
    return found


def _last(axes: list[int], n: int) -> list[int]:
    """Length and stride of the last axis, if there is one."""
    return [n, axes[-1]] if axes else [1, 0]


def _outer(axes: list[int], n: int) -> list[int]:
    """How many axes, how many entries, the stride of each."""
    if len(axes) > _MOST_AXES:
        raise ValueError(
            f"diagrams have at most {_MOST_AXES + 1} indices on a side here, got {len(axes) + 1}"
        )
    return [len(axes), n ** len(axes), *axes, *[0] * (_MOST_AXES - len(axes))]
