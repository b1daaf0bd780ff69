"""ANALYSIS, SYNTHESIS and the map between them on the CPU: all that belongs to a sample stays in cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import prange
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
    if x.ndim != 3 or weights[0].ndim != 5 or not x.shape[2] or not weights[0].shape[4]:
        return None
    channels, given = (x.shape[2], weights[0].shape[4]), [*weights, *([] if bias is None else [bias])]
    script = linear_script(key_in, key_out, n, form, *channels, bias is not None)
    if (x.shape[1], *[w.shape for w in given]) != script.expected:
        return None
    y = x.new_empty(x.shape[0], *script.shapes[0])
    x = _plain(x)
    _run(script, [x, y, *map(_plain, given)], y, scale)
    return y


def _plain(x: Tensor) -> Tensor:
    """With numbers in C order, as they are."""
    if x.is_contiguous() and not x.is_neg():
        return x
    return x.contiguous().resolve_neg()


def _run(script: Script, memory: list[Tensor], like: Tensor, scale: float) -> None:
    batch = like.shape[0]
    if not like.numel():
        return
    parts = min(batch, torch.get_num_threads())
    own = like.new_empty(script.shared + parts * script.scratch)
    start = own.data_ptr()
    addresses = [*[x.data_ptr() for x in memory], start, start + script.shared * like.itemsize]
    factors = np.array([1.0, -1.0, scale, -scale], dtype=_NUMPY[like.dtype])
    _execute(
        script.before,
        script.each,
        np.array(addresses),
        script.steps,
        factors,
        batch,
        script.scratch,
        parts,
        work=batch * script.work,
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
) = _INSTRUCTIONS


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
    else:
        _TILE1X1(row, there, here, weight, factor)


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
def _execute(before, each, addresses, steps, factors, batch, scratch, parts):
    pieces, size = addresses.size, factors.itemsize
    _follow(before, addresses, factors)
    for part in prange(parts):
        memory = np.empty(pieces, np.int64)
        for sample in range(part * batch // parts, (part + 1) * batch // parts):
            for piece in range(pieces):
                memory[piece] = addresses[piece] + sample * steps[piece] * size
            memory[pieces - 1] += part * scratch * size
            _follow(each, memory, factors)
