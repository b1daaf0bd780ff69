"""The weights of diagrams: which there are, which are redundant, and how large they start.

There is one weight for each pair of sectors, of shape (permutations, lower halves, channels_in, upper halves,
channels_out), in the order of ``equitorch.reps.halves``; halves of several blocks follow one another. With
several groups a pair holds a pair of sectors of each, permutations and halves in C order of the groups.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.layers.diagram_sides import Factor, Side
from equitorch.ops.diagrams import linear_plan
from equitorch.reps import TensorPower, hom_basis
from equitorch.reps.diagrams import weight_mask
from equitorch.reps.halves import Half, Sector, count_halves, halves, join_halves, sector_pairs
from equitorch.reps.hom import independent_maps
from equitorch.reps.matrix_groups import MatrixGroup
from equitorch.reps.partitions import Blocks, blocks_of

Mask = NDArray[np.bool_]


class Joint(NamedTuple):
    """The sectors that one weight joins, one pair for each group.

    >>> Joint((Sector("free", (1,), 2),), (Sector("free", (1,), 0),)).name
    'free_1_2_0'
    """

    upper: tuple[Sector, ...]
    lower: tuple[Sector, ...]

    @property
    def name(self) -> str:
        """Of the parameter."""
        words = []
        for above, below in zip(self.upper, self.lower, strict=True):
            extra = (above.alternating, below.alternating) if above.kind in ("sign", "free") else ()
            words.append("_".join(map(str, (above.kind, *above.through, *extra))))
        return "__".join(words)

    @property
    def permutations(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each weight, a permutation for each group."""
        return tuple(itertools.product(*(sector.permutations for sector in self.upper)))

    def shape(self, inner: Side, outer: Side) -> tuple[int, int, int]:
        """Numbers of permutations, lower halves and upper halves."""
        return len(self.permutations), count_of(inner, self.lower), count_of(outer, self.upper)


class WeightIndex(NamedTuple):
    """Where the weights of a diagram are: ``layer.weights[name][position]`` has their two channel axes.

    Attributes:
        name: of the parameter.
        position: what to index it with.
        block_in: which summand of the input the diagram reads.
        block_out: which summand of the output it writes.
    """

    name: str
    position: tuple[int | slice, ...]
    block_in: int
    block_out: int


def form_of(group: MatrixGroup) -> str:
    """How ops call what a group contracts pairs of indices with.

    >>> form_of(MatrixGroup.named("SO(1,3)", 4))
    'O(1,3)'
    """
    if group.family == "Sp":
        return "Sp:interleaved" if group.interleaved else "Sp:block"
    if group.family not in ("O", "SO"):
        return ""
    return f"O({group.n - group.negative},{group.negative})" if group.negative else "O"


def orders(side: Side, place: int) -> tuple[int, ...]:
    """The order of each block under one of the groups."""
    return tuple([block[place].order for block in side.blocks])


def joints(inner: Side, outer: Side) -> tuple[Joint, ...]:
    """What the weights between two features join, in the order in which they are stored."""
    choices = []
    for place, group in enumerate(inner.groups):
        plan = linear_plan(group.family, group.n, orders(outer, place), orders(inner, place), form_of(group))
        choices.append([(plan.upper[pair.upper], plan.lower[pair.lower]) for pair in plan.pairs])
    found = [Joint(*map(tuple, zip(*pairs, strict=True))) for pairs in itertools.product(*choices)]
    return tuple([joint for joint in found if all(joint.shape(inner, outer))])


def block_halves(block: tuple[Factor, ...], sectors: tuple[Sector, ...]) -> list[tuple[Half, ...]]:
    """The halves of a block: one of each group, in C order."""
    return list(
        itertools.product(*(halves(f.order, sector) for f, sector in zip(block, sectors, strict=True)))
    )


def count_of(side: Side, sectors: tuple[Sector, ...]) -> int:
    """The number of halves of all blocks."""
    return sum(counts_of(side, sectors))


def counts_of(side: Side, sectors: tuple[Sector, ...]) -> list[int]:
    """The number of halves of each block."""
    return [
        math.prod([count_halves(f.order, sector) for f, sector in zip(block, sectors, strict=True)])
        for block in side.blocks
    ]


def listing(joint: Joint, inner: Side, outer: Side) -> Iterator[tuple[int, int, int, int, int, list[Blocks]]]:
    """All diagrams of a pair: (permutation, lower half, upper half, block in, block out, vertices)."""
    below = [(i, h) for i, block in enumerate(inner.blocks) for h in block_halves(block, joint.lower)]
    above = [(j, h) for j, block in enumerate(outer.blocks) for h in block_halves(block, joint.upper)]
    for p, sigmas in enumerate(joint.permutations):
        for a, (i, lower) in enumerate(below):
            for b, (j, upper) in enumerate(above):
                parts = zip(upper, sigmas, lower, strict=True)
                yield p, a, b, i, j, [blocks_of(join_halves(*part)) for part in parts]


