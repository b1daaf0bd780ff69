"""Latitudes and longitudes one after the other: small products with Legendre functions, then one with waves.

The columns of a piece come last in everything between, so that each step is a product with wide matrices.
Values are ``(longitudes, latitudes, *columns)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.ops.gaunt.form import Form
from equitorch.ops.gaunt.program import made_once
from equitorch.reps.product_grid import polar_part, product_grid, wave_part

_GROUPS = 2  # into which orders are put, so that few rows are padding


class Orders(NamedTuple):
    """Orders that share a product: their places among the waves, and the Legendre functions of each.

    Attributes:
        first: place of the first of them.
        to: shape (orders, components * latitudes, degrees).
        back: the transpose with the weights of the integral, (orders, degrees, components * latitudes).
    """

    first: int
    to: Tensor
    back: Tensor


class SeparableTransform:
    """An exact grid, for each slot the Legendre functions of each order and the waves.

    Args:
        form: the degrees.
        like: a tensor of the dtype and on the device of what is transformed.
    """

    def __init__(self, form: Form, like: Tensor) -> None:
        grid = product_grid(*form.lmaxs)
        self.latitudes = grid.beta.shape[0]
        self.points = self.latitudes * grid.alpha.shape[0]
        self._waves: dict[int, list[Tensor]] = {}
        self._orders: dict[int, list[Orders]] = {}
        self._gather: dict[int, Tensor] = {}  # of each padded row the row that it holds
        self._place: dict[int, Tensor] = {}  # of each row its place among the padded ones
        for slot in range(4):
            names, lmax = form.components(slot), form.lmax(slot)
            if not names:
                continue
            column = [lmax + m for m in orders(lmax)]
            self._waves[slot] = [wave_part(grid.alpha, lmax, name)[:, column].to(like) for name in names]
            groups, gather = padded(lmax)
            polar = torch.stack([polar_part(grid.beta, lmax, name) for name in names])
            self._orders[slot], done = [], 0
            for first, count, degrees in groups:
                rows = gather[done : done + count * degrees]
                table = polar[..., rows.clamp(min=0)] * (rows >= 0)  # (components, latitudes, padded rows)
                both = [
                    part.flatten(0, 1).unflatten(-1, (count, degrees)).movedim(1, 0)
                    for part in (table, table * grid.weight[:, None])
                ]
                to, back = both[0].contiguous().to(like), both[1].mT.contiguous().to(like)
                self._orders[slot].append(Orders(first, to, back))
                done += count * degrees
            place = torch.zeros((lmax + 1) ** 2, dtype=torch.int64, device="cpu")
            place[gather[gather >= 0]] = torch.nonzero(gather >= 0).squeeze(1)
            self._gather[slot] = gather.clamp(min=0).to(like.device)
            self._place[slot] = place.to(like.device)

    def values(self, slot: int, x: Tensor) -> Sequence[Tensor]:
        columns = x.shape[:1] + x.shape[2:]
        rows = x.movedim(1, 0).index_select(0, self._gather[slot]).flatten(1)
        waves = self._waves[slot]
        between = rows.new_empty(waves[0].shape[1], len(waves) * self.latitudes, rows.shape[1])
        done = 0
        for first, to, _ in self._orders[slot]:
            count, _, degrees = to.shape
            part = rows[done : done + count * degrees].unflatten(0, (count, degrees))
            torch.bmm(to, part, out=between[first : first + count])
            done += count * degrees
        parts = between.unflatten(1, (len(waves), -1)).flatten(2).unbind(1)
        return [
            torch.mm(wave, part).view(-1, self.latitudes, *columns)
            for wave, part in zip(waves, parts, strict=True)
        ]

    def rows(self, slot: int, values: Sequence[Tensor]) -> Tensor:
        columns, waves = values[0].shape[2:], self._waves[slot]
        between = values[0].new_empty(waves[0].shape[1], len(waves), self.latitudes * columns.numel())
        for wave, value, part in zip(waves, values, between.unbind(1), strict=True):
            torch.mm(wave.T, value.reshape(value.shape[0], -1), out=part)
        between = between.view(between.shape[0], -1, columns.numel())
        found = between.new_empty(self._gather[slot].shape[0], columns.numel())
        done = 0
        for first, _, back in self._orders[slot]:
            count, degrees, _ = back.shape
            part = found[done : done + count * degrees].unflatten(0, (count, degrees))
            torch.bmm(back, between[first : first + count], out=part)
            done += count * degrees
        rows = self._place[slot]
        out = found.new_empty(columns[0], rows.shape[0], *columns[1:])
        torch.index_select(found.unflatten(1, columns), 0, rows, out=out.movedim(1, 0))
        return out


def orders(lmax: int) -> list[int]:
    """Orders by size: 0, 1, -1, 2, -2, ...

    >>> orders(2)
    [0, 1, -1, 2, -2]
    """
    return [0, *(m for size in range(1, lmax + 1) for m in (size, -size))]


def padded(lmax: int) -> tuple[list[tuple[int, int, int]], Tensor]:
    """Orders in groups, each with as many degrees as its smallest order has; the row of each, -1 for none.

    Returns:
        For each group the place of its first order, how many orders, how many degrees; and the rows, group by
        group, order by order.

    >>> padded(1)
    ([(0, 1, 2), (1, 2, 1)], tensor([0, 2, 3, 1]))
    """
    bounds = sorted({round((lmax + 1) * part / _GROUPS) for part in range(_GROUPS + 1)})
    groups, rows = [], []
    for low, high in itertools.pairwise(bounds):
        members = [m for m in orders(lmax) if low <= abs(m) < high]
        groups.append((orders(lmax).index(members[0]), len(members), lmax + 1 - low))
        rows += [l * l + l + m if l >= abs(m) else -1 for m in members for l in range(low, lmax + 1)]
    return groups, torch.tensor(rows, dtype=torch.int64, device="cpu")


transform = made_once(SeparableTransform)
