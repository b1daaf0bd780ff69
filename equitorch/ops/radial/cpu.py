"""``blend`` on the CPU: two knots are read for each point, all columns side by side."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from equitorch.ops.numba_jit import array, jit_pair, jit_part
from equitorch.ops.radial.knots import by_knot, polynomials
from equitorch.ops.radial.reference import COLUMN, TABLE, fake


def blend(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.blend``."""
    (place,), (order, knots) = plan, sizes
    first, second = (array(x) for x in operands)
    result = fake(open_slot, operands, plan, sizes)
    out, work = array(result), 6 * place.shape[0] * first.shape[-1]
    how = _polynomial(order, result.dtype), (-1) ** order, out
    if open_slot == COLUMN:
        _columns(first, second, array(place), *how, work=work)
    elif open_slot == TABLE:
        points, start = by_knot(place, knots)
        _table(first, second, array(place), array(points), array(start), *how, work=2 * work)
    else:
        _points(first, second, array(place), *how, work=work)
    return result


@functools.cache
def _polynomial(order: int, dtype: torch.dtype) -> Any:
    """Coefficients of s^0 ... s^5 in the derivatives of the three Hermite functions. Shape (3, 6)."""
    return np.array(polynomials(order), dtype=torch.empty(0, dtype=dtype).numpy().dtype)


@jit_part
def _horner(row, s):
    return row[0] + s * (row[1] + s * (row[2] + s * (row[3] + s * (row[4] + s * row[5]))))


@jit_part
def _hermite(place, last, polynomial, sign):
    """The left knot and the six weights."""
    k = max(0, min(int(place), last - 1))
    t = place - k
    s = 1 - t
    a0, a1 = sign * _horner(polynomial[0], s), sign * _horner(polynomial[1], s)
    b0, b1 = _horner(polynomial[0], t), -_horner(polynomial[1], t)
    return k, a0, a1, sign * _horner(polynomial[2], s), b0, b1, _horner(polynomial[2], t)


@jit_pair
def _columns(table, point, place, polynomial, sign, out):
    last = table.shape[0] - 1
    for p in prange(out.shape[0]):
        x, u = place[p], point[p]
        if not x <= last:
            out[p] = 0 if x > last else x  # NaN stays NaN
        else:
            k, a0, a1, a2, b0, b1, b2 = _hermite(x, last, polynomial, sign)
            a, b = table[k], table[k + 1]
            a0, a1, a2, b0, b1, b2 = u * a0, u * a1, u * a2, u * b0, u * b1, u * b2
            for n in range(out.shape[1]):
                left = a0 * a[0, n] + a1 * a[1, n] + a2 * a[2, n]
                out[p, n] = left + b0 * b[0, n] + b1 * b[1, n] + b2 * b[2, n]


@jit_pair
def _points(table, column, place, polynomial, sign, out):
    last = table.shape[0] - 1
    for p in prange(out.shape[0]):
        x = place[p]
        if not x <= last:
            out[p] = 0 if x > last else x
        else:
            k, a0, a1, a2, b0, b1, b2 = _hermite(x, last, polynomial, sign)
            a, b = table[k], table[k + 1]
            total = x * 0
            for n in range(column.shape[1]):
                left = a0 * a[0, n] + a1 * a[1, n] + a2 * a[2, n]
                total += column[p, n] * (left + b0 * b[0, n] + b1 * b[1, n] + b2 * b[2, n])
            out[p] = total


@jit_pair
def _table(column, point, place, points, start, polynomial, sign, out):
    """Each knot collects the points on its right, then those on its left."""
    knots = out.shape[0]
    for q in prange(knots):
        out[q] = 0
        for side in range(2):
            if 0 <= q - side < knots - 1:
                for r in range(start[q - side], start[q - side + 1]):
                    p = points[r]
                    s = (1 - 2 * side) * (q + 1 - 2 * side - place[p])
                    u = point[p] * (1 if side else sign)
                    w0, w2 = u * _horner(polynomial[0], s), u * _horner(polynomial[2], s)
                    w1 = (1 - 2 * side) * u * _horner(polynomial[1], s)
                    for n in range(out.shape[2]):
                        out[q, 0, n] += w0 * column[p, n]
                        out[q, 1, n] += w1 * column[p, n]
                        out[q, 2, n] += w2 * column[p, n]
