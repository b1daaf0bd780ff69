"""Instructions for CPU kernels: rows of numbers moved, summed and multiplied, several numbers at once.

Memory is an address, an offset and strides, both counted in numbers; the type of ``factor`` says of what.
Numba's own loops over short rows (a few channels) are not vectorised; these are, on any processor.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from equitorch.ops.numba_jit import jit_part

_FUSE = ("contract", "reassoc", "nsz")


def _pointer(context: Any, builder: Any, base: Any, offset: Any, element: Any, lanes: int) -> Any:
    start = builder.inttoptr(base, ir.PointerType(element))
    return builder.bitcast(builder.gep(start, [offset]), ir.PointerType(ir.VectorType(element, lanes)))


def _filled(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of equal numbers."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _mover(lanes: int, kind: str) -> Any:
    """``count`` rows of ``lanes`` numbers: each "put" or "add"-ed to its own, or "sum"-med into one.

    "fill" reads nothing: each row becomes ``factor``.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dst, d, dstep, src, s, sstep, count, factor = arguments
        element, size = factor.type, context.get_abi_sizeof(factor.type)
        factors = _filled(builder, factor, lanes)

        def source(index: Any) -> Any:
            offset = builder.add(s, builder.mul(index, sstep))
            return builder.load(_pointer(context, builder, src, offset, element, lanes), align=size)

        def result(index: Any) -> Any:
            offset = builder.add(d, builder.mul(index, dstep))
            return _pointer(context, builder, dst, offset, element, lanes)

        if kind == "sum":
            total = cgutils.alloca_once(builder, factors.type)
            builder.store(ir.Constant(factors.type, [0.0] * lanes), total)
            with cgutils.for_range(builder, count) as loop:
                builder.store(builder.fadd(builder.load(total), source(loop.index), flags=_FUSE), total)
            into = result(ir.Constant(ir.IntType(64), 0))
            builder.store(builder.fmul(builder.load(total), factors, flags=_FUSE), into, align=size)
            return context.get_dummy_value()
        with cgutils.for_range(builder, count) as loop:
            into, value = result(loop.index), factors
            if kind != "fill":
                value = builder.fmul(source(loop.index), factors, flags=_FUSE)
            if kind == "add":
                value = builder.fadd(value, builder.load(into, align=size), flags=_FUSE)
            builder.store(value, into, align=size)
        return context.get_dummy_value()

    @intrinsic
    def move(typingctx, dst, d, dstep, src, s, sstep, count, factor):
        return types.void(*[types.int64] * 7, factor), emit

    return move


