"""Derivatives along a curve, pushed forward through a network: value, first, second ... in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.mlp import MLP


def jet(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""Push the derivatives of a curve x(t) through a function: those of y(t) = module(x(t)).

    Linear layers act on all orders in one matrix product; common activations by their own derivatives; anything
    else by nested forward differentiation.

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
        if module.bias is None:
            return x @ module.weight.mT
        value = torch.addmm(module.bias, x[0], module.weight.mT)
        return torch.cat([value[None], x[1:] @ module.weight.mT])
    if isinstance(module, MLP):
        for k, layer in enumerate(module.layers, start=1):
            x = jet(layer, x)
            if k < len(module.layers) or module.activate_last:
                x = jet(module.activation, x)
        return x
    derivatives = _ACTIVATIONS.get(module)
    if derivatives is not None and x.shape[0] <= 3:
        return _Activation.apply(x, derivatives)
    smooth = _silu_by_sigmoid if module is F.silu else module  # PyTorch's has no second forward derivative
    return along(lambda t: smooth(sum(t**k / math.factorial(k) * x[k] for k in range(x.shape[0]))), x)


def along(curve: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Value and derivatives at t = 0 of a function of one number, as many as ``like`` has orders."""

    def lift(k: int, t: Tensor) -> tuple[Tensor, ...]:
        if k == 0:
            return (curve(t),)
        below, tangent = torch.func.jvp(lambda t: lift(k - 1, t), (t,), (torch.ones_like(t),))
        return (*below, tangent[-1])

    return torch.stack(lift(like.shape[0] - 1, like.new_zeros(())))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Leibniz' rule: the derivatives of a(t) b(t). Shape (orders, ...)."""
    orders = range(a.shape[0])
    return torch.stack(
        [sum((math.comb(n, k) * a[k] * b[n - k] for k in range(n + 1)), 0 * a[0] * b[0]) for n in orders]
    )


def _silu_by_sigmoid(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _silu(h: Tensor, count: int) -> list[Tensor]:
    s = torch.sigmoid(h)
    s1 = s * (1 - s)
    out = [h * s, torch.addcmul(s, h, s1)]
    if count > 2:
        s2 = s1 * (1 - 2 * s)
        out.append(torch.addcmul(2 * s1, h, s2))
    if count > 3:
        out.append(torch.addcmul(3 * s2, h, s1 * (1 - 6 * s1)))
    return out[:count]


def _tanh(h: Tensor, count: int) -> list[Tensor]:
    a = torch.tanh(h)
    a1 = 1 - a * a
    a2 = -2 * a * a1
    return [a, a1, a2, -2 * (a1 * a1 + a * a2)][:count]


_ACTIVATIONS: dict[Callable[[Tensor], Tensor], Callable[[Tensor, int], list[Tensor]]] = {
    F.silu: _silu,
    torch.tanh: _tanh,
}


class _Activation(torch.autograd.Function):
    """An elementwise function on jets of at most three orders, with its derivative by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, derivatives: Callable[[Tensor, int], list[Tensor]]) -> Tensor:
        ctx.derivatives = derivatives
        ctx.save_for_backward(x)
        return _push(x, derivatives(x[0], x.shape[0]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        orders = x.shape[0]
        a = ctx.derivatives(x[0], orders + 1)
        first = grad[0] * a[1]
        rest = []
        if orders > 1:
            first = torch.addcmul(first, grad[1] * x[1], a[2])
            rest.append(grad[1] * a[1])
        if orders > 2:
            first = first + grad[2] * (a[3] * x[1] * x[1] + a[2] * x[2])
            rest = [rest[0] + 2 * grad[2] * a[2] * x[1], grad[2] * a[1]]
        return torch.stack([first, *rest]), None


def _push(x: Tensor, a: list[Tensor]) -> Tensor:
    """Faà di Bruno's formula to second order."""
    out = [a[0]]
    if x.shape[0] > 1:
        out.append(a[1] * x[1])
    if x.shape[0] > 2:
        out.append(a[2] * x[1] * x[1] + a[1] * x[2])
    return torch.stack(out)
