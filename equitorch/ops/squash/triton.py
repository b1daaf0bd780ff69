"""``squash`` and its derivatives in Triton: one program per feature and block of channels, in registers."""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.squash import reference

_ROWS = {torch.float64: 36}  # what registers hold; features with more rows run by the reference


@triton.jit
def _rows(x, i, c, C, ROWS: tl.constexpr, ACC: tl.constexpr):
    rows = ()
    for m in tl.static_range(ROWS):
        rows += (tl.load(x + (i * ROWS + m) * C + c, c < C, 0.0).to(ACC),)
    return rows


@triton.jit
def _dot(a, b, ROWS: tl.constexpr):
    total = a[0] * b[0]
    for m in tl.static_range(1, ROWS):
        total += a[m] * b[m]
    return total


@triton.jit
def _squash(x, out, C, ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    xs = _rows(x, i, c, C, ROWS, ACC)
    r = 1.0 / (_dot(xs, xs, ROWS) + 1.0)
    for m in tl.static_range(ROWS):
        tl.store(out + (i * ROWS + m) * C + c, xs[m] * r, c < C)


@triton.jit
def _slope(x, h, out, C, ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    xs, hs = _rows(x, i, c, C, ROWS, ACC), _rows(h, i, c, C, ROWS, ACC)
    r = 1.0 / (_dot(xs, xs, ROWS) + 1.0)
    along = 2.0 * r * r * _dot(xs, hs, ROWS)
    for m in tl.static_range(ROWS):
        tl.store(out + (i * ROWS + m) * C + c, hs[m] * r - along * xs[m], c < C)


@triton.jit
def _curvature(x, h, k, out, C, ROWS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    xs, hs, ks = _rows(x, i, c, C, ROWS, ACC), _rows(h, i, c, C, ROWS, ACC), _rows(k, i, c, C, ROWS, ACC)
    r = 1.0 / (_dot(xs, xs, ROWS) + 1.0)
    xh, xk = _dot(xs, hs, ROWS), _dot(xs, ks, ROWS)
    along = 4.0 * r * xh * xk - _dot(hs, ks, ROWS)
    for m in tl.static_range(ROWS):
        bent = 2.0 * r * r * (along * xs[m] - xk * hs[m] - xh * ks[m])
        tl.store(out + (i * ROWS + m) * C + c, bent, c < C)


def squash(x: Tensor) -> Tensor:
    """Same contract as ``reference.squash``; sums in float32, or float64 for float64 features."""
    return _run(_squash, x) if _few(x) else reference.squash(x)


def slope(x: Tensor, h: Tensor) -> Tensor:
    """Same contract as ``reference.slope``."""
    return _run(_slope, x, h) if _few(x) else reference.slope(x, h)


def curvature(x: Tensor, h: Tensor, k: Tensor) -> Tensor:
    """Same contract as ``reference.curvature``."""
    return _run(_curvature, x, h, k) if _few(x) else reference.curvature(x, h, k)


def _few(x: Tensor) -> bool:
    return x.shape[-2] <= _ROWS.get(x.dtype, 64)


def _run(kernel: triton.JITFunction, *operands: Tensor) -> Tensor:
    out = torch.empty_like(operands[0], memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    rows, channels = out.shape[-2:]
    block = min(128, max(32, triton.next_power_of_2(channels)))
    grid = out.numel() // (rows * channels), triton.cdiv(channels, block)
    wide = tl.float64 if out.dtype == torch.float64 else tl.float32
    tensors = [x.contiguous() for x in operands]
    kernel[grid](*tensors, out, channels, ROWS=rows, ACC=wide, BLOCK=block, num_warps=block // 32)
    return out
