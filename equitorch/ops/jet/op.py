"""The parts of a jet as networks call them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.jet import reference


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """All orders of a jet through an affine map in one matrix product; the bias moves the value only.

    Shape:
        x: (orders, points, features), weight: (features_out, features) -> (orders, points, features_out)

    >>> linear(torch.ones(2, 1, 3), torch.ones(1, 3), torch.ones(1)).flatten()
    tensor([4., 3.])
    """
    if _kernel(x) is None or torch.is_autocast_enabled(x.device.type):
        return reference.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)
    return out


def silu(x: Tensor) -> Tensor:
    r"""A jet of at most three orders through :math:`x / (1 + e^{-x})`.

    Shape:
        x: (orders, ...) -> (orders, ...)
    """
    if _kernel(x) is None:
        return reference.silu(x)
    out: Tensor = _Silu.apply(x)
    return out


def product(a: Tensor, x: Tensor) -> Tensor:
    """A jet times a scalar's jet, by Leibniz' rule.

    Shape:
        a: (orders, points), x: (orders, points, features) -> (orders, points, features)
    """
    history = torch.is_grad_enabled() and a.requires_grad
    if _kernel(x) is None or x.shape[0] > 3 or a.dtype != x.dtype or history:
        return reference.product(a, x)
    out: Tensor = _Product.apply(a, x)
    return out


def _kernel(x: Tensor) -> ModuleType | None:
    if traced(x) or not fused(x):
        return None
    kernels = "triton" if x.is_cuda else "cpu"
    return importlib.import_module(f"equitorch.ops.jet.{kernels}")  # imports Triton or Numba


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        out = x @ weight.mT
        if bias is not None:
            out[0] += bias
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        grad_weight = grad.flatten(0, 1).mT @ x.flatten(0, 1) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad[0].sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        kernel = _kernel(x)
        assert kernel is not None, "silu chose this path because there is a kernel"
        out: Tensor = kernel.silu(x)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        kernel = _kernel(x)
        if torch.is_grad_enabled() or kernel is None:  # a second derivative is PyTorch's own
            return reference.silu_backward(grad, x)
        return kernel.silu_backward(grad, x)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, x)
        kernel = _kernel(x)
        assert kernel is not None, "product chose this path because there is a kernel"
        out: Tensor = kernel.product(a, x)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        a, x = ctx.saved_tensors
        kernel = _kernel(x)
        if torch.is_grad_enabled() or kernel is None:
            with torch.enable_grad():
                y = x if x.requires_grad else x.detach().requires_grad_()
                value = reference.product(a, y)
                return None, *torch.autograd.grad(value, y, grad, create_graph=True)
        return None, kernel.product_backward(grad, a)
