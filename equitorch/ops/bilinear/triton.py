"""``bilinear`` in Triton: one program per (item, output row, block of channels)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _bilinear(
    a, b, out, left, right, value, start, I, J, K, C,
    A_WIDE: tl.constexpr, B_WIDE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    c = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    mask = c < C
    total = tl.zeros([BLOCK], ACC)
    for t in range(tl.load(start + row), tl.load(start + row + 1)):
        x_row, y_row = item * I + tl.load(left + t), item * J + tl.load(right + t)
        x = tl.load(a + x_row * C + c, mask, 0.0) if A_WIDE else tl.load(a + x_row)
        y = tl.load(b + y_row * C + c, mask, 0.0) if B_WIDE else tl.load(b + y_row)
        total += tl.load(value + t).to(ACC) * x.to(ACC) * y.to(ACC)
    tl.store(out + (item * K + row) * C + c, total, mask)


@triton.jit
def _summed(
    a, b, out, left, right, value, start, I, J, K, C, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same where the open slot has one channel: a sum over those of the operands."""
    item = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    total = tl.zeros([BLOCK], ACC)
    for t in range(tl.load(start + row), tl.load(start + row + 1)):
        x_row, y_row = item * I + tl.load(left + t), item * J + tl.load(right + t)
        dot = tl.zeros([BLOCK], ACC)
        for low in range(0, C, BLOCK):
            c = low + tl.arange(0, BLOCK)
            x = tl.load(a + x_row * C + c, c < C, 0.0).to(ACC)
            y = tl.load(b + y_row * C + c, c < C, 0.0).to(ACC)
            dot += x * y
        total += tl.load(value + t).to(ACC) * dot
    tl.store(out + item * K + row, tl.sum(total))


def bilinear(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.bilinear``; sums in float32, or float64 for float64 operands."""
    a, b = (x.contiguous() for x in operands)
    (left, right), value, start = plan[3 * open_slot : 3 * open_slot + 3]
    items, rows, width = a.shape[0], start.shape[0] - 1, max(a.shape[2], b.shape[2])
    out = a.new_empty(items, rows, sizes[open_slot])
    if out.numel() == 0:
        return out
    block = min(128, triton.next_power_of_2(max(width, 1)))
    shape = a.shape[1], b.shape[1], rows, width
    tensors = a, b, out, left.contiguous(), right.contiguous(), value, start
    wide = tl.float64 if a.dtype == torch.float64 else tl.float32
    if width != 1 and out.shape[2] == 1:
        _summed[(items, rows)](*tensors, *shape, ACC=wide, BLOCK=block)
        return out
    grid = (items, rows, triton.cdiv(width, block))
    widths = {"A_WIDE": a.shape[2] > 1, "B_WIDE": b.shape[2] > 1}
    _bilinear[grid](*tensors, *shape, **widths, ACC=wide, BLOCK=block)
    return out
