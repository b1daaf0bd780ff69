"""Which paths of a tensor product share a call, and which rows of its operands are which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equitorch.layers.instructions import Instruction, Triple
from equitorch.layers.product_layout import Operand, Places
from equitorch.layers.product_schemes import Role, Scheme, Use, cheapest, dense_is_cheaper, schemes
from equitorch.reps import Coupling
from equitorch.reps.angular_momentum import real_3j


@dataclass
class Part:
    """Consecutive rows of an operand or a result, ordered as (component, extra index), with channels.

    Attributes:
        kind: as in ``Role``.
        block: which block of the operand, or of the result.
        dim: its components.
        extra: length of the extra index.
        uses: whose weights go in.
        base: the first row.
    """

    kind: str
    block: int
    dim: int
    extra: int = 0
    uses: list[Use] = field(default_factory=list)
    base: int = 0

    @property
    def rows(self) -> int:
        return self.dim * self.extra

    def claim(self, role: Role) -> int:
        """Where the extra index of a path begins; paths with weights of their own do not share rows."""
        if role.use is None or role.kind in _ALONE:
            self.extra, self.uses = role.extra, [] if role.use is None else [role.use]
            return 0
        self.uses.append(role.use)
        self.extra += role.extra
        return self.extra - role.extra

    def places(self, offset: int, extra: int) -> Places:
        """The rows of a path. Shape (extra, dim)."""
        components, extras = np.arange(self.dim)[None, :], np.arange(extra)[:, None]
        return self.base + components * self.extra + offset + extras


_ALONE = ("repeated", "first", "second")


class Side(NamedTuple):
    """Where the rows of one operand of a call come from.

    Attributes:
        way: "single": every number of the operand by itself; "whole": its rows and channels; "parts".
        parts: pieces of rows, if the way is so.
        rows: how many there are.
        channels: of the rows.
    """

    way: str
    parts: tuple[Part, ...]
    rows: int
    channels: int


class Call(NamedTuple):
    """Rows of the two operands, joined into rows of results.

    Attributes:
        sides: of the two operands.
        results: what the rows of the result are.
        coupling: joins rows of both sides with equal channels, or of one with the other's single numbers.
        matrices: instead of a coupling, the map from the numbers (or columns) of one side to matrices that
            act on the parts of the other. Shape (rows of the result * rows of the other / columns, numbers);
            for each part (rows of the result, its rows / columns) in row-major order.
        maker: the side that makes the matrices.
        columns: how many columns it has.
        channels: of the rows.
        scaled: the paths, if each is multiplied by weights of its channels; in the coupling's order.
    """

    sides: tuple[Side, Side]
    results: tuple[Part, ...]
    coupling: Coupling | None
    matrices: Tensor | None = None
    maker: int = 0
    columns: int = 1
    channels: int = 1
    scaled: tuple[int, ...] = ()


def make_plan(
    operands: Sequence[Operand], irreps: Triple, paths: Sequence[Instruction], *, shared: bool
) -> list[Call]:
    """Choose a way for every path by counting operations, and group what can be done in one call.

    Args:
        operands: the layout of both operands.
        irreps: of the operands and of the result.
        paths: with normalised factors.
        shared: whether one set of weights serves all points.
    """
    active = [p for p, path in enumerate(paths) if 0 not in path.path_shape and path.path_weight]
    chosen = cheapest({p: schemes(p, paths[p], irreps, shared=shared) for p in active})
    calls: dict[object, list[int]] = {}
    for p, scheme in chosen.items():
        lone = tuple(role.kind == "single" for role in scheme.roles)
        columns = tuple(role.extra if role.kind == "columns" else 0 for role in scheme.roles)
        calls.setdefault((scheme.channels, lone, columns, "scaled" in scheme.kinds), []).append(p)
    return [_Group(members, chosen, operands, irreps, paths, shared).call() for members in calls.values()]


class _Group:
    """Paths that share a call, while it is put together."""

    def __init__(
        self,
        members: Sequence[int],
        chosen: dict[int, Scheme],
        operands: Sequence[Operand],
        irreps: Triple,
        paths: Sequence[Instruction],
        shared: bool,
    ) -> None:
        self.members, self.chosen, self.operands = members, chosen, operands
        self.irreps, self.paths = irreps, paths
        self.channels = chosen[members[0]].channels
        self.kinds = chosen[members[0]].kinds
        self.columns = next((r.extra for r in chosen[members[0]].roles if r.kind == "columns"), 1)
        self.parts: list[dict[object, Part]] = [{}, {}, {}]
        self.claims: dict[tuple[int, int], tuple[Part, int]] = {}
        for p in members:
            for slot, role in enumerate(chosen[p].roles):
                if role.kind != "single":
                    self._claim(p, slot, role, shared)
        self.sides = [self._side(0), self._side(1)]
        self.height = _lay_out(self._results())

    def _claim(self, p: int, slot: int, role: Role, shared: bool) -> None:
        block = (self.paths[p].i_in1, self.paths[p].i_in2, self.paths[p].i_out)[slot]
        matrix = role.kind in ("mixed", "mix") and not shared
        alone = role.use is not None and (matrix or role.kind in _ALONE)
        plain = role.kind in ("columns", "scaled")
        kind = "block" if plain else role.kind
        key = kind, block, p if alone else -1
        part = self.parts[slot].setdefault(key, Part(kind, block, self.irreps[slot][block].ir.dim))
        asked = Role("block") if plain else role
        self.claims[p, slot] = part, part.claim(asked)

    def _results(self) -> list[Part]:
        return sorted(self.parts[2].values(), key=lambda part: part.block)

    def _side(self, slot: int) -> Side:
        operand, parts = self.operands[slot], tuple(self.parts[slot].values())
        if self.kinds[slot] == "single":
            return Side("single", (), operand.irreps.dim, 1)
        channels = self.columns if self.kinds[slot] == "columns" else self.channels
        if operand.is_even(channels) and all(part.kind == "block" for part in parts):
            for part in parts:
                part.base = operand.first_row(part.block)
            return Side("whole", (), operand.irreps.dim // channels, channels)
        return Side("parts", parts, _lay_out(parts), channels)

    def call(self) -> Call:
        lone = [slot for slot in (0, 1) if self.kinds[slot] in ("single", "columns")]
        results, sides = tuple(self._results()), (self.sides[0], self.sides[1])
        coupling = self._coupling()
        if "scaled" in self.kinds:
            scaled = tuple(self.members)
            return Call(sides, results, coupling, maker=lone[0], channels=self.channels, scaled=scaled)
        if len(lone) != 1:
            return Call(sides, results, coupling, channels=self.channels)
        maker, other = lone[0], 1 - lone[0]
        numbers, rows, entries = sides[maker].rows, sides[other].rows, coupling.value.numel()
        if self.columns == 1 and not dense_is_cheaper(rows, self.height, self.channels, numbers, entries):
            return Call(sides, results, coupling, channels=self.channels)
        form = coupling.permuted((2, other, maker)).dense()
        if self.columns > 1:  # the extra index of the other side, which is its last, becomes that of columns
            form = form[:, :: self.columns]
        apart = [part.rows // self.columns for part in sides[other].parts] if self.columns > 1 else []
        heights = apart or [form.shape[1]]
        matrices = torch.cat([own.reshape(-1, numbers) for own in form.split(heights, dim=1)])
        return Call(sides, results, None, matrices, maker, self.columns, self.channels)

    def _coupling(self) -> Coupling:
        index, value, numbers = [], [], []
        for number, p in enumerate(self.members):
            places = [self._places(p, slot) for slot in range(3)]
            path = self.paths[p]
            blocks = path.i_in1, path.i_in2, path.i_out
            l1, l2, l3 = (own[n].ir.l for own, n in zip(self.irreps, blocks, strict=True))
            symbol = real_3j(l1, l2, l3)
            at = np.nonzero(symbol)
            rows = np.broadcast_arrays(*(place[:, i] for place, i in zip(places, at, strict=True)))
            index.append(np.stack(rows).reshape(3, -1))
            value.append(np.broadcast_to(symbol[at] * path.path_weight, rows[0].shape).reshape(-1))
            numbers.append(np.full(value[-1].size, number))
        dims = self.sides[0].rows, self.sides[1].rows, self.height
        joined = (np.concatenate(part, axis=-1) for part in (index, value, numbers))
        return Coupling(dims, *(torch.from_numpy(part) for part in joined))

    def _places(self, p: int, slot: int) -> Places:
        """The rows that a path joins; with columns only the first of them. Shape (extra, dim)."""
        role = self.chosen[p].roles[slot]
        if role.kind == "single":
            block = (self.paths[p].i_in1, self.paths[p].i_in2)[slot]
            return self.operands[slot].positions(block)
        part, offset = self.claims[p, slot]
        return part.places(offset, 1 if self.columns > 1 else role.extra)


def _lay_out(parts: Iterable[Part]) -> int:
    """Put parts one after another; the number of their rows."""
    base = 0
    for part in parts:
        part.base, base = base, base + part.rows
    return base
