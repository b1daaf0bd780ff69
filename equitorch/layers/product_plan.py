"""How a tensor product is computed: which rows meet in which coupling, and where weights are multiplied in.

Every path is linear in its two operands, its weights and its result, so the weights can be contracted with any
of the other three first. What remains is always a sum over sparse couplings of rows that carry channels. Paths
with equal channels share one call of ``ops.bilinear``, and those with a common operand or result share one
matrix product; ``[batch, u, v, i, j]`` never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from equitorch.layers.instructions import Instruction, Triple
from equitorch.reps import Coupling, Irreps
from equitorch.reps.angular_momentum import real_3j

Rows = NDArray[np.int64]


class Use(NamedTuple):
    """Weights of a path, as a matrix; ``swapped``: with the first two of their axes exchanged."""

    path: int
    swapped: bool


@dataclass
class Part:
    """Consecutive rows of an operand or a result, ordered as (component, extra index), with channels.

    Attributes:
        kind: of an operand: ``block`` as it is, ``weighted`` channel by channel, ``mixed`` by a matrix,
            ``first`` or ``second`` of all pairs of channels. Of a result: ``sum``, the block itself; ``pairs``
            (extra index, channel) of multiplicities, or ``swapped`` ones; ``mix``, to be multiplied by a matrix.
        slot: 0 or 1 for the operands, 2 for the result.
        block: of that slot.
        dim: components.
        extra: length of the extra index.
        uses: whose weights go in.
    """

    kind: str
    slot: int
    block: int
    dim: int
    extra: int = 0
    uses: list[Use] = field(default_factory=list)
    base: int = 0

    @property
    def rows(self) -> int:
        return self.dim * self.extra

    def claim(self, extra: int, use: Use | None) -> int:
        """Room for a path: where its extra index begins. Paths that bring weights of their own get their own."""
        if use is None or self.kind in ("pairs", "swapped", "first", "second"):
            self.extra = extra
            self.uses = self.uses if use is None else [use]
            return 0
        self.uses.append(use)
        self.extra += extra
        return self.extra - extra


class Side(NamedTuple):
    """Where the rows of one operand of a call come from: the operand itself, seen in a way, or parts."""

    way: str  # "single": every number a row with one channel; "whole": its rows and channels; "parts"
    parts: tuple[Part, ...] = ()


class Call(NamedTuple):
    """One bilinear product, and what its rows are."""

    channels: int
    left: Side
    right: Side
    results: tuple[Part, ...]
    coupling: Coupling


class Scheme(NamedTuple):
    """One way to compute a path: (kind, extra, use) of both operands and of the result, on so many channels.

    ``single`` operands are read number by number, with their multiplicity as the extra index.
    """

    channels: int
    left: tuple[str, int, Use | None]
    right: tuple[str, int, Use | None]
    result: tuple[str, int, Use | None]
    cost: float = 0.0


class Operand(NamedTuple):
    """The irreps of an operand and where its numbers are.

    Attributes:
        irreps: of the flat operand, multiplicities included.
        channels: of the operand; 0 for e3nn's flat layout.
    """

    irreps: Irreps
    channels: int

    def positions(self, block: int) -> Rows:
        """Where each number of a block lies in the flattened operand. Shape (mul, dim)."""
        start, (mul, ir) = self.irreps.slices()[block].start, self.irreps[block]
        numbers = start + np.arange(mul * ir.dim, dtype=np.int64)
        if not self.channels:
            return numbers.reshape(mul, ir.dim)
        shape = mul // self.channels, ir.dim, self.channels
        return numbers.reshape(shape).transpose(0, 2, 1).reshape(mul, ir.dim)

    def first_row(self, block: int) -> int:
        """The row at which a block begins, where its multiplicity is the number of channels."""
        return self.irreps.slices()[block].start // self.channels

    def is_whole(self, channels: int) -> bool:
        """Whether the operand is rows and channels already, one copy of each irrep."""
        return channels == self.channels > 0 and all(mul in (0, channels) for mul, _ in self.irreps)


def make_plan(
    operands: tuple[Operand, Operand], irreps: Triple, paths: Sequence[Instruction], shared: bool
) -> list[Call]:
    """Choose a way for every path by counting operations, and group what can be done in one call.

    Args:
        operands: the layout of both operands.
        irreps: of the operands and of the result.
        paths: with normalised factors.
        shared: whether one set of weights serves all points.
    """
    active = [p for p, path in enumerate(paths) if 0 not in path.path_shape and path.path_weight]
    options = {
        p: [_without_one_channel(scheme) for scheme in _schemes(p, paths[p], irreps, shared)] for p in active
    }
    chosen = _cheapest(options)
    calls: dict[tuple[int, bool, bool], list[int]] = {}
    for p, scheme in chosen.items():
        key = scheme.channels, scheme.left[0] == "single", scheme.right[0] == "single"
        calls.setdefault(key, []).append(p)
    return [_call(members, chosen, operands, irreps, paths, shared) for members in calls.values()]


def _schemes(p: int, path: Instruction, irreps: Triple, shared: bool) -> Iterator[Scheme]:
    """The ways to compute a path, with their costs in multiplications for one point."""
    (u, a), (v, b), (w, c) = (own[n] for n, own in zip(path[:3], irreps, strict=True))
    use, swapped, mode = Use(p, False), Use(p, True), path.connection_mode
    own = use if path.has_weight else None
    block, single = ("block", 1, None), ("single", 1, None)
    if mode == "uvw":
        yield from _fully_connected(p, (u, v, w), (a.dim, b.dim, c.dim), shared)
    elif mode == "uuw" and not own:
        yield Scheme(1, ("single", u, None), ("single", u, None), ("sum", 1, None))
    elif mode in ("uuu", "uuw"):
        weighted = ("weighted", 1, own) if own and mode == "uuu" else block
        result = ("mix", 1, own) if mode == "uuw" else ("sum", 1, None)
        yield Scheme(u, weighted, block, result)
    elif mode == "uvu":
        right = single if v == 1 else ("mixed", 1, swapped)
        left = ("weighted", 1, own) if own and v == 1 else block
        yield Scheme(u, left, right if own else ("single", v, None), ("sum", 1, None))
    elif mode == "uvv":
        left = single if u == 1 else ("mixed", 1, own)
        right = ("weighted", 1, own) if own and u == 1 else block
        yield Scheme(v, left if own else ("single", u, None), right, ("sum", 1, None))
    elif mode == "uvuv" and (v >= 8 or v >= u):
        yield Scheme(v, ("single", u, None), block, ("pairs", u, own))
    elif mode == "uvuv":
        yield Scheme(u, block, ("single", v, None), ("swapped", v, own))
    else:
        result = ("mix", 1, own) if mode == "u<vw" else ("sum", 1, None)
        first = ("first", 1, own if mode == "uvu<v" else None)
        yield Scheme(u * (u - 1) // 2, first, ("second", 1, None), result)


def _without_one_channel(scheme: Scheme) -> Scheme:
    """A block of one channel is read number by number, from where it lies."""
    if scheme.channels != 1:
        return scheme
    left, right = (("single", 1, None) if side[0] == "block" else side for side in scheme[1:3])
    return scheme._replace(left=left, right=right)


def _fully_connected(
    p: int, muls: tuple[int, int, int], dims: tuple[int, int, int], shared: bool
) -> Iterator[Scheme]:
    (u, v, w), (d1, d2, d3) = muls, dims
    entries, matrix = 2 * d1 * min(d2, d3), u * v * w  # about so many nonzero coefficients

    def cost(outer: int, channels: int, rows: int, dim: int) -> float:
        return 2 * entries * outer * (channels + 16) + 4 * rows * channels + dim * matrix

    use, swapped, block, total = Use(p, False), Use(p, True), ("block", 1, None), ("sum", 1, None)
    left, right = ("single", u, None), ("single", v, None)
    if shared or v == 1:
        yield Scheme(u, block, right, ("mix", v, swapped), cost(v, u, d3 * v, d3))
    if shared or v > 1:
        yield Scheme(v, left, block, ("mix", u, use), cost(u, v, d3 * u, d3))
    yield Scheme(w, ("mixed", v, use), right, total, cost(v, w, d1 * v, d1))
    if shared:
        yield Scheme(w, left, ("mixed", u, swapped), total, cost(u, w, d2 * u, d2))


_CALL = 1500.0  # what a call or a matrix product costs besides, in multiplications for one point of many


def _cheapest(options: dict[int, list[Scheme]]) -> dict[int, Scheme]:
    """A scheme for every path. Few kinds of schemes make few calls, so mixtures must be worth it."""
    kinds = sorted({_kind(scheme) for schemes in options.values() for scheme in schemes if len(schemes) > 1})
    best: tuple[float, dict[int, Scheme]] | None = None
    for count in range(1, len(kinds) + 1):
        for allowed in combinations(kinds, count):
            chosen = {p: _best(schemes, allowed) for p, schemes in options.items()}
            calls = {(scheme.channels, _kind(scheme)) for scheme in chosen.values()}
            cost = sum(scheme.cost for scheme in chosen.values()) + _CALL * len(calls)
            if best is None or cost < best[0]:
                best = cost, chosen
    return best[1] if best else {p: schemes[0] for p, schemes in options.items()}


def _kind(scheme: Scheme) -> tuple[str, str, str]:
    return scheme.left[0], scheme.right[0], scheme.result[0]


def _best(schemes: list[Scheme], allowed: Sequence[tuple[str, str, str]]) -> Scheme:
    return min(schemes, key=lambda scheme: (_kind(scheme) not in allowed, scheme.cost))


def _call(
    members: Sequence[int],
    schemes: dict[int, Scheme],
    operands: tuple[Operand, Operand],
    irreps: Triple,
    paths: Sequence[Instruction],
    shared: bool,
) -> Call:
    """One bilinear product for all paths ``members``."""
    channels = schemes[members[0]].channels
    parts: list[dict[object, Part]] = [{}, {}, {}]
    places: list[list[Callable[[], Rows]]] = []
    for p in members:
        places.append([])
        for slot, (kind, extra, use) in enumerate(schemes[p][1:4]):
            block = paths[p][slot]
            assert isinstance(block, int)
            if kind == "single":
                at = operands[slot].positions(block)
                places[-1].append(lambda at=at: at)
                continue
            alone = use is not None and (not shared and kind in ("mixed", "mix") or kind in _OWN)
            key = kind, block, p if alone else -1
            part = parts[slot].setdefault(key, Part(kind, slot, block, irreps[slot][block].ir.dim))
            places[-1].append(_place(part, part.claim(extra, use), extra))
    sides = [_side(s, parts[s], operands[s], channels, schemes[members[0]][1 + s][0]) for s in (0, 1)]
    _lay_out(parts[2].values())
    index, value = [np.zeros((3, 0), dtype=np.int64)], [np.zeros(0)]
    for p, place in zip(members, places, strict=True):
        symbol = real_3j(*(irreps[s][paths[p][s]].ir.l for s in range(3)))  # type: ignore[index]
        at = np.nonzero(symbol)
        rows = np.broadcast_arrays(*(where()[:, i] for where, i in zip(place, at, strict=True)))
        index.append(np.stack(rows).reshape(3, -1))
        value.append(np.broadcast_to(symbol[at] * paths[p].path_weight, rows[0].shape).reshape(-1))
    sizes = [_size(side, operand) for side, operand in zip(sides, operands, strict=True)]
    dims = sizes[0], sizes[1], sum(part.rows for part in parts[2].values())
    coupling = Coupling(
        dims, torch.from_numpy(np.concatenate(index, axis=1)), torch.from_numpy(np.concatenate(value))
    )
    return Call(channels, sides[0], sides[1], tuple(parts[2].values()), coupling)


_OWN = ("pairs", "swapped", "first", "second")  # weights of these are no matrices: one path for each part


def _place(part: Part, offset: int, extra: int) -> Callable[[], Rows]:
    """The rows of a path in its part, once all parts have their sizes. Shape (extra, dim)."""
    components, extras = np.arange(part.dim)[None, :], np.arange(extra)[:, None]
    return lambda: part.base + components * part.extra + offset + extras


def _side(slot: int, parts: dict[object, Part], operand: Operand, channels: int, kind: str) -> Side:
    if kind == "single":
        return Side("single")
    if operand.is_whole(channels) and all(part.kind == "block" for part in parts.values()):
        for part in parts.values():
            part.base = operand.first_row(part.block)
        return Side("whole")
    _lay_out(parts.values())
    return Side("parts", tuple(parts.values()))


def _lay_out(parts: object) -> None:
    base = 0
    for part in parts:  # type: ignore[attr-defined]
        part.base, base = base, base + part.rows


def _size(side: Side, operand: Operand) -> int:
    if side.way == "parts":
        return sum(part.rows for part in side.parts)
    return operand.irreps.dim if side.way == "single" else operand.irreps.dim // operand.channels
