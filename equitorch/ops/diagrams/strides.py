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

MOST_AXES = 8
"""Outer axes that a row of a table has room for."""


class Strides(NamedTuple):
    """Tables for one reading, dimension and number of channels.

    A source is the tensor (0) or scratch memory (1). *Dense* are whatever SYNTHESIS adds to every entry of
    the tensor: it does so in one pass, by ``terms``.

    Attributes:
        steps: for each reduction: source, offset there, offset of the result in scratch, outer axes, length
            of the inner run, strides of the first and second summed index, dense, strides of outer axes.
        places: for each half: source, offset there, sector, offset in a row, dense, axes, their strides.
        terms: for each dense place (source 0, the whole sector) or step (source 1): source, offset there,
            strides of the axes of the tensor.
        sectors: for each sector: numbers in a row, which holds all halves, and rows of a sample.
        whole: the first sector whose halves are permutations of the tensor itself, or -1.
        partner: for each index the other index that a form pairs it with.
        sign: the entry of the form there.
        scratch: numbers of scratch memory for a sample.
        order: axes of the tensor.
    """

    steps: NDArray[np.int64]
    places: NDArray[np.int64]
    terms: NDArray[np.int64]
    sectors: NDArray[np.int64]
    whole: int
    partner: NDArray[np.int64]
    sign: NDArray[np.float64]
    scratch: int
    order: int


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
        sectors.append([row, n**rank])
        for half, (source, labels) in enumerate(group):
            axes = _merged(labels, n, channels, rank)
            place = half * channels
            where = [int(source > 0), starts[source]]
            places.append([*where, number, place, int(number == whole), rank, *_padded(axes)])
            if number == whole:
                terms.append([0, place, *_padded([row * n ** (rank - 1 - label) for label in labels])])
    for number, (source, labels) in enumerate(plan.reductions, start=1):
        dense = not form and source == 0 and labels.count(-1) == 1
        where = [int(source > 0), starts[source], starts[number]]
        outer, run, one, two, *axes = _step(labels, n, channels, form)
        steps.append([*where, outer, run, one, two, int(dense), *_padded(axes)])
        if dense:
            rank = plan.order - 1
            kept = [channels * n ** (rank - 1 - label) if label >= 0 else 0 for label in labels]
            terms.append([1, starts[number], *_padded(kept)])
    _, partner, sign = form_entries(form, n)
    return Strides(
        _table(steps, 8 + MOST_AXES),
        _table(places, 6 + MOST_AXES),
        _table(terms, 2 + MOST_AXES),
        _table(sectors, 2),
        whole,
        np.array(partner, dtype=np.int64),
        np.array(sign, dtype=np.float64),
        sum(sizes),
        plan.order,
    )


def _table(rows: list[list[int]], width: int) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)


def _step(labels: tuple[int, ...], n: int, channels: int, form: str) -> list[int]:
    """Outer axes, inner run, strides of the summed indices and of the outer axes."""
    rank = max(labels, default=-1) + 1
    axes = _merged(labels, n, channels, rank)
    each = [channels * n ** (len(labels) - 1 - axis) for axis, label in enumerate(labels) if label < 0]
    summed = each if form else [sum(each), 0]
    run = channels
    while axes and axes[-1] == run:
        axes.pop()
        run *= n
    return [len(axes), run, *summed, *axes]


def _merged(labels: tuple[int, ...], n: int, channels: int, rank: int) -> list[int]:
    """The stride of each axis of a view: the sum over the axes that have its label."""
    found = [0] * rank
    for axis, label in enumerate(labels):
        if label >= 0:
            found[label] += channels * n ** (len(labels) - 1 - axis)
    return found


def _padded(axes: list[int]) -> list[int]:
    if len(axes) > MOST_AXES:
        raise ValueError(f"diagrams have halves with at most {MOST_AXES} axes here, got {len(axes)}")
    return axes + [0] * (MOST_AXES - len(axes))
