"""ANALYSIS and SYNTHESIS on the CPU: sample by sample, so that all that belongs to a sample stays in cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from equitorch.ops.diagrams.strides import Strides, strides
from equitorch.ops.numba_jit import array, jit_pair, jit_part

_FUSE = ("contract", "reassoc", "nsz")


def analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    """Same contract as ``reference.analysis``; results may share one piece of memory."""
    batch, size, channels = x.shape
    table = strides(key, n, channels, form)
    shapes = [(batch, rows, row) for row, rows in table.sectors.tolist()]
    flat = x.new_empty(sum(b * rows * row for b, rows, row in shapes))
    if flat.numel():
        analyse(array(x).reshape(-1), flat.numpy(), table, n, channels, scale)
    parts = flat.split([b * rows * row for b, rows, row in shapes])
    counts = [shape[2] // channels if channels else 0 for shape in shapes]
    return [part.view(*shape[:2], h, channels) for part, shape, h in zip(parts, shapes, counts, strict=True)]


def synthesis(zs: list[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    """Same contract as ``reference.synthesis``."""
    batch, channels = zs[0].shape[0], zs[0].shape[3]
    table = strides(key, n, channels, form)
    y = zs[0].new_empty(batch, n**table.order, channels)
    if y.numel():
        rest = [z.reshape(-1) for number, z in enumerate(zs) if number != table.whole]
        small = torch.cat(rest) if len(rest) > 1 else rest[0] if rest else zs[0].new_empty(0)
        large = array(zs[table.whole]).reshape(-1) if table.whole >= 0 else _nothing(y)
        synthesise(large, array(small), y.numpy().reshape(-1), table, n, channels, scale)
    return y


def analyse(x: Any, out: Any, table: Strides, n: int, channels: int, scale: float) -> None:
    """``analysis`` from a flat array to a flat array, sector after sector."""
    tables = table.steps, table.places, table.sectors, table.partner, table.sign
    size = n**table.order * channels
    _analyse(x, out, *tables, n, channels, size, table.scratch, scale, work=4 * x.size)


def synthesise(
    large: Any, small: Any, y: Any, table: Strides, n: int, channels: int, scale: float
) -> None:
    """``synthesis`` from flat arrays: the whole sector, and the others one after the other."""
    tables = table.steps, table.places, table.terms, table.sectors, table.partner, table.sign
    size = n**table.order * channels
    _synthesise(
        large, small, y, *tables, table.whole, n, channels, size, table.order, table.scratch, scale, work=4 * y.size
    )


def _nothing(like: Tensor) -> Any:
    return like.new_empty(0).numpy()


def _block(width: int, kind: str) -> Any:
    """An instruction on ``width`` numbers at once: "put", "add", or "sum" over ``count`` blocks."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_value_type(signature.args[0].dtype)
        vector = ir.VectorType(element, width)
        size = context.get_abi_sizeof(element)
        dst, d, src, s, coefficient, step, count = arguments

        def address(value: Any, kind: Any, index: Any) -> Any:
            data = context.make_array(kind)(context, builder, value).data
            return builder.bitcast(builder.gep(data, [index]), ir.PointerType(vector))

        factor = ir.Constant(vector, ir.Undefined)
        for lane in range(width):
            factor = builder.insert_element(factor, coefficient, ir.Constant(ir.IntType(32), lane))
        into = address(dst, signature.args[0], d)
        if kind == "sum":
            total = cgutils.alloca_once(builder, vector)
            builder.store(ir.Constant(vector, [0.0] * width), total)
            with cgutils.for_range(builder, count) as loop:
                index = builder.add(s, builder.mul(loop.index, step))
                value = builder.load(address(src, signature.args[2], index), align=size)
                builder.store(builder.fadd(builder.load(total), value, flags=_FUSE), total)
            value = builder.load(total)
        else:
            value = builder.load(address(src, signature.args[2], s), align=size)
        value = builder.fmul(value, factor, flags=_FUSE)
        if kind != "put":
            value = builder.fadd(value, builder.load(into, align=size), flags=_FUSE)
        builder.store(value, into, align=size)
        return context.get_dummy_value()

    @intrinsic
    def block(typingctx, dst, d, src, s, coefficient, step, count):
        return types.void(dst, types.int64, src, types.int64, dst.dtype, types.int64, types.int64), emit

    return block


