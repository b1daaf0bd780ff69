"""What ANALYSIS and SYNTHESIS of a plan mean, in PyTorch: any device and type, any derivative."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.reps.diagram_plan import Plan, Reduction, View, plan_of_key
from equitorch.reps.partitions import sign_values


class Reading(NamedTuple):
    """A plan whose halves may come once for each permutation of their through axes.

    Attributes:
        plan: the plan.
        views: where each half is seen, for each sector: all halves, permutation after permutation.
    """

    plan: Plan
    views: tuple[tuple[View, ...], ...]


@functools.cache
def reading(key: str) -> Reading:
    """The reading with this key: a ``Plan.key`` whose words may end with "<" or ">".

    A word with ">" asks, for each permutation sigma, for halves whose axis sigma[a] is axis a of the half
    without a mark; "<" for those whose axis a is axis sigma[a].

    >>> [[view.labels for view in group] for group in reading("2|partition:1:0|partition:2:0>").views]
    [[(0, 0), (0,), (0,)], [(0, 1), (1, 0)]]
    """
    words = key.split("|")
    plan = plan_of_key("|".join(word.rstrip("<>") for word in words))
    groups = []
    for word, sector, views in zip(words[1:], plan.sectors, plan.views, strict=True):
        permutations = sector.permutations if word[-1] in "<>" else sector.permutations[:1]
        if word[-1] == "<":
            permutations = tuple(tuple(sorted(range(len(p)), key=p.__getitem__)) for p in permutations)
        alternating = tuple(range(sector.rank, sector.rank + sector.alternating))
        moves = [(*p, *alternating) for p in permutations]
        groups.append(
            tuple(View(v.source, tuple([move[a] for a in v.labels])) for move in moves for v in views)
        )
    return Reading(plan, tuple(groups))


def analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    """All halves: (batch, n ** order, channels) -> (batch, n ** rank, halves, channels) for each sector."""
    plan, views = reading(key)
    batch, channels = x.shape[0], x.shape[2]
    buffers = [x.reshape(batch, *(n,) * plan.order, channels).movedim(-1, 1)]
    for source, labels in plan.reductions:
        buffers.append(scale * _reduced(buffers[source], labels, n, form))
    out = []
    for sector, group in zip(plan.sectors, views, strict=True):
        size = n ** (sector.rank + sector.alternating)
        halves = [_diagonal(buffers[source], labels, 2) for source, labels in group]
        stacked = torch.stack(halves, dim=-1).reshape(batch, channels, size, len(group))
        out.append(stacked.permute(0, 2, 3, 1).contiguous())
    return out


def synthesis(zs: Sequence[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    """The transpose of ``analysis``: -> (batch, n ** order, channels)."""
    plan, views = reading(key)
    batch, channels = zs[0].shape[0], zs[0].shape[3]
    buffers: list[Tensor | None] = [None] * (len(plan.reductions) + 1)
    for z, group, sector in zip(zs, views, plan.sectors, strict=True):
        axes = (n,) * (sector.rank + sector.alternating)
        halves = z.permute(0, 3, 2, 1).reshape(batch, channels, len(group), *axes)
        for half, (source, labels) in zip(halves.unbind(2), group, strict=True):
            buffers[source] = _sum(buffers[source], _embedded(half, labels, 2))
    for number, reduction in reversed(list(enumerate(plan.reductions, start=1))):
        found = buffers[number]
        if found is not None:
            part = scale * _repeated(found, reduction, n, form)
            buffers[reduction.source] = _sum(buffers[reduction.source], part)
    whole = buffers[0]
    if whole is None:
        return zs[0].new_zeros(batch, n**plan.order, channels)
    return whole.movedim(1, -1).reshape(batch, n**plan.order, channels).contiguous()


def symbol(key: str, n: int, form: str) -> Tensor:
    """What turns alternating axes of lower halves to those of upper ones, float64.

    Args:
        key: "kind:through:lower:upper", counting axes.
        n: dimension.
        form: "" or "O", or "O(p,q)" whose inverse raises upper axes.

    Shape:
        -> (n ** through or 1, n ** upper, n ** lower)
    """
    kind, *counts = key.split(":")
    through, lower, upper = map(int, counts)
    values = torch.from_numpy(sign_values(n, n).copy()).to(torch.float64)
    if kind == "free":
        inverse = torch.linalg.inv(form_matrix(form, n))
        for axis in range(upper):
            values = torch.tensordot(inverse, values, ([1], [axis])).movedim(0, axis)
        return values.reshape(1, n**upper, n**lower)
    if through + lower + upper == n - 1:
        values = values.sum(-1)
    return values.reshape(n**through, n**upper, n**lower)


def form_matrix(form: str, n: int) -> Tensor:
    """The form by its name, float64.

    >>> form_matrix("Sp:block", 2)
    tensor([[ 0.,  1.],
            [-1.,  0.]], dtype=torch.float64)
    """
    rows, columns, signs = form_entries(form, n)
    matrix = torch.zeros(n, n, dtype=torch.float64, device="cpu")
    matrix[rows, columns] = torch.tensor(signs, dtype=torch.float64, device="cpu")
    return matrix


@functools.cache
def form_entries(form: str, n: int) -> tuple[list[int], list[int], list[float]]:
    """Row, column and value of the n entries of a form that are not zero.

    >>> form_entries("O(1,1)", 2)
    ([0, 1], [0, 1], [1.0, -1.0])
    """
    rows = list(range(n))
    if form in ("", "O"):
        return rows, rows, [1.0] * n
    if form == "Sp:block":
        half = n // 2
        return rows, rows[half:] + rows[:half], [1.0] * half + [-1.0] * half
    if form == "Sp:interleaved":
        return rows, [i ^ 1 for i in rows], [1.0, -1.0] * (n // 2)
    found = re.fullmatch(r"O\((\d+),\s*(\d+)\)", form)
    if found is None or int(found[1]) + int(found[2]) != n:
        raise ValueError(
            f"a form is '', 'O', 'O(p,q)' with p + q == n, 'Sp:block' or 'Sp:interleaved', "
            f"got {form!r} and n = {n}"
        )
    return rows, rows, [1.0] * int(found[1]) + [-1.0] * int(found[2])


def _sum(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _reduced(x: Tensor, labels: tuple[int, ...], n: int, form: str) -> Tensor:
    """One sum; x has two more axes in front."""
    summed = [axis + 2 for axis, label in enumerate(labels) if label < 0]
    if not form:
        kept = max(labels, default=-1) + 1
        return _diagonal(x, tuple([kept if label < 0 else label for label in labels]), 2).sum(-1)
    a, b = summed
    rest = [axis for axis in range(x.ndim) if axis not in summed]
    last = x.permute(*rest, a, b)
    order = [label for label in labels if label >= 0]
    return _contracted(last, form, n).permute(0, 1, *[2 + order.index(i) for i in range(len(order))])


def _contracted(x: Tensor, form: str, n: int) -> Tensor:
    """The sum over the last two axes with a form, of which only entries that are not zero are read."""
    half = n // 2
    if form == "Sp:block":
        up, down = x[..., :half, half:], x[..., half:, :half]
    elif form == "Sp:interleaved":
        up, down = x[..., ::2, 1::2], x[..., 1::2, ::2]
    else:
        positive = sum(sign > 0 for sign in form_entries(form, n)[2])
        up, down = x[..., :positive, :positive], x[..., positive:, positive:]
    total = up.diagonal(0, -2, -1).sum(-1)
    return total if form == "O" else total - down.diagonal(0, -2, -1).sum(-1)


def _repeated(z: Tensor, reduction: Reduction, n: int, form: str) -> Tensor:
    """The transpose of ``_reduced``."""
    labels, count = reduction.labels, z.ndim - 2
    if not form:
        repeated = z.unsqueeze(-1).expand(*z.shape, n)
        return _embedded(repeated, tuple([count if label < 0 else label for label in labels]), 2)
    fresh = itertools.count(count)
    places = tuple([next(fresh) if label < 0 else label for label in labels])
    return _embedded(z[..., None, None] * form_matrix(form, n).to(z), places, 2)


def _diagonal(x: Tensor, labels: tuple[int, ...], start: int) -> Tensor:
    """Read axes of equal label along their diagonal; axis a of the result, behind ``start``, has label a."""
    now: list[int] = list(labels)
    for label in sorted(set(labels)):
        while now.count(label) > 1:
            first, second = [axis for axis, other in enumerate(now) if other == label][:2]
            x = x.diagonal(0, start + first, start + second)
            now = [other for axis, other in enumerate(now) if axis not in (first, second)] + [label]
    return x.permute(*range(start), *[start + now.index(label) for label in range(len(now))])


def _embedded(z: Tensor, labels: tuple[int, ...], start: int) -> Tensor:
    """The transpose of ``_diagonal``: axes of equal label have ``z`` on their diagonal, zeros elsewhere."""
    now = list(range(z.ndim - start))
    for label in range(len(now)):
        for _ in range(labels.count(label) - 1):
            place = now.index(label)
            z = torch.diag_embed(z.movedim(start + place, -1))
            now = [*now[:place], *now[place + 1 :], label, label]
    order = []
    for label in labels:
        place = now.index(label)
        order.append(start + place)
        now[place] = -1
    return z.permute(*range(start), *order)
