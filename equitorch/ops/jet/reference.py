"""What the parts of a jet mean, in PyTorch. Any device, any dtype, differentiable to any order.

A jet holds the value and the first derivatives of a curve x(t) at t = 0: shape (orders, points, features).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The jet of ``weight @ x(t) + bias``: the bias moves the value only."""
    y = x @ weight.mT
    return y if bias is None else torch.cat([y[:1] + bias, y[1:]])


def product(a: Tensor, x: Tensor) -> Tensor:
    """Leibniz' rule: the jet of ``a(t) x(t)`` with a scalar a, shape (orders, points)."""
    rows = [
        torch.stack([math.comb(n, k) * a[n - k, :, None] * x[k] for k in range(n + 1)]).sum(0)
        for n in range(a.shape[0])
    ]
    return torch.stack(rows)


def silu_derivatives(h: Tensor, s: Tensor) -> list[Tensor]:
    """SiLU and its first three derivatives at h, given ``s = sigmoid(h)``."""
    s1 = s * (1 - s)
    s2 = s1 * (1 - 2 * s)
    s3 = s1 * (1 - 6 * s1)
    return [h * s, s + h * s1, 2 * s1 + h * s2, 3 * s2 + h * s3]


def silu(x: Tensor) -> Tensor:
    """Faà di Bruno's formula to second order: the jet of ``silu(x(t))``, of at most three orders."""
    a = silu_derivatives(x[0], torch.sigmoid(x[0]))
    out = [a[0], a[1] * x[1]] if x.shape[0] > 1 else [a[0]]
    if x.shape[0] > 2:
        out.append(a[2] * x[1] * x[1] + a[1] * x[2])
    return torch.stack(out)


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The cotangent of ``x``, given that of ``silu(x)``."""
    a = silu_derivatives(x[0], torch.sigmoid(x[0]))
    out = [grad[0] * a[1]]
    if x.shape[0] > 1:
        out = [out[0] + grad[1] * a[2] * x[1], grad[1] * a[1]]
    if x.shape[0] > 2:
        out[0] = out[0] + grad[2] * (a[3] * x[1] * x[1] + a[2] * x[2])
        out = [out[0], out[1] + 2 * grad[2] * a[2] * x[1], grad[2] * a[1]]
    return torch.stack(out)