_PUT16, _PUT8 = _block(16, "put"), _block(8, "put")
_ADD16, _ADD8 = _block(16, "add"), _block(8, "add")
_SUM16, _SUM8 = _block(16, "sum"), _block(8, "sum")


@jit_part
def _put(dst, d, src, s, size, coefficient):
    """``dst[d : d + size] = coefficient * src[s : s + size]``."""
    q = 0
    while q + 16 <= size:
        _PUT16(dst, d + q, src, s + q, coefficient, 0, 0)
        q += 16
    if q + 8 <= size:
        _PUT8(dst, d + q, src, s + q, coefficient, 0, 0)
        q += 8
    while q < size:
        dst[d + q] = coefficient * src[s + q]
        q += 1


@jit_part
def _add(dst, d, src, s, size, coefficient):
    """``dst[d : d + size] += coefficient * src[s : s + size]``."""
    q = 0
    while q + 16 <= size:
        _ADD16(dst, d + q, src, s + q, coefficient, 0, 0)
        q += 16
    if q + 8 <= size:
        _ADD8(dst, d + q, src, s + q, coefficient, 0, 0)
        q += 8
    while q < size:
        dst[d + q] += coefficient * src[s + q]
        q += 1


@jit_part
def _sum(dst, d, src, s, size, coefficient, step, count):
    """``dst[d : d + size] += coefficient * sum_t src[s + t step : s + t step + size]``."""
    q = 0
    while q + 16 <= size:
        _SUM16(dst, d + q, src, s + q, coefficient, step, count)
        q += 16
    if q + 8 <= size:
        _SUM8(dst, d + q, src, s + q, coefficient, step, count)
        q += 8
    while q < size:
        for t in range(count):
            dst[d + q] += coefficient * src[s + t * step + q]
        q += 1


@jit_part
def _offset(number, axes, table, row, first, n):
    """Where an index in C order, with so many axes, lies by the strides of a row of a table."""
    offset = 0
    for axis in range(axes - 1, -1, -1):
        offset += (number % n) * table[row, first + axis]
        number //= n
    return offset


@jit_part
def _reduce(src, start, dst, steps, row, partner, sign, n, c, scale):
    """One sum of ANALYSIS, into scratch memory of zeros."""
    into, outer, run = steps[row, 2], steps[row, 3], steps[row, 4]
    one, two = steps[row, 5], steps[row, 6]
    for number in range(n**outer):
        base = start + _offset(number, outer, steps, row, 8, n)
        if run == c and two == 0:
            _sum(dst, into + number * run, src, base, run, dst.dtype.type(scale), one, n)
        else:
            for t in range(n):
                coefficient = dst.dtype.type(scale * sign[t])
                _add(dst, into + number * run, src, base + t * one + partner[t] * two, run, coefficient)


@jit_part
def _repeat(dst, start, src, steps, row, partner, sign, n, scale):
    """The transpose of ``_reduce``."""
    origin, outer, run = steps[row, 2], steps[row, 3], steps[row, 4]
    one, two = steps[row, 5], steps[row, 6]
    for number in range(n**outer):
        base = start + _offset(number, outer, steps, row, 8, n)
        for t in range(n):
            coefficient = dst.dtype.type(scale * sign[t])
            _add(dst, base + t * one + partner[t] * two, src, origin + number * run, run, coefficient)


@jit_part
def _rows(places, row, n):
    """Rows of the last axis of a half: how many, how long, and the stride of the axis."""
    axes = places[row, 5]
    if axes == 0:
        return 1, 1, 0, 0
    return n ** (axes - 1), n, axes - 1, places[row, 5 + axes]


@jit_part
def _read(src, start, out, begin, places, row, width, n, c):
    """A half, from where it is seen to its place."""
    one = out.dtype.type(1)
    count, length, outer, step = _rows(places, row, n)
    for number in range(count):
        base = start + _offset(number, outer, places, row, 6, n)
        for j in range(length):
            _put(out, begin + (number * length + j) * width, src, base + j * step, c, one)


