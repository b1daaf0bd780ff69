"""Rows of an edge frame: truncated to low orders |m| <= M, and sorted by order instead of by degree.

Turn an edge onto the polar axis, and what is left of equivariance is a roll about that axis, which keeps
every order |m| to itself. Sorted by order, rows of one |m| are neighbours, and a map of them is one matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor


def order_rows(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """Degree and order of each row, order-major: m = 0 with l = 0..L, then +m and -m with l = m..L.

    Args:
        lmax: highest degree L.
        mmax: highest order M <= L that is kept.

    Raises:
        ValueError: if not 0 <= mmax <= lmax.

    >>> order_rows(2, 1)
    [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, -1), (2, -1)]
    """
    if not 0 <= mmax <= lmax:
        raise ValueError(f"order_rows expects 0 <= mmax <= lmax, got mmax={mmax} and lmax={lmax}")
    signed = [0] + [sign * m for m in range(1, mmax + 1) for sign in (1, -1)]
    return [(l, m) for m in signed for l in range(abs(m), lmax + 1)]


def order_index(lmax: int, mmax: int) -> Tensor:
    """Which of the (lmax + 1)^2 degree-major rows each order-major row is. Shape (rows,), int64.

    >>> order_index(2, 1).tolist()
    [0, 2, 6, 3, 7, 1, 5]
    """
    return torch.tensor([l * l + l + m for l, m in order_rows(lmax, mmax)], device="cpu")


def order_sizes(lmax: int, mmax: int) -> list[int]:
    """Number of degrees of each order 0..mmax: rows of m = 0, and of +m and of -m for the others.

    >>> order_sizes(4, 2)
    [5, 4, 3]
    """
    return [lmax + 1 - m for m in range(mmax + 1)]
