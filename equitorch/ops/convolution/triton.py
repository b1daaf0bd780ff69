"""``convolution`` in Triton: the coupling is unrolled, all sums stay in registers, and there are no atomics.

Each number of the coupling is written into the program, because registers have no addresses; ``Unrolled``
says which. A program computes the numbers A of its edge anew, once for every ``BLOCK`` channels: that is a
multiplication for each coefficient, and cheaper than a load.
"""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.convolution.form import LISTS, form_name
from equitorch.ops.convolution.reference import (
    FEATURE,
    FILTER,
    LATENT,
    PROJECTION,
    RESULT,
    WALKS,
    WEIGHT,
    fake,
)
from equitorch.ops.convolution.unrolled import Unrolled

_REGISTERS = 144  # of a thread, for the channels of rows and weights; addresses and numbers A need more
_unrolled: dict[tuple[object, ...], Unrolled] = {}


@triton.jit
def _rows(at, mask, C, ROWS: tl.constexpr, ACC: tl.constexpr):
    """The rows of a node, each a vector of channels."""
    held = ()
    for n in tl.static_range(len(ROWS)):
        held += (tl.load(at + ROWS[n] * C, mask, 0.0).to(ACC),)
    return held


@triton.jit
def _numbers(at, mask, COUNT: tl.constexpr, ACC: tl.constexpr):
    """The filter of an edge, each row a number."""
    held = ()
    for n in tl.static_range(COUNT):
        held += (tl.load(at + n, mask, 0.0).to(ACC),)
    return held


