"""What ``squash`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

from torch import Tensor


def squash(x: Tensor) -> Tensor:
    """``x / (|x|^2 + 1)``, the square of the norm taken over the rows of (..., rows, channels)."""
    return x / (x.square().sum(-2, keepdim=True) + 1)
