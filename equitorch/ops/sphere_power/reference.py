"""What ``sphere_polynomial`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.ops.backend import lasting
from equitorch.reps.sphere import SphereGrid, to_grid


class Sizes(NamedTuple):
    """What the shapes of operands follow from.

    Attributes:
        lmax_in: highest degree of the field.
        lmax_out: highest degree of the result.
        species: how many sets of weights.
        orders: the highest power.
        degrees: lmax_out + 1, or 1 if all degrees of a power share their weight.
    """

    lmax_in: int
    lmax_out: int
    species: int
    orders: int
    degrees: int

    @property
    def rows_in(self) -> int:
        return (self.lmax_in + 1) ** 2

    @property
    def rows_out(self) -> int:
        return (self.lmax_out + 1) ** 2


class Tables(NamedTuple):
    """Values of harmonics at the points of a grid that is exact for all powers.

    Attributes:
        values_in: of those of the field. Shape (points, rows_in).
        values_out: of those of the result. Shape (points, rows_out).
        adjoint_in: the same times the weights of points. Shape (rows_in, points).
        adjoint_out: the same. Shape (rows_out, points).
        weight: of the points in an integral. Shape (points, 1).
        pool: adds the rows of each degree. Shape (lmax_out + 1, rows_out).
        degree: of each row of the result, 0 if all share their weight. Shape (rows_out,), int64.
    """

    values_in: Tensor
    values_out: Tensor
    adjoint_in: Tensor
    adjoint_out: Tensor
    weight: Tensor
    pool: Tensor
    degree: Tensor


def tables(sizes: Sizes, like: Tensor) -> Tables:
    """The tables in the type and on the device of a tensor."""
    return _tables(sizes.lmax_in, sizes.lmax_out, sizes.orders, sizes.degrees, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
@lasting
def _tables(
    lmax_in: int, lmax_out: int, orders: int, degrees: int, dtype: torch.dtype, device: torch.device
) -> Tables:
    grid = SphereGrid.exact(max(orders, 1) * lmax_in + lmax_out)
    values = [to_grid(grid, lmax, normalization="integral").flatten(0, 1) for lmax in (lmax_in, lmax_out)]
    weight = grid.weight.repeat_interleave(len(grid.alpha))[:, None]
    degree = torch.arange(lmax_out + 1, device="cpu").repeat_interleave(
        torch.arange(1, 2 * lmax_out + 2, 2, device="cpu")
    )
    pool = torch.nn.functional.one_hot(degree).mT
    exact = [*values, *[(v * weight).mT.contiguous() for v in values], weight, pool]
    cast = [t.to(device=device, dtype=dtype) for t in exact]
    return Tables._make([*cast, (degree if degrees > 1 else 0 * degree).to(device)])


def sphere_polynomial(x: Tensor, weight: Tensor, index: Tensor, sizes: Sizes) -> Tensor:
    """Evaluate the field at points, take its powers, and read the degrees of each power off.

    Args:
        x: rows of the field. Shape (nodes, rows_in, channels).
        weight: of each power and degree. Shape (species, orders, degrees, channels).
        index: the species of each node. Shape (nodes,), int64.
        sizes: of the operands.

    Returns:
        Shape (nodes, rows_out, channels).
    """
    table = tables(sizes, x)
    field = table.values_in @ x
    power, total = field, x.new_zeros(())
    for order in range(sizes.orders):
        power = power * field if order else field
        total = total + weight[index, order][:, table.degree] * (table.adjoint_out @ power)
    return total
