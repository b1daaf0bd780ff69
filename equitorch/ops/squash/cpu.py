"""``squash`` and its derivatives on the CPU: one pass over each feature."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from equitorch.ops.numba_jit import array, jit_pair


def squash(x: Tensor) -> Tensor:
    """Same contract as ``reference.squash``."""
    return _run(_squash, x)


def slope(x: Tensor, h: Tensor) -> Tensor:
    """Same contract as ``reference.slope``."""
    return _run(_slope, x, h)


def curvature(x: Tensor, h: Tensor, k: Tensor) -> Tensor:
    """Same contract as ``reference.curvature``."""
    return _run(_curvature, x, h, k)


def _run(kernel, *operands: Tensor) -> Tensor:
    out = torch.empty_like(operands[0], memory_format=torch.contiguous_format)
    if out.numel() == 0:
        return out
    flat = [array(x).reshape(-1, *out.shape[-2:]) for x in (*operands, out)]
    kernel(*flat, work=4 * len(operands) * out.numel())
    return out


@jit_pair
def _squash(x, out):
    rows, channels = x.shape[1:]
    for i in prange(x.shape[0]):
        n = np.ones(channels, x.dtype)
        for m in range(rows):
            for c in range(channels):
                n[c] += x[i, m, c] * x[i, m, c]
        for m in range(rows):
            for c in range(channels):
                out[i, m, c] = x[i, m, c] / n[c]


@jit_pair
def _slope(x, h, out):
    rows, channels = x.shape[1:]
    for i in prange(x.shape[0]):
        n, xh = np.ones(channels, x.dtype), np.zeros(channels, x.dtype)
        for m in range(rows):
            for c in range(channels):
                n[c] += x[i, m, c] * x[i, m, c]
                xh[c] += x[i, m, c] * h[i, m, c]
        for c in range(channels):
            n[c] = 1 / n[c]
            xh[c] *= 2 * n[c] * n[c]
        for m in range(rows):
            for c in range(channels):
                out[i, m, c] = h[i, m, c] * n[c] - xh[c] * x[i, m, c]


@jit_pair
def _curvature(x, h, k, out):
    rows, channels = x.shape[1:]
    for i in prange(x.shape[0]):
        n, xh = np.ones(channels, x.dtype), np.zeros(channels, x.dtype)
        xk, hk = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
        for m in range(rows):
            for c in range(channels):
                n[c] += x[i, m, c] * x[i, m, c]
                xh[c] += x[i, m, c] * h[i, m, c]
                xk[c] += x[i, m, c] * k[i, m, c]
                hk[c] += h[i, m, c] * k[i, m, c]
        for c in range(channels):
            r = 1 / n[c]
            n[c] = 2 * r * r
            hk[c] = 4 * r * xh[c] * xk[c] - hk[c]
        for m in range(rows):
            for c in range(channels):
                out[i, m, c] = n[c] * (hk[c] * x[i, m, c] - xk[c] * h[i, m, c] - xh[c] * k[i, m, c])
