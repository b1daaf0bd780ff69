"""Derivatives along a curve, pushed forward through a network: value, first, second ... in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.mlp import MLP
from equitorch.ops import jet as ops


def jet(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""Push the derivatives of a curve x(t) through a function: those of y(t) = module(x(t)).

    Affine maps act on all orders in one matrix product, SiLU by its own derivatives; anything else by nested
    forward differentiation.

    Args:
        module: acts on the last axis, or elementwise.
        x: value and derivatives of the curve at t = 0. Shape (orders, points, features).

    Returns:
        Value and derivatives of the image. Shape (orders, points, features_out).

    >>> jet(nn.Tanh(), torch.tensor([[0.0], [1.0]]))
    tensor([[0.],
            [1.]])
    """
    if isinstance(module, nn.Sequential):
        for part in module:
            x = jet(part, x)
        return x
    if isinstance(module, nn.Linear):
        return ops.linear(x, module.weight, module.bias)
    if isinstance(module, MLP):
        for k, layer in enumerate(module.layers, start=1):
            x = jet(layer, x)
            if k < len(module.layers) or module.activate_last:
                x = jet(module.activation, x)
        return x
    if module is F.silu or isinstance(module, nn.SiLU):
        if x.shape[0] <= 3:
            return ops.silu(x)
        module = _silu_by_sigmoid  # PyTorch's has no second forward derivative
    return along(lambda t: module(sum(t**k / math.factorial(k) * x[k] for k in range(x.shape[0]))), x)


def along(curve: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Value and derivatives at t = 0 of a function of one number, as many as ``like`` has orders."""

    def lift(k: int, t: Tensor) -> tuple[Tensor, ...]:
        if k == 0:
            return (curve(t),)
        below, tangent = torch.func.jvp(lambda t: lift(k - 1, t), (t,), (torch.ones_like(t),))
        return (*below, tangent[-1])

    return torch.stack(lift(like.shape[0] - 1, like.new_zeros(())))


def _silu_by_sigmoid(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)
