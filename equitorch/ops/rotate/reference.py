"""What ``rotate`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

from torch import Tensor

FEATURE, WIGNER, MESSAGE = range(3)


def rotate(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of a sum over edges e, each belonging to a node n(e), open.

    q(x, D, m) = sum over e, terms t, channels c:  D[e, entry(t)] x[n(e), row(t), c] m[e, kept(t), c]

    Args:
        open_slot: 0 for the nodes' features x, 1 for the edges' matrices D, 2 for the messages m.
        operands: the other two, in that order. Shapes: x (nodes, rows, channels), D (edges, entries), m
            (edges, kept rows, channels).
        plan: the node of each edge, where the edges of each node begin, the edges by node; then the terms
            sorted by kept row and sorted by row, each as where they begin, the other's row, and the entry.
        sizes: rows, entries, kept rows.

    Returns:
        The open slot's shape.
    """
    node, node_ptr, _, start, row, entry, *_ = plan
    count = start.diff().long()
    kept = count.new_ones(sizes[2]).cumsum(0).sub(1).repeat_interleave(count, output_size=row.shape[0])
    row, entry = row.long(), entry.long()
    if open_slot == MESSAGE:
        x, D = operands
        return _matrix(D, kept, row, entry, sizes) @ x[node]
    if open_slot == FEATURE:
        D, m = operands
        back = _matrix(D, kept, row, entry, sizes).mT @ m
        return back.new_zeros(node_ptr.shape[0] - 1, *back.shape[1:]).index_add(0, node, back)
    x, m = operands
    overlap = m @ x[node].mT
    return overlap.new_zeros(overlap.shape[0], sizes[1]).index_copy(1, entry, overlap[:, kept, row])


def _matrix(D: Tensor, kept: Tensor, row: Tensor, entry: Tensor, sizes: list[int]) -> Tensor:
    """The dense matrices. Shape (edges, kept rows, rows)."""
    dense = D.new_zeros(D.shape[0], sizes[2] * sizes[0])
    return dense.index_copy(1, kept * sizes[0] + row, D[:, entry]).unflatten(1, (sizes[2], sizes[0]))


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the open slot."""
    like, edges = operands[0], plan[0].shape[0]
    if open_slot == WIGNER:
        return like.new_empty(edges, sizes[1])
    channels = operands[1].shape[2] if open_slot == FEATURE else like.shape[2]
    if open_slot == FEATURE:
        return like.new_empty(plan[1].shape[0] - 1, sizes[0], channels)
    return like.new_empty(edges, sizes[2], channels)
