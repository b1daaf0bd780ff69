"""``interpolate`` as layers call it."""

from __future__ import annotations

import torch
from torch import Tensor

from equitorch.ops.multilinear import Kernel, Multilinear, with_derivatives
from equitorch.ops.radial.reference import VALUE, fake
from equitorch.ops.radial.reference import interpolate as reference


def _cpu() -> Kernel:
    from equitorch.ops.radial.cpu import interpolate as kernel  # imports Numba

    return kernel


_interpolate = Multilinear("interpolate", reference=reference, fake=fake)


def interpolate(table: Tensor, distance: Tensor, spacing: float, *, order: int = 0) -> Tensor:
    r"""Read functions of a distance off a table: quintic Hermite, twice continuously differentiable.

    .. math:: f_n(d) = \sum_{k=0}^{2} H_k(x) \, T_{i k n} + \bar H_k(x) \, T_{i+1, k n},
        \qquad x = d / h - i

    Args:
        table: at each knot 0, h, 2h, ... the value, h times the slope and h^2 times the curvature of each
            function. Shape (knots, 3, functions).
        distance: where to read, from 0 on; beyond the last knot the functions are zero. Shape (points,), Å.
        spacing: h, Å.
        order: of the derivative with respect to the distance.

    Shape:
        (points, functions)

    Raises:
        ValueError: if the shapes do not belong together.
    """
    if table.ndim != 3 or table.shape[0] < 2 or table.shape[1] != 3 or distance.ndim != 1:
        raise ValueError(
            "interpolate expects a table of shape (knots >= 2, 3, functions) and distances of shape (points,), "
            f"got {tuple(table.shape)} and {tuple(distance.shape)}"
        )
    if torch.compiler.is_compiling():  # PyTorch's own derivative with respect to the distance
        value = reference(VALUE, [table], [distance / spacing], [order, table.shape[0]])
        return value * spacing**-order
    value = _interpolate(VALUE, [table], [distance.detach() / spacing], [order, table.shape[0]])
    value = value if order == 0 else value * spacing**-order

    def slope(grad: Tensor) -> Tensor:
        return (grad * interpolate(table, distance, spacing, order=order + 1)).sum(-1)

    return with_derivatives(value.detach(), [(value, lambda grad: grad), (distance, slope)])
