"""What ``so2_linear`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ONCE, TWICE, COMPLEX = range(3)
"""Kinds of block: one matrix for one run of columns; the same matrix for two runs; a complex matrix for a
real and an imaginary run."""


class Block(NamedTuple):
    """Columns of the message that one matrix mixes, ``width`` of them, or two runs of ``width``."""

    kind: int
    first_in: int
    width_in: int
    first_out: int
    width_out: int

    @property
    def runs(self) -> int:
        """Runs of columns."""
        return 1 if self.kind == ONCE else 2


class Layout(NamedTuple):
    """The blocks, in order and without gaps; the first one also feeds ``extra`` further columns."""

    extra: int
    blocks: tuple[Block, ...]

    @staticmethod
    def build(widths: Sequence[tuple[int, int, int]], extra: int = 0) -> Layout:
        """Place blocks given as (kind, width_in, width_out) one after another.

        >>> Layout.build([(ONCE, 3, 6), (TWICE, 2, 4)]).width_out
        14
        """
        first_in = first_out = 0
        blocks = []
        for kind, width_in, width_out in widths:
            blocks.append(Block(kind, first_in, width_in, first_out, width_out))
            first_in += blocks[-1].runs * width_in
            first_out += blocks[-1].runs * width_out
        return Layout(extra, tuple(blocks))

    @property
    def width_in(self) -> int:
        """Columns of the message."""
        return self.blocks[-1].first_in + self.blocks[-1].runs * self.blocks[-1].width_in

    @property
    def width_out(self) -> int:
        """Columns of the result."""
        return self.blocks[-1].first_out + self.blocks[-1].runs * self.blocks[-1].width_out

    def weight_shape(self, k: int) -> tuple[int, ...]:
        """Shape of the weight of block ``k``."""
        block = self.blocks[k]
        if block.kind == COMPLEX:
            return 2, block.width_out, block.width_in
        return block.width_out + (0 if k else self.extra), block.width_in


def so2_linear(
    y: Tensor, weights: Sequence[Tensor], bias: Tensor | None, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Each block's columns times its matrix; a complex one acts on runs (a, b) as on the numbers a + ib.

    Args:
        y: messages. Shape (edges, width_in).
        weights: one for each block: (width_out, width_in), or (2, width_out, width_in) for the real and the
            imaginary part. The first has rows for the extra columns before its own.
        bias: added to what the first block gives. Shape (extra + width_out,).
        layout: the blocks.

    Returns:
        The result (edges, width_out) and the extra columns (edges, extra).
    """
    parts = []
    for k, (block, weight) in enumerate(zip(layout.blocks, weights, strict=True)):
        x = y[:, block.first_in : block.first_in + block.runs * block.width_in]
        if block.kind == ONCE:
            parts.append(torch.nn.functional.linear(x, weight, None if k else bias))
        elif block.kind == TWICE:
            parts.append((x.unflatten(1, (2, block.width_in)) @ weight.mT).flatten(1))
        else:
            a, b = x.split(block.width_in, dim=1)
            real, imag = weight.mT
            parts += [a @ real - b @ imag, a @ imag + b @ real]
    extra, parts[0] = parts[0].split([layout.extra, layout.blocks[0].width_out], dim=1)
    return torch.cat(parts, dim=1), extra
