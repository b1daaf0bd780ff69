"""Instructions in machine code: rows of numbers moved, summed and multiplied, many at once.

Memory is an address; the type of ``factor`` says of what. Numba's own loops over short rows (a few channels)
are not vectorised; these are, on any processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FUSE = ("contract", "reassoc", "nsz")
_INT = ir.IntType(64)


def instruction(kind: str, lanes: int) -> Any:
    """The function ``(row, there, here, weight, factor)`` for one of ``instructions.OPERATIONS``.

    Args:
        kind: as there.
        lanes: as there; for tiles 100 times the rows more.

    ``weight`` is where the weight of a tile is; for "join" where the addresses of the pieces of memory are.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(arguments[4].type)
        body = _tile if kind == "tile" else _join if kind.startswith("join") else _move
        name = f"equitorch_{kind}_{lanes}_{arguments[4].type}"
        return _function(context, builder, name, arguments, body, kind, lanes, size)

    @intrinsic
    def run(typingctx, row, there, here, weight, factor):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 4, factor), emit

    return run


def _function(
    context: Any, builder: Any, name: str, arguments: Any, body: Callable[..., None], *options: Any
) -> Any:
    """Call a function that is written once in a module and not copied to where it is called."""
    kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    if not function.blocks:
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        body(inner, function.args, *options)
        inner.ret_void()
    builder.call(function, arguments)
    return context.get_dummy_value()


def _move(builder: Any, arguments: Sequence[Any], kind: str, lanes: int, size: int) -> None:
    row, there, here, _, factor = arguments
    factors = _filled(builder, factor, lanes)
    fields = _fields(builder, row, 6, 9)
    axes = [fields[0:3], fields[3:6], fields[6:9]]

    def result(offset: Any) -> Any:
        return _pointer(builder, there, offset, factor.type, lanes)

    def source(offset: Any) -> Any:
        return builder.load(_pointer(builder, here, offset, factor.type, lanes), align=size)

    with ExitStack() as loops:
        to = origin = _INT(0)
        for count, away, back in axes[:0:-1]:
            index = loops.enter_context(cgutils.for_range(builder, count)).index
            to = builder.add(to, builder.mul(index, away))
            origin = builder.add(origin, builder.mul(index, back))
        count, away, back = axes[0]
        if kind in ("sum", "more"):
            zero = ir.Constant(factors.type, [0.0] * lanes)
            total = cgutils.alloca_once(builder, factors.type)
            builder.store(zero, total)
            with cgutils.for_range(builder, count) as loop:
                part = source(builder.add(origin, builder.mul(loop.index, back)))
                builder.store(builder.fadd(builder.load(total), part, flags=_FUSE), total)
            value, into = builder.fmul(builder.load(total), factors, flags=_FUSE), result(to)
            if kind == "more":
                value = builder.fadd(value, builder.load(into, align=size), flags=_FUSE)
            builder.store(value, into, align=size)
            return
        with cgutils.for_range(builder, count) as loop:
            into = result(builder.add(to, builder.mul(loop.index, away)))
            value = ir.Constant(factors.type, [0.0] * lanes)
            if kind != "fill":
                part = source(builder.add(origin, builder.mul(loop.index, back)))
                value = builder.fmul(part, factors, flags=_FUSE)
            if kind == "add":
                value = builder.fadd(value, builder.load(into, align=size), flags=_FUSE)
            builder.store(value, into, align=size)


def _join(builder: Any, arguments: Sequence[Any], kind: str, lanes: int, size: int) -> None:
    row, there, here, memory, factor = arguments
    lengths, away, *back = zip(*[_fields(builder, row, 6 + 3 * axis, 3) for axis in range(3)], strict=True)
    bases = [here]
    for other in range(int(kind[4:]) - 1):
        piece, offset, *strides = _fields(builder, row, 23 + 5 * other, 5)
        address = builder.load(builder.gep(builder.inttoptr(memory, ir.PointerType(_INT)), [piece]))
        bases.append(builder.add(address, builder.mul(offset, _INT(size))))
        back.append(tuple(strides))
    moved = [_INT(0)] * (1 + len(back))
    with ExitStack() as loops:
        for axis in (2, 1, 0):
            index = loops.enter_context(cgutils.for_range(builder, lengths[axis])).index
            strides = [away[axis], *(each[axis] for each in back)]
            moved = [builder.add(m, builder.mul(index, s)) for m, s in zip(moved, strides, strict=True)]
        into, *origins = [
            _pointer(builder, base, offset, factor.type, lanes)
            for base, offset in zip([there, *bases], moved, strict=True)
        ]
        total, *parts = [builder.load(origin, align=size) for origin in origins]
        for part in parts:
            total = builder.fadd(total, part, flags=_FUSE)
        builder.store(total, into, align=size)


def _tile(builder: Any, arguments: Sequence[Any], kind: str, lanes: int, size: int) -> None:
    row, there, here, weight, factor = arguments
    rows, lanes = divmod(lanes, 100)
    away, back, step, depth, count = _fields(builder, row, 6, 5)
    element = factor.type
    vector = ir.VectorType(element, lanes)
    totals = [cgutils.alloca_once(builder, vector) for _ in range(rows)]
    source = builder.inttoptr(here, ir.PointerType(element))
    with cgutils.for_range(builder, count) as outer:
        first = builder.mul(outer.index, _INT(rows))
        places = [builder.add(first, _INT(number)) for number in range(rows)]
        starts = [builder.mul(back, place) for place in places]
        for total in totals:
            builder.store(ir.Constant(vector, [0.0] * lanes), total)
        with cgutils.for_range(builder, depth) as loop:
            column = _pointer(builder, weight, builder.mul(loop.index, step), element, lanes)
            column = builder.load(column, align=size)
            for start, total in zip(starts, totals, strict=True):
                number = builder.load(builder.gep(source, [builder.add(start, loop.index)]))
                part = builder.fmul(_filled(builder, number, lanes), column, flags=_FUSE)
                builder.store(builder.fadd(builder.load(total), part, flags=_FUSE), total)
        for place, total in zip(places, totals, strict=True):
            into = _pointer(builder, there, builder.mul(away, place), element, lanes)
            builder.store(builder.load(total), into, align=size)


def _fields(builder: Any, row: Any, first: int, count: int) -> list[Any]:
    """Numbers of an instruction."""
    start = builder.inttoptr(row, ir.PointerType(_INT))
    return [builder.load(builder.gep(start, [_INT(first + number)])) for number in range(count)]


def _pointer(builder: Any, base: Any, offset: Any, element: Any, lanes: int) -> Any:
    start = builder.inttoptr(base, ir.PointerType(element))
    return builder.bitcast(builder.gep(start, [offset]), ir.PointerType(ir.VectorType(element, lanes)))


def _filled(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of equal numbers."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)
