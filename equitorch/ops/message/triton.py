"""``message`` in Triton: one program walks the edges of a node, its rows in registers; no atomics."""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.message.reference import RECEIVER, WEIGHT, fake

_ROWS, _DEGREES = 16, 8  # at most so many in the registers of one program


@triton.jit
def _gather(
    weight, feature, out, other, start, edge, pair, degree, R, D, C,
    THROUGH: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Edges of a node are consecutive, or with ``THROUGH`` listed by ``edge``."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.program_id(2) * ROWS
    degrees, totals = (), ()
    for m in tl.static_range(ROWS):
        degrees += (tl.load(degree + first + m, first + m < R, 0),)
        totals += (tl.zeros([BLOCK], ACC),)
    for k in range(tl.load(start + i), tl.load(start + i + 1)):
        e = tl.load(edge + k) if THROUGH else k
        w_at = weight + tl.load(pair + e) * D * C + c
        x_at = feature + (tl.load(other + e) * R + first) * C + c
        sums = ()
        for m in tl.static_range(ROWS):
            mask = (c < C) & (first + m < R)
            w = tl.load(w_at + degrees[m] * C, mask, 0.0).to(ACC)
            sums += (totals[m] + w * tl.load(x_at + m * C, mask, 0.0).to(ACC),)
        totals = sums
    for m in tl.static_range(ROWS):
        tl.store(out + (i * R + first + m) * C + c, totals[m], (c < C) & (first + m < R))


@triton.jit
def _weights(
    sender, receiver, out, source, target, pair_edge, degree, R, D, C,
    ROWS: tl.constexpr, DEGREES: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Both edges of a pair; a row's product goes to the sum of its degree."""
    p = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.program_id(2) * DEGREES
    totals = ()
    for _ in tl.static_range(DEGREES):
        totals += (tl.zeros([BLOCK], ACC),)
    for side in tl.static_range(2):
        e = tl.load(pair_edge + 2 * p + side)
        x_at = sender + tl.load(source + e, e >= 0, 0) * R * C + c
        g_at = receiver + tl.load(target + e, e >= 0, 0) * R * C + c
        for low in range(0, R, ROWS):
            for m in tl.static_range(ROWS):
                row = low + m
                degree_here = tl.load(degree + row, row < R, -1) - first
                mask = (c < C) & (row < R) & (e >= 0) & (degree_here >= 0) & (degree_here < DEGREES)
                term = tl.load(x_at + row * C, mask, 0.0).to(ACC) * tl.load(g_at + row * C, mask, 0.0).to(ACC)
                sums = ()
                for l in tl.static_range(DEGREES):
                    sums += (totals[l] + tl.where(degree_here == l, term, 0.0),)
                totals = sums
    for l in tl.static_range(DEGREES):
        tl.store(out + (p * D + first + l) * C + c, totals[l], (c < C) & (first + l < D))


def message(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.message``; sums in float32, or float64 for float64 operands."""
    first, second = (x.contiguous() for x in operands)
    out = fake(open_slot, [first, second], plan, sizes)
    source, target, row_ptr, sender_ptr, sender_edge, pair, pair_edge, degree = (t.contiguous() for t in plan)
    rows, channels = second.shape[1:]
    if out.numel() == 0:
        return out
    block = min(128, max(32, triton.next_power_of_2(channels)))
    settings = {
        "ROWS": _tile(rows, _ROWS),
        "ACC": tl.float64 if second.dtype == torch.float64 else tl.float32,
        "BLOCK": block,
        "num_warps": block // 32,
    }
    shape, blocks = (rows, sizes[0], channels), triton.cdiv(channels, block)
    if open_slot == WEIGHT:
        degrees = _tile(sizes[0], _DEGREES)
        grid = out.shape[0], blocks, triton.cdiv(sizes[0], degrees)
        pairs = source, target, pair_edge, degree
        _weights[grid](first, second, out, *pairs, *shape, DEGREES=degrees, **settings)
        return out
    grid = out.shape[0], blocks, triton.cdiv(rows, settings["ROWS"])
    through = open_slot != RECEIVER
    edges = (target, sender_ptr, sender_edge) if through else (source, row_ptr, sender_edge)
    _gather[grid](first, second, out, *edges, pair, degree, *shape, THROUGH=through, **settings)
    return out


def _tile(count: int, most: int) -> int:
    """The size of equal pieces, each of at most ``most``, that hold ``count``."""
    return max(1, triton.cdiv(count, max(1, triton.cdiv(count, most))))
