"""All the maps between sums of tensor powers, in numbers and strings that a compiler can keep.

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
        closed: for each lower half, of all inputs, how many closed blocks it has.
        parities: of the upper halves, for "sign"; else empty.
        mark: which halves come once for each permutation, "<" the lower ones, ">" the upper ones; else "".
        symbol: for "sign" and "free", which Levi-Civita symbol, as ``reference.symbol`` reads it; else "".
    """

    kind: str
    rank: int
    permutations: int
    lower: int
    upper: int
    halves_in: int
    halves_out: int
    closed: tuple[int, ...]
    parities: tuple[int, ...]
    mark: str
    symbol: str

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
        keys_in: for each input, the plan of its halves, as ``reference.reading`` reads it.
        keys_out: for each output.
        places_in: for each input and sector of its key, the position among ``lower``.
        places_out: for each output and sector of its key, the position among ``upper``.
        halves_out: for each output and sector of its key, how many halves it has.
        channels_out: number of output channels, which is the only word on it if nothing is joined.
        single: whether there is one input and one output, and no symbol.
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
    places_in: tuple[tuple[int, ...], ...]
    places_out: tuple[tuple[int, ...], ...]
    halves_out: tuple[tuple[int, ...], ...]
    channels_out: int
    single: bool
    form: str

    @property
    def constant(self) -> int | None:
        """The position among ``upper`` of the halves without strands, which take a bias; None if none."""
        places = [i for i, sector in enumerate(self.upper) if not sector.rank + sector.alternating]
        return places[0] if places else None


def linear_plan(
    family: str,
    n: int,
    orders_out: Sequence[int],
    orders_in: Sequence[int],
    form: str = "",
    *,
    channels_in: int = 1,
    channels_out: int = 1,
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
        channels_in: number of input channels; matters to speed only.
        channels_out: number of output channels.

    >>> plan = linear_plan("S", 8, [2], [2])
    >>> [pair.weight_shape(8, 16) for pair in plan.pairs]
    [(1, 2, 8, 2, 16), (1, 3, 8, 3, 16), (2, 1, 8, 1, 16)]
    """
    counted = n if family in ("A", "SO") else 0
    return _linear_plan(
        family, counted, tuple(orders_out), tuple(orders_in), form, (channels_out, channels_in)
    )


@functools.cache
def _linear_plan(
    family: str,
    n: int,
    orders_out: tuple[int, ...],
    orders_in: tuple[int, ...],
    form: str,
    channels: tuple[int, int],
) -> LinearPlan:
    found = {pair for l in orders_out for k in orders_in for pair in sector_pairs(family, n, l, k)}
    ordered = sorted(found, key=_rank_of_pair)
    lower = tuple(dict.fromkeys(below for _, below in ordered))
    upper = tuple(dict.fromkeys(above for above, _ in ordered))
    pairs = tuple(
        _pair(a, b, upper.index(a), lower.index(b), orders_out, orders_in, channels) for a, b in ordered
    )
    marks_in = {pair.lower: pair.mark for pair in pairs if pair.mark == "<"}
    marks_out = {pair.upper: pair.mark for pair in pairs if pair.mark == ">"}
    keys_in, places_in = _keys(orders_in, lower, marks_in)
    keys_out, places_out = _keys(orders_out, upper, marks_out)
    sizes = tuple(
        tuple([count_halves(order, upper[i]) for i in places])
        for order, places in zip(orders_out, places_out, strict=True)
    )
    return LinearPlan(
        orders_in,
        orders_out,
        lower,
        upper,
        pairs,
        keys_in,
        keys_out,
        places_in,
        places_out,
        sizes,
        channels[0],
        len(orders_in) == len(orders_out) == 1 and not any(pair.symbol for pair in pairs),
        form,
    )


def _pair(
    above: Sector,
    below: Sector,
    upper: int,
    lower: int,
    orders_out: tuple[int, ...],
    orders_in: tuple[int, ...],
    channels: tuple[int, int],
) -> Pair:
    tops = [half for order in orders_out for half in halves(order, above)]
    bottoms = [half for order in orders_in for half in halves(order, below)]
    permutations = math.prod(map(math.factorial, above.through))
    extra = above.kind in ("sign", "free")
    fewer_above = len(tops) * channels[0] <= len(bottoms) * channels[1]
    return Pair(
        above.kind,
        above.rank,
        permutations,
        lower,
        upper,
        len(bottoms),
        len(tops),
        tuple([len(half.closed) for half in bottoms]),
        tuple([half.parity for half in tops]) if above.kind == "sign" else (),
        "" if extra or permutations == 1 else ">" if fewer_above else "<",
        f"{above.kind}:{above.rank}:{below.alternating}:{above.alternating}" if extra else "",
    )


def _keys(
    orders: tuple[int, ...], wanted: tuple[Sector, ...], marks: dict[int, str]
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """The plan of each order, and which of the sectors it has."""
    keys, places = [], []
    for order in orders:
        present = tuple([i for i, sector in enumerate(wanted) if count_halves(order, sector)])
        first, *words = analysis_plan(order, tuple([wanted[i] for i in present])).key.split("|")
        keys.append("|".join([first, *(w + marks.get(i, "") for w, i in zip(words, present, strict=True))]))
        places.append(present)
    return tuple(keys), tuple(places)


def _rank_of_pair(pair: tuple[Sector, Sector]) -> tuple[int, int, tuple[int, ...], int, int]:
    """Sorts as ``sector_pairs`` does."""
    above, below = pair
    extra = above.kind in ("sign", "free")
    return extra, above.rank, above.through, above.alternating + below.alternating, above.alternating


def without_whole(key: str) -> tuple[str, list[bool]]:
    """The key without those sectors which are the tensor itself, and which those are."""
    order, *words = key.split("|")
    whole = [_rank(word) == int(order) and word[-1] not in "<>" for word in words]
    return "|".join([order] + [word for word, itself in zip(words, whole, strict=True) if not itself]), whole


def _rank(word: str) -> int:
    return sum([int(count) for count in word.split(":")[1].split(",")])