def _multiplier(rows: int, lanes: int) -> Any:
    """A tile of a matrix product: ``rows`` rows of x and ``lanes`` columns of w."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        y, y0, ystep, x, x0, xstep, w, w0, wstep, depth, factor = arguments
        element, size = factor.type, context.get_abi_sizeof(factor.type)
        vector = ir.VectorType(element, lanes)
        totals = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
        for total in totals:
            builder.store(ir.Constant(vector, [0.0] * lanes), total)
        starts = [builder.add(x0, builder.mul(xstep, xstep.type(row))) for row in range(rows)]
        with cgutils.for_range(builder, depth) as loop:
            offset = builder.add(w0, builder.mul(loop.index, wstep))
            column = builder.load(_pointer(context, builder, w, offset, element, lanes), align=size)
            for start, total in zip(starts, totals, strict=True):
                place = builder.gep(
                    builder.inttoptr(x, ir.PointerType(element)), [builder.add(start, loop.index)]
                )
                value = _filled(builder, builder.load(place), lanes)
                product = builder.fmul(value, column, flags=_FUSE)
                builder.store(builder.fadd(builder.load(total), product, flags=_FUSE), total)
        for row, total in enumerate(totals):
            offset = builder.add(y0, builder.mul(ystep, ystep.type(row)))
            into = _pointer(context, builder, y, offset, element, lanes)
            builder.store(builder.load(total), into, align=size)
        return context.get_dummy_value()

    @intrinsic
    def multiply(typingctx, y, y0, ystep, x, x0, xstep, w, w0, wstep, depth, factor):
        return types.void(*[types.int64] * 10, factor), emit

    return multiply


_PUT = {lanes: _mover(lanes, "put") for lanes in (1, 8, 16)}
_ADD = {lanes: _mover(lanes, "add") for lanes in (1, 8, 16)}
_SUM = {lanes: _mover(lanes, "sum") for lanes in (1, 8, 16)}
_PUT1, _PUT8, _PUT16 = _PUT.values()
_ADD1, _ADD8, _ADD16 = _ADD.values()
_SUM1, _SUM8, _SUM16 = _SUM.values()
_FILL1, _FILL16 = _mover(1, "fill"), _mover(16, "fill")
_TILE4X32, _TILE8X16, _TILE8X8, _TILE8X1 = (
    _multiplier(rows, lanes) for rows, lanes in ((4, 32), (8, 16), (8, 8), (8, 1))
)
_TILE1X32, _TILE1X16, _TILE1X8, _TILE1X1 = (_multiplier(1, lanes) for lanes in (32, 16, 8, 1))


@jit_part
def put(dst, d, dstep, src, s, sstep, count, size, factor):
    """``dst[t] = factor * src[t]`` for rows t < count of ``size`` numbers."""
    if dstep == size and sstep == size:
        size, count = size * count, 1
    if count == 1:
        q = size // 16 * 16
        _PUT16(dst, d, 16, src, s, 16, size // 16, factor)
        _PUT1(dst, d + q, 1, src, s + q, 1, size - q, factor)
        return
    q = 0
    while q + 16 <= size:
        _PUT16(dst, d + q, dstep, src, s + q, sstep, count, factor)
        q += 16
    if q + 8 <= size:
        _PUT8(dst, d + q, dstep, src, s + q, sstep, count, factor)
        q += 8
    while q < size:
        _PUT1(dst, d + q, dstep, src, s + q, sstep, count, factor)
        q += 1


@jit_part
def add(dst, d, dstep, src, s, sstep, count, size, factor):
    """``dst[t] += factor * src[t]`` for rows t < count of ``size`` numbers."""
    if dstep == size and sstep == size:
        size, count = size * count, 1
    if count == 1:
        q = size // 16 * 16
        _ADD16(dst, d, 16, src, s, 16, size // 16, factor)
        _ADD1(dst, d + q, 1, src, s + q, 1, size - q, factor)
        return
    q = 0
    while q + 16 <= size:
        _ADD16(dst, d + q, dstep, src, s + q, sstep, count, factor)
        q += 16
    if q + 8 <= size:
        _ADD8(dst, d + q, dstep, src, s + q, sstep, count, factor)
        q += 8
    while q < size:
        _ADD1(dst, d + q, dstep, src, s + q, sstep, count, factor)
        q += 1


@jit_part
def put_sum(dst, d, src, s, sstep, count, size, factor):
    """``dst[:] = factor * sum_t src[t]`` for rows t < count of ``size`` numbers."""
    q = 0
    while q + 16 <= size:
        _SUM16(dst, d + q, 0, src, s + q, sstep, count, factor)
        q += 16
    if q + 8 <= size:
        _SUM8(dst, d + q, 0, src, s + q, sstep, count, factor)
        q += 8
    while q < size:
        _SUM1(dst, d + q, 0, src, s + q, sstep, count, factor)
        q += 1


@jit_part
def fill(dst, d, count, factor):
    """``dst[d : d + count] = 0``, of the type of ``factor``."""
    zero = factor - factor
    _FILL16(dst, d, 16, dst, d, 0, count // 16, zero)
    _FILL1(dst, d + count // 16 * 16, 1, dst, d, 0, count % 16, zero)


@jit_part
def matmul(y, y0, x, x0, w, w0, rows, depth, columns, factor):
    """``y = x @ w`` for matrices in C order; the type of ``factor`` is theirs."""
    q = 0
    while q < columns:
        r = 0
        if q + 32 <= columns:
            while r + 4 <= rows:
                _TILE4X32(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 4
            while r < rows:
                _TILE1X32(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 1
            q += 32
        elif q + 16 <= columns:
            while r + 8 <= rows:
                _TILE8X16(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 8
            while r < rows:
                _TILE1X16(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 1
            q += 16
        elif q + 8 <= columns:
            while r + 8 <= rows:
                _TILE8X8(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 8
            while r < rows:
                _TILE1X8(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 1
            q += 8
        else:
            while r + 8 <= rows:
                _TILE8X1(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 8
            while r < rows:
                _TILE1X1(
                    y,
                    y0 + r * columns + q,
                    columns,
                    x,
                    x0 + r * depth,
                    depth,
                    w,
                    w0 + q,
                    columns,
                    depth,
                    factor,
                )
                r += 1
            q += 1
