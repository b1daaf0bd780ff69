"""``density`` in Triton: one program walks the edges of a node, its rows in registers; no atomics."""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.density.reference import ANGLE, RECEIVER, SPECIES, WEIGHT, fake

_ROWS, _DEGREES = 16, 8  # at most so many in the registers of one program


@triton.jit
def _receivers(
    weight, species, angle, out, source, start, pair, degree, R, D, C, nodes,
    ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.program_id(2) * ROWS
    degrees, totals = (), ()
    for m in tl.static_range(ROWS):
        degrees += (tl.load(degree + first + m, first + m < R, 0),)
        totals += (tl.zeros([BLOCK], ACC),)
    a = tl.load(species + i * C + c, c < C, 0.0).to(ACC)
    for e in range(tl.load(start + i), tl.load(start + i + 1)):
        w_at, y_at = weight + tl.load(pair + e) * D * C + c, angle + e * R + first
        h = a + tl.load(species + (nodes + tl.load(source + e)) * C + c, c < C, 0.0).to(ACC)
        sums = ()
        for m in tl.static_range(ROWS):
            w = tl.load(w_at + degrees[m] * C, (c < C) & (first + m < R), 0.0).to(ACC)
            sums += (totals[m] + w * h * tl.load(y_at + m, first + m < R, 0.0).to(ACC),)
        totals = sums
    for m in tl.static_range(ROWS):
        tl.store(out + (i * R + first + m) * C + c, totals[m], (c < C) & (first + m < R))


@triton.jit
def _weights(
    species, angle, receiver, out, source, target, pair_edge, degree, R, D, C, nodes,
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
        i, j = tl.load(target + e, e >= 0, 0), tl.load(source + e, e >= 0, 0)
        mask = (c < C) & (e >= 0)
        h = tl.load(species + i * C + c, mask, 0.0).to(ACC)
        h += tl.load(species + (nodes + j) * C + c, mask, 0.0).to(ACC)
        for low in range(0, R, ROWS):
            for m in tl.static_range(ROWS):
                row = low + m
                degree_here = tl.load(degree + row, row < R, -1) - first
                inside = (row < R) & (e >= 0) & (degree_here >= 0) & (degree_here < DEGREES)
                g = tl.load(receiver + (i * R + row) * C + c, (c < C) & inside, 0.0).to(ACC)
                term = h * g * tl.load(angle + e * R + row, inside, 0.0).to(ACC)
                sums = ()
                for l in tl.static_range(DEGREES):
                    sums += (totals[l] + tl.where(degree_here == l, term, 0.0),)
                totals = sums
    for l in tl.static_range(DEGREES):
        tl.store(out + (p * D + first + l) * C + c, totals[l], (c < C) & (first + l < D))


@triton.jit
def _angles(
    weight, species, receiver, out, source, target, pair, degree, R, D, C, nodes,
    ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program per edge: for each row a sum over the channels."""
    e = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * ROWS
    i, j, p = tl.load(target + e), tl.load(source + e), tl.load(pair + e)
    degrees, totals = (), ()
    for m in tl.static_range(ROWS):
        degrees += (tl.load(degree + first + m, first + m < R, 0),)
        totals += (tl.zeros([BLOCK], ACC),)
    for low in range(0, C, BLOCK):
        c = low + tl.arange(0, BLOCK)
        h = tl.load(species + i * C + c, c < C, 0.0).to(ACC)
        h += tl.load(species + (nodes + j) * C + c, c < C, 0.0).to(ACC)
        sums = ()
        for m in tl.static_range(ROWS):
            mask = (c < C) & (first + m < R)
            w = tl.load(weight + (p * D + degrees[m]) * C + c, mask, 0.0).to(ACC)
            g = tl.load(receiver + (i * R + first + m) * C + c, mask, 0.0).to(ACC)
            sums += (totals[m] + w * h * g,)
        totals = sums
    for m in tl.static_range(ROWS):
        tl.store(out + e * R + first + m, tl.sum(totals[m]), first + m < R)


@triton.jit
def _species(
    weight, angle, receiver, out, start, edge, node, pair, degree, R, D, C,
    THROUGH: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The receivers' half; with ``THROUGH`` the senders', their edges listed by ``edge``."""
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], ACC)
    for k in range(tl.load(start + i), tl.load(start + i + 1)):
        e = tl.load(edge + k) if THROUGH else k
        w_at = weight + tl.load(pair + e) * D * C + c
        g_at = receiver + (tl.load(node + e) if THROUGH else i) * R * C + c
        for low in range(0, R, ROWS):
            for m in tl.static_range(ROWS):
                row = low + m
                mask = (c < C) & (row < R)
                w = tl.load(w_at + tl.load(degree + row, row < R, 0) * C, mask, 0.0).to(ACC)
                g = tl.load(g_at + row * C, mask, 0.0).to(ACC)
                total += w * g * tl.load(angle + e * R + row, row < R, 0.0).to(ACC)
    tl.store(out + i * C + c, total, c < C)


def density(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.density``; sums in float32, or float64 for float64 operands."""
    filled = [x.contiguous() for x in operands]
    out = fake(open_slot, filled, plan, sizes)
    source, target, row_ptr, sender_ptr, sender_edge, pair, pair_edge, degree = (t.contiguous() for t in plan)
    nodes, rows = row_ptr.shape[0] - 1, degree.shape[0]
    channels = filled[-1].shape[-1] if open_slot != RECEIVER else filled[0].shape[-1]
    if out.numel() == 0:
        return out
    block = min(128, max(32, triton.next_power_of_2(channels)))
    shape, blocks = (rows, sizes[0], channels), triton.cdiv(channels, block)
    settings: dict[str, Any] = {
        "ROWS": _tile(rows, _ROWS),
        "ACC": tl.float64 if filled[0].dtype == torch.float64 else tl.float32,
        "BLOCK": block,
        "num_warps": block // 32,
    }
    tiles = triton.cdiv(rows, settings["ROWS"])
    if open_slot == RECEIVER:
        edges = source, row_ptr, pair, degree
        _receivers[nodes, blocks, tiles](*filled, out, *edges, *shape, nodes, **settings)
    elif open_slot == WEIGHT:
        degrees = _tile(sizes[0], _DEGREES)
        grid = out.shape[0], blocks, triton.cdiv(sizes[0], degrees)
        edges = source, target, pair_edge, degree
        _weights[grid](*filled, out, *edges, *shape, nodes, DEGREES=degrees, **settings)
    elif open_slot == ANGLE:
        settings |= {"BLOCK": min(64, block), "num_warps": 1}  # a sum within one warp
        edges = source, target, pair, degree
        _angles[out.shape[0], tiles](*filled, out, *edges, *shape, nodes, **settings)
    else:
        assert open_slot == SPECIES, "the form has four slots"
        for half, start in enumerate((row_ptr, sender_ptr)):
            edges = start, sender_edge, target, pair, degree
            _species[nodes, blocks](*filled, out[half], *edges, *shape, THROUGH=half == 1, **settings)
    return out


def _tile(count: int, most: int) -> int:
    """The size of equal pieces, each of at most ``most``, that hold ``count``."""
    return max(1, triton.cdiv(count, max(1, triton.cdiv(count, most))))
