"""What the rows of a feature are to diagrams: blocks of tensor powers, one below the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant, Indices
from equitorch.reps import DirectSum, Dual, KroneckerProduct, Outer, Rep, TensorPower
from equitorch.reps.matrix_groups import MatrixGroup
from equitorch.reps.tensor_power import symmetric_entries

_ANY_N = ("S", "B", "O", "Sp")


class Factor(NamedTuple):
    """A tensor power inside a block.

    Attributes:
        order: number of indices.
        symmetric: whether its rows are the independent entries of symmetric tensors.
        dual: whether inverse transposes act on it, where they differ from the group's matrices.
    """

    order: int
    symmetric: bool = False
    dual: bool = False

    def rows(self, n: int) -> int:
        """Number of rows at dimension ``n``."""
        return math.comb(n + self.order - 1, self.order) if self.symmetric else n**self.order


class Side(NamedTuple):
    """A feature whose rows are blocks, each the product of one tensor power of each group.

    Attributes:
        groups: whose product acts.
        blocks: for each block a factor for each group, in C order.

    >>> Side.of(Outer(TensorPower("S", 5, 2), TensorPower("O", 3, 1))).blocks
    ((Factor(order=2, symmetric=False, dual=False), Factor(order=1, symmetric=False, dual=False)),)
    """

    groups: tuple[MatrixGroup, ...]
    blocks: tuple[tuple[Factor, ...], ...]

    @staticmethod
    def of(rep: Rep) -> Side | None:
        """How a representation is made of tensor powers; None if it is not."""
        return _side(rep)

    @staticmethod
    def of_powers(group: MatrixGroup, orders: Sequence[int]) -> Side:
        """A tensor of each order, one below the other.

        >>> Side.of_powers(MatrixGroup.named("O", 3), (0, 2)).rows((3,))
        [1, 9]
        """
        return Side((group,), tuple([(Factor(order),) for order in orders]))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The dimension n of each group."""
        return tuple([group.n for group in self.groups])

    @property
    def free(self) -> int | None:
        """Which group may have another n than it says, without another list of diagrams: one, or none."""
        if len(self.groups) == 1:
            return 0 if self.groups[0].family in _ANY_N and not self.groups[0].negative else None
        places = [place for place, group in enumerate(self.groups) if group.family == "S"]
        return places[0] if len(places) == 1 else None

    @property
    def step(self) -> int:
        """The smallest dimension of the group that is free to have another, of which others are multiples."""
        return 2 if self.free is not None and self.groups[self.free].family == "Sp" else 1

    @property
    def factors(self) -> list[Factor]:
        """Those of all blocks."""
        return [factor for block in self.blocks for factor in block]

    def without_duals(self) -> Side:
        """The same rows with the group's matrices in place of their inverse transposes."""
        blocks = [tuple([factor._replace(dual=False) for factor in block]) for block in self.blocks]
        return Side(self.groups, tuple(blocks))

    def rows(self, sizes: tuple[int, ...]) -> list[int]:
        """Number of rows of each block."""
        return [
            math.prod([factor.rows(n) for factor, n in zip(block, sizes, strict=True)])
            for block in self.blocks
        ]

    def with_n(self, n: int) -> tuple[int, ...]:
        """``sizes`` with another n for the group that is free to have it."""
        return tuple([n if place == self.free else size for place, size in enumerate(self.sizes)])

    def sizes_for(self, rows: int) -> tuple[int, ...] | None:
        """The dimensions at which there are so many rows; the nominal ones, if they fit; None if none do."""
        if sum(self.rows(self.sizes)) == rows:
            return self.sizes
        if self.free is None or all(block[self.free].order == 0 for block in self.blocks):
            return None
        for n in itertools.count(self.step, self.step):
            count = sum(self.rows(self.with_n(n)))
            if count >= rows:
                return self.with_n(n) if count == rows else None
        return None

    def lift(self, x: Tensor, sizes: tuple[int, ...], entries: SymmetricEntries) -> list[Tensor]:
        """Each block of a feature as tensors without symmetry: (batch, rows, channels) -> (batch, n^k, ...).

        Symmetric tensors are written out; indices of dual spaces are lowered by the form of the group.
        """
        parts = [x] if len(self.blocks) == 1 else list(x.split(self.rows(sizes), dim=1))
        return [
            self._each(part, block, sizes, entries, up=True)
            for part, block in zip(parts, self.blocks, strict=True)
        ]

    def lower(self, parts: list[Tensor], sizes: tuple[int, ...], entries: SymmetricEntries) -> Tensor:
        """The feature that blocks without symmetry are projected to; the other way round of ``lift``."""
        made = [
            self._each(part, block, sizes, entries, up=False)
            for part, block in zip(parts, self.blocks, strict=True)
        ]
        return made[0] if len(made) == 1 else torch.cat(made, dim=1)

    def keep(self, mask: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
        """For each block without symmetry, which entries have valid indices only: (batch, n^k, 1).

        Args:
            mask: which points there are, of the group that is free to have another n. Shape (batch, n).
            sizes: dimension of each group.
        """
        made = []
        for block in self.blocks:
            valid = mask.new_ones(mask.shape[0], 1)
            for place, (factor, n) in enumerate(zip(block, sizes, strict=True)):
                for _ in range(factor.order):
                    one = mask if place == self.free else mask.new_ones(mask.shape[0], n)
                    valid = (valid[:, :, None] & one[:, None, :]).flatten(1)
            made.append(valid[..., None])
        return made

    def _each(
        self,
        x: Tensor,
        block: tuple[Factor, ...],
        sizes: tuple[int, ...],
        entries: SymmetricEntries,
        up: bool,
    ) -> Tensor:
        here = [f.rows(n) if up else n**f.order for f, n in zip(block, sizes, strict=True)]
        for place, (factor, group, n) in enumerate(zip(block, self.groups, sizes, strict=True)):
            if not factor.symmetric and not factor.dual:
                continue
            before, after = math.prod(here[:place]), math.prod(here[place + 1 :])
            y = x.reshape(x.shape[0] * before, here[place], after * x.shape[2])
            if up and factor.symmetric:
                y = entries.written_out(y, n, factor.order)
            for index in range(factor.order if factor.dual else 0):
                y = with_form(y, group, n, index, inverse=up)
            if factor.symmetric and not up:
                y = entries.folded(y, n, factor.order)
            here[place] = y.shape[1]
            x = y.reshape(x.shape[0], math.prod(here), x.shape[2])
        return x


class SymmetricEntries(nn.Module):
    """Where the entries of symmetric tensors stand among their independent ones.

    Args:
        sides: the features; tables are kept for their dimensions and made anew for others.
    """

    def __init__(self, sides: tuple[Side, ...]) -> None:
        super().__init__()
        self.scales, self.rows = nn.ModuleDict(), nn.ModuleDict()
        for side in sides:
            for block in side.blocks:
                for factor, n in zip(block, side.sizes, strict=True):
                    name = f"{n}_{factor.order}"
                    if factor.symmetric and name not in self.scales:
                        rows, scale = symmetric_entries(n, factor.order)
                        self.scales[name] = Constant(scale)
                        self.rows[name] = Indices(rows)

    def written_out(self, x: Tensor, n: int, order: int) -> Tensor:
        """(batch, independent entries, channels) -> (batch, n^order, channels)"""
        rows, scale = self._tables(n, order, x)
        return x.index_select(1, rows) * scale

    def folded(self, x: Tensor, n: int, order: int) -> Tensor:
        """The transpose of ``written_out``."""
        rows, scale = self._tables(n, order, x)
        zeros = x.new_zeros(x.shape[0], math.comb(n + order - 1, order), x.shape[2])
        return zeros.index_add(1, rows, x * scale)

    def _tables(self, n: int, order: int, like: Tensor) -> tuple[Tensor, Tensor]:
        name = f"{n}_{order}"
        if name in self.scales:
            rows, scale = self.get_buffer(f"rows.{name}.value"), self.get_buffer(f"scales.{name}.value")
            return rows, scale[:, None].to(like)
        rows, scale = symmetric_entries(n, order)
        return rows.to(like.device), scale[:, None].to(like)


def _side(rep: Rep, dual: bool = False) -> Side | None:
    if isinstance(rep, TensorPower):
        if rep.family == "Aut":
            return None
        turned = dual and not rep.matrix_group.is_orthogonal and rep.order > 0
        return Side((rep.matrix_group,), ((Factor(rep.order, rep.symmetric, turned),),))
    if isinstance(rep, Dual):
        return _side(rep.rep, not dual)
    if not isinstance(rep, (DirectSum, Outer, KroneckerProduct)):
        return None
    sides = [side for part in rep.reps if (side := _side(part, dual)) is not None]
    if len(sides) < len(rep.reps):
        return None
    if isinstance(rep, DirectSum):
        return Side(sides[0].groups, tuple([block for side in sides for block in side.blocks]))
    if isinstance(rep, Outer) and all(len(side.blocks) == 1 for side in sides):
        groups = tuple([group for side in sides for group in side.groups])
        return Side(groups, (tuple([factor for side in sides for factor in side.blocks[0]]),))
    plain = {Factor(factor.order) == factor for side in sides for block in side.blocks for factor in block}
    if plain == {True} and all(len(side.blocks) == len(side.groups) == 1 for side in sides):
        return Side(sides[0].groups, ((Factor(sum(side.blocks[0][0].order for side in sides)),),))
    return None


def with_form(x: Tensor, group: MatrixGroup, n: int, index: int, *, inverse: bool = False) -> Tensor:
    """One index of a tensor multiplied by the form that the group leaves alone. Shape (batch, n^k, channels).

    >>> with_form(torch.tensor([[[1.0], [2.0]]]), MatrixGroup.named("Sp", 2), 2, 0).flatten()
    tensor([ 2., -1.])
    """
    if group.is_orthogonal:
        return x
    y = x.unflatten(1, (n**index, n, x.shape[1] // n ** (index + 1))).flatten(3)
    if group.negative:
        a, b = y.split([n - group.negative, group.negative], dim=2)
        return torch.cat([a, -b], dim=2).reshape(x.shape)
    axis = 3 if group.interleaved else 2
    a, b = y.unflatten(2, (n // 2, 2) if group.interleaved else (2, n // 2)).unbind(axis)
    return torch.stack([-b, a] if inverse else [b, -a], dim=axis).reshape(x.shape)
