"""What ``blend`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TABLE, COLUMN, POINT = range(3)
# Quintic Hermite functions of s, the distance to the other knot in units of the spacing; coefficients of
# s^3, s^4, s^5 for the value, the slope and the curvature at a knot.
QUINTIC = ((10.0, -15.0, 6.0), (4.0, -7.0, 3.0), (0.5, -1.0, 0.5))


def hermite(x: Tensor, order: int) -> Tensor:
    """Weights of the six entries between two knots, or their derivatives with respect to ``x``.

    Args:
        x: position between the knots, 0 to 1. Shape (points,).
        order: of the derivative.

    Returns:
        Value, slope and curvature at the left knot, then at the right one. Shape (points, 6).
    """
    columns = []
    for s, sign, flip in ((1 - x, (-1.0) ** order, 1.0), (x, 1.0, -1.0)):
        for k, row in enumerate(QUINTIC):
            terms = zip((3, 4, 5), row, strict=True)
            powers = [c * math.perm(p, order) * s ** (p - order) for p, c in terms if p >= order]
            columns.append(sign * flip**k * sum(powers, torch.zeros_like(s)))
    return torch.stack(columns, dim=-1)


def blend(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of the interpolation form open.

    q(T, g, u) = sum over points p, columns n, entries k:
        u[p] hermite_k(x_p) T[knot(x_p) + k // 3, k % 3, n] g[p, n]

    Args:
        open_slot: 0 the table, 1 the columns, 2 the points.
        operands: two of T (knots, 3, columns), g (points, columns), u (points,).
        plan: the places x in units of the spacing, shape (points,); beyond the last knot all is zero.
        sizes: order of the derivative with respect to x, and the number of knots.

    Returns:
        The shape of the slot left open.
    """
    (place,), (order, knots) = plan, sizes
    left = place.floor().clamp(0, knots - 2).long()
    w = hermite(place - left, order) * (place <= knots - 1)[:, None]
    if open_slot == TABLE:
        column, point = operands
        out = column.new_zeros(knots, 3, column.shape[1])
        for k in range(6):
            where = left + k // 3, torch.full_like(left, k % 3)
            out = out.index_put(where, (w[:, k] * point)[:, None] * column, accumulate=True)
        return out
    table, other = operands
    value = sum(
        (w[:, k, None] * table[left + k // 3, k % 3] for k in range(6)),
        table.new_zeros(place.shape[0], table.shape[2]),
    )
    return other[:, None] * value if open_slot == COLUMN else (other * value).sum(-1)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the slot left open."""
    first, points = operands[0], plan[0].shape[0]
    if open_slot == TABLE:
        return first.new_empty(sizes[1], 3, first.shape[1])
    return first.new_empty(points, first.shape[2]) if open_slot == COLUMN else first.new_empty(points)
