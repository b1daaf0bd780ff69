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

    Affine maps act on all orders in one matrix product, SiLU by its own derivatives, and a module with a
    method ``jet`` as that says; anything else is differentiated by PyTorch.

    Args:
        module: acts on the last axis, or elementwise.
        x: value and derivatives of the curve at t = 0. Shape (orders, points, features).

    Returns:
        Value and derivatives of the image. Shape (orders, points, features_out).

    >>> jet(nn.Tanh(), torch.tensor([[0.0], [1.0]])).tolist()
    [[0.0], [1.0]]
    """
    own: Callable[[Tensor], Tensor] | None = getattr(module, "jet", None)
    if own is not None:
        return own(x)
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
    if (module is F.silu or isinstance(module, nn.SiLU)) and x.shape[0] <= 3:
        return ops.silu(x)
    taylor = [x[k] / math.factorial(k) for k in range(x.shape[0])]
    return along(lambda t: module(sum((t**k * taylor[k] for k in range(1, len(taylor))), taylor[0])), x)


def along(curve: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Value and derivatives at t = 0 of a function of one number, as many as ``like`` has orders.

    Backward twice is forward once: v -> v . dy/dt is linear, and its derivative with respect to v is dy/dt.
    (PyTorch's own forward mode loads its TorchScript decompositions at the first call.)
    """
    history = torch.is_grad_enabled()
    with torch.enable_grad():
        t = like.new_zeros((), requires_grad=True)
        orders = [curve(t)]
        while len(orders) < like.shape[0]:
            v = torch.zeros_like(orders[-1], requires_grad=True)
            (dot,) = torch.autograd.grad(orders[-1], t, v, create_graph=True, materialize_grads=True)
            (slope,) = torch.autograd.grad(dot, v, create_graph=True, materialize_grads=True)
            orders.append(slope)
        out = torch.stack(orders)
    return out if history else out.detach()
