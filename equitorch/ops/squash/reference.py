"""What ``squash`` and its derivatives mean, in PyTorch: any device, dtype and order of derivative."""

from __future__ import annotations

from torch import Tensor


def squash(x: Tensor) -> Tensor:
    """``x / (|x|^2 + 1)``, the square of the norm taken over the rows of (..., rows, channels)."""
    return x / (x.square().sum(-2, keepdim=True) + 1)


def slope(x: Tensor, h: Tensor) -> Tensor:
    """The derivative of ``squash`` at x in the direction h; a symmetric matrix acts on h."""
    r = 1 / (x.square().sum(-2, keepdim=True) + 1)
    return h * r - 2 * r * r * x * (x * h).sum(-2, keepdim=True)


def curvature(x: Tensor, h: Tensor, k: Tensor) -> Tensor:
    """The derivative with respect to x of ``k . slope(x, h)``; symmetric in h and k."""
    r = 1 / (x.square().sum(-2, keepdim=True) + 1)
    xh, xk, hk = ((a * b).sum(-2, keepdim=True) for a, b in ((x, h), (x, k), (h, k)))
    return 8 * r**3 * xh * xk * x - 2 * r * r * (hk * x + xk * h + xh * k)
