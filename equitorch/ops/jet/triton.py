"""Jets in Triton: all orders of a block of numbers in one pass."""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256


@triton.jit
def _silu(x, out, N, ORDERS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    h = tl.load(x + i, i < N, 0.0).to(ACC)
    s = 1.0 / (1.0 + tl.exp(-h))
    s1 = s * (1.0 - s)
    tl.store(out + i, h * s, i < N)
    if ORDERS > 1:
        t = tl.load(x + N + i, i < N, 0.0).to(ACC)
        tl.store(out + N + i, (s + h * s1) * t, i < N)
    if ORDERS > 2:
        r = tl.load(x + 2 * tl.cast(N, tl.int64) + i, i < N, 0.0).to(ACC)
        bent = (2.0 * s1 + h * s1 * (1.0 - 2.0 * s)) * t * t + (s + h * s1) * r
        tl.store(out + 2 * tl.cast(N, tl.int64) + i, bent, i < N)


@triton.jit
def _silu_backward(grad, x, out, N, ORDERS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    h, g0 = tl.load(x + i, i < N, 0.0).to(ACC), tl.load(grad + i, i < N, 0.0).to(ACC)
    s = 1.0 / (1.0 + tl.exp(-h))
    s1 = s * (1.0 - s)
    s2 = s1 * (1.0 - 2.0 * s)
    a1, a2, a3 = s + h * s1, 2.0 * s1 + h * s2, 3.0 * s2 + h * s1 * (1.0 - 6.0 * s1)
    first = g0 * a1
    if ORDERS > 1:
        t, g1 = tl.load(x + N + i, i < N, 0.0).to(ACC), tl.load(grad + N + i, i < N, 0.0).to(ACC)
        first += g1 * a2 * t
        second = g1 * a1
        if ORDERS > 2:
            j = i + 2 * tl.cast(N, tl.int64)
            r, g2 = tl.load(x + j, i < N, 0.0).to(ACC), tl.load(grad + j, i < N, 0.0).to(ACC)
            first += g2 * (a3 * t * t + a2 * r)
            second += 2.0 * g2 * a2 * t
            tl.store(out + j, g2 * a1, i < N)
        tl.store(out + N + i, second, i < N)
    tl.store(out + i, first, i < N)


@triton.jit
def _product(
    a, x, out, points, F, ADJOINT: tl.constexpr, ORDERS: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Leibniz' rule; with ``ADJOINT`` its transpose: the orders change places."""
    p = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    scalars, rows = (), ()
    for k in tl.static_range(ORDERS):
        at = k * tl.cast(points, tl.int64) + p
        scalars += (tl.load(a + at).to(ACC),)
        rows += (tl.load(x + at * F + f, f < F, 0.0).to(ACC),)
    for n in tl.static_range(ORDERS):
        total = tl.zeros([BLOCK], ACC)
        for k in tl.static_range(ORDERS):
            if ADJOINT and k >= n:
                total += (2.0 if k == 2 and n == 1 else 1.0) * scalars[k - n] * rows[k]
            if not ADJOINT and k <= n:
                total += (2.0 if n == 2 and k == 1 else 1.0) * scalars[n - k] * rows[k]
        tl.store(out + (n * tl.cast(points, tl.int64) + p) * F + f, total, f < F)


def silu(x: Tensor) -> Tensor:
    """Same contract as ``reference.silu``; sums in float32, or float64 for float64 jets."""
    return _elementwise(_silu, x)


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Same contract as ``reference.silu_backward``."""
    return _elementwise(_silu_backward, grad, x)


def product(a: Tensor, x: Tensor) -> Tensor:
    """Same contract as ``reference.product``, for at most three orders."""
    return _leibniz(a, x, adjoint=False)


def product_backward(grad: Tensor, a: Tensor) -> Tensor:
    """The cotangent of ``x``, given that of ``product(a, x)``."""
    return _leibniz(a, grad, adjoint=True)


def _elementwise(kernel: triton.JITFunction, *operands: Tensor) -> Tensor:
    out = torch.empty_like(operands[0], memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    tensors, size = [x.contiguous() for x in operands], out[0].numel()
    kernel[triton.cdiv(size, _BLOCK),](
        *tensors, out, size, ORDERS=out.shape[0], ACC=_wide(out), BLOCK=_BLOCK, num_warps=4
    )
    return out


def _leibniz(a: Tensor, x: Tensor, *, adjoint: bool) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    orders, points, features = x.shape
    block = min(128, max(32, triton.next_power_of_2(features)))
    settings = {"ADJOINT": adjoint, "ORDERS": orders, "ACC": _wide(out), "BLOCK": block, "num_warps": 1}
    grid = points, triton.cdiv(features, block)
    _product[grid](a.contiguous(), x.contiguous(), out, points, features, **settings)
    return out


def _wide(x: Tensor):
    return tl.float64 if x.dtype == torch.float64 else tl.float32
