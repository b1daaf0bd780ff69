"""Values on a grid and back by one matrix product each way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.gaunt.form import Form
from equitorch.ops.gaunt.program import made_once
from equitorch.reps.product_grid import product_grid, table

_SUMMED = 96  # points at once below double precision: a longer sum loses digits


class MatrixTransform:
    """Tables of harmonics at the points of an exact grid.

    Args:
        form: the degrees.
        like: a tensor of the dtype and on the device of what is transformed.
    """

    def __init__(self, form: Form, like: Tensor) -> None:
        grid = product_grid(*form.lmaxs)
        weight = grid.weight.repeat_interleave(grid.alpha.shape[0])
        self.points = weight.shape[0]
        self._to: dict[int, Tensor] = {}  # the components of a slot one after the other
        self._from: dict[int, list[list[Tensor]]] = {}  # of each component, of each run of points
        runs = 1 if like.dtype == torch.float64 else -(-self.points // _SUMMED)
        self._run = -(-self.points // runs)
        for slot in range(4):
            parts = [table(grid, form.lmax(slot), name) for name in form.components(slot)]
            if parts:
                self._to[slot] = torch.cat(parts).to(like)
                self._from[slot] = [
                    [run.T.contiguous().to(like) for run in (weight[:, None] * part).split(self._run)]
                    for part in parts
                ]

    def values(self, slot: int, x: Tensor) -> Sequence[Tensor]:
        matrix = self._to[slot]
        whole = x @ matrix.T if x.ndim == 2 else torch.bmm(matrix.expand(x.shape[0], -1, -1), x)
        return whole.split(self.points, dim=1) if whole.shape[1] > self.points else (whole,)

    def rows(self, slot: int, values: Sequence[Tensor]) -> Tensor:
        pairs = zip(self._from[slot], values, strict=True)
        if self._run < self.points:
            (first, value), *rest = [
                pair
                for matrices, whole in pairs
                for pair in zip(matrices, whole.split(self._run, dim=1), strict=True)
            ]
        else:
            (first, value), *rest = [(matrix, whole) for (matrix,), whole in pairs]
        if value.ndim == 2:
            out = value @ first.T
            for matrix, value in rest:
                out.addmm_(value, matrix.T)
            return out
        out = torch.bmm(first.expand(value.shape[0], -1, -1), value)
        for matrix, value in rest:
            out.baddbmm_(matrix.expand(value.shape[0], -1, -1), value)
        return out


transform = made_once(MatrixTransform)