@jit_part
def _write(dst, start, z, begin, places, row, width, n, c):
    """The transpose of ``_read``."""
    count, length, outer, step = _rows(places, row, n)
    one = dst.dtype.type(1)
    for number in range(count):
        base = start + _offset(number, outer, places, row, 6, n)
        for j in range(length):
            _add(dst, base + j * step, z, begin + (number * length + j) * width, c, one)


@jit_part
def _first(sectors, batch, sample, skipped):
    """Where each sector of a sample starts, the sectors one after the other without one of them."""
    found = np.empty(sectors.shape[0], np.int64)
    start = 0
    for number in range(sectors.shape[0]):
        size = sectors[number, 0] * sectors[number, 1]
        found[number] = start + sample * size
        if number != skipped:
            start += batch * size
    return found


@jit_part
def _fill(y, start, large, begin, scratch, terms, n, c, order, scale):
    """Every entry of the result, from all that is added to every entry."""
    length = n if order else 1
    axes = max(order - 1, 0)
    for number in range(n**axes):
        base = start + number * length * c
        if terms.shape[0] == 0:
            y[base : base + length * c] = 0
        for term in range(terms.shape[0]):
            src = large if terms[term, 0] == 0 else scratch
            step = terms[term, 2 + axes] if order else 0
            origin = terms[term, 1] + _offset(number, axes, terms, term, 2, n)
            factor = y.dtype.type(scale)
            if terms[term, 0] == 0:
                origin += begin
                factor = y.dtype.type(1)
            if step == c:
                if term == 0:
                    _put(y, base, src, origin, length * c, factor)
                else:
                    _add(y, base, src, origin, length * c, factor)
            else:
                for j in range(length):
                    if term == 0:
                        _put(y, base + j * c, src, origin + j * step, c, factor)
                    else:
                        _add(y, base + j * c, src, origin + j * step, c, factor)


@jit_pair
def _analyse(x, out, steps, places, sectors, partner, sign, n, c, size, scratch, scale):
    batch = x.size // size
    for sample in prange(batch):
        sums = np.zeros(scratch, x.dtype)
        for row in range(steps.shape[0]):
            if steps[row, 0] == 0:
                _reduce(x, sample * size, sums, steps, row, partner, sign, n, c, scale)
            else:
                _reduce(sums, steps[row, 1], sums, steps, row, partner, sign, n, c, scale)
        first = _first(sectors, batch, sample, -1)
        for row in range(places.shape[0]):
            begin = first[places[row, 2]] + places[row, 3]
            width = sectors[places[row, 2], 0]
            if places[row, 0] == 0:
                _read(x, sample * size, out, begin, places, row, width, n, c)
            else:
                _read(sums, places[row, 1], out, begin, places, row, width, n, c)


@jit_pair
def _synthesise(
    large, small, y, steps, places, terms, sectors, partner, sign, whole, n, c, size, order, scratch, scale
):
    batch = y.size // size
    for sample in prange(batch):
        sums = np.zeros(scratch, y.dtype)
        first = _first(sectors, batch, sample, whole)
        for row in range(places.shape[0]):
            if places[row, 0] == 1:
                begin, width = first[places[row, 2]] + places[row, 3], sectors[places[row, 2], 0]
                _write(sums, places[row, 1], small, begin, places, row, width, n, c)
        for row in range(steps.shape[0] - 1, -1, -1):
            if steps[row, 0] == 1:
                _repeat(sums, steps[row, 1], sums, steps, row, partner, sign, n, scale)
        begin = sample * sectors[whole, 0] * sectors[whole, 1] if whole >= 0 else 0
        _fill(y, sample * size, large, begin, sums, terms, n, c, order, scale)
        for row in range(places.shape[0]):
            if places[row, 0] == 0 and places[row, 4] == 0:
                begin, width = first[places[row, 2]] + places[row, 3], sectors[places[row, 2], 0]
                _write(y, sample * size, small, begin, places, row, width, n, c)
        for row in range(steps.shape[0]):
            if steps[row, 0] == 0 and steps[row, 7] == 0:
                _repeat(y, sample * size, sums, steps, row, partner, sign, n, scale)
