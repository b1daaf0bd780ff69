"""``diagram_linear`` as layers call it: ANALYSIS, one matrix product for each pair of sectors, SYNTHESIS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.diagrams.op import diagram_analysis, diagram_symbol, diagram_synthesis, fused_linear
from equitorch.ops.diagrams.program import LinearPlan, Pair


def diagram_linear(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    plan: LinearPlan,
    n: int,
    *,
    bias: Tensor | None = None,
    scale: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> list[Tensor]:
    r"""The equivariant linear map with these weights, between direct sums of tensor powers of R^n.

    Bilinear in ``xs`` and ``weights`` and differentiable to any order; without the matrix of the map.

    Args:
        xs: one tensor for each of ``plan.orders_in``.
        weights: one for each of ``plan.pairs``.
        plan: of the group, from ``linear_plan``; made once, where the module is made.
        n: dimension.
        bias: numbers for the upper halves without strands, those at ``plan.constant``.
        scale: a factor for each closed block of a lower half: 1, 1 / n or n ** -0.5; or one for each sample.
        mask: of permutation groups: which of the n points of each sample are there. The rest count as zero,
            and the results are zero there. For means, ``scale`` is 1 / mask.sum(1).

    Shape:
        xs: (batch, n**k, channels_in) each, weights: ``pair.weight_shape(channels_in, channels_out)`` each,
        bias: (halves, channels_out), scale: (batch,), mask: (batch, n)
        -> (batch, n**l, channels_out) for each of ``plan.orders_out``

    Raises:
        ValueError: if the shapes do not belong together.
    """
    if plan.single and len(xs) == 1 and mask is None and not isinstance(scale, Tensor):
        y = fused_linear(xs[0], weights, bias, plan.keys_in[0], plan.keys_out[0], n, plan.form, scale)
        if y is not None:
            return [y]
    _check(xs, weights, plan, n)
    if mask is not None:
        xs = [_masked(x, mask, order) for x, order in zip(xs, plan.orders_in, strict=True)]
    zs = _analysed(xs, plan, n, scale)
    ys: list[Tensor | None] = [None] * len(plan.upper)
    for pair, weight in zip(plan.pairs, weights, strict=True):
        y = diagram_mix(zs[pair.lower], weight, pair, n, plan.form)
        found = ys[pair.upper]
        ys[pair.upper] = y if found is None else found + y
    if bias is not None:
        place, y = _constant(plan, bias, ys)
        ys[place] = y + bias
    out = _synthesised(ys, plan, n, xs[0], weights)
    if mask is not None:
        out = [_masked(y, mask, order) for y, order in zip(out, plan.orders_out, strict=True)]
    return out


def _constant(plan: LinearPlan, bias: Tensor, ys: Sequence[Tensor | None]) -> tuple[int, Tensor]:
    place = plan.constant
    y = None if place is None else ys[place]
    if place is None or y is None or bias.shape != y.shape[2:]:
        wanted = "none" if y is None else f"one of shape {tuple(y.shape[2:])}"
        raise ValueError(f"diagram_linear expects {wanted} as bias here, got shape {tuple(bias.shape)}")
    return place, y


def diagram_mix(z: Tensor, weight: Tensor, pair: Pair, n: int, form: str = "") -> Tensor:
    """What the weight of a pair of sectors makes of all lower halves: one matrix product.

    Args:
        z: the lower halves; with the mark "<" once for each permutation.
        weight: of shape ``pair.weight_shape``.
        pair: which sectors.
        n: dimension.
        form: what raises alternating indices of kind "free".

    Shape:
        (batch, n ** rank, halves_in, channels_in) -> (batch, n ** rank, halves_out, channels_out), with the
        mark ">" once for each permutation
    """
    count, lower, channels_in, upper, channels_out = weight.shape
    if pair.mark == ">":
        matrix = weight.permute(1, 2, 0, 3, 4).reshape(lower * channels_in, count * upper * channels_out)
        return _product(z, matrix, count * upper)
    if pair.parities:
        parities = torch.tensor(pair.parities, dtype=weight.dtype, device=weight.device)
        weight = weight * parities[:, None]
    matrix = weight.reshape(count * lower * channels_in, upper * channels_out)
    if not pair.symbol:
        return _product(z, matrix, upper)
    z = _permuted(z, pair, n)
    before, after = pair.symbol.split(":")[2:]
    if int(after) <= int(before):
        return _product(diagram_symbol(z, pair.symbol, n, form), matrix, upper)
    return diagram_symbol(_product(z, matrix, upper), pair.symbol, n, form)


def _product(z: Tensor, matrix: Tensor, halves: int) -> Tensor:
    channels = matrix.shape[1] // halves
    y = z.reshape(z.shape[0] * z.shape[1], matrix.shape[0]) @ matrix
    return y.reshape(z.shape[0], z.shape[1], halves, channels)


def _permuted(z: Tensor, pair: Pair, n: int) -> Tensor:
    """The halves once for each permutation of their through axes."""
    if pair.permutations == 1:
        return z
    d = pair.rank
    axes = z.unflatten(1, [n] * d + [-1])
    moved = [axes.permute(0, *[1 + a for a in p], *range(d + 1, axes.ndim)) for p in _permutations(d)]
    return torch.cat(moved, dim=-2).flatten(1, d + 1)


def _permutations(size: int) -> list[list[int]]:
    """In lexicographic order; a compiler can follow it."""
    found: list[list[int]] = [[]]
    for _ in range(size):
        found = [[*p, i] for p in found for i in range(size) if i not in p]
    return found


def _analysed(xs: Sequence[Tensor], plan: LinearPlan, n: int, scale: float | Tensor) -> list[Tensor]:
    """All halves of each of ``plan.lower``, those of all inputs side by side."""
    parts: list[list[Tensor]] = [[] for _ in plan.lower]
    fixed = 1.0 if isinstance(scale, Tensor) else scale
    for x, key, places in zip(xs, plan.keys_in, plan.places_in, strict=True):
        for place, z in zip(places, diagram_analysis(x, key, n, plan.form, fixed), strict=True):
            parts[place].append(z)
    count = {pair.lower: pair.permutations if pair.mark == "<" else 1 for pair in plan.pairs}
    zs = [_side_by_side(found, count[place]) for place, found in enumerate(parts)]
    if isinstance(scale, Tensor):
        closed = {pair.lower: pair.closed * count[pair.lower] for pair in plan.pairs}
        zs = [_scaled(z, scale, closed[place]) for place, z in enumerate(zs)]
    return zs


def _side_by_side(parts: list[Tensor], count: int) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    if count == 1:
        return torch.cat(parts, dim=2)
    return torch.cat([z.unflatten(2, (count, -1)) for z in parts], dim=3).flatten(2, 3)


def _scaled(z: Tensor, scale: Tensor, closed: tuple[int, ...]) -> Tensor:
    """Each half times a power of its sample's factor."""
    if not any(closed):
        return z
    powers = torch.tensor(closed, device=z.device)
    return z * (scale.to(z)[:, None] ** powers)[:, None, :, None]


