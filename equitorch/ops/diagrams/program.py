"""What all the maps between sums of tensor powers consist of, in numbers and strings that a compiler can keep.

Nothing here depends on n, except which extra diagrams "A" and "SO" have.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from equitorch.reps.diagram_plan import analysis_plan
from equitorch.reps.halves import Sector, count_halves, halves, sector_pairs


class Pair(NamedTuple):
    """A sector of the inputs and one of the outputs, joined by one weight.

    Attributes:
        kind: "partition", "even", "pairing", "sign" or "free"; see ``equitorch.reps.halves``.
        rank: number of through axes, d.
        permutations: how many ways there are to join the strands.
        lower: position of the input sector among ``LinearPlan.lower``.
        upper: position of the output sector among ``LinearPlan.upper``.
        halves_in: number of lower halves, of all inputs together.
        halves_out: number of upper halves, of all outputs together.
        parities: of the upper halves, for "sign"; else empty.
    """

    kind: str
    rank: int
    permutations: int
    lower: int
    upper: int
    halves_in: int
    halves_out: int
    parities: tuple[int, ...]

    def weight_shape(self, channels_in: int, channels_out: int) -> tuple[int, int, int, int, int]:
        """(permutations, lower halves, channels_in, upper halves, channels_out)."""
        return self.permutations, self.halves_in, channels_in, self.halves_out, channels_out


class LinearPlan(NamedTuple):
    """All equivariant maps from a direct sum of tensor powers to another; made by ``linear_plan``.

    Attributes:
        orders_in: the power of each input.
        orders_out: the power of each output.
        lower: the sectors of the inputs.
        upper: the sectors of the outputs.
        pairs: which of them are joined, a weight each, in the order of the weights.
        keys_in: for each input, the plan of its halves, as ``Plan.key``.
        keys_out: for each output.
        form: what pairs of indices are contracted with: "" for permutations (nothing), "O", "O(p,q)",
            "Sp:block" or "Sp:interleaved".
    """

    orders_in: tuple[int, ...]
    orders_out: tuple[int, ...]
    lower: tuple[Sector, ...]
    upper: tuple[Sector, ...]
    pairs: tuple[Pair, ...]
    keys_in: tuple[str, ...]
    keys_out: tuple[str, ...]
    form: str


def linear_plan(
    family: str, n: int, orders_out: Sequence[int], orders_in: Sequence[int], form: str = ""
) -> LinearPlan:
    """The plan of all maps of a group between direct sums of tensor powers.

    For one order on both sides the pairs are those of ``equitorch.reps.halves.sector_pairs``; halves of
    several inputs or outputs follow one another.

    Args:
        family: "S", "A", "B", "O", "SO" or "Sp".
        n: dimension; matters to "A" and "SO" only.
        orders_out: the power of each output.
        orders_in: the power of each input.
        form: "" for S, A, B; "O" or e.g. "O(1,3)" for O and SO; "Sp:block" or "Sp:interleaved" for Sp.

    >>> plan = linear_plan("S", 8, [2], [2])
    >>> [pair.weight_shape(8, 16) for pair in plan.pairs]
    [(1, 2, 8, 2, 16), (1, 3, 8, 3, 16), (2, 1, 8, 1, 16)]
    """
    return _linear_plan(family, n if family in ("A", "SO") else 0, tuple(orders_out), tuple(orders_in), form)


@functools.cache
def _linear_plan(
    family: str, n: int, orders_out: tuple[int, ...], orders_in: tuple[int, ...], form: str
) -> LinearPlan:
    found = {pair for l in orders_out for k in orders_in for pair in sector_pairs(family, n, l, k)}
    ordered = sorted(found, key=_rank_of_pair)
    lower = tuple(dict.fromkeys(below for _, below in ordered))
    upper = tuple(dict.fromkeys(above for above, _ in ordered))
    pairs = []
    for above, below in ordered:
        parities = [h.parity for l in orders_out for h in halves(l, above)] if above.kind == "sign" else []
        pairs.append(
            Pair(
                above.kind,
                above.rank,
                math.prod(map(math.factorial, above.through)),
                lower.index(below),
                upper.index(above),
                sum(count_halves(k, below) for k in orders_in),
                sum(count_halves(l, above) for l in orders_out),
                tuple(parities),
            )
        )
    keys_in = tuple(analysis_plan(k, _present(k, lower)).key for k in orders_in)
    keys_out = tuple(analysis_plan(l, _present(l, upper)).key for l in orders_out)
    return LinearPlan(orders_in, orders_out, lower, upper, tuple(pairs), keys_in, keys_out, form)


def _rank_of_pair(pair: tuple[Sector, Sector]) -> tuple[int, int, tuple[int, ...], int, int]:
    """Sorts as ``sector_pairs`` does."""
    above, below = pair
    extra = above.kind in ("sign", "free")
    return extra, above.rank, above.through, above.alternating + below.alternating, above.alternating


def _present(order: int, wanted: tuple[Sector, ...]) -> tuple[Sector, ...]:
    return tuple(sector for sector in wanted if count_halves(order, sector))
