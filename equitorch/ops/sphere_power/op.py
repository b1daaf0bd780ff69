"""``sphere_polynomial`` as layers call it, and as PyTorch's dispatcher, compiler and autograd see it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import autocasting, fused, traced
from equitorch.ops.indices import expect_indices
from equitorch.ops.multilinear import Derivative, with_derivatives
from equitorch.ops.sphere_power import grid, reference
from equitorch.ops.sphere_power.grid import FIELD, RESULT, WEIGHT
from equitorch.ops.sphere_power.reference import Sizes


def sphere_polynomial(x: Tensor, weight: Tensor, index: Tensor, lmax_out: int) -> Tensor:
    r"""A polynomial of a function on the sphere, point by point: the function under ``GauntManyBody``.

    .. math:: z_{l m} = \sum_n W_{s n l} \int Y_{l m} \, X^n, \qquad X = \sum_{l m} x_{l m} Y_{l m}

    with orthonormal harmonics Y, the species s of a node, and powers n = 1, 2, .... Integrals are exact.
    Differentiable to any order; values at points are kept for no derivative.

    Args:
        x: rows of the functions.
        weight: of each power and degree; with one degree, all degrees of a power share it, and a single
            analysis serves all powers.
        index: the species of each node, int64.
        lmax_out: highest degree of the result.

    Shape:
        x: (nodes, rows, channels), weight: (species, orders, lmax_out + 1 or 1, channels), index: (nodes,)
        -> (nodes, (lmax_out + 1)^2, channels)

    Raises:
        ValueError: if the shapes do not belong together, or ``index`` holds no species.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216 (many-body products as products of functions).

    >>> x, weight = torch.randn(5, 4, 2), torch.ones(3, 2, 1, 2)  # x + x^2 for three species
    >>> sphere_polynomial(x, weight, torch.zeros(5, dtype=torch.int64), 2).shape
    torch.Size([5, 9, 2])
    """
    sizes = _sizes(x, weight, index, lmax_out)
    expect_indices("the index of species", index, weight.shape[0])
    if not traced(x, weight, index) and not fused(x, weight):
        with torch.autocast(x.device.type, enabled=False) if autocasting(x) else contextlib.nullcontext():
            return reference.sphere_polynomial(x, weight, index, sizes)
    return _form(RESULT, [x], None, weight, index, sizes)


def _sizes(x: Tensor, weight: Tensor, index: Tensor, lmax_out: int) -> Sizes:
    lmax_in = math.isqrt(x.shape[1]) - 1 if x.ndim == 3 else -1
    if lmax_out < 0:
        raise ValueError(f"sphere_polynomial expects lmax_out >= 0, got {lmax_out}")
    fits = x.ndim == 3 and x.shape[1] == (lmax_in + 1) ** 2 and index.shape == x.shape[:1]
    if not fits or lmax_in < 0 or weight.ndim != 4 or weight.shape[2] not in (1, lmax_out + 1):
        raise ValueError(
            "sphere_polynomial expects x of shape (nodes, (lmax + 1)^2, channels), a weight of shape "
            f"(species, orders, {lmax_out + 1} or 1, channels) and an index of shape (nodes,), "
            f"got {tuple(x.shape)}, {tuple(weight.shape)} and {tuple(index.shape)}"
        )
    if weight.shape[3] != x.shape[2]:
        raise ValueError(
            f"sphere_polynomial expects weights of the {x.shape[2]} channels of x, got {weight.shape[3]}"
        )
    return Sizes(lmax_in, lmax_out, weight.shape[0], weight.shape[1], weight.shape[2])


def _form(
    opened: int, fields: list[Tensor], z: Tensor | None, weight: Tensor | None, index: Tensor, sizes: Sizes
) -> Tensor:
    """The derivative of the form of ``grid`` by one open slot, with derivatives of its own."""
    rest = [t for t in (z, weight) if t is not None]
    if traced(*fields, *rest, index):
        return _op(fields, rest, index, opened, list(sizes))
    if opened == FIELD:
        out: Tensor = _Gradient.apply(index, sizes, len(fields), *fields, *rest)
        return out
    plain = _plain(fields), _plain(z), _plain(weight)
    (value,) = grid.run([opened], *plain, index, sizes)
    operands = [*fields, *rest]
    derivatives: list[Derivative] = [
        (t, partial(_derivative, k, opened, len(fields), index, sizes), tuple(operands))
        for k, t in enumerate(operands)
    ]
    return with_derivatives(value, derivatives)  # a node for each: forces need none of the weights


def _derivative(
    k: int, opened: int, count: int, index: Tensor, sizes: Sizes, grad: Tensor, *operands: Tensor
) -> Tensor:
    """Cotangent of operand k of a form, if ``grad`` is that of its value."""
    fields = list(operands[:count])
    z, weight = _slots(opened, operands[count:])
    z, weight = grad if opened == RESULT else z, grad if opened == WEIGHT else weight
    more = [*fields, grad] if opened == FIELD else fields
    if k == 0:
        return _form(FIELD, more, z, weight, index, sizes)
    if k < count and opened == FIELD:
        return _form(FIELD, [*fields[:k], *fields[k + 1 :], grad], z, weight, index, sizes)
    if k < count:
        return _form(FIELD, fields[:k] + fields[k + 1 :], z, weight, index, sizes)
    if opened == RESULT or (opened == FIELD and k > count):
        return _form(WEIGHT, more, z, None, index, sizes)
    return _form(RESULT, more, None, weight, index, sizes)


def _slots(opened: int, rest: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """What is in the slots of z and the weights, None in the open one."""
    if opened == FIELD:
        return rest[0], rest[1]
    return (None, rest[0]) if opened == RESULT else (rest[0], None)


class _Gradient(torch.autograd.Function):
    """The form with one more tangent open, whose derivatives share their values at points."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, sizes: Sizes, count: int, *operands: Tensor) -> Tensor:
        ctx.sizes, ctx.count = sizes, count
        ctx.save_for_backward(index, *operands)
        *fields, z, weight = operands
        return grid.run([FIELD], _plain(fields), z.detach(), weight.detach(), index, sizes)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        index, *operands = ctx.saved_tensors
        wanted, count, sizes = ctx.needs_input_grad[3:], ctx.count, ctx.sizes
        if torch.is_grad_enabled():  # third derivatives are to follow: each by itself
            found = [
                _derivative(k, FIELD, count, index, sizes, grad, *operands) if want else None
                for k, want in enumerate(wanted)
            ]
            return None, None, None, *found
        *fields, z, weight = operands
        kinds = [k for k, want in ((FIELD, wanted[0]), (RESULT, wanted[-2]), (WEIGHT, wanted[-1])) if want]
        values = dict(
            zip(kinds, grid.run(kinds, [*fields, grad], z, weight, index, sizes), strict=True)
            if kinds
            else ()
        )
        tangents = [
            _derivative(k, FIELD, count, index, sizes, grad, *operands) if wanted[k] else None
            for k in range(1, count)
        ]
        return None, None, None, values.get(FIELD), *tangents, values.get(RESULT), values.get(WEIGHT)


