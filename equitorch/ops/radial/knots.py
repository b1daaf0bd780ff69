"""What the kernels of ``blend`` share: points grouped by knot, and the polynomials between knots."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from equitorch.ops.radial.reference import QUINTIC


def by_knot(place: Tensor, knots: int) -> tuple[Tensor, Tensor]:
    """The points sorted by the knot on their left, and where each knot's points begin.

    >>> by_knot(torch.tensor([1.5, 0.2, 9.0]), 3)
    (tensor([1, 0, 2]), tensor([0, 1, 2, 2]))
    """
    left = place.floor().clamp(0, knots - 2).long()
    left = left.where(place <= knots - 1, knots)  # points beyond the last knot come after all others
    ordered, points = torch.sort(left, stable=True)
    return points, torch.searchsorted(ordered, torch.arange(knots + 1, device=place.device))


@functools.cache
def polynomials(order: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients of s^0 ... s^5 in a derivative of each of the three Hermite functions.

    >>> polynomials(3)[0]
    (60.0, -360.0, 360.0, 0.0, 0.0, 0.0)
    """
    rows = [[0.0] * 6 for _ in QUINTIC]
    for into, row in zip(rows, QUINTIC, strict=True):
        for power, coefficient in zip((3, 4, 5), row, strict=True):
            if power >= order:
                into[power - order] = coefficient * math.perm(power, order)
    return tuple(map(tuple, rows))
