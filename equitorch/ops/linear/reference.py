"""What ``linear`` means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

INPUT, WEIGHT, OUTPUT = 0, 1, 2
"""Slots of the form: the feature, the weights of all groups in one flat vector, the result."""


class Group(NamedTuple):
    """Rows that mix: ``copies`` irreps of dimension ``dim`` from row ``first``, on both sides."""

    first_in: int
    copies_in: int
    first_out: int
    copies_out: int
    dim: int


class Layout(NamedTuple):
    """Rows and channels of both sides, and the groups."""

    rows_in: int
    channels_in: int
    rows_out: int
    channels_out: int
    groups: list[Group]

    @staticmethod
    def read(sizes: Sequence[int]) -> Layout:
        """The inverse of ``sizes``."""
        groups = [Group(*sizes[k : k + 5]) for k in range(4, len(sizes), 5)]
        return Layout(sizes[0], sizes[1], sizes[2], sizes[3], groups)

    def sizes(self) -> list[int]:
        """All numbers in one list, for the schema of an operator."""
        return [*self[:4], *(number for group in self.groups for number in group)]

    def shape(self, group: Group) -> tuple[int, int, int, int]:
        """Shape of the weight of a group: copies and channels in, copies and channels out."""
        return group.copies_in, self.channels_in, group.copies_out, self.channels_out

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(g.copies_in * g.copies_out for g in self.groups) * self.channels_in * self.channels_out

    def with_weights(self, weight: Tensor) -> Iterator[tuple[Group, Tensor]]:
        """Each group with its weight, a view of shape (copies_in, channels_in, copies_out, channels_out)."""
        start = 0
        for group in self.groups:
            shape = self.shape(group)
            count = shape[0] * shape[1] * shape[2] * shape[3]
            yield group, weight.narrow(0, start, count).view(shape)
            start += count


def linear(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """The form sum x[n, (p m) i] w[p i q o] y[n, (q m) o] over all groups, with one slot open."""
    layout = Layout.read(sizes)
    if open_slot == WEIGHT:
        x, y = operands
        pairs = [
            (_block(x, g.first_in, g.copies_in, g.dim), _block(y, g.first_out, g.copies_out, g.dim))
            for g in layout.groups
        ]
        parts = [torch.einsum("npmi,nqmo->piqo", a, b).flatten() for a, b in pairs]
        return torch.cat(parts) if parts else x.new_zeros(0)
    source, weight = operands if open_slot == OUTPUT else reversed(operands)
    forward = open_slot == OUTPUT
    rows, channels = (
        (layout.rows_out, layout.channels_out) if forward else (layout.rows_in, layout.channels_in)
    )
    parts, filled = [], 0
    order = sorted(
        layout.with_weights(weight), key=lambda pair: pair[0].first_out if forward else pair[0].first_in
    )
    for g, w in order:
        if forward:
            first, block = (
                g.first_out,
                torch.einsum("npmi,piqo->nqmo", _block(source, g.first_in, g.copies_in, g.dim), w),
            )
        else:
            first, block = (
                g.first_in,
                torch.einsum("nqmo,piqo->npmi", _block(source, g.first_out, g.copies_out, g.dim), w),
            )
        parts += [source.new_zeros(source.shape[0], first - filled, channels), block.flatten(1, 2)]
        filled = first + parts[-1].shape[1]
    parts.append(source.new_zeros(source.shape[0], rows - filled, channels))
    return torch.cat(parts, dim=1)


def fake(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """An empty tensor of the right shape."""
    layout = Layout.read(sizes)
    if open_slot == WEIGHT:
        return operands[0].new_empty(layout.weights)
    source = operands[0] if open_slot == OUTPUT else operands[1]
    rows, channels = (layout.rows_out, layout.channels_out) if open_slot == OUTPUT else layout[:2]
    return source.new_empty(source.shape[0], rows, channels)


def _block(x: Tensor, first: int, copies: int, dim: int) -> Tensor:
    return x[:, first : first + copies * dim].unflatten(1, (copies, dim))
