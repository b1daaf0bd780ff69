"""``linear`` by matrix products that read and write the rows where they lie, on any device."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from equitorch.ops.linear.reference import OUTPUT, WEIGHT, Group, Layout


def linear(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """As the reference, with one batched product for each group and no copy where no copies mix."""
    layout = _layout(tuple(sizes))
    if open_slot == WEIGHT:
        x, y = (operand.contiguous() for operand in operands)
        out = x.new_empty(layout.weights)
        for g, w in layout.with_weights(out):
            a = _stacked(x, g.first_in, g.copies_in, g.dim)
            b = _stacked(y, g.first_out, g.copies_out, g.dim)
            into = w.view(a.shape[2], b.shape[2])
            if g.dim == 1:
                torch.mm(a[0].mT, b[0], out=into)
            else:
                torch.sum(torch.bmm(a.mT, b), 0, out=into)
        return out
    forward = open_slot == OUTPUT
    source, weight = operands if forward else (operands[1], operands[0])
    source = source.contiguous()
    rows, channels = (
        (layout.rows_out, layout.channels_out) if forward else (layout.rows_in, layout.channels_in)
    )
    covered = sum(g.dim * (g.copies_out if forward else g.copies_in) for g in layout.groups)
    make = source.new_empty if covered == rows else source.new_zeros
    out = make(source.shape[0], rows, channels)
    for g, w in layout.with_weights(weight):
        matrix = w.reshape(g.copies_in * layout.channels_in, g.copies_out * layout.channels_out)
        _multiply(source, matrix if forward else matrix.mT, out, g, forward)
    return out


@functools.lru_cache(maxsize=256)
def _layout(sizes: tuple[int, ...]) -> Layout:
    return Layout.read(sizes)


def _multiply(source: Tensor, matrix: Tensor, out: Tensor, g: Group, forward: bool) -> None:
    """Fill the rows of one group."""
    here, there = (g.first_in, g.copies_in), (g.first_out, g.copies_out)
    (first, copies), (first_to, copies_to) = (here, there) if forward else (there, here)
    a = _stacked(source, first, copies, g.dim)
    if g.dim == 1:
        torch.mm(a[0], matrix, out=_stacked(out, first_to, copies_to, 1)[0])
    elif copies_to == 1:
        torch.bmm(a, matrix.expand(g.dim, -1, -1), out=_stacked(out, first_to, 1, g.dim))
    else:
        b = torch.bmm(a, matrix.expand(g.dim, -1, -1)).unflatten(2, (copies_to, out.shape[2]))
        block = out[:, first_to : first_to + copies_to * g.dim].unflatten(1, (copies_to, g.dim))
        block.copy_(b.permute(1, 2, 0, 3))


def _stacked(x: Tensor, first: int, copies: int, dim: int) -> Tensor:
    """A matrix (points, copies * channels) for each component; a view unless there are several of both."""
    block = x.narrow(1, first, copies * dim)
    if copies == 1:
        return block.transpose(0, 1)
    if dim == 1:
        return block.flatten(1)[None]
    return block.unflatten(1, (copies, dim)).permute(2, 0, 1, 3).flatten(2)
