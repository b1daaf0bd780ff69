"""Values on a grid and back by one matrix product each way."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from equitorch.ops.gaunt.form import Form
from equitorch.reps.product_grid import product_grid, table


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
        tables = {}
        for slot in range(4):
            parts = [table(grid, form.lmax(slot), name) for name in form.components(slot)]
            if parts:
                tables[slot] = torch.cat(parts), torch.cat([weight[:, None] * part for part in parts]).T
        self._to = {slot: values.to(like) for slot, (values, _) in tables.items()}
        self._from = {slot: rows.to(like).contiguous() for slot, (_, rows) in tables.items()}

    def values(self, slot: int, x: Tensor, out: Tensor) -> None:
        _apply(self._to[slot], x, out.flatten(1, 2))

    def rows(self, slot: int, values: Tensor, out: Tensor) -> None:
        _apply(self._from[slot], values.flatten(1, 2), out)


def _apply(matrix: Tensor, x: Tensor, out: Tensor) -> None:
    if x.ndim == 2:
        torch.mm(x, matrix.T, out=out)
    else:
        torch.bmm(matrix.expand(x.shape[0], -1, -1), x, out=out)


@functools.lru_cache(maxsize=64)
def _transform(form: Form, dtype: torch.dtype, device: torch.device) -> MatrixTransform:
    return MatrixTransform(form, torch.empty(0, dtype=dtype, device=device))


def transform(form: Form, like: Tensor) -> MatrixTransform:
    """The tables of a form, made once for each dtype and device."""
    return _transform(form, like.dtype, like.device)
