"""Jets on the CPU: the arithmetic around PyTorch's vectorised sigmoid in one pass."""

from __future__ import annotations

import torch
from numba import prange
from torch import Tensor

from equitorch.ops.numba_jit import array, jit_pair


def silu(x: Tensor) -> Tensor:
    """Same contract as ``reference.silu``."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    flat = [array(t).reshape(t.shape[0], -1) for t in (x, torch.sigmoid(x[:1]), out)]
    _silu(*flat, work=8 * x.numel())
    return out


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Same contract as ``reference.silu_backward``."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    flat = [array(t).reshape(t.shape[0], -1) for t in (grad, x, torch.sigmoid(x[:1]), out)]
    _silu_backward(*flat, work=16 * x.numel())
    return out


def product(a: Tensor, x: Tensor) -> Tensor:
    """Same contract as ``reference.product``, for at most three orders."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _product(array(a), array(x), array(out), work=4 * x.numel())
    return out


def product_backward(grad: Tensor, a: Tensor) -> Tensor:
    """The cotangent of ``x``, given that of ``product(a, x)``."""
    out = torch.empty_like(grad, memory_format=torch.contiguous_format)
    _product_backward(array(grad), array(a), array(out), work=4 * grad.numel())
    return out


_BLOCK = 512


@jit_pair
def _silu(x, sigmoid, out):
    orders, size = x.shape
    for block in prange((size + _BLOCK - 1) // _BLOCK):
        for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
            h, s = x[0, i], sigmoid[0, i]
            out[0, i] = h * s
        if orders > 1:
            for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
                h, s = x[0, i], sigmoid[0, i]
                out[1, i] = (s + h * s * (1 - s)) * x[1, i]
        if orders > 2:
            for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
                h, s, t = x[0, i], sigmoid[0, i], x[1, i]
                s1 = s * (1 - s)
                out[2, i] = (2 * s1 + h * s1 * (1 - 2 * s)) * t * t + (s + h * s1) * x[2, i]


@jit_pair
def _silu_backward(grad, x, sigmoid, out):
    orders, size = x.shape
    for block in prange((size + _BLOCK - 1) // _BLOCK):
        if orders == 1:
            for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
                h, s = x[0, i], sigmoid[0, i]
                out[0, i] = grad[0, i] * (s + h * s * (1 - s))
        elif orders == 2:
            for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
                h, s, t = x[0, i], sigmoid[0, i], x[1, i]
                s1 = s * (1 - s)
                a1 = s + h * s1
                a2 = 2 * s1 + h * s1 * (1 - 2 * s)
                out[0, i] = grad[0, i] * a1 + grad[1, i] * a2 * t
                out[1, i] = grad[1, i] * a1
        else:
            for i in range(block * _BLOCK, min(size, (block + 1) * _BLOCK)):
                h, s, t, r = x[0, i], sigmoid[0, i], x[1, i], x[2, i]
                s1 = s * (1 - s)
                s2 = s1 * (1 - 2 * s)
                a1, a2, a3 = s + h * s1, 2 * s1 + h * s2, 3 * s2 + h * s1 * (1 - 6 * s1)
                g0, g1, g2 = grad[0, i], grad[1, i], grad[2, i]
                out[0, i] = g0 * a1 + g1 * a2 * t + g2 * (a3 * t * t + a2 * r)
                out[1, i] = g1 * a1 + 2 * g2 * a2 * t
                out[2, i] = g2 * a1


@jit_pair
def _product(a, x, out):
    orders, _, features = x.shape
    for p in prange(x.shape[1]):
        for i in range(features):
            out[0, p, i] = a[0, p] * x[0, p, i]
        if orders > 1:
            for i in range(features):
                out[1, p, i] = a[0, p] * x[1, p, i] + a[1, p] * x[0, p, i]
        if orders > 2:
            for i in range(features):
                out[2, p, i] = a[0, p] * x[2, p, i] + 2 * a[1, p] * x[1, p, i] + a[2, p] * x[0, p, i]


@jit_pair
def _product_backward(grad, a, out):
    orders, _, features = grad.shape
    for p in prange(grad.shape[1]):
        if orders == 1:
            for i in range(features):
                out[0, p, i] = a[0, p] * grad[0, p, i]
        elif orders == 2:
            for i in range(features):
                out[0, p, i] = a[0, p] * grad[0, p, i] + a[1, p] * grad[1, p, i]
                out[1, p, i] = a[0, p] * grad[1, p, i]
        else:
            for i in range(features):
                g0, g1, g2 = grad[0, p, i], grad[1, p, i], grad[2, p, i]
                out[0, p, i] = a[0, p] * g0 + a[1, p] * g1 + a[2, p] * g2
                out[1, p, i] = a[0, p] * g1 + 2 * a[1, p] * g2
                out[2, p, i] = a[0, p] * g2