def _plain(x: Any) -> Any:
    """Without history."""
    if isinstance(x, Tensor):
        return x.detach()
    return None if x is None else [t.detach() for t in x]


def _dispatched(
    fields: list[Tensor], rest: list[Tensor], index: Tensor, opened: int, sizes: list[int]
) -> Tensor:
    z, weight = _slots(opened, rest)
    return grid.run([opened], fields, z, weight, index, Sizes(*sizes))[0]


def _fake(fields: list[Tensor], rest: list[Tensor], index: Tensor, opened: int, sizes: list[int]) -> Tensor:
    return fields[0].new_empty(grid.shape(opened, fields[0], Sizes(*sizes)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    fields, rest, index, ctx.opened, sizes = inputs
    ctx.sizes, ctx.count, ctx.given = Sizes(*sizes), len(fields), len(rest)
    ctx.save_for_backward(index, *fields, *rest)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    index, *operands = ctx.saved_tensors
    wanted: list[bool] = []
    for w, length in zip(ctx.needs_input_grad[:2], (ctx.count, ctx.given), strict=True):
        wanted += w if isinstance(w, (list, tuple)) else [w] * length
    found = [
        _derivative(k, ctx.opened, ctx.count, index, ctx.sizes, grad, *operands) if want else None
        for k, want in enumerate(wanted)
    ]
    return found[: ctx.count], found[ctx.count :], None, None, None


def _batched(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    """One more axis is merged into that of the nodes, or of the species for weights."""
    fields, rest, index, opened, sizes = arguments
    size, species = info.batch_size, sizes[2]

    def merged(x: Tensor, dim: int | None) -> Tensor:
        full = x.movedim(dim, 0) if dim is not None else x[None].expand(size, *x.shape)
        return full.flatten(0, 1)

    fields = [merged(x, dim) for x, dim in zip(fields, dims[0], strict=True)]
    rest = [merged(x, dim) for x, dim in zip(rest, dims[1], strict=True)]
    shift = torch.arange(size, device=index.device).repeat_interleave(fields[0].shape[0] // size) * species
    sizes = [*sizes[:2], species * size, *sizes[3:]]
    out = _op(fields, rest, merged(index, dims[2]) + shift, opened, sizes)
    return out.unflatten(0, (size, -1)), 0


_LIB = torch.library.Library("equitorch", "FRAGMENT")  # kept: its end would unregister the operator
_LIB.define(
    "sphere_polynomial(Tensor[] fields, Tensor[] rest, Tensor index, int opened, int[] sizes) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIB.impl("sphere_polynomial", _dispatched, "CompositeExplicitAutograd")
torch.library.register_fake("equitorch::sphere_polynomial", _fake, lib=_LIB)
torch.library.register_autograd("equitorch::sphere_polynomial", _backward, setup_context=_keep, lib=_LIB)
_op = torch.ops.equitorch.sphere_polynomial.default
torch.library.register_vmap("equitorch::sphere_polynomial", _batched, lib=_LIB)
