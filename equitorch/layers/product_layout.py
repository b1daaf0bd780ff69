"""Operands and results of tensor products: flat or in rows, as a whole or block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, cat

from equitorch.ops.backend import fused, traced
from equitorch.ops.multilinear import with_derivatives
from equitorch.reps import Irreps, from_e3nn, to_e3nn

Places = NDArray[np.int64]


class Operand(NamedTuple):
    """The irreps of an operand, or of a result, and where its numbers are.

    Attributes:
        irreps: multiplicities included.
        channels: if it is rows and channels; 0 for e3nn's flat layout.
    """

    irreps: Irreps
    channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The last axes."""
        dim = self.irreps.dim
        return (dim // self.channels, self.channels) if self.channels else (dim,)

    def positions(self, block: int) -> Places:
        """Where each number of a block lies in the flattened operand. Shape (mul, dim)."""
        start, (mul, ir) = self.irreps.slices()[block].start, self.irreps[block]
        numbers = start + np.arange(mul * ir.dim, dtype=np.int64)
        if not self.channels:
            return numbers.reshape(mul, ir.dim)
        shape = mul // self.channels, ir.dim, self.channels
        return numbers.reshape(shape).transpose(0, 2, 1).reshape(mul, ir.dim)

    def is_even(self, channels: int) -> bool:
        """Whether it can be one copy of each irrep in so many channels."""
        return self.channels in (0, channels) and all(mul in (0, channels) for mul, _ in self.irreps)

    def first_row(self, block: int) -> int:
        """The row at which a block begins, if the operand is even."""
        return sum(ir.dim for mul, ir in self.irreps[:block] if mul)


class Views:
    """One operand of a product, as a whole or as blocks, which are made when first asked for.

    Args:
        given: the operand. Shape (points, ...), the last axes as in ``own.shape``.
        own: its irreps and layout.
    """

    def __init__(self, given: Tensor, own: Operand) -> None:
        self.given, self.own = given, own
        self._rows: Tensor | None = None
        self._blocks: list[Tensor] = []

    def numbers(self) -> Tensor:
        """Every number by itself. Shape (points, numbers, 1)."""
        return self.given.flatten(1).unsqueeze(2)

    def rows(self, channels: int) -> Tensor:
        """The whole operand, if it is even. Shape (points, rows, channels)."""
        if self.own.channels:
            return self.given
        if self._rows is None:
            self._rows = rows_from_flat(self.given, self.own.irreps, channels)
        return self._rows

    def blocks(self) -> list[Tensor]:
        """Its blocks. Shapes (points, dim, mul)."""
        if not self._blocks:
            self._blocks = _blocks(self.given, self.own)
        return self._blocks


def _blocks(x: Tensor, own: Operand) -> list[Tensor]:
    if own.channels == 0:
        parts = x.split([entry.dim for entry in own.irreps], dim=1)
        return [
            part.unflatten(1, (mul, ir.dim)).transpose(1, 2)
            for part, (mul, ir) in zip(parts, own.irreps, strict=True)
        ]
    copies = [mul // own.channels for mul, _ in own.irreps]
    parts = x.split([n * ir.dim for n, (_, ir) in zip(copies, own.irreps, strict=True)], dim=1)
    return [
        part if n == 1 else part.unflatten(1, (n, ir.dim)).transpose(1, 2).flatten(2)
        for part, n, (_, ir) in zip(parts, copies, own.irreps, strict=True)
    ]


def assembled(blocks: Sequence[Tensor | None], own: Operand, like: Tensor) -> Tensor:
    """A result from its blocks (points, dim, mul), zero where there is none.

    Args:
        blocks: one for each block of the irreps.
        own: irreps and layout of the result.
        like: a tensor with the number of points and the dtype.

    Shape:
        (points, ...), the last axes as in ``own.shape``
    """
    points, parts = like.shape[0], []
    for (mul, ir), given in zip(own.irreps, blocks, strict=True):
        block = like.new_zeros(points, ir.dim, mul) if given is None else given
        if own.channels == 0:
            block = block.transpose(1, 2).flatten(1)
        elif mul != own.channels:
            block = block.unflatten(2, (mul // own.channels, own.channels)).transpose(1, 2).flatten(1, 2)
        parts.append(block)
    if not parts:
        return like.new_zeros(points, *own.shape)
    return parts[0] if len(parts) == 1 else cat(parts, dim=1)


def rows_from_flat(x: Tensor, irreps: Irreps, channels: int) -> Tensor:
    """``from_e3nn`` of irreps with equal multiplicities, in one pass over memory.

    Args:
        x: e3nn's flat layout. Shape (points, irreps.dim).
        irreps: with ``channels`` or no copies in each block.
        channels: the multiplicity.

    Shape:
        (points, irreps.dim / channels, channels)
    """
    if traced(x) or not fused(x):
        return from_e3nn(x, irreps, channels)
    rows = x.new_empty(x.shape[0], irreps.dim // channels, channels)
    for flat, block in _pairs(x.detach(), rows, irreps):
        block.copy_(flat)
    return with_derivatives(rows, [(x, lambda g: flat_from_rows(g, irreps))])


def flat_from_rows(x: Tensor, irreps: Irreps) -> Tensor:
    """``to_e3nn`` of irreps with equal multiplicities, in one pass over memory: the inverse."""
    if traced(x) or not fused(x):
        return to_e3nn(x, irreps)
    out, channels = x.new_empty(x.shape[0], irreps.dim), x.shape[2]
    for flat, block in _pairs(out, x.detach(), irreps):
        flat.copy_(block)
    return with_derivatives(out, [(x, lambda g: rows_from_flat(g, irreps, channels))])


def _pairs(flat: Tensor, rows: Tensor, irreps: Irreps) -> list[tuple[Tensor, Tensor]]:
    """Each block in either layout, both seen as (points, dim, mul)."""
    found, row, number = [], 0, 0
    for mul, ir in irreps:
        if mul:
            block = flat.narrow(1, number, mul * ir.dim).unflatten(1, (mul, ir.dim)).transpose(1, 2)
            found.append((block, rows.narrow(1, row, ir.dim)))
            row, number = row + ir.dim, number + mul * ir.dim
    return found
