"""ANALYSIS, SYNTHESIS and the map between them on the CPU: all that belongs to a sample stays in cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from equitorch.ops.diagrams.program import without_whole
from equitorch.ops.diagrams.strides import PLACE, STEP, TERM, strides
from equitorch.ops.diagrams.vectors import add, fill, matmul, put, put_sum
from equitorch.ops.numba_jit import jit_pair, jit_part

_NUMBER = {torch.float32: np.float32, torch.float64: np.float64}


def analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    """Same contract as ``reference.analysis``; results may share one piece of memory."""
    x = _plain(x)
    batch, _, channels = x.shape
    table = strides(key, n, channels, form)
    shapes = [(batch, rows, halves, channels) for halves, rows in table.sectors.tolist()]
    sizes = [math.prod(shape) for shape in shapes]
    flat = x.new_empty(sum(sizes))
    if flat.numel():
        number = _NUMBER[x.dtype]
        _analyse(
            x.data_ptr(),
            flat.data_ptr(),
            batch,
            table.code,
            number(scale),
            number(1),
            x.itemsize,
            _parts(batch),
            work=4 * x.numel(),
        )
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


def synthesis(zs: Sequence[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    """Same contract as ``reference.synthesis``."""
    batch, channels = zs[0].shape[0], zs[0].shape[3]
    table = strides(key, n, channels, form)
    y = zs[0].new_empty(batch, n**table.order, channels)
    if y.numel():
        rest = [_plain(z).view(-1) for number, z in enumerate(zs) if number != table.whole]
        small = torch.cat(rest) if len(rest) > 1 else rest[0] if rest else y
        large = _plain(zs[table.whole]) if table.whole >= 0 else y
        number = _NUMBER[y.dtype]
        addresses = large.data_ptr(), small.data_ptr(), y.data_ptr()
        _synthesise(
            *addresses,
            batch,
            table.code,
            number(scale),
            number(1),
            y.itemsize,
            _parts(batch),
            work=4 * y.numel(),
        )
    return y


class Program(NamedTuple):
    """What ``linear`` does with a sample, in tables.

    Attributes:
        inner: of ANALYSIS.
        outer: of SYNTHESIS.
        mixes: for each pair: source (0 the tensor, 1 lower halves), offset there, offset among the upper
            halves, rows, permutations of columns, depth, columns for each permutation, offset of the weight.
        sizes: numbers of lower halves, of upper halves, of weights.
        rows_out: rows of the result.
        work: multiplications for a sample.
    """

    inner: NDArray[np.int64]
    outer: NDArray[np.int64]
    mixes: NDArray[np.int64]
    sizes: tuple[int, int, int]
    rows_out: int
    work: int


def linear(
    x: Tensor, weights: Sequence[Tensor], key_in: str, key_out: str, n: int, form: str, scale: float
) -> Tensor:
    """The map of ``diagram_linear`` for one input and one output, if no pair has a symbol.

    Args:
        x: the input. Shape (batch, n ** order, channels_in).
        weights: one for each sector that both keys have.
        key_in: the lower halves.
        key_out: the upper halves.
        n: dimension.
        form: of the group.
        scale: a factor for each closed block of a lower half.
    """
    batch, _, channels = x.shape
    channels_out = weights[0].shape[4]
    program = _program(key_in, key_out, n, form, channels, channels_out)
    y = x.new_empty(batch, program.rows_out, channels_out)
    if not (batch and channels and channels_out):
        return y.zero_()
    x, weights = _plain(x), [_plain(w) for w in weights]
    number = _NUMBER[x.dtype]
    _linear(
        x.data_ptr(),
        y.data_ptr(),
        np.array([w.data_ptr() for w in weights]),
        batch,
        program.inner,
        program.outer,
        program.mixes,
        *program.sizes,
        number(scale),
        number(1),
        x.itemsize,
        _parts(batch),
        work=batch * program.work,
    )
    return y


def _parts(batch: int) -> int:
    return min(batch, torch.get_num_threads())


def _plain(x: Tensor) -> Tensor:
    """With numbers in C order, as they are."""
    return x.contiguous().resolve_neg()


@functools.lru_cache(maxsize=512)
def _program(key_in: str, key_out: str, n: int, form: str, channels_in: int, channels_out: int) -> Program:
    rest, whole = without_whole(key_in)
    inner, outer = strides(rest, n, channels_in, form), strides(key_out, n, channels_out, form)
    uppers = [word.rstrip("<>") for word in key_out.split("|")[1:]]
    z_size = y_size = w_size = work = 0
    starts, number = {}, 0
    for word, itself in zip(key_in.split("|")[1:], whole, strict=True):
        halves, rows = (1, 0) if itself else inner.sectors[number].tolist()
        starts[word.rstrip("<>")] = int(not itself), z_size, halves * channels_in
        z_size += rows * halves * channels_in
        number += not itself
    mixes = []
    for word, marked, (halves, rows) in zip(
        uppers, key_out.split("|")[1:], outer.sectors.tolist(), strict=True
    ):
        source, start, depth = starts[word]
        through = word.split(":")[1].split(",")
        times = math.prod(math.factorial(int(t)) for t in through) if marked.endswith(">") else 1
        columns = halves * channels_out
        mixes.append([source, start, y_size, rows, times, depth, columns // times, w_size])
        y_size += rows * columns
        w_size += depth * columns
        work += rows * depth * columns
    table = np.array(mixes, dtype=np.int64).reshape(len(mixes), 8)
    sizes = z_size, y_size, w_size
    return Program(inner.code, outer.code, table, sizes, n**outer.order, work + y_size + z_size)


@jit_part
def _table(code, start, rows, width):
    return code[start : start + rows * width].reshape(rows, width)


@jit_part
def _unpack(code):
    """The tables of ``Strides.code``: steps, places, terms, sectors, form."""
    steps, places, terms, sectors = code[6], code[7], code[8], code[9]
    a = 10
    b = a + steps * STEP
    c = b + places * PLACE
    d = c + terms * TERM
    return (
        _table(code, a, steps, STEP),
        _table(code, b, places, PLACE),
        _table(code, c, terms, TERM),
        _table(code, d, sectors, 2),
        _table(code, d + sectors * 2, code[0], 2),
    )


@jit_part
def _starts(sectors, c, batch, skipped):
    """Where each sector starts and how long a sample of it is, one sector after the other, without one."""
    found = np.empty((sectors.shape[0], 2), np.int64)
    start = 0
    for number in range(sectors.shape[0]):
        size = sectors[number, 0] * sectors[number, 1] * c
        found[number, 0], found[number, 1] = start, size
        if number != skipped:
            start += batch * size
    return found


@jit_part
def _offset(number, table, row, first, n):
    """Where an entry lies by its outer axes, which column ``first`` of a table counts."""
    axes = table[row, first]
    offset = 0
    for axis in range(axes - 1, 0, -1):
        offset += (number % n) * table[row, first + 2 + axis]
        number //= n
    return offset + number * table[row, first + 2]


@jit_part
def _reduce(src, start, dst, steps, row, form, n, c, factor):
    """One sum of ANALYSIS, into scratch memory."""
    into, run, one, two = steps[row, 2], steps[row, 3], steps[row, 4], steps[row, 5]
    for number in range(steps[row, 8]):
        base = start + _offset(number, steps, row, 7, n)
        d = into + number * run
        if run == c and two == 0:
            put_sum(dst, d, src, base, one, n, run, factor)
        else:
            for t in range(n):
                signed = factor if form[t, 1] > 0 else -factor
                s = base + t * one + form[t, 0] * two
                if t == 0:
                    put(dst, d, run, src, s, run, 1, run, signed)
                else:
                    add(dst, d, run, src, s, run, 1, run, signed)


@jit_part
def _repeat(dst, start, src, steps, row, form, n, factor):
    """The transpose of ``_reduce``."""
    origin, run, one, two = steps[row, 2], steps[row, 3], steps[row, 4], steps[row, 5]
    for number in range(steps[row, 8]):
        base = start + _offset(number, steps, row, 7, n)
        if two == 0:
            add(dst, base, one, src, origin + number * run, 0, n, run, factor)
        else:
            for t in range(n):
                signed = factor if form[t, 1] > 0 else -factor
                add(
                    dst,
                    base + t * one + form[t, 0] * two,
                    run,
                    src,
                    origin + number * run,
                    run,
                    1,
                    run,
                    signed,
                )


@jit_part
def _read(src, start, out, begin, places, row, width, n, c, one):
    """A half, from where it is seen to its place."""
    length, step = places[row, 5], places[row, 6]
    for number in range(places[row, 8]):
        base = start + _offset(number, places, row, 7, n)
        put(out, begin + number * length * width, width, src, base, step, length, c, one)


@jit_part
def _write(dst, start, z, begin, places, row, width, n, c, one):
    """The transpose of ``_read``."""
    length, step = places[row, 5], places[row, 6]
    for number in range(places[row, 8]):
        base = start + _offset(number, places, row, 7, n)
        add(dst, base, step, z, begin + number * length * width, width, length, c, one)


@jit_part
def _fill(y, start, large, begin, sums, terms, n, c, rows, length, factor, one):
    """Every entry of the result, from all that is added to every entry."""
    for number in range(rows):
        base = start + number * length * c
        for term in range(terms.shape[0]):
            src, origin, weight = sums, terms[term, 1], factor
            if terms[term, 0] == 0:
                src, origin, weight = large, terms[term, 1] + begin, one
            origin += _offset(number, terms, term, 3, n)
            step = terms[term, 2]
            if term == 0:
                put(y, base, c, src, origin, step, length, c, weight)
            else:
                add(y, base, c, src, origin, step, length, c, weight)


@jit_part
def _analyse_sample(x, start, out, starts, sample, sums, n, c, steps, places, sectors, form, factor, one):
    for row in range(steps.shape[0]):
        if steps[row, 0] == 0:
            _reduce(x, start, sums, steps, row, form, n, c, factor)
        else:
            _reduce(sums, steps[row, 1], sums, steps, row, form, n, c, factor)
    for row in range(places.shape[0]):
        sector = places[row, 2]
        begin = starts[sector, 0] + sample * starts[sector, 1] + places[row, 3]
        width = sectors[sector, 0] * c
        if places[row, 0] == 0:
            _read(x, start, out, begin, places, row, width, n, c, one)
        else:
            _read(sums, places[row, 1], out, begin, places, row, width, n, c, one)


@jit_part
def _synthesise_sample(
    large,
    first,
    small,
    starts,
    sample,
    y,
    start,
    sums,
    code,
    steps,
    places,
    terms,
    sectors,
    form,
    factor,
    one,
):
    n, c, order = code[0], code[1], code[3]
    fill(sums, 0, code[4], one)
    for row in range(places.shape[0]):
        if places[row, 0] == 1:
            sector = places[row, 2]
            begin = starts[sector, 0] + sample * starts[sector, 1] + places[row, 3]
            _write(sums, places[row, 1], small, begin, places, row, sectors[sector, 0] * c, n, c, one)
    for row in range(steps.shape[0] - 1, -1, -1):
        if steps[row, 0] == 1:
            _repeat(sums, steps[row, 1], sums, steps, row, form, n, factor)
    if terms.shape[0]:
        length = n if order else 1
        _fill(y, start, large, first, sums, terms, n, c, code[2] // (length * c), length, factor, one)
    else:
        fill(y, start, code[2], one)
    for row in range(places.shape[0]):
        if places[row, 0] == 0 and places[row, 4] == 0:
            sector = places[row, 2]
            begin = starts[sector, 0] + sample * starts[sector, 1] + places[row, 3]
            _write(y, start, small, begin, places, row, sectors[sector, 0] * c, n, c, one)
    for row in range(steps.shape[0]):
        if steps[row, 0] == 0 and steps[row, 6] == 0:
            _repeat(y, start, sums, steps, row, form, n, factor)


@jit_part
def _memory(numbers, item):
    """Memory. Whoever takes its address must touch it once more afterwards, or it is given back."""
    return np.empty(numbers * item // 8 + 1, np.float64)


@jit_part
def _address(memory):
    return np.int64(memory.ctypes.data)


@jit_pair
def _analyse(x, out, batch, code, factor, one, item, parts):
    for part in prange(parts):
        steps, places, _, sectors, form = _unpack(code)
        n, c = code[0], code[1]
        memory, starts = _memory(code[4], item), _starts(sectors, c, batch, -1)
        sums = _address(memory)
        for sample in range(part * batch // parts, (part + 1) * batch // parts):
            begin = sample * code[2]
            _analyse_sample(
                x, begin, out, starts, sample, sums, n, c, steps, places, sectors, form, factor, one
            )
        memory[0] = 0


@jit_pair
def _synthesise(large, small, y, batch, code, factor, one, item, parts):
    for part in prange(parts):
        steps, places, terms, sectors, form = _unpack(code)
        memory, whole, c = _memory(code[4], item), code[5], code[1]
        starts = _starts(sectors, c, batch, whole)
        sums = _address(memory)
        for sample in range(part * batch // parts, (part + 1) * batch // parts):
            first = sample * starts[whole, 1] if whole >= 0 else 0
            _synthesise_sample(
                large,
                first,
                small,
                starts,
                sample,
                y,
                sample * code[2],
                sums,
                code,
                steps,
                places,
                terms,
                sectors,
                form,
                factor,
                one,
            )
        memory[0] = 0


@jit_part
def _pack(weights, mixes, matrices, one):
    """Weights (permutations, depth, columns) as matrices (depth, permutations and columns)."""
    for row in range(mixes.shape[0]):
        times, depth, columns, into = mixes[row, 4], mixes[row, 5], mixes[row, 6], mixes[row, 7]
        for k in range(times):
            start = k * depth * columns
            put(
                matrices,
                into + k * columns,
                times * columns,
                weights[row],
                start,
                columns,
                depth,
                columns,
                one,
            )


@jit_part
def _mix(x, begin, z, mixed, matrices, mixes, one):
    for row in range(mixes.shape[0]):
        src, start = z, mixes[row, 1]
        if mixes[row, 0] == 0:
            src, start = x, begin
        rows, depth, columns = mixes[row, 3], mixes[row, 5], mixes[row, 4] * mixes[row, 6]
        matmul(mixed, mixes[row, 2], src, start, matrices, mixes[row, 7], rows, depth, columns, one)


@jit_pair
def _linear(x, y, weights, batch, inner, outer, mixes, z_size, y_size, w_size, factor, one, item, parts):
    packed = _memory(w_size, item)
    matrices = _address(packed)
    _pack(weights, mixes, matrices, one)
    for part in prange(parts):
        steps_in, places_in, _, lower, form = _unpack(inner)
        steps, places, terms, upper, _ = _unpack(outer)
        starts_in, starts = _starts(lower, inner[1], 1, -1), _starts(upper, outer[1], 1, -1)
        memory = _memory(inner[4] + outer[4] + z_size + y_size, item)
        sums = _address(memory)
        more = sums + inner[4] * item
        z = more + outer[4] * item
        mixed = z + z_size * item
        first = starts[outer[5], 0] if outer[5] >= 0 else 0
        for sample in range(part * batch // parts, (part + 1) * batch // parts):
            begin = sample * inner[2]
            _analyse_sample(
                x,
                begin,
                z,
                starts_in,
                0,
                sums,
                inner[0],
                inner[1],
                steps_in,
                places_in,
                lower,
                form,
                factor,
                one,
            )
            _mix(x, begin, z, mixed, matrices, mixes, one)
            _synthesise_sample(
                mixed,
                first,
                mixed,
                starts,
                0,
                y,
                sample * outer[2],
                more,
                outer,
                steps,
                places,
                terms,
                upper,
                form,
                one,
                one,
            )
        memory[0] = 0
    packed[0] = 0
