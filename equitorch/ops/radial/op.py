"""``interpolate`` as layers call it."""

from __future__ import annotations

import torch
from torch import Tensor

from equitorch.ops.backend import traced
from equitorch.ops.multilinear import Kernel, Multilinear, with_derivatives
from equitorch.ops.radial.reference import COLUMN, POINT, TABLE, fake
from equitorch.ops.radial.reference import blend as reference


def _cpu() -> Kernel:
    from equitorch.ops.radial.cpu import blend as kernel  # imports Numba

    return kernel


def _cuda() -> Kernel:
    from equitorch.ops.radial.triton import blend as kernel  # imports Triton

    return kernel


_blend = Multilinear("radial_blend", reference=reference, fake=fake, cpu=_cpu, cuda=_cuda)


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

    >>> x = torch.arange(3.0)  # knots of x^2, whose curvature is 2
    >>> interpolate(torch.stack([x**2, 2 * x, 2 + 0 * x], dim=1)[..., None], torch.tensor([1.5]), 1.0)
    tensor([[2.2500]])
    """
    if table.ndim != 3 or table.shape[0] < 2 or table.shape[1] != 3 or distance.ndim != 1:
        raise ValueError(
            "interpolate expects a table of shape (knots >= 2, 3, functions) and distances of shape "
            f"(points,), got {tuple(table.shape)} and {tuple(distance.shape)}"
        )
    place = distance / spacing
    ones = torch.ones_like(place, requires_grad=False)
    if traced(table, distance):  # PyTorch's own derivative with respect to the distance
        value = reference(COLUMN, [table, ones], [place], [order, table.shape[0]])
    else:
        value = _at(COLUMN, [table, ones], place, order, table.shape[0])
    return value if order == 0 else value * spacing**-order


def _at(open_slot: int, operands: list[Tensor], place: Tensor, order: int, knots: int) -> Tensor:
    """The form with one slot open as a function of its operands and of the places, to any derivative."""
    with torch.no_grad():
        value = _blend(open_slot, operands, [place], [order, knots])
    slots = [slot for slot in (TABLE, COLUMN, POINT) if slot != open_slot]

    def opened(slot: int, grad: Tensor) -> Tensor:
        full = dict(zip(slots, operands, strict=True)) | {open_slot: grad}
        return _at(slot, [full[s] for s in (TABLE, COLUMN, POINT) if s != slot], place, order, knots)

    def moved(grad: Tensor) -> Tensor:
        full = dict(zip(slots, operands, strict=True)) | {open_slot: grad}
        return full[POINT] * _at(POINT, [full[TABLE], full[COLUMN]], place, order + 1, knots)

    filled = [
        (x, lambda grad, slot=slot: opened(slot, grad)) for slot, x in zip(slots, operands, strict=True)
    ]
    return with_derivatives(value, [*filled, (place, moved)])
