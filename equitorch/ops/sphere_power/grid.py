r"""``sphere_polynomial`` and its derivatives a few nodes at a time, so that no grid is ever whole.

With the field X, tangents H_1 .. H_k and the cotangents V_n of its powers at the points p of the grid,

.. math:: T = \sum_p q_p \sum_n \frac{n!}{(n - k)!} X^{n - k} H_1 \cdots H_k \, V_n, \qquad
    V_n = \sum_{l m} W_{n l} \, z_{l m} Y_{l m},

all of them are derivatives of T by what is left open: z, one more tangent, or W. They form a closed family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.backend import autocasting
from equitorch.ops.sphere_power.reference import Sizes, Tables, tables

RESULT, FIELD, WEIGHT = range(3)
"""What is left open: z, one more tangent, the weights."""

_BYTES = {"cpu": 1 << 19, "cuda": 1 << 27}  # of one field at the points of a piece: several share a cache


def run(
    opened: Sequence[int],
    fields: Sequence[Tensor],
    z: Tensor | None,
    weight: Tensor | None,
    index: Tensor,
    sizes: Sizes,
) -> list[Tensor]:
    """The derivatives of T by what is open, in the order asked for, all from the same values at points.

    Args:
        opened: some of RESULT, FIELD, WEIGHT.
        fields: the field, then the tangents. Shape (nodes, rows_in, channels) each.
        z: in the slot of the result, unless that alone is open. Shape (nodes, rows_out, channels).
        weight: unless those alone are open. Shape (species, orders, degrees, channels).
        index: species of the nodes. Shape (nodes,).
        sizes: of the operands.

    Returns:
        Tensors of the shapes of z, of a field and of the weights.
    """
    x, table = fields[0], tables(sizes, fields[0])
    if autocasting(x):
        with torch.autocast(x.device.type, enabled=False):
            return run(opened, fields, z, weight, index, sizes)
    out = [x.new_empty(shape(kind, x, sizes)) for kind in opened]
    part_of = _shared if sizes.degrees == 1 else _each
    if weight is not None:
        weight = weight[:, :, table.degree] if sizes.degrees > 1 else weight
    total: Tensor | None = None
    for piece in _pieces(x, table):
        pointwise = [f[piece] for f in fields]
        own = weight if weight is None or sizes.species == 1 else weight.index_select(0, index[piece])
        found = part_of(opened, pointwise, None if z is None else z[piece], own, sizes, table)
        for kind, target, value in zip(opened, out, found, strict=True):
            if kind != WEIGHT:
                target[piece] = value
            elif sizes.species == 1:
                total = value.sum(0, keepdim=True) if total is None else total + value.sum(0)
            else:
                total = torch.zeros_like(target) if total is None else total
                total.index_add_(0, index[piece], value)
    return [
        target if kind != WEIGHT else target.zero_() if total is None else total
        for kind, target in zip(opened, out, strict=True)
    ]


def shape(kind: int, x: Tensor, sizes: Sizes) -> tuple[int, ...]:
    """Shape of what is open."""
    nodes, _, channels = x.shape
    if kind == WEIGHT:
        return sizes.species, sizes.orders, sizes.degrees, channels
    return nodes, sizes.rows_out if kind == RESULT else sizes.rows_in, channels


def _pieces(x: Tensor, table: Tables) -> list[slice]:
    node = table.values_in.shape[0] * x.shape[2] * x.element_size()
    size = max(1, _BYTES.get(x.device.type, 1 << 27) // max(node, 1))
    return [slice(first, min(first + size, x.shape[0])) for first in range(0, x.shape[0], size)]


def _each(
    opened: Sequence[int],
    fields: Sequence[Tensor],
    z: Tensor | None,
    weight: Tensor | None,
    sizes: Sizes,
    table: Tables,
) -> list[Tensor]:
    """Every degree of a power has its own weight: an analysis for each power, but the first needs none."""
    k, x = len(fields) - 1, fields[0]
    values = [table.values_in @ f for f in fields] if sizes.orders > 1 else []
    tangent = math.prod(values[2:], start=values[1]) if k and values else None
    found: dict[int, Tensor] = {}
    if FIELD in opened:
        assert z is not None  # only what is open is missing
        assert weight is not None
        found[FIELD] = _field(values, tangent, z, weight, k, sizes, table)
    if RESULT in opened or WEIGHT in opened:
        powers = _analyses(fields, values, tangent, sizes, table)
        if RESULT in opened:
            assert weight is not None
            result = x.new_zeros(x.shape[0], sizes.rows_out, x.shape[2])
            for n, power in powers.items():
                result.addcmul_(power, weight[:, n - 1])
            found[RESULT] = result
        if WEIGHT in opened:
            assert z is not None
            none = x.new_zeros(x.shape[0], sizes.degrees, x.shape[2])
            orders = range(1, sizes.orders + 1)
            parts = [table.pool @ (powers[n] * z) if n in powers else none for n in orders]
            found[WEIGHT] = torch.stack(parts, dim=1)
    return [found[kind] for kind in opened]


def _field(
    values: list[Tensor],
    tangent: Tensor | None,
    z: Tensor,
    weight: Tensor,
    k: int,
    sizes: Sizes,
    table: Tables,
) -> Tensor:
    """By one more tangent, k of them being filled: Horner's scheme from the highest power down."""
    total: Tensor | None = None
    lowest = max(k + 1, 2)
    for n in range(sizes.orders, lowest - 1, -1):
        cotangent = table.values_out @ (weight[:, n - 1] * math.perm(n, k + 1) * z)
        total = cotangent if total is None else cotangent.addcmul_(total, values[0])
    if total is None:
        out = z.new_zeros(z.shape[0], sizes.rows_in, z.shape[2])
    else:
        factor = values[0] if tangent is None else tangent
        out = table.adjoint_in @ total.mul_(factor)
    if not k:
        rows = min(sizes.rows_in, sizes.rows_out)
        out[:, :rows].addcmul_(z[:, :rows], weight[:, 0, :rows])
    return out


