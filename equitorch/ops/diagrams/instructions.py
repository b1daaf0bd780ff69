"""Simple instructions for kernels that walk memory: rows of numbers moved, summed and multiplied.

An instruction moves rows of numbers from one piece of memory to another, along axes with a stride on either
side. It is a row of integers; offsets and strides count numbers, not bytes.

    0           what to do: ``OPERATIONS.index((kind, lanes))``
    1, 2        where to: number of a piece of memory, offset in it
    3, 4        where from
    5           which factor: 0, 1 for 1, -1; 2, 3 for the scale and its opposite
    6 .. 14     three axes, innermost first: length, stride there, stride here
    15, 16      on the first of a group: how many instructions it has, and how often they are done
    17, 18      how far it moves from one time to the next, there and here
    19, 20      how many more axes there are, and how many entries they have
    21, 22      where the weight of a tile is
    23 ..       those axes, as above

Kinds: "put", "add" (to what is there), "sum" (over the innermost axis, then put), "more" (the same, added),
"fill" (zeros); "join2" .. "join4": the sum of that many rows is put, with 23 .. 27 the number of a piece of
memory, the offset and the strides of the second, and so on; and "tile": rows of a matrix product, with 6 .. 8
the lengths of rows there, here and of the weight, 9 the depth, 10 how many tiles there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

OPERATIONS = [(kind, lanes) for kind in ("put", "add", "sum", "more", "fill") for lanes in (1, 8, 16, 32)]
OPERATIONS += [("tile", rows * 100 + lanes) for rows, lanes in ((4, 32), (8, 16), (8, 8), (8, 1))]
OPERATIONS += [("tile", 100 + lanes) for lanes in (32, 16, 8, 1)]
OPERATIONS += [(f"join{count}", lanes) for count in (2, 3, 4) for lanes in (1, 8, 16, 32)]
AXES, JOINED = 3, 4  # at most, of an instruction that joins
_MORE = 5
WIDTH = 23 + 3 * _MORE

Axis = tuple[int, int, int]
Place = tuple[int, int]


class Instructions:
    """A list of instructions that grows."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def table(self) -> NDArray[np.int64]:
        """All of them. Shape (count, WIDTH)."""
        return np.array(self.rows, dtype=np.int64).reshape(len(self.rows), WIDTH)

    def move(
        self,
        kind: str,
        to: Place,
        origin: Place,
        size: int,
        axes: Sequence[Axis],
        factor: int = 0,
        summed: Axis | None = None,
    ) -> None:
        """Rows of ``size`` numbers along ``axes``, innermost first; as many instructions as it takes."""
        left = [axis for axis in axes if axis[0] != 1]
        while left and left[0][1] == left[0][2] == size:
            size *= left.pop(0)[0]
        done = 0
        for lanes in (32, 16, 8, 1):
            count = (size - done) // lanes
            if not count or (lanes in (16, 8) and count > 1):
                continue
            inner = [(count, lanes, lanes)] if count > 1 else []
            every = [*([summed] if summed else []), *inner, *left]
            row = [OPERATIONS.index((kind, lanes)), to[0], to[1] + done, origin[0], origin[1] + done, factor]
            self.rows.append(_row(row, every))
            done += count * lanes

    def join(
        self, to: Place, origins: Sequence[Place], size: int, n: int, there: list[int], here: list[list[int]]
    ) -> None:
        """The sum of tensors with n entries along each axis of these strides, in rows of ``size`` numbers."""
        left = [(n, *strides) for strides in zip(there, *here, strict=True)][::-1]
        while left and n > 1 and set(left[0][1:]) == {size}:
            size *= left.pop(0)[0]
        done = 0
        for lanes in (32, 16, 8, 1):
            count = (size - done) // lanes
            inner = [(count, *[lanes] * (1 + len(here)))] if count > 1 else []
            if not count or (lanes in (16, 8) and count > 1):
                continue
            axes = [*inner, *left] + [(1, *[0] * (1 + len(here)))] * (AXES - len(left) - len(inner))
            (memory, offset), *others = origins
            kind = OPERATIONS.index((f"join{len(here)}", lanes))
            row = [kind, to[0], to[1] + done, memory, offset + done, 0]
            row = _finished([*row, *(number for axis in axes for number in axis[:3])])
            for place, (memory, offset) in enumerate(others):
                strides = [axis[3 + place] for axis in axes]
                row[23 + 5 * place : 28 + 5 * place] = [memory, offset + done, *strides]
            self.rows.append(row)
            done += count * lanes

    def product(self, to: Place, origin: Place, weight: Place, rows: int, depth: int, columns: int) -> None:
        """A matrix product, tile by tile."""
        done = 0
        while done < columns:
            lanes = next(lanes for lanes in (32, 16, 8, 1) if done + lanes <= columns)
            tall = 4 if lanes == 32 else 8
            for start, height in ((0, tall), (rows // tall * tall, 1)):
                count = (rows - start) // height
                if count:
                    places = [to[0], to[1] + start * columns + done, origin[0], origin[1] + start * depth, 0]
                    sizes = [columns, depth, columns, depth, count]
                    row = [OPERATIONS.index(("tile", height * 100 + lanes)), *places, *sizes]
                    self.rows.append(_finished(row))
                    self.rows[-1][21:23] = [weight[0], weight[1] + done]
            done += lanes


def _row(row: list[int], axes: Sequence[Axis]) -> list[int]:
    inner, more = list(axes[:AXES]), axes[AXES:]
    if len(more) > _MORE:
        raise ValueError(f"diagrams have at most {AXES + _MORE - 1} indices on a side here")
    inner += [(1, 0, 0)] * (AXES - len(inner))
    row = _finished([*row, *(number for axis in inner for number in axis)])
    row[19:21] = [len(more), math.prod(axis[0] for axis in more)]
    row[23 : 23 + 3 * len(more)] = [number for axis in more for number in axis]
    return row


def _finished(row: list[int]) -> list[int]:
    row = row + [0] * (WIDTH - len(row))
    row[15:17], row[20] = [1, 1], 1
    return row
