"""Instructions for CPU kernels: rows of numbers moved, summed and multiplied, several numbers at once.

Memory is an address, an offset and strides, both counted in numbers; the type of ``factor`` says of what.
Numba's own loops over short rows (a few channels) are not vectorised; these are, on any processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from equitorch.ops.numba_jit import jit_part

_FUSE = ("contract", "reassoc", "nsz")


def _pointer(builder: Any, base: Any, offset: Any, element: Any, lanes: int) -> Any:
    start = builder.inttoptr(base, ir.PointerType(element))
    return builder.bitcast(builder.gep(start, [offset]), ir.PointerType(ir.VectorType(element, lanes)))


def _filled(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of equal numbers."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _function(context: Any, builder: Any, name: str, arguments: Any, body: Callable[..., None]) -> Any:
    """Call a function that is written once in a module and not copied to where it is called."""
    kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    if not function.blocks:
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        body(inner, *function.args)
        inner.ret_void()
    builder.call(function, arguments)
    return context.get_dummy_value()


def _mover(lanes: int, kind: str) -> Any:
    """``count`` rows of ``lanes`` numbers: each "put" or "add"-ed to its own, or "sum"-med into one.

    "fill" reads nothing: each row becomes ``factor``.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = arguments[7].type
        size = context.get_abi_sizeof(element)
        name = f"equitorch_{kind}_{lanes}_{element}"

        def body(builder: Any, *arguments: Any) -> None:
            _move(context, builder, arguments, lanes, kind, size)

        return _function(context, builder, name, arguments, body)

    @intrinsic
    def move(typingctx, dst, d, dstep, src, s, sstep, count, factor):
        return types.void(*[types.int64] * 7, factor), emit

    return move


def _move(context: Any, builder: Any, arguments: Any, lanes: int, kind: str, size: int) -> None:
    dst, d, dstep, src, s, sstep, count, factor = arguments
    factors = _filled(builder, factor, lanes)

    def source(index: Any) -> Any:
        offset = builder.add(s, builder.mul(index, sstep))
        return builder.load(_pointer(builder, src, offset, factor.type, lanes), align=size)

    def result(index: Any) -> Any:
        offset = builder.add(d, builder.mul(index, dstep))
        return _pointer(builder, dst, offset, factor.type, lanes)

    if kind == "sum":
        total = cgutils.alloca_once(builder, factors.type)
        builder.store(ir.Constant(factors.type, [0.0] * lanes), total)
        with cgutils.for_range(builder, count) as loop:
            builder.store(builder.fadd(builder.load(total), source(loop.index), flags=_FUSE), total)
        into = result(ir.Constant(ir.IntType(64), 0))
        builder.store(builder.fmul(builder.load(total), factors, flags=_FUSE), into, align=size)
        return
    with cgutils.for_range(builder, count) as loop:
        into, value = result(loop.index), factors
        if kind != "fill":
            value = builder.fmul(source(loop.index), factors, flags=_FUSE)
        if kind == "add":
            value = builder.fadd(value, builder.load(into, align=size), flags=_FUSE)
        builder.store(value, into, align=size)


def _multiplier(rows: int, lanes: int) -> Any:
    """Columns of a matrix product, ``lanes`` of them, for ``count`` times ``rows`` rows of x."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = arguments[11].type
        size = context.get_abi_sizeof(element)
        name = f"equitorch_multiply_{rows}_{lanes}_{element}"

        def body(builder: Any, *arguments: Any) -> None:
            with cgutils.for_range(builder, arguments[10]) as loop:
                _tile(builder, arguments, loop.index, rows, lanes, size)

        return _function(context, builder, name, arguments, body)

    @intrinsic
    def multiply(typingctx, y, y0, ystep, x, x0, xstep, w, w0, wstep, depth, count, factor):
        return types.void(*[types.int64] * 11, factor), emit

    return multiply


def _tile(builder: Any, arguments: Any, number: Any, rows: int, lanes: int, size: int) -> None:
    y, y0, ystep, x, x0, xstep, w, w0, wstep, depth, _, factor = arguments
    element = factor.type
    vector = ir.VectorType(element, lanes)
    first = builder.mul(number, number.type(rows))
    zero = ir.Constant(vector, [0.0] * lanes)
    totals = [cgutils.alloca_once_value(builder, zero) for _ in range(rows)]
    for total in totals:
        builder.store(zero, total)
    here = [builder.add(first, first.type(row)) for row in range(rows)]
    starts = [builder.add(x0, builder.mul(xstep, row)) for row in here]
    with cgutils.for_range(builder, depth) as loop:
        offset = builder.add(w0, builder.mul(loop.index, wstep))
        column = builder.load(_pointer(builder, w, offset, element, lanes), align=size)
        for start, total in zip(starts, totals, strict=True):
            place = builder.gep(
                builder.inttoptr(x, ir.PointerType(element)), [builder.add(start, loop.index)]
            )
            product = builder.fmul(_filled(builder, builder.load(place), lanes), column, flags=_FUSE)
            builder.store(builder.fadd(builder.load(total), product, flags=_FUSE), total)
    for row, total in zip(here, totals, strict=True):
        into = _pointer(builder, y, builder.add(y0, builder.mul(ystep, row)), element, lanes)
        builder.store(builder.load(total), into, align=size)


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
        y1, w1 = y0 + q, w0 + q
        if q + 32 <= columns:
            many, done = rows // 4, rows // 4 * 4
            _TILE4X32(y, y1, columns, x, x0, depth, w, w1, columns, depth, many, factor)
            x1, y1 = x0 + done * depth, y1 + done * columns
            _TILE1X32(y, y1, columns, x, x1, depth, w, w1, columns, depth, rows - done, factor)
            q += 32
            continue
        many, done = rows // 8, rows // 8 * 8
        x1, y2 = x0 + done * depth, y1 + done * columns
        if q + 16 <= columns:
            _TILE8X16(y, y1, columns, x, x0, depth, w, w1, columns, depth, many, factor)
            _TILE1X16(y, y2, columns, x, x1, depth, w, w1, columns, depth, rows - done, factor)
            q += 16
        elif q + 8 <= columns:
            _TILE8X8(y, y1, columns, x, x0, depth, w, w1, columns, depth, many, factor)
            _TILE1X8(y, y2, columns, x, x1, depth, w, w1, columns, depth, rows - done, factor)
            q += 8
        else:
            _TILE8X1(y, y1, columns, x, x0, depth, w, w1, columns, depth, many, factor)
            _TILE1X1(y, y2, columns, x, x1, depth, w, w1, columns, depth, rows - done, factor)
            q += 1
