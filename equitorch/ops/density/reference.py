"""What ``density`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHT, SPECIES, ANGLE, RECEIVER = range(4)


def density(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of the density form open.

    q(w, h, y, g) = sum over edges e: j -> i, rows m, channels c:
        w[pair(e), l(m), c] (h[0, i, c] + h[1, j, c]) y[e, m] g[i, m, c]

    Args:
        open_slot: 0 the weights, 1 the species, 2 the angular functions, 3 the receivers.
        operands: three of w (pairs, degrees, channels), h (2, nodes, channels), y (edges, rows),
            g (nodes, rows, channels).
        plan: the seven tensors of an ``EdgePlan``, and the degree l(m) of each row.
        sizes: number of degrees.

    Returns:
        The shape of the slot left open.
    """
    source, target, row_ptr, _, _, pair, pair_edge, degree = plan
    slots: list[Tensor | None] = [*operands[:open_slot], None, *operands[open_slot:]]
    w, h, y, g = slots
    nodes = row_ptr.shape[0] - 1
    weight = None if w is None else w[pair][:, degree]
    species = None if h is None else (h[0, target] + h[1, source])[:, None]
    receiver = None if g is None else g[target]
    angle = None if y is None else y[..., None]
    product = None
    for factor in (weight, species, angle, receiver):
        if factor is not None:
            product = factor if product is None else product * factor
    assert product is not None, "three slots are filled"
    if open_slot == WEIGHT:
        by_degree = product.new_zeros(product.shape[0], sizes[0], product.shape[2])
        by_degree = by_degree.index_add(1, degree, product)
        return product.new_zeros(pair_edge.shape[0], *by_degree.shape[1:]).index_add(0, pair, by_degree)
    if open_slot == SPECIES:
        per_edge = product.sum(1)
        zeros = per_edge.new_zeros(nodes, per_edge.shape[1])
        return torch.stack([zeros.index_add(0, target, per_edge), zeros.index_add(0, source, per_edge)])
    if open_slot == ANGLE:
        return product.sum(-1)
    return product.new_zeros(nodes, *product.shape[1:]).index_add(0, target, product)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the slot left open."""
    nodes, degree = plan[2].shape[0] - 1, plan[7]
    channels = (operands[0] if open_slot != WEIGHT else operands[-1]).shape[-1]
    like = operands[0]
    if open_slot == WEIGHT:
        return like.new_empty(plan[6].shape[0], sizes[0], channels)
    if open_slot == SPECIES:
        return like.new_empty(2, nodes, channels)
    if open_slot == ANGLE:
        return like.new_empty(plan[0].shape[0], degree.shape[0])
    return like.new_empty(nodes, degree.shape[0], channels)
