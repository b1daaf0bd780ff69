"""Factors for each edge, order and degree, shared by the rows +m and -m."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equitorch.ops.multilinear import Kernel, Multilinear
from equitorch.reps.order import order_sizes

MESSAGE, FACTOR, RESULT = range(3)


def scale_orders(y: Tensor, factor: Tensor, lmax: int, mmax: int) -> Tensor:
    r"""Messages, each row times the factor of its degree and order, :math:`f_{m l c} \, y_{\pm m, l, c}`.

    Args:
        y: messages, rows order-major.
        factor: m-major: m = 0 with l = 0..L, then m = 1 with l = 1..L, and so on.
        lmax: highest degree L.
        mmax: highest order M.

    Shape:
        y: (..., rows, channels), factor: (..., sum over m of L + 1 - m, channels) -> as y

    Raises:
        ValueError: if the factors do not belong to the messages.

    >>> scale_orders(torch.ones(1, 4, 1), torch.tensor([[[2.0], [3.0], [5.0]]]), 1, 1).flatten().tolist()
    [2.0, 3.0, 5.0, 5.0]
    """
    sizes = order_sizes(lmax, mmax)
    wanted = (*y.shape[:-2], sum(sizes), y.shape[-1])
    if tuple(factor.shape) != wanted:
        raise ValueError(f"scale_orders expects factors of shape {wanted}, got {tuple(factor.shape)}")
    count = math.prod(wanted[:-2])
    flat = [x.reshape(count, *x.shape[-2:]) for x in (y, factor)]
    return _scale(RESULT, flat, [], sizes).reshape(y.shape)


def _reference(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """The sum of y[e, row, c] f[e, degree and order, c] z[e, row, c], with one slot open."""
    rows = [size for m, size in enumerate(sizes) for _ in range(2 if m else 1)]
    if open_slot == FACTOR:
        runs = (operands[0] * operands[1]).split(rows, dim=1)
        return torch.cat([runs[0]] + [a + b for a, b in zip(runs[1::2], runs[2::2], strict=True)], dim=1)
    factor, x = operands if open_slot == MESSAGE else reversed(operands)
    parts = factor.split(sizes, dim=1)
    return torch.cat([parts[0]] + [part for part in parts[1:] for _ in range(2)], dim=1) * x


def _fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    like = operands[0]
    rows = sum(sizes) if open_slot == FACTOR else 2 * sum(sizes) - sizes[0]
    return like.new_empty(like.shape[0], rows, like.shape[2])


def _sliced() -> Kernel:
    return _by_slices


def _by_slices(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """As the reference, written where it belongs without a copy."""
    out = _fake(open_slot, operands, plan, sizes)
    row = start = 0
    for m, size in enumerate(sizes):
        part = slice(start, start + size)
        for i in range(2 if m else 1):
            run = slice(row, row + size)
            if open_slot != FACTOR:
                factor, x = operands if open_slot == MESSAGE else reversed(operands)
                torch.mul(x[:, run], factor[:, part], out=out[:, run])
            elif i == 0:
                torch.mul(operands[0][:, run], operands[1][:, run], out=out[:, part])
            else:
                out[:, part].addcmul_(operands[0][:, run], operands[1][:, run])
            row += size
        start += size
    return out


_scale = Multilinear("scale_orders", reference=_reference, fake=_fake, cpu=_sliced, cuda=_sliced)
