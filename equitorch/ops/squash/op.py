"""``squash`` as layers call it."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.multilinear import with_derivatives
from equitorch.ops.squash import reference


def squash(x: Tensor) -> Tensor:
    r"""Bound a feature's size, channel by channel, and keep its direction.

    .. math:: y_{m c} = \frac{x_{m c}}{1 + \sum_{m'} x_{m' c}^2}

    Shape:
        x: (..., rows, channels) -> (..., rows, channels)

    Source:
        Simeon, de Fabritiis 2023, arXiv:2306.06482 (normalisation of tensor features).

    >>> squash(torch.tensor([[3.0], [4.0]])).mT
    tensor([[0.1154, 0.1538]])
    """
    kernel = _kernel(x)
    if kernel is None:
        return reference.squash(x)
    return with_derivatives(kernel.squash(x.detach()), [(x, lambda grad: _slope(x, grad))])


def _slope(x: Tensor, h: Tensor) -> Tensor:
    kernel = _kernel(x, h)
    if kernel is None:
        return reference.slope(x, h)
    value = kernel.slope(x.detach(), h.detach())
    return with_derivatives(
        value, [(x, lambda grad: _curvature(x, h, grad)), (h, lambda grad: _slope(x, grad))]
    )


def _curvature(x: Tensor, h: Tensor, k: Tensor) -> Tensor:
    kernel = _kernel(x, h, k)
    if kernel is None or (torch.is_grad_enabled() and any(t.requires_grad for t in (x, h, k))):
        return reference.curvature(x, h, k)  # third derivatives are PyTorch's own
    return kernel.curvature(x, h, k)


def _kernel(*operands: Tensor) -> ModuleType | None:
    if traced(*operands) or not fused(*operands):
        return None
    kernels = "triton" if operands[0].is_cuda else "cpu"
    return importlib.import_module(f"equitorch.ops.squash.{kernels}")  # imports Triton or Numba
