"""Diagrams of several groups at once, or channel by channel: halves of one group inside another's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.diagram_sides import Side
from equitorch.layers.diagram_weights import Joint, block_halves, counts_of, form_of
from equitorch.ops.diagrams import diagram_analysis, diagram_symbol, diagram_synthesis
from equitorch.reps.diagram_plan import analysis_plan, plan_of_key
from equitorch.reps.halves import Sector, count_halves, halves

Sectors = tuple[Sector, ...]


class DiagramProduct(nn.Module):
    """ANALYSIS, MIX and SYNTHESIS for the groups of a product, one after the other.

    The halves of the product are pairs of halves of the factors, so each step is that of one group with the
    rest of the rows as channels.

    Args:
        inner: the input.
        outer: the output.
        pairs: what the weights join.
    """

    def __init__(self, inner: Side, outer: Side, pairs: tuple[Joint, ...]) -> None:
        super().__init__()
        self.inner, self.outer, self.pairs = inner, outer, pairs
        self.lower = tuple(dict.fromkeys(joint.lower for joint in pairs))
        self.upper = tuple(dict.fromkeys(joint.upper for joint in pairs))
        self.keys_in = _keys(inner, self.lower)
        self.keys_out = _keys(outer, self.upper)
        self.forms = tuple([form_of(group) for group in inner.groups])
        self.permutations = tuple([joint.permutations for joint in pairs])
        self.shares = {sectors: counts_of(outer, sectors) for sectors in self.upper}
        self.sectors_in = _sectors(self.keys_in)  # forward asks nothing that is cached by functools:
        self.sectors_out = _sectors(self.keys_out)  # a compiler would trace through the cache
        self.closed = _closed(inner, self.lower)
        self.counts = {
            (factor.order, sector): count_halves(factor.order, sector)
            for block in outer.blocks
            for factor in block
            for sectors in self.upper
            for sector in sectors
        }
        self.parities = nn.ModuleDict()
        for joint in pairs:
            if any(sector.kind == "sign" for sector in joint.upper):
                self.parities[joint.name] = Constant(_parity(joint, outer))

    def forward(
        self,
        xs: Sequence[Tensor],
        weights: Sequence[Tensor],
        sizes: tuple[int, ...],
        scales: Sequence[float | Tensor],
    ) -> list[Tensor]:
        """The sum of all diagrams, for each block of the output.

        Args:
            xs: one tensor for each block of the input. Shape (batch, rows, channels).
            weights: one for each pair; without the last axis, channels are not mixed.
            sizes: dimension n of each group.
            scales: for each group, a factor for each closed block; or one for each sample. Shape (batch,).
        """
        read = [self._analysed(x, i, sizes, scales) for i, x in enumerate(xs)]
        mixed: dict[Sectors, Tensor] = {}
        for number, (joint, weight) in enumerate(zip(self.pairs, weights, strict=True)):
            z = torch.cat([part[joint.lower] for part in read if joint.lower in part], dim=2)
            y = self._mixed(z, weight, number, sizes)
            mixed[joint.upper] = mixed[joint.upper] + y if joint.upper in mixed else y
        split = {sectors: y.split(self.shares[sectors], dim=2) for sectors, y in mixed.items()}
        return [
            self._synthesised({s: split[s][j] for s in self.upper}, j, sizes)
            for j in range(len(self.outer.blocks))
        ]

    def _analysed(
        self, x: Tensor, i: int, sizes: tuple[int, ...], scales: Sequence[float | Tensor]
    ) -> dict[Sectors, Tensor]:
        """For each product of sectors the halves: (batch, entries, halves, channels)."""
        batch, channels = x.shape[0], x.shape[2]
        state: dict[Sectors, Tensor] = {(): x[:, None, None]}
        for place, (key, n, scale) in enumerate(zip(self.keys_in[i], sizes, scales, strict=True)):
            sectors, found = self.sectors_in[i][place], {}
            order = self.inner.blocks[i][place].order
            for done, z in state.items():
                entries, count = z.shape[1:3]
                rest = z.shape[3] // n**order
                flat = z.reshape(batch * entries * count, n**order, rest * channels)
                uniform = scale if isinstance(scale, float) else 1.0
                parts = diagram_analysis(flat, key, n, self.forms[place], uniform)
                for sector, part in zip(sectors, parts, strict=True):
                    y = part.reshape(batch, entries, count, *part.shape[1:3], rest, channels)
                    y = y if isinstance(scale, float) else y * _powers(scale, self.closed[order, sector])
                    y = y.permute(0, 1, 3, 2, 4, 5, 6)
                    found[*done, sector] = y.flatten(3, 4).flatten(1, 2)
            state = found
        wanted = set(self.lower)
        return {sectors: z.squeeze(3) for sectors, z in state.items() if sectors in wanted}

    def _mixed(self, z: Tensor, weight: Tensor, number: int, sizes: tuple[int, ...]) -> Tensor:
        """(batch, entries, lower halves, channels_in) -> (batch, entries, upper halves, channels_out)."""
        joint, every = self.pairs[number], self.permutations[number]
        turned = torch.stack([self._joined(z, sigmas, joint, sizes) for sigmas in every], dim=2)
        if joint.name in self.parities:
            parity = self.get_buffer(f"parities.{joint.name}.value")
            weight = weight * (parity[:, 0] if weight.ndim == 4 else parity)
        if weight.ndim == 4:
            return torch.einsum("bnphc,phcg->bngc", turned, weight)
        y = turned.flatten(2) @ weight.flatten(0, 2).flatten(1)
        return y.unflatten(2, weight.shape[3:])

    def _joined(
        self, z: Tensor, sigmas: tuple[tuple[int, ...], ...], joint: Joint, sizes: tuple[int, ...]
    ) -> Tensor:
        """The strands of z in the order in which the upper halves take them."""
        shape: list[int] = []
        for below, n in zip(joint.lower, sizes, strict=True):
            shape += [n] * (below.rank + below.alternating)
        y = z.unflatten(1, shape) if shape else z.squeeze(1)
        start = 1
        for place, (sigma, above, below) in enumerate(zip(sigmas, joint.upper, joint.lower, strict=True)):
            order = [*range(start), *(start + s for s in sigma), *range(start + above.rank, y.ndim)]
            y = y.permute(order)
            if above.kind in ("sign", "free"):
                y = _turned(y, start, above, below, sizes[place], self.forms[place])
            start += above.rank + above.alternating
        return y.reshape(z.shape[0], _entries(joint.upper, sizes), *z.shape[2:])

    def _synthesised(self, parts: dict[Sectors, Tensor], j: int, sizes: tuple[int, ...]) -> Tensor:
        """The adjoint of ``_analysed``, group by group from the last: (batch, rows, channels)."""
        sample = next(iter(parts.values()))
        state = {sectors: z[:, :, :, None] for sectors, z in parts.items() if z.shape[2]}
        for place in reversed(range(len(sizes))):
            groups: dict[Sectors, dict[Sector, Tensor]] = {}
            for sectors, z in state.items():
                groups.setdefault(sectors[:place], {})[sectors[place]] = z
            state = {done: self._written(given, done, j, sizes) for done, given in groups.items()}
        if not state:
            rows = math.prod([n**f.order for n, f in zip(sizes, self.outer.blocks[j], strict=True)])
            return sample.new_zeros(sample.shape[0], rows, sample.shape[3])
        return state[()][:, 0, 0]

    def _written(self, given: dict[Sector, Tensor], done: Sectors, j: int, sizes: tuple[int, ...]) -> Tensor:
        """One step of SYNTHESIS: (batch, entries, halves, rest, channels) with n^order times the rest."""
        place, block = len(done), self.outer.blocks[j]
        n, key, sample = sizes[place], self.keys_out[j][place], next(iter(given.values()))
        batch, rest, channels = sample.shape[0], sample.shape[3], sample.shape[4]
        entries = _entries(done, sizes)
        count = math.prod([self.counts[f.order, s] for f, s in zip(block, done, strict=False)])
        flat = []
        for sector in self.sectors_out[j][place]:
            shape = (n ** (sector.rank + sector.alternating), self.counts[block[place].order, sector])
            if sector in given:
                y = given[sector].reshape(batch, entries, shape[0], count, shape[1], rest, channels)
                y = y.permute(0, 1, 3, 2, 4, 5, 6)
            else:
                y = sample.new_zeros(batch, entries, count, *shape, rest, channels)
            flat.append(y.reshape(batch * entries * count, *shape, rest * channels))
        y = diagram_synthesis(flat, key, n, self.forms[place])
        return y.reshape(batch, entries, count, n ** block[place].order * rest, channels)


def _keys(side: Side, sectors: tuple[Sectors, ...]) -> tuple[tuple[str, ...], ...]:
    """For each block and group, the plan of the halves that it has."""
    made = []
    for block in side.blocks:
        keys = []
        for place, factor in enumerate(block):
            wanted = dict.fromkeys(product[place] for product in sectors)
            present = tuple([sector for sector in wanted if count_halves(factor.order, sector)])
            keys.append(analysis_plan(factor.order, present).key)
        made.append(tuple(keys))
    return tuple(made)


def _sectors(keys: tuple[tuple[str, ...], ...]) -> tuple[tuple[tuple[Sector, ...], ...], ...]:
    return tuple([tuple([plan_of_key(key).sectors for key in block]) for block in keys])


def _closed(side: Side, wanted: tuple[Sectors, ...]) -> dict[tuple[int, Sector], list[int]]:
    """Numbers of closed blocks of the halves of an order and a sector."""
    return {
        (factor.order, sector): [len(half.closed) for half in halves(factor.order, sector)]
        for block in side.blocks
        for place, factor in enumerate(block)
        for sector in {sectors[place] for sectors in wanted}
    }


def _powers(scale: Tensor, closed: list[int]) -> Tensor:
    """The factor of each half in each sample, to be multiplied with (batch, ., ., ., halves, ., .)."""
    powers = scale[:, None] ** torch.tensor(closed, device=scale.device)
    return powers[:, None, None, None, :, None, None]


def _turned(y: Tensor, start: int, above: Sector, below: Sector, n: int, form: str) -> Tensor:
    """Lower alternating axes of y, after ``above.rank`` through axes from ``start``, turned to upper ones."""
    end = start + above.rank + below.alternating
    key = f"{above.kind}:{above.rank}:{below.alternating}:{above.alternating}"
    flat = y.reshape(math.prod(y.shape[:start]), n ** (end - start), 1, math.prod(y.shape[end:]))
    turned = diagram_symbol(flat, key, n, form)
    return turned.reshape(*y.shape[:start], *[n] * (above.rank + above.alternating), *y.shape[end:])


def _parity(joint: Joint, outer: Side) -> Tensor:
    """The sign of each upper half. Shape (upper halves, 1), float64."""
    signs = []
    for block in outer.blocks:
        for product in block_halves(block, joint.upper):
            parts = [h.parity for h, s in zip(product, joint.upper, strict=True) if s.kind == "sign"]
            signs.append(math.prod(parts))
    return torch.tensor(signs, dtype=torch.float64, device="cpu")[:, None]


def _entries(sectors: Sectors, sizes: tuple[int, ...]) -> int:
    return math.prod([n ** (s.rank + s.alternating) for n, s in zip(sizes, sectors, strict=False)])
