"""Two stacks of opposite parity, side by side in the channels, sorted so that the mirror's signs are gone.

The mirror that keeps an edge turns rows of order -m round in the natural stack, and all others in the pseudo
stack. So the rows (+m natural, -m pseudo) mix among themselves, and (-m natural, +m pseudo) mix in the same
way, once the sign of the latter is turned round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.multilinear import with_derivatives
from equitorch.reps.order import order_sizes


class _Piece(NamedTuple):
    """Some rows of one stack (0 or 1), as they come one after another in the sorted columns."""

    rows: slice
    stack: int
    sign: int


def split_stacks(y: Tensor, lmax: int, mmax: int, natural: int) -> Tensor:
    """Columns sorted as: m = 0 natural, m = 0 pseudo, then for each m two runs that one matrix maps alike.

    Args:
        y: messages, rows order-major.
        lmax: highest degree L.
        mmax: highest order M.
        natural: number of channels, the first ones, that belong to the natural stack.

    Shape:
        (edges, rows, channels) -> (edges, rows * channels)

    >>> split_stacks(torch.arange(8.0).view(1, 4, 2), 1, 1, 1).tolist()
    [[0.0, 2.0, 1.0, 3.0, 4.0, 7.0, 6.0, -5.0]]
    """
    return _split(y, _pieces(lmax, mmax), (natural, y.shape[2] - natural))


def join_stacks(z: Tensor, lmax: int, mmax: int, natural: int, channels: int) -> Tensor:
    """The inverse of ``split_stacks``.

    Shape:
        (edges, rows * channels) -> (edges, rows, channels)

    >>> y = torch.randn(3, 9, 5)
    >>> torch.equal(join_stacks(split_stacks(y, 2, 2, 3), 2, 2, 3, 5), y)
    True
    """
    return _join(z, _pieces(lmax, mmax), (natural, channels - natural))


def _pieces(lmax: int, mmax: int) -> list[_Piece]:
    row, pieces = 0, []
    for m, size in enumerate(order_sizes(lmax, mmax)):
        plus, minus = slice(row, row + size), slice(row + size, row + 2 * size)
        if m == 0:
            pieces += [_Piece(plus, 0, 1), _Piece(plus, 1, 1)]
        else:
            pieces += [_Piece(plus, 0, 1), _Piece(minus, 1, 1), _Piece(minus, 0, 1), _Piece(plus, 1, -1)]
        row += (2 if m else 1) * size
    return pieces


def _split(y: Tensor, pieces: list[_Piece], channels: tuple[int, int]) -> Tensor:
    def value(y: Tensor) -> Tensor:
        stacks = y.split(list(channels), dim=2)
        taken = [(stacks[p.stack][:, p.rows], p.sign) for p in pieces]
        return torch.cat([(-x if sign < 0 else x).flatten(1) for x, sign in taken], dim=1)

    return _orthogonal(y, value, lambda g: _join(g, pieces, channels))


def _join(z: Tensor, pieces: list[_Piece], channels: tuple[int, int]) -> Tensor:
    def value(z: Tensor) -> Tensor:
        shapes = [(p.rows.stop - p.rows.start, channels[p.stack]) for p in pieces]
        found = {}
        columns = z.split([a * b for a, b in shapes], dim=1)
        for p, shape, x in zip(pieces, shapes, columns, strict=True):
            found[p.rows.start, p.stack] = (-x if p.sign < 0 else x).unflatten(1, shape)
        rows = sorted({p.rows.start for p in pieces})
        return torch.cat([torch.cat([found[row, 0], found[row, 1]], dim=2) for row in rows], dim=1)

    return _orthogonal(z, value, lambda g: _split(g, pieces, channels))


def _orthogonal(x: Tensor, value: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
    """The value, whose derivative is that of an orthogonal matrix: its inverse."""
    if traced(x) or not fused(x):
        return value(x)
    return with_derivatives(value(x.detach()), [(x, back)])
