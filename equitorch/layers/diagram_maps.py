"""Equivariant maps by diagrams, as functions of their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.diagram_dense import Apply, Work
from equitorch.layers.diagram_product import DiagramProduct
from equitorch.layers.diagram_sides import Factor, Side, SymmetricEntries
from equitorch.layers.diagram_storage import Entry
from equitorch.layers.diagram_weights import (
    Joint,
    WeightIndex,
    count_of,
    form_of,
    joints,
    kept,
    listing,
    orders,
    scale_of,
    spread,
    standard_deviations,
)
from equitorch.ops.diagrams import diagram_linear, linear_plan, prepared_linear

_MOST = 1 << 25  # diagrams


class DiagramSum(nn.Module):
    """All diagrams between two sums of tensor powers, or of products of tensor powers; without weights.

    Args:
        inner: the input.
        outer: the output.
        normalization: of closed blocks: "auto", "sum", "mean" or "sqrt".
        depthwise: channels are not mixed.
    """

    def __init__(self, inner: Side, outer: Side, normalization: str, depthwise: bool) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer
        scalings = [scale_of(normalization, group.family) for group in inner.groups]
        self.powers = tuple([{"sum": 0.0, "mean": -1.0, "sqrt": -0.5}[scaling] for scaling in scalings])
        self.joints = joints(inner, outer)
        group, below, above = inner.groups[0], orders(inner, 0), orders(outer, 0)
        self.plan = linear_plan(group.family, group.n, above, below, form_of(group))
        by_one = len(inner.groups) == 1 and not depthwise
        self.product = None if by_one else DiagramProduct(inner, outer, self.joints)

    def forward(
        self,
        xs: Sequence[Tensor],
        weights: Sequence[Tensor],
        sizes: tuple[int, ...],
        mask: Tensor | None,
        bias: Tensor | None = None,
    ) -> list[Tensor]:
        """Apply the maps to each block of the input: (batch, n^k, channels_in) -> (batch, n^l, channels_out).

        Args:
            xs: one for each block, without symmetry.
            weights: of each pair of sectors, in the order of ``joints``.
            sizes: the dimension of each group.
            mask: which points there are. Shape (batch, n).
            bias: of the halves at ``plan.constant``, where there is a single group.
        """
        scales = [self._scale(place, n, mask, xs[0]) for place, n in enumerate(sizes)]
        if self.product is None:
            return diagram_linear(xs, weights, self.plan, sizes[0], bias=bias, scale=scales[0], mask=mask)
        if mask is None:
            return list(self.product(xs, weights, sizes, scales))
        whole, result = self.inner.keep(mask, sizes), self.outer.keep(mask, sizes)
        xs = [torch.where(kept.bool(), x, 0) for x, kept in zip(xs, whole, strict=True)]
        ys = self.product(xs, weights, sizes, scales)
        return [torch.where(kept.bool(), y, 0) for y, kept in zip(ys, result, strict=True)]

    def _scale(self, place: int, n: int, mask: Tensor | None, x: Tensor) -> float | Tensor:
        """The factor of each closed block of a group."""
        power = self.powers[place]
        if mask is None or not power or place != self.inner.free:
            return float(n) ** power
        return mask.sum(1).clamp(min=1).to(x.dtype) ** power


class DiagramMaps(nn.Module):
    """The maps of a layer between tensor powers, and those from an invariant number for its bias.

    Args:
        inner: the input.
        outer: the output.
        normalization: of closed blocks: "auto", "sum", "mean" or "sqrt".
        basis: "spanning" or "minimal".
        bias: whether there is one.

    Attributes:
        entries: what the weights are.
        constants: what the weights of the bias are.
    """

    def __init__(self, inner: Side, outer: Side, normalization: str, basis: str, bias: bool) -> None:
        super().__init__()
        self.inner, self.outer, self.normalization = inner, outer, normalization
        self.symmetric = SymmetricEntries((inner, outer))
        self.constant = Side(inner.groups, (tuple(Factor(0) for _ in inner.groups),))
        self.joints, self.bias_joints = joints(inner, outer), joints(self.constant, outer) if bias else ()
        shapes = [joint.shape(inner, outer) for joint in self.joints]
        count = sum(map(math.prod, shapes))
        if count > _MOST:
            raise ValueError(
                f"DiagramLinear expects at most {_MOST:,} maps between representations, got {count:,} from "
                f"{sum(inner.rows(inner.sizes))} rows to {sum(outer.rows(outer.sizes))}; use lower orders"
            )
        self.entries = self._entries(inner, self.joints, basis)
        self.constants = self._entries(self.constant, self.bias_joints, basis)
        self.partial = any(entry.kept is not None for entry in (*self.entries, *self.constants))
        self.mixed = DiagramSum(inner, outer, normalization, depthwise=False)
        self.shifts = DiagramSum(self.constant, outer, normalization, depthwise=False) if bias else None
        self.adds = self.mixed.product is None and self._is_constant()
        factors = [factor for side in (inner, outer) for factor in side.factors]
        self.plain = all(factor == Factor(factor.order) for factor in factors)
        one_kernel = self.mixed.product is None and self.mixed.plan.single and self.plain
        self.single = one_kernel and (self.adds or not self.bias_joints)
        self.shapes = list(zip(self.joints, shapes, strict=True))
        self.steps = _steps(inner, self.joints) + _steps(outer, self.joints, upper=True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The dimension of each group."""
        return self.inner.sizes

    @property
    def is_free(self) -> bool:
        """Whether rows tell another n."""
        return self.inner.free is not None

    def diagrams(self) -> Iterator[tuple[WeightIndex, Any]]:
        """Where the weights of each diagram are, and its blocks: see ``DiagramLinear.diagrams``."""
        for joint, entry in zip(self.joints, self.entries, strict=True):
            places = {} if entry.kept is None else {p: i for i, p in enumerate(entry.kept.tolist())}
            _, lower, upper = entry.shape
            for p, a, b, i, j, blocks in listing(joint, self.inner, self.outer):
                found = blocks[0] if len(blocks) == 1 else tuple(blocks)
                flat = (p * lower + a) * upper + b
                if entry.kept is None:
                    yield WeightIndex(entry.name, (p, a, slice(None), b), i, j), found
                elif flat in places:
                    yield WeightIndex(entry.name, (places[flat],), i, j), found

    def sizes_for(self, rows: int) -> tuple[int, ...] | None:
        """The dimensions at which a feature has so many rows."""
        return self.inner.sizes_for(rows)

    def sizes_at(self, n: int) -> tuple[int, ...] | None:
        """The dimensions with another n, where it is free."""
        return self.inner.with_n(n) if self.is_free else None

    def rows(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        """Numbers of rows of input and output."""
        return sum(self.inner.rows(sizes)), sum(self.outer.rows(sizes))

    def present(self, mask: Tensor, sizes: tuple[int, ...], like: Tensor) -> Tensor:
        """Which rows of the output are there, as 0 and 1: (batch, rows, 1)."""
        kept = [part.to(like.dtype) for part in self.outer.keep(mask, sizes)]
        plain = self.outer.without_duals()
        return (plain.lower(kept, sizes, self.symmetric) > 0).to(like.dtype)

    def masked(self, sizes: tuple[int, ...]) -> int | None:
        """How many points a mask tells of; None where there is nothing to mask."""
        free = self.inner.free
        return None if free is None or self.inner.groups[free].family != "S" else sizes[free]

    def work(self, sizes: tuple[int, ...]) -> Work:
        """What it takes to apply them to one feature."""
        products = moved_in = moved_out = 0
        for joint, (p, h, g) in self.shapes:
            low, high = (
                math.prod([n ** (s.rank + s.alternating) for n, s in zip(sizes, sectors, strict=True)])
                for sectors in (joint.lower, joint.upper)
            )
            products += min(low, high) * p * h * g
            moved_in += low * p * h
            moved_out += high * g
        return Work(products, moved_in, moved_out, self.steps, self.single)

    def unmixed(self) -> None:
        """Prepare for weights that do not mix channels."""
        self.mixed = DiagramSum(self.inner, self.outer, self.normalization, depthwise=True)

    def _is_constant(self) -> bool:
        """Whether the bias belongs to halves that the weights reach as well: then it is added on the way."""
        place, joints = self.mixed.plan.constant, self.bias_joints
        return place is not None and [joint.upper for joint in joints] == [(self.mixed.plan.upper[place],)]

    def _entries(self, inner: Side, pairs: tuple[Joint, ...], basis: str) -> list[Entry]:
        masks = {}
        if basis == "minimal":
            found = {joint.name: kept(joint, inner, self.outer) for joint in pairs}
            masks = {name: mask for name, mask in found.items() if not mask.all()}
        spreads = spread(pairs, inner, self.outer, self.normalization, masks)
        entries = []
        for joint in pairs:
            deviation = standard_deviations(joint, self.outer, spreads, 1)
            mask = masks.get(joint.name)
            places = None if mask is None else torch.tensor(mask.reshape(-1), device="cpu").nonzero()[:, 0]
            entries.append(Entry(joint.name, joint.shape(inner, self.outer), deviation, places))
        return entries

    def forward(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        bias: Sequence[Tensor] | None,
        sizes: tuple[int, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Apply the maps: (batch, rows, channels_in) -> (batch, rows, channels_out)."""
        xs = self.inner.lift(x, sizes, self.symmetric)
        own = bias[0].flatten(0, 3) if bias and self.adds else None
        y = self.outer.lower(self.mixed(xs, weights, sizes, mask, own), sizes, self.symmetric)
        if bias is None or self.adds:
            return y
        shift = self.shift(bias, sizes)
        return y + (shift if mask is None else shift * self.present(mask, sizes, y))

    def prepared(
        self, weights: Sequence[Tensor], bias: Sequence[Tensor] | None, sizes: tuple[int, ...]
    ) -> Apply:
        """The same as a function of the feature alone, without history and as little to do as can be."""
        own = bias[0].flatten(0, 3) if bias and self.adds else None
        shift = self.shift(bias, sizes) if bias and not self.adds else None
        plan, scale = self.mixed.plan, float(sizes[0]) ** self.mixed.powers[0]
        if self.single:
            return prepared_linear(weights, plan, sizes[0], bias=own, scale=scale)

        def apply(x: Tensor) -> Tensor:
            if self.mixed.product is not None:
                y = self(x, weights, None, sizes)
            else:
                xs = self.inner.lift(x, sizes, self.symmetric)
                ys = diagram_linear(xs, weights, plan, sizes[0], bias=own, scale=scale)
                y = self.outer.lower(ys, sizes, self.symmetric)
            return y if shift is None else y + shift

        return apply

    def dense(self, weights: Sequence[Tensor], sizes: tuple[int, ...]) -> Tensor:
        """The matrix of the map: (rows_out, rows_in, channels_in, channels_out), as the weights have them."""
        last = weights[0].shape[4:]
        one = torch.eye(sum(self.inner.rows(sizes)), dtype=weights[0].dtype, device=weights[0].device)
        as_one = [weight.movedim(2, 3).flatten(3).unsqueeze(2) for weight in weights]
        ys = self.mixed(self.inner.lift(one[:, :, None], sizes, self.symmetric), as_one, sizes, None)
        matrix = self.outer.lower(ys, sizes, self.symmetric).transpose(0, 1)
        return matrix.unflatten(2, (weights[0].shape[2], *last))

    def shift(self, bias: Sequence[Tensor], sizes: tuple[int, ...]) -> Tensor:
        """The bias itself: (1, rows_out, channels_out)."""
        if self.shifts is None:
            raise ValueError("these maps were made without a bias")
        one = bias[0].new_ones(1, 1, 1)
        return self.outer.lower(self.shifts([one], bias, sizes, None), sizes, self.symmetric)


def _steps(side: Side, pairs: tuple[Joint, ...], *, upper: bool = False) -> int:
    """Roughly how many small tensors are read or written beside the large ones."""
    wanted = dict.fromkeys(joint.upper if upper else joint.lower for joint in pairs)
    symbols = sum(sector.kind in ("sign", "free") for joint in pairs for sector in joint.upper)
    halves = sum(count_of(side, sectors) for sectors in wanted)
    return sum(len(joint.permutations) for joint in pairs) + halves + 20 * symbols