@triton.jit
def _zeros(COUNT: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    held = ()
    for _ in tl.static_range(COUNT):
        held += (tl.zeros([BLOCK], ACC),)
    return held


@triton.jit
def _added(totals, term, AT: tl.constexpr):
    """The totals with a term added to one of them: in Triton's language a tuple keeps what it holds."""
    return totals[:AT] + (totals[AT] + term,) + totals[AT + 1 :]  # noqa: RUF005 (Triton unpacks nothing)


@triton.jit
def _mixed(x, y, CELL: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """The features coupled with the filter by one path into one row: the sum of A x."""
    z = tl.zeros([BLOCK], ACC)
    for t in tl.static_range(len(CELL.terms)):
        a = CELL.terms[t].values[0] * y[CELL.terms[t].filters[0]]
        for n in tl.static_range(1, len(CELL.terms[t].values)):
            a += CELL.terms[t].values[n] * y[CELL.terms[t].filters[n]]
        z += a * x[CELL.terms[t].at]
    return z


@triton.jit
def _gather_group(
    feature, filters, weight, out, other, start, edge, pair, i, c, C,
    FORM: tl.constexpr, GROUP: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    mask = c < C
    totals = _zeros(len(GROUP.rows), ACC, BLOCK)
    for s in tl.static_range(len(GROUP.segments)):  # each walks anew: loads move up to where a loop begins
        for n in range(tl.load(start + i), tl.load(start + i + 1)):
            e = tl.load(edge + n)
            y = _numbers(filters + e * FORM.dims[1], e >= 0, FORM.dims[1], ACC)
            x_at = feature + tl.load(other + e) * FORM.dims[0] * C + c
            w_at = weight + tl.load(pair + e) * FORM.dims[3] * C + c
            x = _rows(x_at, mask, C, GROUP.segments[s].rows, ACC)
            for p in tl.static_range(len(GROUP.segments[s].paths)):
                w = tl.load(w_at + GROUP.segments[s].paths[p].number * C, mask, 0.0).to(ACC)
                for k in tl.static_range(len(GROUP.segments[s].paths[p].cells)):
                    z = _mixed(x, y, GROUP.segments[s].paths[p].cells[k], ACC, BLOCK)
                    totals = _added(totals, w * z, GROUP.segments[s].paths[p].cells[k].at)
    for m in tl.static_range(len(GROUP.rows)):
        tl.store(out + (i * FORM.dims[2] + GROUP.rows[m]) * C + c, totals[m], mask)


@triton.jit
def _gather(
    feature, filters, weight, out, other, start, edge, pair, C, blocks,
    FORM: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The result at each node; or, by the sender's walk and the transposed form, the features' derivative."""
    i = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    for g in tl.static_range(len(FORM.groups)):
        if tl.program_id(1) == g:
            _gather_group(
                feature, filters, weight, out, other, start, edge, pair, i, c, C,
                FORM, FORM.groups[g], ACC, BLOCK,
            )  # fmt: skip
    if tl.program_id(1) == 0:
        for m in tl.static_range(len(FORM.empty_rows)):
            at = out + (i * FORM.dims[2] + FORM.empty_rows[m]) * C + c
            tl.store(at, tl.zeros([BLOCK], ACC), c < C)


@triton.jit
def _weights(
    feature, filters, result, out, source, target, pair_edge, C, blocks,
    FORM: tl.constexpr, SIDES: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same sums over rows of the result instead of over edges; a pair has one or two of these."""
    q = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    out_at = out + q * FORM.dims[3] * C + c
    for s in tl.static_range(len(FORM.groups[0].segments)):
        totals = _zeros(len(FORM.groups[0].segments[s].paths), ACC, BLOCK)
        for side in range(SIDES):
            e = tl.load(pair_edge + 2 * q + side)
            mask = (c < C) & (e >= 0)
            y = _numbers(filters + e * FORM.dims[1], e >= 0, FORM.dims[1], ACC)
            x_at = feature + tl.load(source + e, e >= 0, 0) * FORM.dims[0] * C + c
            g_at = result + tl.load(target + e, e >= 0, 0) * FORM.dims[2] * C + c
            x = _rows(x_at, mask, C, FORM.groups[0].segments[s].rows, ACC)
            g = _rows(g_at, mask, C, FORM.groups[0].segments[s].result, ACC)
            for p in tl.static_range(len(FORM.groups[0].segments[s].paths)):
                for k in tl.static_range(len(FORM.groups[0].segments[s].paths[p].cells)):
                    z = _mixed(x, y, FORM.groups[0].segments[s].paths[p].cells[k], ACC, BLOCK)
                    totals = _added(totals, g[FORM.groups[0].segments[s].paths[p].cells[k].at] * z, p)
        for p in tl.static_range(len(FORM.groups[0].segments[s].paths)):
            tl.store(out_at + FORM.groups[0].segments[s].paths[p].number * C, totals[p], c < C)
    for p in tl.static_range(len(FORM.empty_paths)):
        tl.store(out_at + FORM.empty_paths[p] * C, tl.zeros([BLOCK], ACC), c < C)


@triton.jit
def _spread(sums, x, below, CELL: tl.constexpr):
    """What one path and one row give to each row of the filter, not yet summed over channels."""
    for t in tl.static_range(len(CELL.terms)):
        term = below * x[CELL.terms[t].at]
        for n in tl.static_range(len(CELL.terms[t].values)):
            sums = _added(sums, CELL.terms[t].values[n] * term, CELL.terms[t].filters[n])
    return sums


@triton.jit
def _filters(
    feature, weight, result, out, source, target, pair, C,
    FORM: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums over channels: one for each row of the filter, at the very end."""
    e = tl.program_id(0).to(tl.int64)
    sums = _zeros(FORM.dims[1], ACC, BLOCK)
    for s in tl.static_range(len(FORM.groups[0].segments)):
        for low in range(0, C, BLOCK):
            c = low + tl.arange(0, BLOCK)
            mask = c < C
            x_at = feature + tl.load(source + e) * FORM.dims[0] * C + c
            w_at = weight + tl.load(pair + e) * FORM.dims[3] * C + c
            g_at = result + tl.load(target + e) * FORM.dims[2] * C + c
            x = _rows(x_at, mask, C, FORM.groups[0].segments[s].rows, ACC)
            g = _rows(g_at, mask, C, FORM.groups[0].segments[s].result, ACC)
            for p in tl.static_range(len(FORM.groups[0].segments[s].paths)):
                w = tl.load(w_at + FORM.groups[0].segments[s].paths[p].number * C, mask, 0.0).to(ACC)
                for k in tl.static_range(len(FORM.groups[0].segments[s].paths[p].cells)):
                    below = w * g[FORM.groups[0].segments[s].paths[p].cells[k].at]
                    sums = _spread(sums, x, below, FORM.groups[0].segments[s].paths[p].cells[k])
    for j in tl.static_range(len(sums)):
        tl.store(out + e * FORM.dims[1] + j, tl.sum(sums[j]))


def convolution(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.convolution``; sums in float32, or float64 for float64 operands.

    The first call for a coupling reads its lists from the device and compiles.
    """
    xs = [x.contiguous() for x in operands]
    out = fake(open_slot, xs, plan, sizes)
    if out.numel() == 0:
        return out
    source, target, row_ptr, receiver_edge, sender_ptr, sender_edge, pair, pair_edge = plan[:WALKS]
    double, channels = torch.float64 in (xs[0].dtype, xs[1].dtype), xs[-1].shape[-1]
    form = unrolled(open_slot, plan, sizes, most=12 if double else 24)
    if not form.groups:
        return out.zero_()
    block = _block(open_slot, form, channels, double)
    settings = {"FORM": form, "ACC": tl.float64 if double else tl.float32, "BLOCK": block, "num_warps": 1}
    blocks = triton.cdiv(channels, block)
    if open_slot == FILTER:
        walk = [source, target, pair]
        _filters[(out.shape[0],)](*xs, out, *_dense(walk), channels, **settings)
    elif open_slot == WEIGHT:
        walk = [source, target, pair_edge]
        settings["SIDES"] = 1 if source.shape[0] == out.shape[0] else 2  # as many pairs as edges: one each
        _weights[(out.shape[0] * blocks,)](*xs, out, *_dense(walk), channels, blocks, **settings)
    else:
        if open_slot == RESULT:
            walk = [source, row_ptr, receiver_edge, pair]
        else:
            walk, xs = [target, sender_ptr, sender_edge, pair], [xs[2], *xs[:2]]
        grid = out.shape[0] * blocks, len(form.groups)
        _gather[grid](*xs, out, *_dense(walk), channels, blocks, **settings)
    return out


def projected_convolution(
    open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]
) -> Tensor:
    """Same contract as the reference; the weights, or their derivative, exist for the length of a call."""
    if open_slot in (LATENT, PROJECTION):
        x, y, other, g = operands
        weight = convolution(WEIGHT, [x, y, g], plan, sizes).flatten(1)
        if open_slot == LATENT:
            return weight @ other.flatten(1).T
        return (other.T @ weight).unflatten(1, (sizes[3], x.shape[-1]))
    first = LATENT if open_slot > PROJECTION else LATENT - 1
    latent, projection = operands[first : first + 2]
    weight = (latent @ projection.flatten(1)).unflatten(1, projection.shape[1:])
    slots = [*operands[:first], weight, *operands[first + 2 :]]
    return convolution(RESULT if open_slot > PROJECTION else open_slot, slots, plan, sizes)


def unrolled(open_slot: int, plan: list[Tensor], sizes: list[int], *, most: int) -> Unrolled:
    """The coupling as the kernel of a slot unrolls it: built once for each name in ``sizes``."""
    transposed, summed = open_slot == FEATURE, open_slot in (FEATURE, RESULT)
    lists = plan[WALKS + LISTS :] if transposed else plan[WALKS : WALKS + LISTS]
    rows, filters, result, paths, _, name = [*sizes, 0][:6]
    dims = (result, filters, rows, paths) if transposed else (rows, filters, result, paths)
    key = name or form_name(plan[WALKS:]), dims, transposed, summed, most
    if key not in _unrolled:
        _unrolled[key] = Unrolled.build(lists, dims, summed=summed, most=most)
    return _unrolled[key]


def _dense(walk: list[Tensor]) -> list[Tensor]:
    return [index.contiguous() for index in walk]


def _block(open_slot: int, form: Unrolled, channels: int, double: bool) -> int:
    """How many channels a warp holds: one, two or four to a thread."""
    held = form.features + form.results + form.weights + (form.dims[1] if open_slot == FILTER else 0)
    fit = max(1, _REGISTERS // (held * (2 if double else 1)))
    wanted = max(1, triton.cdiv(channels, 32))
    return 32 * (4 if min(fit, wanted) >= 4 else min(fit, wanted, 2))
