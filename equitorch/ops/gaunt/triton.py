"""Products on the sphere in Triton: a tile of columns stays in registers while points of the grid go by.

All rows of a few functions are loaded once. For a block of points at a time, they are evaluated by matrix
products with tables of harmonics, multiplied, and integrated by another matrix product into sums in
registers: values on the grid never reach memory. The rows of even degrees come first, then those of odd ones:
what is even or odd under inversion is known at both of two opposite points, so that half of them suffice.
"""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.gaunt import grid
from equitorch.ops.gaunt.form import Form, Program
from equitorch.ops.gaunt.program import evaluate
from equitorch.reps.product_grid import product_grid, table
from equitorch.reps.sphere import SphereGrid

_TILE = 16  # rows of a matrix product; degrees of one parity are padded to a multiple
_POINTS = 16  # of the grid in one block
_KINDS = torch.float32, torch.bfloat16, torch.float16
_LMAX = 8
_OTHER = 1 << 15  # bytes of shared memory for tables and what is on its way between threads


class Operand(NamedTuple):
    """One tensor: its degrees, and where the tables of its components begin."""

    lmax: int
    components: tuple[int, ...]


class Term(NamedTuple):
    """A product on the grid: of two among the components of all operands."""

    first: int
    second: int
    sign: int
    turned: int  # whether inversion changes its sign, so that two even functions give an odd one


class Component(NamedTuple):
    """A sum of such products, and where the table begins against which it is integrated."""

    table: int
    terms: tuple[Term, ...]


class Result(NamedTuple):
    """Integrals against the harmonics up to a degree, or their gradients."""

    lmax: int
    components: tuple[Component, ...]


class Job(NamedTuple):
    """What one launch computes."""

    operands: tuple[Operand, ...]
    results: tuple[Result, ...]


@triton.constexpr_function
def _count(lmax, odd):
    """How many rows there are of even or of odd degrees."""
    top = lmax if odd == lmax % 2 else lmax - 1
    return (top + 1) * (top + 2) // 2


@triton.constexpr_function
def _tiles(lmax, odd, TILE):
    """How many tiles they take."""
    return triton.cdiv(_count(lmax, odd), TILE)


@triton.constexpr_function
def _width(lmax, TILE):
    """Columns of a table: padded rows of a function."""
    return TILE * (_tiles(lmax, 0, TILE) + _tiles(lmax, 1, TILE))


