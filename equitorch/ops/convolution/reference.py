"""What ``convolution`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor

from equitorch.ops.convolution.form import LISTS, dense_form

FEATURE, FILTER, WEIGHT, RESULT = range(4)
LATENT, PROJECTION = 2, 3  # the two slots of a projected convolution in place of its weight
WALKS = 8  # so many tensors of the plan say how edges are walked


def convolution(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Leave one slot of a sum over edges e, from node s(e) to node r(e), open.

    q(x, y, w, g) = sum over e, paths p, rows i j k, channels c:
                    coefficient[p, i, j, k] x[s(e), i, c] y[e, j] w[pair(e), p, c] g[r(e), k, c]

    Args:
        open_slot: 0 for the nodes' features x, 1 for the edges' filters y, 2 for the weights w of the paths,
            3 for the result g.
        operands: the filled slots, in that order. Shapes: x (nodes, I, channels), y (edges, J), w (pairs,
            paths, channels), g (nodes, K, channels). Weights may be of lower precision than the others.
        plan: ``EdgePlan.walks``, then ``form_lists`` of the coupling and of the one with I and K exchanged.
        sizes: I, J, K, paths, the position in ``WEIGHT_TYPES`` of the weights' type, and ``form_name`` of
            the lists or 0 (or nothing), which matters to kernels that unroll them.

    Returns:
        The open slot's shape; sums are of float32 at least.
    """
    full = [None if n == open_slot else operands[n - (n > open_slot)] for n in range(4)]
    kept = operands[0]
    wide = kept.dtype if kept.dtype in (torch.float32, torch.float64) else torch.float32
    x, y, w, g = (None if t is None else t.to(wide) for t in full)
    out = _open(open_slot, x, y, w, g, plan, sizes)
    return out.to(weight_dtype(sizes) if open_slot == WEIGHT else kept.dtype)


def projected_convolution(
    open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]
) -> Tensor:
    """The same with weights w[q, p, c] = sum over h of latent[q, h] projection[h, p, c], a slot for each.

    Args:
        open_slot: 0 for x, 1 for y, 2 for the latent weights, 3 for their projection, 4 for g.
        operands: the filled slots; latent (pairs, H), projection (H, paths, channels), others as above.
        plan: as above.
        sizes: as above; all types are one.

    Returns:
        The open slot's shape.
    """
    if open_slot in (LATENT, PROJECTION):
        x, y, other, g = operands
        weight = convolution(WEIGHT, [x, y, g], plan, sizes)
        if open_slot == LATENT:
            return torch.einsum("qpc,hpc->qh", weight, other)
        return torch.einsum("qpc,qh->hpc", weight, other)
    first = LATENT if open_slot > PROJECTION else LATENT - 1  # where the latent weights are listed
    weight = torch.einsum("qh,hpc->qpc", *operands[first : first + 2])
    slots = [*operands[:first], weight, *operands[first + 2 :]]
    return convolution(RESULT if open_slot > PROJECTION else open_slot, slots, plan, sizes)


def _open(
    slot: int,
    x: Tensor | None,
    y: Tensor | None,
    w: Tensor | None,
    g: Tensor | None,
    plan: list[Tensor],
    sizes: list[int],
) -> Tensor:
    source, target, pair = plan[0], plan[1], plan[6]
    lists = plan[WALKS : WALKS + LISTS]
    path, row = lists[0].long(), lists[1].long()
    some = next(t for t in (x, y, w, g) if t is not None)
    form = dense_form(lists, sizes[0], sizes[1], some)
    x = x if x is None else x[source]
    w = w if w is None else w[pair][:, path]
    g = g if g is None else g[target][:, row]
    if w is not None and g is not None:
        below = w * g
        if y is not None:
            mixed = torch.einsum("rij,ej->eir", form, y)
            return _sum_at(source, mixed @ below, plan[2].shape[0] - 1)
        assert x is not None, "three slots are filled"
        return torch.einsum("rij,eri->ej", form, below @ x.mT)
    assert x is not None, "three slots are filled"
    assert y is not None, "three slots are filled"
    z = torch.einsum("rij,ej->eri", form, y) @ x
    if g is not None:
        per_path = z.new_zeros(z.shape[0], sizes[3], z.shape[2]).index_add(1, path, z * g)
        return _sum_at(pair, per_path, plan[7].shape[0])
    assert w is not None, "three slots are filled"
    summed = z.new_zeros(z.shape[0], sizes[2], z.shape[2]).index_add(1, row, z * w)
    return _sum_at(target, summed, plan[2].shape[0] - 1)


def _sum_at(index: Tensor, terms: Tensor, count: int) -> Tensor:
    return terms.new_zeros(count, *terms.shape[1:]).index_add(0, index, terms)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape and type of the open slot."""
    kept, channels = operands[0], operands[-1].shape[-1]
    nodes, edges, pairs = plan[2].shape[0] - 1, plan[0].shape[0], plan[7].shape[0]
    if open_slot == FILTER:
        return kept.new_empty(edges, sizes[1])
    if open_slot == WEIGHT:
        return kept.new_empty(pairs, sizes[3], channels, dtype=weight_dtype(sizes))
    return kept.new_empty(nodes, sizes[0] if open_slot == FEATURE else sizes[2], channels)


def projected_fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the shape of the open slot."""
    if open_slot == LATENT:
        return operands[0].new_empty(plan[7].shape[0], operands[2].shape[0])
    if open_slot == PROJECTION:
        return operands[0].new_empty(operands[2].shape[1], sizes[3], operands[0].shape[2])
    kept = operands[0]
    nodes, channels = plan[2].shape[0] - 1, operands[-1].shape[-1]
    if open_slot == FILTER:
        return kept.new_empty(plan[0].shape[0], sizes[1])
    return kept.new_empty(nodes, sizes[0] if open_slot == FEATURE else sizes[2], channels)


WEIGHT_TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def weight_dtype(sizes: list[int]) -> torch.dtype:
    """The type of the weights."""
    return WEIGHT_TYPES[sizes[4]]
