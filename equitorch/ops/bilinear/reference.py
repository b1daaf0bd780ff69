"""What ``bilinear`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

from torch import Tensor


def bilinear(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of a sparse trilinear form open.

    q(x, y, z) = sum over items n, entries t, channels c:  value[t] x[n, i(t), c] y[n, j(t), c] z[n, k(t), c]

    Args:
        open_slot: 0, 1 or 2 for x, y or z.
        operands: the two filled slots in ascending order. Shapes (items, rows, channels or 1).
        plan: nine tensors from ``Coupling.plan``.
        sizes: the channels of the three slots. Where a slot has one channel and the others more, its
            single channel goes with all of theirs.

    Returns:
        Shape (items, rows of the open slot, sizes[open_slot]).
    """
    a, b = operands
    (left, right), value, start = plan[3 * open_slot : 3 * open_slot + 3]
    terms = value.to(a)[:, None] * a[:, left.long()] * b[:, right.long()]
    if sizes[open_slot] == 1:
        terms = terms.sum(2, keepdim=True)
    row, rows = start.diff().long(), start.shape[0] - 1
    row = row.new_ones(rows).cumsum(0).sub(1).repeat_interleave(row, output_size=value.shape[0])
    return terms.new_zeros(a.shape[0], rows, terms.shape[2]).index_add(1, row, terms)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the open slot."""
    return operands[0].new_empty(operands[0].shape[0], plan[3 * open_slot + 2].shape[0] - 1, sizes[open_slot])
