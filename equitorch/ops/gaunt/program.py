"""Programs by grids: every function is evaluated once, a piece of the columns at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from equitorch.ops.gaunt.form import Form, Program

_CACHE = 1 << 20  # bytes of grid values that a piece may take
_NARROW = 16  # channels below which points come last, so that matrix products are wide enough


class Transform(Protocol):
    """The way from rows to values on a grid, and its transpose with the weights of an integral.

    A piece is either ``(items, rows, channels)`` with values ``(items, components, points, channels)``, or
    ``(columns, rows)`` with values ``(columns, components, points)``.
    """

    points: int

    def values(self, slot: int, x: Tensor, out: Tensor) -> None:
        """Evaluate the components of a slot."""

    def rows(self, slot: int, values: Tensor, out: Tensor) -> None:
        """Integrate values of the components against the harmonics of a slot."""


def evaluate(tensors: list[Tensor], program: Program, form: Form, transform: Transform) -> list[Tensor]:
    """As the reference."""
    x = tensors[0]
    items, channels = x.shape[0], x.shape[2]
    narrow = channels < _NARROW
    outs = [x.new_empty(items, form.rows(slot), channels) for slot, _ in program.requests]
    if x.numel() == 0:
        return outs
    counts = [len(form.components(slot)) for slot in program.slots]
    counts += [len(form.components(slot)) for slot, _ in program.requests]
    room = _CACHE // (x.element_size() * transform.points * sum(counts))
    step = max(1, min(items, room // channels))
    shape = (step * channels,) if narrow else (step,)
    tail = () if narrow else (channels,)
    buffers = [x.new_empty(*shape, count, transform.points, *tail) for count in counts]
    for start in range(0, items, step):
        stop = min(start + step, items)
        size = (stop - start) * (channels if narrow else 1)
        held = [buffer[:size] for buffer in buffers]
        grids, results = held[: len(tensors)], held[len(tensors) :]
        for slot, tensor, grid in zip(program.slots, tensors, grids, strict=True):
            transform.values(slot, _columns(tensor[start:stop], narrow), grid)
        for (slot, pairs), result, out in zip(program.requests, results, outs, strict=True):
            multiply(
                slot,
                [(program.slots[i], grids[i], program.slots[j], grids[j]) for i, j in pairs],
                form,
                result,
            )
            piece = out[start:stop]
            if not narrow:
                transform.rows(slot, result, piece)
            elif channels == 1:
                transform.rows(slot, result, piece.squeeze(2))
            else:
                found = result.new_empty(size, out.shape[1])
                transform.rows(slot, result, found)
                piece.copy_(found.unflatten(0, (-1, channels)).mT)
    return outs


def multiply(slot: int, pairs: Sequence[tuple[int, Tensor, int, Tensor]], form: Form, out: Tensor) -> None:
    """The values of all components of an open slot: products of those of the others, summed over pairs."""
    names, written = form.components(slot), set()
    for slot1, grid1, slot2, grid2 in pairs:
        held = {slot1: grid1, slot2: grid2}
        for *factors, sign in form.terms:
            if {s for s, _ in factors} != {slot, slot1, slot2}:
                continue
            a, b = (held[s].select(1, form.components(s).index(name)) for s, name in factors if s != slot)
            (place,) = (names.index(name) for s, name in factors if s == slot)
            target = out.select(1, place)
            if place in written:
                target.addcmul_(a, b, value=sign)
            else:
                torch.mul(a, b, out=target)
                if sign < 0:
                    target.neg_()
                written.add(place)
    for place in set(range(len(names))) - written:
        out.select(1, place).zero_()


def _columns(x: Tensor, narrow: bool) -> Tensor:
    if not narrow:
        return x
    return x.squeeze(2) if x.shape[2] == 1 else x.mT.reshape(-1, x.shape[1])
