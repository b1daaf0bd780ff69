"""What ``segment`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

from torch import Tensor

EDGES, NODES = range(2)


def segment(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of a sum over edges e, each belonging to a node n(e), open.

    q(x, y) = sum over e, channels c:  x[e, c] y[n(e), c]

    Args:
        open_slot: 0 for the edges' x, 1 for the nodes' y.
        operands: the other one. Shape (edges, channels) or (nodes, channels).
        plan: the node of each edge, ascending, and where the edges of each node begin.
        sizes: none.

    Returns:
        The open slot's shape.
    """
    target, row_ptr = plan
    if open_slot == EDGES:
        return operands[0].index_select(0, target)
    x = operands[0]
    return x.new_zeros(row_ptr.shape[0] - 1, x.shape[1]).index_add(0, target, x)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the open slot."""
    target, row_ptr = plan
    count = target.shape[0] if open_slot == EDGES else row_ptr.shape[0] - 1
    return operands[0].new_empty(count, operands[0].shape[1])