def _synthesised(
    ys: list[Tensor | None], plan: LinearPlan, n: int, like: Tensor, weights: Sequence[Tensor]
) -> list[Tensor]:
    """All outputs, each from its share of the upper halves."""
    count = {pair.upper: pair.permutations if pair.mark == ">" else 1 for pair in plan.pairs}
    used = [0] * len(plan.upper)
    out = []
    channels = weights[0].shape[4] if weights else plan.channels_out
    for order, key, places, halves in zip(
        plan.orders_out, plan.keys_out, plan.places_out, plan.halves_out, strict=True
    ):
        if not places:
            out.append(like.new_zeros(like.shape[0], n**order, channels))
            continue
        mine = []
        for place, size in zip(places, halves, strict=True):
            y = ys[place]
            assert y is not None, "every sector belongs to a pair"
            mine.append(_share(y, count[place], used[place], size))
            used[place] += size
        out.append(diagram_synthesis(mine, key, n, plan.form))
    return out


def _share(y: Tensor, count: int, first: int, size: int) -> Tensor:
    """The halves of one output, for each permutation."""
    if y.shape[2] == count * size:
        return y
    return y.unflatten(2, (count, -1)).narrow(3, first, size).flatten(2, 3)


def _masked(x: Tensor, mask: Tensor, order: int) -> Tensor:
    """Zero, whatever stood there, unless all indices are among the points that are there."""
    there = mask.bool()
    whole = there.new_ones(there.shape[0], 1, 1)
    for _ in range(order):
        whole = (whole & there[:, None, :]).flatten(1)[:, :, None]
    return torch.where(whole, x, 0)


def _check(xs: Sequence[Tensor], weights: Sequence[Tensor], plan: LinearPlan, n: int) -> None:
    rows = [n**order for order in plan.orders_in]
    if len(xs) != len(rows) or any(x.ndim != 3 or x.shape[1] != r for x, r in zip(xs, rows, strict=False)):
        raise ValueError(
            f"diagram_linear expects inputs of shape (batch, rows, channels) with {rows} rows, "
            f"got {[tuple(x.shape) for x in xs]}"
        )
    if len(weights) != len(plan.pairs):
        raise ValueError(
            f"diagram_linear expects a weight for each of {len(plan.pairs)} pairs of sectors, "
            f"got {len(weights)}"
        )
    channels = weights[0].shape[-1] if weights else 0
    for pair, weight in zip(plan.pairs, weights, strict=True):
        wanted = pair.weight_shape(xs[0].shape[2], channels)
        if weight.shape != wanted:
            raise ValueError(f"diagram_linear expects a weight of shape {wanted}, got {tuple(weight.shape)}")