def _analyses(
    fields: Sequence[Tensor], values: list[Tensor], tangent: Tensor | None, sizes: Sizes, table: Tables
) -> dict[int, Tensor]:
    """Rows of n! / (n - k)! X^(n - k) times the tangents, for every power n that has any."""
    k, found = len(fields) - 1, {}
    if k < 2:
        found[1] = _cut(fields[k], sizes)
    power: Tensor | None = None
    for n in range(max(k, 2), sizes.orders + 1):
        if power is not None:
            power = power * values[0] if power is tangent else power.mul_(values[0])
        elif k > 1:
            power = tangent
        else:
            power = values[0] * (values[0] if tangent is None else tangent)
        assert power is not None  # there are k > 1 tangents, or two factors
        found[n] = table.adjoint_out @ power
        if k:
            found[n].mul_(math.perm(n, k))
    return found


def _cut(x: Tensor, sizes: Sizes) -> Tensor:
    """The rows of the result that a field has itself."""
    missing = sizes.rows_out - x.shape[1]
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x[:, : sizes.rows_out]


def _shared(
    opened: Sequence[int],
    fields: Sequence[Tensor],
    z: Tensor | None,
    weight: Tensor | None,
    sizes: Sizes,
    table: Tables,
) -> list[Tensor]:
    """All degrees of a power have one weight: the polynomial is summed at the points, and analysed once."""
    k, found = len(fields) - 1, {}
    x, *others = [table.values_in @ f for f in fields]
    tangent = math.prod(others[1:], start=others[0]) if others else None
    if RESULT in opened:
        assert weight is not None  # only what is open is missing
        total = _horner(x, weight, k)
        total = total if tangent is None else total * tangent
        found[RESULT] = table.adjoint_out @ total.expand_as(x)
    if z is None:
        return [found[kind] for kind in opened]
    cotangent = table.values_out @ z
    cotangent = cotangent if tangent is None else cotangent.mul_(tangent)
    if FIELD in opened:
        assert weight is not None
        found[FIELD] = table.adjoint_in @ (_horner(x, weight, k + 1) * cotangent)
    if WEIGHT in opened:
        cotangent.mul_(table.weight)
        by_weight = x.new_zeros(x.shape[0], sizes.orders, 1, x.shape[2])
        for n in range(max(k, 1), sizes.orders + 1):
            cotangent = cotangent.mul_(x) if n > k else cotangent
            by_weight[:, n - 1, 0] = cotangent.sum(1) * math.perm(n, k)
        found[WEIGHT] = by_weight
    return [found[kind] for kind in opened]


def _horner(x: Tensor, weight: Tensor, k: int) -> Tensor:
    """The k-th derivative of the polynomial with these weights (nodes or 1, orders, 1, channels)."""
    orders = range(weight.shape[1], max(k, 1) - 1, -1)
    coefficients = [weight[:, n - 1] * math.perm(n, k) for n in orders]
    coefficients += [torch.zeros_like(weight[:, 0])] if k == 0 or not coefficients else []
    total = coefficients[0] * x if len(coefficients) > 1 else coefficients[0].expand(x.shape[0], *x.shape[1:])
    for n, coefficient in enumerate(coefficients[1:], 2):
        total = total.add_(coefficient)
        total = total.mul_(x) if n < len(coefficients) else total
    return total
