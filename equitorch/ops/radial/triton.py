"""``blend`` in Triton: the two knots of each point, or all points around each knot; no atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.radial.knots import by_knot, polynomials
from equitorch.ops.radial.reference import COLUMN, TABLE, fake


@triton.jit
def _horner(s, POLYNOMIALS: tl.constexpr, ROW: tl.constexpr):
    total = s * POLYNOMIALS[ROW][5] + POLYNOMIALS[ROW][4]
    for k in tl.static_range(4):
        total = s * total + POLYNOMIALS[ROW][3 - k]
    return total


@triton.jit
def _weights(at, last, POLYNOMIALS: tl.constexpr, SIGN: tl.constexpr, ACC: tl.constexpr):
    """Whether the point lies beyond the last knot, the knot on its left, and the six weights."""
    x = tl.load(at).to(ACC)
    beyond = x > last
    x = tl.where(beyond, 0.0, x)
    knot = tl.minimum(tl.where(x >= 0.0, x, 0.0).to(tl.int32), last - 1)  # NaN has one, too
    t = x - knot
    s = 1.0 - t
    a0, a1 = SIGN * _horner(s, POLYNOMIALS, 0), SIGN * _horner(s, POLYNOMIALS, 1)
    b0, b1 = _horner(t, POLYNOMIALS, 0), -_horner(t, POLYNOMIALS, 1)
    return beyond, knot, a0, a1, SIGN * _horner(s, POLYNOMIALS, 2), b0, b1, _horner(t, POLYNOMIALS, 2)


@triton.jit
def _between(at, N, mask, a0, a1, a2, b0, b1, b2, ACC: tl.constexpr):
    left = a0 * tl.load(at, mask, 0.0).to(ACC) + a1 * tl.load(at + N, mask, 0.0).to(ACC)
    left += a2 * tl.load(at + 2 * N, mask, 0.0).to(ACC)
    right = b0 * tl.load(at + 3 * N, mask, 0.0).to(ACC) + b1 * tl.load(at + 4 * N, mask, 0.0).to(ACC)
    return left + right + b2 * tl.load(at + 5 * N, mask, 0.0).to(ACC)


@triton.jit
def _columns(
    table, point, place, out, last, N,
    POLYNOMIALS: tl.constexpr, SIGN: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    beyond, knot, a0, a1, a2, b0, b1, b2 = _weights(place + p, last, POLYNOMIALS, SIGN, ACC)
    at = table + knot.to(tl.int64) * 3 * N + n
    value = tl.load(point + p).to(ACC) * _between(at, N, n < N, a0, a1, a2, b0, b1, b2, ACC)
    tl.store(out + p * N + n, tl.where(beyond, 0.0, value), n < N)


@triton.jit
def _points(
    table, column, place, out, last, N,
    POLYNOMIALS: tl.constexpr, SIGN: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64)
    beyond, knot, a0, a1, a2, b0, b1, b2 = _weights(place + p, last, POLYNOMIALS, SIGN, ACC)
    total = tl.zeros([BLOCK], ACC)
    for low in range(0, N, BLOCK):
        n = low + tl.arange(0, BLOCK)
        at = table + knot.to(tl.int64) * 3 * N + n
        g = tl.load(column + p * N + n, n < N, 0.0).to(ACC)
        total += g * _between(at, N, n < N, a0, a1, a2, b0, b1, b2, ACC)
    tl.store(out + p, tl.where(beyond, 0.0, tl.sum(total)))


@triton.jit
def _table(
    column, point, place, points, start, out, last, N,
    POLYNOMIALS: tl.constexpr, SIGN: tl.constexpr, ACC: tl.constexpr, POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Each knot collects the points on its right, then those on its left."""
    knot = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value, slope, bend = (
        tl.zeros([POINTS, BLOCK], ACC),
        tl.zeros([POINTS, BLOCK], ACC),
        tl.zeros([POINTS, BLOCK], ACC),
    )
    for side in tl.static_range(2):
        inside = (knot >= side) & (knot < last + side)
        high = tl.load(start + knot - side + 1, inside, 0)
        for r in range(tl.load(start + knot - side, inside, 0), high, POINTS):
            here = r + tl.arange(0, POINTS)
            p = tl.load(points + here, here < high, 0)
            x = tl.load(place + p, here < high, 0.0).to(ACC)
            u = tl.load(point + p, here < high, 0.0).to(ACC)
            s = (x - (knot - 1)) if side else (knot + 1) - x
            w0, w1, w2 = (
                u * _horner(s, POLYNOMIALS, 0),
                u * _horner(s, POLYNOMIALS, 1),
                u * _horner(s, POLYNOMIALS, 2),
            )
            if side:
                w1 = -w1
            else:
                w0, w1, w2 = SIGN * w0, SIGN * w1, SIGN * w2
            g = tl.load(column + p[:, None] * N + n[None, :], (here < high)[:, None] & (n < N)[None, :], 0.0)
            value += w0[:, None] * g.to(ACC)
            slope += w1[:, None] * g.to(ACC)
            bend += w2[:, None] * g.to(ACC)
    at = out + knot * 3 * N + n
    tl.store(at, tl.sum(value, 0), n < N)
    tl.store(at + N, tl.sum(slope, 0), n < N)
    tl.store(at + 2 * N, tl.sum(bend, 0), n < N)


def blend(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.blend``; sums in float32, or float64 where anything is float64."""
    (place,), (order, knots) = plan, sizes
    first, second, place = (x.contiguous() for x in (*operands, place))
    out = fake(open_slot, [first, second], [place], sizes)
    columns = first.shape[-1]
    if out.numel() == 0:
        return out
    double = torch.float64 in (first.dtype, second.dtype, place.dtype)
    block = min(128, max(32, triton.next_power_of_2(columns)))
    settings = {
        "POLYNOMIALS": polynomials(order),
        "SIGN": (-1) ** order,
        "ACC": tl.float64 if double else tl.float32,
        "BLOCK": block,
    }
    blocks = triton.cdiv(columns, block)
    if open_slot == TABLE:
        points, start = by_knot(place, knots)
        tensors = first, second, place, points, start, out
        _table[knots, blocks](*tensors, knots - 1, columns, **settings, POINTS=8, num_warps=4)
    elif open_slot == COLUMN:
        grid = place.shape[0], blocks
        _columns[grid](first, second, place, out, knots - 1, columns, **settings, num_warps=1)
    else:
        _points[place.shape[0],](first, second, place, out, knots - 1, columns, **settings, num_warps=1)
    return out
