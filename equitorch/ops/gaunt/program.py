"""Programs by grids: every function is evaluated once, a piece of the columns at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from equitorch.ops.gaunt.form import Form, Program

_KEPT = 12 << 20  # bytes of grid values up to which columns go at once, and derivatives find them kept
_CACHE = 4 << 20  # bytes of a piece otherwise: what the core's own cache and few calls leave
_NARROW = 16  # channels below which points come last, so that matrix products are wide enough

Values = Sequence[Tensor]  # of each component of a slot on the grid


class Transform(Protocol):
    """The way from rows to values on a grid, and its transpose with the weights of an integral.

    A piece is either ``(items, rows, channels)`` with values ``(items, points, channels)``, or
    ``(columns, rows)`` with values ``(columns, points)``.
    """

    points: int

    def values(self, slot: int, x: Tensor) -> Values:
        """Each component of a slot on the grid."""

    def rows(self, slot: int, values: Values) -> Tensor:
        """Integrals of the components of a slot against their harmonics."""


def made_once(make: Callable[[Form, Tensor], Transform]) -> Callable[[Form, Tensor], Transform]:
    """The tables of a form, made once for each dtype and device of a tensor like those to be transformed."""

    @functools.lru_cache(maxsize=64)
    def made(form: Form, dtype: torch.dtype, device: torch.device) -> Transform:
        return make(form, torch.empty(0, dtype=dtype, device=device))

    return lambda form, like: made(form, like.dtype, like.device)


class Factor(NamedTuple):
    """Two components that are multiplied point by point: each a tensor and a place in its slot."""

    a: tuple[int, int]
    b: tuple[int, int]
    sign: float


class Plan(NamedTuple):
    """What to multiply: for each request and each component of its slot, products to be summed."""

    components: int  # of all tensors and results
    sums: tuple[tuple[tuple[Factor, ...], ...], ...]


def evaluate(
    tensors: list[Tensor],
    program: Program,
    form: Form,
    transform: Transform,
    known: Sequence[Values] = (),
) -> tuple[list[Tensor], list[Values]]:
    """As the reference.

    Args:
        tensors: as there.
        program: as there.
        form: as there.
        transform: to the grid and back.
        known: values of the first tensors, from an earlier call.

    Returns:
        The results, and the values of all tensors if they are few.
    """
    x = tensors[0]
    items, channels = x.shape[0], x.shape[2]
    if x.numel() == 0:
        return [x.new_empty(items, form.rows(slot), channels) for slot, _ in program.requests], []
    plan = _plan(form, program)
    width = x.element_size() * transform.points * plan.components * channels
    if width * items <= _KEPT or known:
        return _piece(tensors, program, plan, transform, known)
    piece = max(1, _CACHE // width)
    outs = [x.new_empty(items, form.rows(slot), channels) for slot, _ in program.requests]
    for start in range(0, items, piece):
        held = [tensor[start : start + piece] for tensor in tensors]
        for out, found in zip(outs, _piece(held, program, plan, transform)[0], strict=True):
            out[start : start + piece] = found
    return outs, []


@functools.lru_cache(maxsize=256)
def _plan(form: Form, program: Program) -> Plan:
    slots = [*program.slots, *(slot for slot, _ in program.requests)]
    sums = []
    for slot, pairs in program.requests:
        found: dict[str, list[Factor]] = {name: [] for name in form.components(slot)}
        for pair in pairs:
            held = {program.slots[n]: n for n in pair}
            for *factors, sign in form.terms:
                names = dict(factors)
                if names.keys() == {slot, *held}:
                    a, b = ((n, form.components(s).index(names[s])) for s, n in held.items())
                    found[names[slot]].append(Factor(a, b, sign))
        sums.append(tuple(tuple(factors) for factors in found.values()))
    return Plan(sum(len(form.components(slot)) for slot in slots), tuple(sums))


def _piece(
    tensors: list[Tensor],
    program: Program,
    plan: Plan,
    transform: Transform,
    known: Sequence[Values] = (),
) -> tuple[list[Tensor], list[Values]]:
    channels = tensors[0].shape[2]
    narrow = channels < _NARROW
    values = list(known)
    for slot, x in zip(program.slots[len(known) :], tensors[len(known) :], strict=True):
        if narrow:
            x = x.squeeze(2) if channels == 1 else x.mT.reshape(-1, x.shape[1])
        values.append(transform.values(slot, x))
    outs = []
    for (slot, _), sums in zip(program.requests, plan.sums, strict=True):
        out = transform.rows(slot, [_total(factors, values) for factors in sums])
        if narrow:
            out = out.unsqueeze(2) if channels == 1 else out.unflatten(0, (-1, channels)).mT.contiguous()
        outs.append(out)
    return outs, values


def _total(factors: tuple[Factor, ...], values: list[Values]) -> Tensor:
    if not factors:
        return torch.zeros_like(values[0][0])
    ((i, p), (j, q), sign), *rest = factors
    out = values[i][p] * values[j][q]
    if sign < 0:
        out.neg_()
    for (i, p), (j, q), sign in rest:
        out.addcmul_(values[i][p], values[j][q], value=sign)
    return out
