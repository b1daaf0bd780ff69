"""ANALYSIS, SYNTHESIS and the map between them on the CPU: all that belongs to a sample stays in cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from equitorch.ops.diagrams.script import (
    OPERATIONS,
    Script,
    analysis_script,
    linear_script,
    synthesis_script,
)
from equitorch.ops.diagrams.vectors import instruction
from equitorch.ops.numba_jit import jit_pair, jit_part

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
_LINE = 64  # bytes, as processors fetch them


def analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    """Same contract as ``reference.analysis``."""
    script = analysis_script(key, n, x.shape[2], form)
    out = [x.new_empty(x.shape[0], *shape) for shape in script.shapes]
    x = _plain(x)
    _run(script, [x, *out], x, scale)
    return out


def synthesis(zs: Sequence[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    """Same contract as ``reference.synthesis``."""
    script = synthesis_script(key, n, zs[0].shape[3], form)
    y = zs[0].new_empty(zs[0].shape[0], *script.shapes[0])
    _run(script, [y, *map(_plain, zs)], y, scale)
    return y


def linear(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    key_in: str,
    key_out: str,
    n: int,
    form: str,
    scale: float,
) -> Tensor | None:
    """The map of ``diagram_linear`` for one input and one output without symbols; None if shapes are wrong.

    Args:
        x: the input. Shape (batch, n ** order, channels_in).
        weights: one for each sector that both keys have.
        bias: of the upper halves of rank 0, or None.
        key_in: the lower halves.
        key_out: the upper halves.
        n: dimension.
        form: of the group.
        scale: a factor for each closed block of a lower half.
    """
    found = prepared(weights, bias, key_in, key_out, n, form, scale)
    return None if found is None else found.run(x)


class Prepared(NamedTuple):
    """The map of ``linear`` with its weights, for any number of features.

    Nothing in it is written to, so any number of threads can run it. It reads the weights at each call.

    Attributes:
        script: what is done.
        weights: and bias; others' memory.
        addresses: of the pieces of memory, with the first two, input and output, left open.
        factors: of instructions.
        shape: of the feature of a sample.
        dtype: of all numbers.
    """

    script: Script
    weights: list[Tensor]
    addresses: NDArray[np.int64]
    factors: NDArray[Any]
    shape: tuple[int, int]
    dtype: torch.dtype

    def run(self, x: Tensor) -> Tensor | None:
        """The map; None if the shape is wrong. Shape (batch, *shape) -> (batch, *script.shapes[0])."""
        script, _, addresses, factors, shape, dtype = self
        if x.ndim != 3 or x.dtype is not dtype:
            return None
        batch, rows, channels = x.shape
        if (rows, channels) != shape:
            return None
        y = x.new_empty(batch, *script.shapes[0])  # a tuple would take longer
        x, addresses = _plain(x), addresses.copy()
        addresses[0], addresses[1] = x.data_ptr(), y.data_ptr()
        _launch(script, addresses, factors, batch)
        return y


def prepared(
    weights: Sequence[Tensor],
    bias: Tensor | None,
    key_in: str,
    key_out: str,
    n: int,
    form: str,
    scale: float,
) -> Prepared | None:
    """``linear`` with these weights; None if there are no channels, or their shapes are wrong."""
    if weights[0].ndim != 5 or not weights[0].shape[2] or not weights[0].shape[4]:
        return None
    channels, given = weights[0].shape[2::2], [*weights] if bias is None else [*weights, bias]
    script = linear_script(key_in, key_out, n, form, *channels, bias is not None)
    if tuple([w.shape for w in given]) != script.expected[1:]:
        return None
    rows, given, dtype = script.expected[0], [_plain(w) for w in given], weights[0].dtype
    assert isinstance(rows, int)
    addresses = np.array([0, 0, *[w.data_ptr() for w in given]])
    return Prepared(script, given, addresses, _factors(scale, dtype), (rows, channels[0]), dtype)


def _plain(x: Tensor) -> Tensor:
    """With numbers in C order, as they are."""
    if x.is_contiguous() and not x.is_neg():
        return x
    return x.contiguous().resolve_neg()


def _run(script: Script, memory: list[Tensor], like: Tensor, scale: float) -> None:
    if like.numel():
        addresses = np.array([x.data_ptr() for x in memory])
        _launch(script, addresses, _factors(scale, like.dtype), like.shape[0])


def _factors(scale: float, dtype: torch.dtype) -> NDArray[Any]:
    return np.array([1.0, -1.0, scale, -scale], dtype=_NUMPY[dtype])


def _launch(script: Script, addresses: NDArray[np.int64], factors: NDArray[Any], batch: int) -> None:
    parts = min(batch, torch.get_num_threads())
    if not parts:
        return
    own = np.empty(script.shared + parts * script.scratch + _LINE // factors.itemsize, factors.dtype)
    sizes = script.shared, script.scratch
    _execute(
        script.before,
        script.each,
        addresses,
        script.steps,
        factors,
        own,
        *sizes,
        batch,
        parts,
        work=batch * script.work,
        kind=factors.dtype,
    )


_INSTRUCTIONS = tuple(instruction(kind, lanes) for kind, lanes in OPERATIONS)
(
    _PUT1,
    _PUT8,
    _PUT16,
    _PUT32,
    _ADD1,
    _ADD8,
    _ADD16,
    _ADD32,
    _SUM1,
    _SUM8,
    _SUM16,
    _SUM32,
    _MORE1,
    _MORE8,
    _MORE16,
    _MORE32,
    _FILL1,
    _FILL8,
    _FILL16,
    _FILL32,
    _TILE4X32,
    _TILE8X16,
    _TILE8X8,
    _TILE8X1,
    _TILE1X32,
    _TILE1X16,
    _TILE1X8,
    _TILE1X1,
    _JOIN2X1,
    _JOIN2X8,
    _JOIN2X16,
    _JOIN2X32,
    _JOIN3X1,
    _JOIN3X8,
    _JOIN3X16,
    _JOIN3X32,
    _JOIN4X1,
    _JOIN4X8,
    _JOIN4X16,
    _JOIN4X32,
) = _INSTRUCTIONS
_JOIN = OPERATIONS.index(("join2", 1))


@jit_part
def _join(what, row, there, here, memory, factor):
    """One of those that put sums."""
    if what == 28:
        _JOIN2X1(row, there, here, memory, factor)
    elif what == 29:
        _JOIN2X8(row, there, here, memory, factor)
    elif what == 30:
        _JOIN2X16(row, there, here, memory, factor)
    elif what == 31:
        _JOIN2X32(row, there, here, memory, factor)
    elif what == 32:
        _JOIN3X1(row, there, here, memory, factor)
    elif what == 33:
        _JOIN3X8(row, there, here, memory, factor)
    elif what == 34:
        _JOIN3X16(row, there, here, memory, factor)
    elif what == 35:
        _JOIN3X32(row, there, here, memory, factor)
    elif what == 36:
        _JOIN4X1(row, there, here, memory, factor)
    elif what == 37:
        _JOIN4X8(row, there, here, memory, factor)
    elif what == 38:
        _JOIN4X16(row, there, here, memory, factor)
    else:
        _JOIN4X32(row, there, here, memory, factor)


@jit_part
def _do(what, row, there, here, weight, factor):
    """One instruction."""
    if what < 8:
        if what == 0:
            _PUT1(row, there, here, weight, factor)
        elif what == 1:
            _PUT8(row, there, here, weight, factor)
        elif what == 2:
            _PUT16(row, there, here, weight, factor)
        elif what == 3:
            _PUT32(row, there, here, weight, factor)
        elif what == 4:
            _ADD1(row, there, here, weight, factor)
        elif what == 5:
            _ADD8(row, there, here, weight, factor)
        elif what == 6:
            _ADD16(row, there, here, weight, factor)
        else:
            _ADD32(row, there, here, weight, factor)
    elif what < 16:
        if what == 8:
            _SUM1(row, there, here, weight, factor)
        elif what == 9:
            _SUM8(row, there, here, weight, factor)
        elif what == 10:
            _SUM16(row, there, here, weight, factor)
        elif what == 11:
            _SUM32(row, there, here, weight, factor)
        elif what == 12:
            _MORE1(row, there, here, weight, factor)
        elif what == 13:
            _MORE8(row, there, here, weight, factor)
        elif what == 14:
            _MORE16(row, there, here, weight, factor)
        else:
            _MORE32(row, there, here, weight, factor)
    elif what < 20:
        if what == 16:
            _FILL1(row, there, here, weight, factor)
        elif what == 17:
            _FILL8(row, there, here, weight, factor)
        elif what == 18:
            _FILL16(row, there, here, weight, factor)
        else:
            _FILL32(row, there, here, weight, factor)
    elif what == 20:
        _TILE4X32(row, there, here, weight, factor)
    elif what == 21:
        _TILE8X16(row, there, here, weight, factor)
    elif what == 22:
        _TILE8X8(row, there, here, weight, factor)
    elif what == 23:
        _TILE8X1(row, there, here, weight, factor)
    elif what == 24:
        _TILE1X32(row, there, here, weight, factor)
    elif what == 25:
        _TILE1X16(row, there, here, weight, factor)
    elif what == 26:
        _TILE1X8(row, there, here, weight, factor)
    elif what == 27:
        _TILE1X1(row, there, here, weight, factor)
    else:
        _join(what, row, there, here, weight, factor)


@jit_part
def _follow(script, memory, factors):
    """The instructions of a script, group by group."""
    size, start = factors.itemsize, np.int64(script.ctypes.data)
    width = script.shape[1] * 8
    first = 0
    while first < script.shape[0]:
        count, times = script[first, 15], script[first, 16]
        for time in range(times):
            for number in range(first, first + count):
                what, row = script[number, 0], start + number * width
                there = memory[script[number, 1]] + (script[number, 2] + time * script[number, 17]) * size
                here = memory[script[number, 3]] + (script[number, 4] + time * script[number, 18]) * size
                factor = factors[script[number, 5]]
                weight = memory[script[number, 21]] + script[number, 22] * size
                if what >= _JOIN:
                    weight = np.int64(memory.ctypes.data)
                for entry in range(script[number, 20]):
                    rest, away, back = entry, 0, 0
                    for axis in range(script[number, 19]):
                        place = 23 + 3 * axis
                        index = rest % script[number, place]
                        rest //= script[number, place]
                        away += index * script[number, place + 1]
                        back += index * script[number, place + 2]
                    _do(what, row, there + away * size, here + back * size, weight, factor)
        first += count


@jit_pair
def _execute(before, each, addresses, steps, factors, own, shared, scratch, batch, parts):
    """A script for all samples; ``own`` is its memory, for what is kept and for each part."""
    pieces, size = steps.size, factors.itemsize
    whole = np.empty(pieces, np.int64)
    whole[: pieces - 2] = addresses
    whole[pieces - 2] = (own.ctypes.data + _LINE - 1) // _LINE * _LINE
    whole[pieces - 1] = whole[pieces - 2] + shared * size
    _follow(before, whole, factors)
    for part in prange(parts):
        memory = np.empty(pieces, np.int64)
        for sample in range(part * batch // parts, (part + 1) * batch // parts):
            for piece in range(pieces):
                memory[piece] = whole[piece] + sample * steps[piece] * size
            memory[pieces - 1] += part * scratch * size
            _follow(each, memory, factors)