@triton.jit
def _row(k, LMAX: tl.constexpr, ODD: tl.constexpr):
    """The k-th row among those of even or odd degrees: rows of the other degrees lie between."""
    row = k + ODD
    for l in tl.static_range(ODD + 2, LMAX + 1, 2):
        row += tl.where(k >= l * (l - 1) // 2, 2 * l - 1, 0)
    return row


@triton.jit
def _places(at, mask, C, n: tl.constexpr, LMAX: tl.constexpr, TILE: tl.constexpr):
    """Addresses of the n-th tile of rows, and which of them are there."""
    even: tl.constexpr = _tiles(LMAX, 0, TILE)
    odd: tl.constexpr = 1 if n >= even else 0
    k = tl.arange(0, TILE) + (n - odd * even) * TILE
    row = _row(k, LMAX, odd).to(tl.int64)
    return at[:, None] + (row * C)[None, :], (k < _count(LMAX, odd))[None, :] & mask[:, None]


@triton.jit
def _dot(a, b, sums, PRECISION: tl.constexpr):
    if PRECISION == "bf16":
        a, b = a.to(tl.bfloat16), b.to(tl.bfloat16)
    return tl.dot(a, b, sums, input_precision="ieee" if PRECISION == "bf16" else PRECISION)


@triton.jit
def _value(x, t_at, LMAX: tl.constexpr, ODD: tl.constexpr, PRECISION: tl.constexpr,
           BLOCK: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """The part of a function of even or odd degrees, at a block of points."""
    even: tl.constexpr = _tiles(LMAX, 0, TILE)
    width: tl.constexpr = _width(LMAX, TILE)
    u = tl.zeros([BLOCK, P], tl.float32)
    k, p = tl.arange(0, TILE), tl.arange(0, P)
    for n in tl.static_range(ODD * even, even + ODD * _tiles(LMAX, 1, TILE)):
        u = _dot(x[n], tl.load(t_at + p[None, :] * width + (n * TILE + k)[:, None]), u, PRECISION)
    return u


@triton.jit
def _sum(sums, h, t_at, LMAX: tl.constexpr, ODD: tl.constexpr, PRECISION: tl.constexpr,
         P: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """Sums for all rows; those of even or odd degrees with the integral over a block of points more."""
    even: tl.constexpr = _tiles(LMAX, 0, TILE)
    width: tl.constexpr = _width(LMAX, TILE)
    k, p = tl.arange(0, TILE), tl.arange(0, P)
    more = ()
    for n in tl.static_range(len(sums)):
        if (n >= even) == (ODD == 1):
            y = tl.load(t_at + p[:, None] * width + (n * TILE + k)[None, :])
            more += (_dot(h, y, sums[n], PRECISION),)
        else:
            more += (sums[n],)
    return more


@triton.jit
def _product(values, OWN: tl.constexpr, CROSSED: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """A sum of products: of parts of equal parity, or of opposite ones."""
    h = tl.zeros([BLOCK, P], tl.float32)
    for t in tl.static_range(len(OWN.terms)):
        a, b = values[OWN.terms[t].first], values[OWN.terms[t].second]
        h += OWN.terms[t].sign * (
            a[0] * b[OWN.terms[t].turned ^ CROSSED] + a[1] * b[1 - (OWN.terms[t].turned ^ CROSSED)]
        )
    return h


@triton.jit
def _held(x, item, c, mask, C, LMAX: tl.constexpr, TILE: tl.constexpr):
    """All rows of a function, in tiles."""
    tiles = ()
    for n in tl.static_range(_width(LMAX, TILE) // TILE):
        at, there = _places(x + item * ((LMAX + 1) * (LMAX + 1)) * C + c, mask, C, n, LMAX, TILE)
        tiles += (tl.load(at, there, 0.0).to(tl.float32),)
    return tiles


@triton.jit
def _zeros(LMAX: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    tiles = ()
    for _ in tl.static_range(_width(LMAX, TILE) // TILE):
        tiles += (tl.zeros([BLOCK, TILE], tl.float32),)
    return tiles


@triton.jit
def _values(held, tables, start, OWN: tl.constexpr, PRECISION: tl.constexpr,
            BLOCK: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """Components of a function at a block of points, each in its even and its odd part."""
    parts = ()
    for k in tl.static_range(len(OWN.components)):
        t_at = tables + OWN.components[k] + start * _width(OWN.lmax, TILE)
        u = _value(held, t_at, OWN.lmax, 0, PRECISION, BLOCK, P, TILE)
        v = _value(held, t_at, OWN.lmax, 1, PRECISION, BLOCK, P, TILE)
        parts += ((u, v),)
    return parts


@triton.jit
def _summed(sums, values, weight, tables, start, OWN: tl.constexpr, PRECISION: tl.constexpr,
            BLOCK: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """The sums of a result with a block of points more."""
    for k in tl.static_range(len(OWN.components)):
        t_at = tables + OWN.components[k].table + start * _width(OWN.lmax, TILE)
        even = weight * _product(values, OWN.components[k], 0, P, BLOCK)
        sums = _sum(sums, even, t_at, OWN.lmax, 0, PRECISION, P, TILE)
        odd = weight * _product(values, OWN.components[k], 1, P, BLOCK)
        sums = _sum(sums, odd, t_at, OWN.lmax, 1, PRECISION, P, TILE)
    return sums


@triton.jit
def _stored(sums, out, item, c, mask, C, ADD: tl.constexpr, LMAX: tl.constexpr, TILE: tl.constexpr):
    for n in tl.static_range(len(sums)):
        at, there = _places(out + item * ((LMAX + 1) * (LMAX + 1)) * C + c, mask, C, n, LMAX, TILE)
        z = sums[n]
        if ADD:
            z += tl.load(at, there, 0.0).to(tl.float32)
        tl.store(at, z, there)


@triton.jit
def _gaunt(
    xs, outs, tables, columns, C,
    JOB: tl.constexpr, POINTS: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, P: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile of columns: an item and a channel each."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask, item, c = column < columns, column // C, column % C
    held, sums = (), ()
    for n in tl.static_range(len(JOB.operands)):
        held += (_held(xs[n], item, c, mask, C, JOB.operands[n].lmax, TILE),)
    for r in tl.static_range(len(JOB.results)):
        sums += (_zeros(JOB.results[r].lmax, TILE, BLOCK),)
    for start in range(0, POINTS, P):
        weight = tl.load(tables + start + tl.arange(0, P))[None, :]
        values, more = (), ()
        for n in tl.static_range(len(JOB.operands)):
            values += _values(held[n], tables, start, JOB.operands[n], PRECISION, BLOCK, P, TILE)
        for r in tl.static_range(len(JOB.results)):
            more += (
                _summed(sums[r], values, weight, tables, start, JOB.results[r], PRECISION, BLOCK, P, TILE),
            )
        sums = more
    for r in tl.static_range(len(JOB.results)):
        _stored(sums[r], outs[r], item, c, mask, C, ADD, JOB.results[r].lmax, TILE)


class Piece(NamedTuple):
    """One product of components of two tensors, for one component of a request."""

    request: int
    pair: tuple[int, int]
    name: str
    factors: tuple[tuple[int, str], tuple[int, str]]
    sign: int


class Launch(NamedTuple):
    """A job, the tensors and requests that it is about, and whether it adds to what is there."""

    job: Job
    tensors: tuple[int, ...]
    requests: tuple[int, ...]
    add: bool


def gaunt(tensors: list[Tensor], program: Program, form: Form) -> list[Tensor]:
    """Same contract as ``reference.gaunt``; sums in float32. What is not ``supported`` goes over a grid."""
    if not supported(form, tensors):
        return evaluate(tensors, program, form, grid.transform(form, tensors[0]))[0]
    xs = [x.contiguous() for x in tensors]
    (items, _, channels), kind = xs[0].shape, xs[0].dtype
    rows = [form.rows(slot) for slot, _ in program.requests]
    if items * channels == 0:
        return [xs[0].new_empty(items, count, channels) for count in rows]
    major, shared = _device(xs[0].device)
    launches = plan(program, form, room(form.precision, major))
    wide = torch.float32 if any(launch.add for launch in launches) else kind
    outs = [xs[0].new_empty(items, count, channels, dtype=wide) for count in rows]
    for launch in launches:
        options = settings(launch.job, form.precision, shared)
        _gaunt[(triton.cdiv(items * channels, options["BLOCK"]),)](
            tuple(xs[n] for n in launch.tensors),
            tuple(outs[r] for r in launch.requests),
            _tables(form, xs[0].device),
            items * channels,
            channels,
            JOB=launch.job,
            POINTS=_offsets(form)[1],
            ADD=launch.add,
            PRECISION=form.precision,
            **options,
        )
    return [out.to(kind) for out in outs]


def supported(form: Form, tensors: list[Tensor]) -> bool:
    """Whether the kernel takes these: single precision or less, and rows that registers can hold."""
    kinds = {x.dtype for x in tensors}
    return len(kinds) == 1 and kinds <= {*_KINDS} and max(form.lmaxs) <= _LMAX


def room(precision: str, major: int) -> int:
    """The ``cost`` up to which one launch keeps to registers, as compiled for sm_80 and sm_90."""
    return 24 if precision == "ieee" or major == 9 else 16


def cost(job: Job) -> int:
    """Small matrix products in a block of points, tiles of sums, and what more results take."""
    tiles = [_width(own.lmax, _TILE) // _TILE for own in job.operands + job.results]
    products = [n * len(own.components) for n, own in zip(tiles, job.operands + job.results, strict=True)]
    return sum(products) + sum(tiles[len(job.operands) :]) + 8 * (len(job.results) - 1)


def settings(job: Job, precision: str, shared: int) -> dict[str, int]:
    """How a launch is divided; ``shared`` is the memory of a program in bytes."""
    tiles = sum(_width(own.lmax, _TILE) // _TILE for own in job.operands)
    copies = 2 if precision == "tf32x3" else 1
    large = copies * tiles * _TILE * 64 * 4 + _OTHER > shared
    block, warps = (32, 4) if precision == "ieee" else (32, 2) if large else (64, 4)
    return {"BLOCK": block, "P": _POINTS, "TILE": _TILE, "num_warps": warps, "num_stages": 2}


@functools.lru_cache(maxsize=256)
def plan(program: Program, form: Form, most: int) -> tuple[Launch, ...]:
    """Launches that together compute a program: one if its ``cost`` is no more than ``most``."""
    launches: list[Launch] = []
    begun: set[int] = set()
    for pieces in _divided(_pieces(program, form), program, form, most):
        launch = _launch(pieces, program, form)
        launches.append(launch._replace(add=not begun.isdisjoint(launch.requests)))
        begun.update(launch.requests)
    return tuple(launches)


def _pieces(program: Program, form: Form) -> tuple[Piece, ...]:
    found = []
    for r, (slot, pairs) in enumerate(program.requests):
        for pair in pairs:
            held = {program.slots[n]: n for n in pair}
            for *factors, sign in form.terms:
                names = dict(factors)
                if names.keys() == {slot, *held}:
                    a, b = ((n, names[s]) for s, n in held.items())
                    found.append(Piece(r, pair, names[slot], (a, b), int(sign)))
    return tuple(found)


def _divided(
    pieces: tuple[Piece, ...], program: Program, form: Form, most: int
) -> Iterator[tuple[Piece, ...]]:
    """All at once where that fits, else request by request, pair by pair, or each product by itself."""
    if cost(_launch(pieces, program, form).job) > most:
        for depth in (1, 2, len(Piece._fields)):
            groups = [tuple(g) for _, g in itertools.groupby(pieces, operator.itemgetter(slice(depth)))]
            if len(groups) > 1:
                for group in groups:
                    yield from _divided(group, program, form, most)
                return
    yield pieces


def _launch(pieces: tuple[Piece, ...], program: Program, form: Form) -> Launch:
    at, _ = _offsets(form)
    factors = sorted({factor for piece in pieces for factor in piece.factors})
    tensors = sorted({n for n, _ in factors})
    requests = sorted({piece.request for piece in pieces})
    operands, results = [], []
    for n in tensors:
        lmax = form.lmax(program.slots[n])
        operands.append(Operand(lmax, tuple(at[lmax, name] for m, name in factors if m == n)))
    for r in requests:
        lmax = form.lmax(program.requests[r].slot)
        sums: dict[str, list[Term]] = {}
        for piece in pieces:
            if piece.request == r:
                a, b = (factors.index(factor) for factor in piece.factors)
                turned = "polar" in (piece.name, *(name for _, name in piece.factors))
                sums.setdefault(piece.name, []).append(Term(a, b, piece.sign, int(turned)))
        parts = [Component(at[lmax, name], tuple(terms)) for name, terms in sums.items()]
        results.append(Result(lmax, tuple(parts)))
    job = Job(tuple(operands), tuple(results))
    return Launch(job, tuple(tensors), tuple(requests), False)


@functools.lru_cache(maxsize=256)
def _offsets(form: Form) -> tuple[dict[tuple[int, str], int], int]:
    """Where each table begins after the weights, and the number of points, padded."""
    half = _half(form)
    points = triton.cdiv(half.beta.shape[0] * half.alpha.shape[0] // 2, _POINTS) * _POINTS
    at, end = {}, points
    for slot in range(4):
        for name in form.components(slot):
            if (form.lmax(slot), name) not in at:
                at[form.lmax(slot), name] = end
                end += points * _width(form.lmax(slot), _TILE)
    return at, points


def _half(form: Form) -> SphereGrid:
    """An exact grid of which the first half of the longitudes has one of every two opposite points."""
    return product_grid(*form.lmaxs, longitudes=2 * (sum(form.lmaxs) // 2 + 1))


@functools.lru_cache(maxsize=64)
def _tables(form: Form, device: torch.device) -> Tensor:
    """Weights of one half of the points, then the tables there: rows of even degrees, then of odd ones."""
    half, (at, points) = _half(form), _offsets(form)
    around = half.alpha.shape[0] // 2
    weight = 2 * half.weight.repeat_interleave(around)
    parts = [torch.nn.functional.pad(weight, (0, points - weight.shape[0]))]
    for lmax, name in at:
        here = table(half, lmax, name).unflatten(0, (-1, 2, around))[:, 0].flatten(0, 1)
        padded = here.new_zeros(points, _width(lmax, _TILE))
        for odd in (0, 1):
            rows = [l * l + i for l in range(odd, lmax + 1, 2) for i in range(2 * l + 1)]
            start = odd * _TILE * _tiles(lmax, 0, _TILE)
            padded[: here.shape[0], start : start + len(rows)] = here[:, rows]
        parts.append(padded.flatten())
    return torch.cat(parts).to(device, torch.float32)


@functools.cache
def _device(device: torch.device) -> tuple[int, int]:
    """Generation of a GPU, and the bytes of shared memory of a program; the interpreter has any."""
    if device.type != "cuda":
        return 9, 1 << 18
    known = torch.cuda.get_device_properties(device)
    return known.major, known.shared_memory_per_block_optin  # type: ignore[attr-defined]
