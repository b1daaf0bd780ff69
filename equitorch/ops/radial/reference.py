"""What ``interpolate`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TABLE, VALUE = range(2)
# Quintic Hermite functions of s, the distance to the other knot in units of the spacing; coefficients of
# s^3, s^4, s^5 for the value, the slope and the curvature at a knot.
_QUINTIC = ((10.0, -15.0, 6.0), (4.0, -7.0, 3.0), (0.5, -1.0, 0.5))


def weights(x: Tensor, order: int) -> Tensor:
    """Weights of the six entries between two knots, or their derivatives with respect to ``x``.

    Args:
        x: position between the knots, 0 to 1. Shape (points,).
        order: of the derivative.

    Returns:
        Value, slope and curvature at the left knot, then at the right one. Shape (points, 6).
    """
    left, right = 1 - x, x
    columns = []
    for s, sign, flip in ((left, (-1.0) ** order, 1.0), (right, 1.0, -1.0)):
        for k, row in enumerate(_QUINTIC):
            terms = [
                c * math.perm(p, order) * s ** (p - order)
                for p, c in zip((3, 4, 5), row, strict=True)
                if p >= order
            ]
            columns.append(sign * flip**k * sum(terms, torch.zeros_like(s)))
    return torch.stack(columns, dim=-1)


def interpolate(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of the interpolation form open.

    q(T, g) = sum over points p, columns n, entries k: weight_k(d_p) T[knot(d_p) + k // 3, k % 3, n] g[p, n]

    Args:
        open_slot: 0 the table, 1 the values.
        operands: one of T (knots, 3, columns), g (points, columns).
        plan: the places d in units of the spacing, shape (points,); beyond the last knot all is zero.
        sizes: order of the derivative with respect to d, and the number of knots.

    Returns:
        The shape of the slot left open.
    """
    (place,), (order, knots), (filled,) = plan, sizes, operands
    left = place.floor().clamp(0, knots - 2).long()
    w = weights(place - left, order) * (place <= knots - 1)[:, None]
    if open_slot == VALUE:
        return sum(
            (w[:, k, None] * filled[left + k // 3, k % 3] for k in range(6)),
            filled.new_zeros(place.shape[0], filled.shape[2]),
        )
    out = filled.new_zeros(knots, 3, filled.shape[1])
    for k in range(6):
        out = out.index_put(
            (left + k // 3, torch.full_like(left, k % 3)), w[:, k, None] * filled, accumulate=True
        )
    return out


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the slot left open."""
    if open_slot == VALUE:
        return operands[0].new_empty(plan[0].shape[0], operands[0].shape[2])
    return operands[0].new_empty(sizes[1], 3, operands[0].shape[1])
