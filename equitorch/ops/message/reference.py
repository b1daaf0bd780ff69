"""What ``message`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

from torch import Tensor

WEIGHT, SENDER, RECEIVER = range(3)


def message(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of the message form open.

    q(w, y, g) = sum over edges e: j -> i, rows m, channels c:  w[pair(e), l(m), c] y[j, m, c] g[i, m, c]

    Args:
        open_slot: 0 the weights, 1 the senders, 2 the receivers.
        operands: two of w (pairs, degrees, channels), y (nodes, rows, channels), g (nodes, rows, channels).
        plan: the seven tensors of an ``EdgePlan``, and the degree l(m) of each row.
        sizes: number of degrees.

    Returns:
        The shape of the slot left open.
    """
    source, target, row_ptr, _, _, pair, pair_edge, degree = plan
    first, second = operands
    if open_slot == WEIGHT:
        product = first[source] * second[target]
        by_degree = product.new_zeros(product.shape[0], sizes[0], product.shape[2])
        by_degree = by_degree.index_add(1, degree, product)
        return product.new_zeros(pair_edge.shape[0], *by_degree.shape[1:]).index_add(0, pair, by_degree)
    here, there = (source, target) if open_slot == RECEIVER else (target, source)
    terms = first[pair][:, degree] * second[here]
    return terms.new_zeros(row_ptr.shape[0] - 1, *terms.shape[1:]).index_add(0, there, terms)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the slot left open."""
    rows = operands[1]
    if open_slot == WEIGHT:
        return rows.new_empty(plan[6].shape[0], sizes[0], rows.shape[2])
    return rows.new_empty(plan[2].shape[0] - 1, *rows.shape[1:])
