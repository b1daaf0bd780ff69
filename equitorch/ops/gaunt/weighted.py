"""Products with weights of degrees as one step of autograd, where nothing is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equitorch.ops.backend import traced
from equitorch.ops.gaunt.form import Form
from equitorch.ops.gaunt.op import PROGRAMS, computed, gaunt


class Weight(NamedTuple):
    """Numbers for the rows of a feature: one for each degree and channel.

    Attributes:
        value: shape (1, degrees, channels).
        spread: a constant factor where a row has a degree, else 0. Shape (rows, degrees).
    """

    value: Tensor
    spread: Tensor


def weighted_product(x: Tensor, y: Tensor, weights: Sequence[Weight], form: Form) -> Tensor | None:
    """``w3 * product(w1 * x, w2 * y)`` row by row, differentiable to any order; None where PyTorch traces.

    The same as its parts, with a fraction of their calls.

    Args:
        x: first feature.
        y: second feature.
        weights: of x, y and the result.
        form: degrees, parity "even" or "odd", and backend.

    Shape:
        x: (points, rows, channels), y: (points, rows, channels) -> (points, rows, channels)
    """
    one, two, three = weights
    given = (x, y, one.value, two.value, three.value)
    if traced(*given) or torch._C._functorch.peek_interpreter_stack() is not None:
        return None
    out: Tensor = _Weighted.apply(form, [weight.spread for weight in weights], *given)
    return out


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Form, spreads: list[Tensor], *given: Tensor) -> Tensor:
        x, y, *values = given
        rows = [spread @ value[0] for spread, value in zip(spreads, values, strict=True)]
        (z,), kept = computed([x * rows[0], y * rows[1]], PROGRAMS[form.parity], form)
        ctx.form, ctx.spreads, ctx.kept = form, spreads, [len(parts) for parts in kept]
        ctx.save_for_backward(*given, *rows, z, *(part for parts in kept for part in parts))
        return z * rows[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, y, *values = ctx.saved_tensors[:5]
        rows, z, rest = ctx.saved_tensors[5:8], ctx.saved_tensors[8], iter(ctx.saved_tensors[9:])
        known = [[next(rest) for _ in range(count)] for count in ctx.kept]
        program, form, needed = PROGRAMS[ctx.form.parity], ctx.form, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            rows = tuple([spread @ value[0] for spread, value in zip(ctx.spreads, values, strict=True)])
            a, b = x * rows[0], y * rows[1]
            (z,), known = gaunt([a, b], program, form), []
        else:
            a, b = (x, y) if known else (x * rows[0], y * rows[1])  # known values stand for them
        wanted = tuple(n for n in range(2) if needed[n] or needed[2 + n])
        found: list[Tensor | None] = [None] * 5
        if wanted:
            cotangents = gaunt([a, b, grad * rows[2]], program.derivative(wanted, (0,)), form, known)
            for n, cotangent in zip(wanted, cotangents, strict=True):
                found[n] = cotangent * rows[n] if needed[n] else None
                if needed[2 + n]:
                    found[2 + n] = _gradient(ctx.spreads[n], (x, y)[n], cotangent)
        if needed[4]:
            found[4] = _gradient(ctx.spreads[2], z, grad)
        return None, None, *found


def _gradient(spread: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    """Of the value of a weight, by the cotangent of its products with x."""
    return (spread.T @ (x * cotangent).sum(0)).unsqueeze(0)
