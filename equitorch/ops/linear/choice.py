"""One of several linear maps for each point, without a copy of the weights for each point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.linear.op import linear
from equitorch.ops.linear.reference import Layout
from equitorch.ops.multilinear import with_derivatives

_BLOCK = 32  # points that share a copy of their map's weights


def linear_by_index(x: Tensor, weight: Tensor, index: Tensor, layout: Layout) -> Tensor:
    """As ``linear``, with map number ``index[n]`` for point n.

    Args:
        x: the feature. Shape (points, rows_in, channels_in).
        weight: the weights of every map. Shape (maps, weights).
        index: the map of each point. Shape (points,), int64.
        layout: which rows mix.

    Shape:
        (points, rows_out, channels_out)
    """
    if x.device.type == "cpu" and not traced(x, weight) and fused(x, weight):
        return _sorted(x, weight, index, layout)
    return _blocked(x, weight, index, layout)


def _sorted(x: Tensor, weight: Tensor, index: Tensor, layout: Layout) -> Tensor:
    """The points of each map together, one product each: for devices where counting does not wait."""
    order = index.argsort(stable=True)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(order.shape[0]))
    counts = torch.bincount(index, minlength=weight.shape[0]).tolist()
    parts = zip(_permuted(x, order, back).split(counts), weight, strict=True)
    return _permuted(torch.cat([linear(part, w, layout) for part, w in parts]), back, order)


def _permuted(x: Tensor, order: Tensor, back: Tensor) -> Tensor:
    """``x[order]``; its derivative is the inverse permutation and not PyTorch's sum over repeated indices."""
    return with_derivatives(x.detach().index_select(0, order), [(x, lambda g: _permuted(g, back, order))])


def _blocked(x: Tensor, weight: Tensor, index: Tensor, layout: Layout) -> Tensor:
    """The points of each map in blocks of fixed size, padded with zeros; a block has one copy of its weights.

    The number of blocks depends on shapes only, so that nothing waits for the device.
    """
    points, maps = x.shape[0], weight.shape[0]
    blocks = points // _BLOCK + maps
    count = index.new_zeros(maps).index_add(0, index, torch.ones_like(index))
    needed = (count + _BLOCK - 1) // _BLOCK
    ends, order = needed.cumsum(0), index.argsort(stable=True)
    ordered = index[order]
    rank = torch.arange(points, device=x.device) - (count.cumsum(0) - count)[ordered]
    slot = torch.empty_like(order).scatter(0, order, (ends - needed)[ordered] * _BLOCK + rank)
    owner = torch.searchsorted(ends, torch.arange(blocks, device=x.device), right=True).clamp(max=maps - 1)
    padded = x.new_zeros(blocks * _BLOCK, *x.shape[1:]).index_copy(0, slot, x).unflatten(0, (blocks, _BLOCK))
    return _blockwise(padded, weight[owner], layout).flatten(0, 1).index_select(0, slot)


def _blockwise(x: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    """Blocks (blocks, points, rows, channels), each by its own weights (blocks, weights)."""
    start, parts = 0, []
    for g in layout.groups:
        a, c, b, d = layout.shape(g)
        w = weight[:, start : start + a * c * b * d].reshape(-1, 1, a * c, b * d)
        start += a * c * b * d
        block = x[:, :, g.first_in : g.first_in + a * g.dim].unflatten(2, (a, g.dim))
        mixed = block.permute(0, 3, 1, 2, 4).flatten(3) @ w  # (blocks, dim, points, copies * channels)
        mixed = mixed.unflatten(3, (b, d)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        parts.append((g.first_out, mixed))
    return _placed(parts, x.new_zeros(*x.shape[:2], layout.rows_out, layout.channels_out))


def _placed(parts: Sequence[tuple[int, Tensor]], zeros: Tensor) -> Tensor:
    """Blocks of rows at their places, zeros elsewhere."""
    rows, filled = [], 0
    for first, part in sorted(parts, key=lambda pair: pair[0]):
        rows += [zeros[:, :, filled:first], part]
        filled = first + part.shape[2]
    return torch.cat([*rows, zeros[:, :, filled:]], dim=2)