def kept(joint: Joint, inner: Side, outer: Side) -> Mask:
    """Which weights of a pair a minimal basis keeps. Shape (permutations, lower halves, upper halves)."""
    columns = []
    for block_in in inner.blocks:
        rows = []
        for block_out in outer.blocks:
            parts = [
                _kept_of(group, a, b, above, below)
                for group, a, b, above, below in zip(
                    inner.groups, block_in, block_out, joint.upper, joint.lower, strict=True
                )
            ]
            rows.append(functools.reduce(_outer, parts))
        columns.append(np.concatenate(rows, axis=2))
    return np.concatenate(columns, axis=1)


def _outer(a: Mask, b: Mask) -> Mask:
    shape = [x * y for x, y in zip(a.shape, b.shape, strict=True)]
    return (a[:, None, :, None, :, None] & b[None, :, None, :, None, :]).reshape(shape)


def _kept_of(group: MatrixGroup, inner: Factor, outer: Factor, above: Sector, below: Sector) -> Mask:
    sizes = (len(above.permutations), count_halves(inner.order, below), count_halves(outer.order, above))
    if not all(sizes):
        return np.zeros(sizes, dtype=np.bool_)
    if not inner.symmetric and not outer.symmetric:
        return weight_mask(group.family, group.n, above, below, outer.order, inner.order)
    return _kept_symmetric(group, inner._replace(dual=False), outer._replace(dual=False))[above, below]


@functools.cache
def _kept_symmetric(group: MatrixGroup, inner: Factor, outer: Factor) -> dict[tuple[Sector, Sector], Mask]:
    """The first linearly independent diagrams between symmetric tensors, at a sufficient n."""
    m = inner.order + outer.order
    n = group.n if group.negative or group.family in ("A", "SO") else min(group.n, m + m % 2)
    name = f"{group.family}({n - group.negative},{group.negative})" if group.negative else group.family
    a, b = (TensorPower(name, n, f.order, symmetric=f.symmetric) for f in (inner, outer))
    independent = set(independent_maps(hom_basis(a, b, basis="spanning")))
    masks, start = {}, 0
    for above, below in sector_pairs(group.family, n, outer.order, inner.order):
        sizes = (len(above.permutations), count_halves(inner.order, below), count_halves(outer.order, above))
        flat = [start + number in independent for number in range(math.prod(sizes))]
        masks[above, below] = np.array(flat, dtype=np.bool_).reshape(sizes)
        start += len(flat)
    return masks


def scale_of(normalization: str, family: str) -> str:
    """What "auto" is for a group: "mean" for permutations, "sqrt" otherwise."""
    if normalization != "auto":
        return normalization
    return "mean" if family in ("S", "A") else "sqrt"


def spread(
    pairs: tuple[Joint, ...], inner: Side, outer: Side, normalization: str, masks: dict[str, Mask]
) -> list[float]:
    """For each block of the output, the number by whose root its weights are divided at first, per channel.

    The mean square of an output entry for independent inputs of unit variance is the sum over diagrams of
    their squared norms over n^l. For means of permutations, inputs of mean one count instead, so that it does
    not depend on n: the number of diagrams that reach an entry with distinct indices.
    """
    totals = torch.zeros(len(outer.blocks), dtype=torch.float64, device="cpu")
    for joint in pairs:
        below = _terms(inner, joint.lower, normalization, upper=False)
        above = _terms(outer, joint.upper, normalization, upper=True)
        whole = torch.tensor(masks[joint.name], device="cpu") if joint.name in masks else None
        reached = len(joint.permutations) * below.sum() if whole is None else below @ whole.sum(0).double()
        each = (above * reached).split(counts_of(outer, joint.upper))
        totals += torch.stack([part.sum() for part in each])
    return [total if total > 0 else 1.0 for total in totals.tolist()]


def _terms(side: Side, sectors: tuple[Sector, ...], normalization: str, *, upper: bool) -> Tensor:
    """What each half contributes to the mean square of an entry, up to a product with the other half's."""
    made = []
    for block in side.blocks:
        parts = [torch.ones(1, dtype=torch.float64, device="cpu")]
        for group, factor, sector in zip(side.groups, block, sectors, strict=True):
            scale = scale_of(normalization, group.family)
            terms = [
                _term(half, sector, group.n, scale, upper=upper) for half in halves(factor.order, sector)
            ]
            parts.append(torch.tensor(terms, dtype=torch.float64, device="cpu"))
        made.append(functools.reduce(lambda a, b: torch.outer(a, b).flatten(), parts))
    return torch.cat(made)


def _term(half: Half, sector: Sector, n: int, scale: str, *, upper: bool) -> float:
    closed = len(half.closed)
    if sector.kind == "partition" and scale == "mean":
        distinct = len(half.through) + closed == half.order
        return float(distinct or not upper)
    if not upper:
        power = {"sum": 1, "mean": -1, "sqrt": 0}[scale]
        return float(n) ** (power * closed)
    if sector.kind == "sign":
        return math.factorial(n) / n**half.order
    symbol = math.factorial(n) if sector.kind == "free" else 1
    return symbol * float(n) ** (closed + sector.rank - half.order)


def standard_deviations(joint: Joint, outer: Side, spreads: list[float], channels: int) -> Tensor:
    """Of the weights of each upper half. Shape (upper halves,), float64."""
    counts = torch.tensor(counts_of(outer, joint.upper), device="cpu")
    each = torch.tensor(spreads, dtype=torch.float64, device="cpu") * max(channels, 1)
    return each.rsqrt().repeat_interleave(counts)
