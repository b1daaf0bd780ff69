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
        value: shape (1, ..., degrees, channels).
        spread: a constant factor where a row has a degree, else 0. Shape (..., rows, degrees).
    """

    value: Tensor
    spread: Tensor


def weighted_product(x: Tensor, y: Tensor, weights: Sequence[Weight], form: Form) -> Tensor | None:
    """``w3 * product(w1 * x, w2 * y)`` row by row, differentiable to any order; None where PyTorch traces.

    The same as its parts, with a fraction of their calls.

    Args:
        x: first feature.
        y: second feature.
        weights: of x, y and the result; of "both" with a first axis for products and brackets.
        form: degrees, parity and backend. With "both", features have natural rows, then pseudo ones, and
            weights of the result count half.

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
        rows = _rows(spreads, values)
        outs, kept = computed(_operands(x, y, rows, form), PROGRAMS[form.parity], form)
        results = _results(outs, form)
        ctx.form, ctx.spreads, ctx.kept = form, spreads, [len(parts) for parts in kept]
        ctx.save_for_backward(*given, *rows, *results, *(part for parts in kept for part in parts))
        return _total(results, rows[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved, form, needed = iter(ctx.saved_tensors), ctx.form, ctx.needs_input_grad[2:]
        x, y, *values = (next(saved) for _ in range(5))
        program = PROGRAMS[form.parity]
        count = len(program.requests)
        rows, results = [next(saved) for _ in range(2 + count)], [next(saved) for _ in range(count)]
        known = [[next(saved) for _ in range(parts)] for parts in ctx.kept]
        if torch.is_grad_enabled():  # everything anew, with history
            rows = _rows(ctx.spreads, values)
            held, known = _operands(x, y, rows, form), []
            results = _results(gaunt(held, program, form), form)
        else:
            held = _operands(x, y, rows, form)
        wanted = tuple(n for n in range(2) if needed[n] or needed[2 + n])
        found: list[Tensor | None] = [None] * 5
        if wanted:
            cotangents = _cotangents(grad, rows[2:], form)
            derivative = program.derivative(wanted, tuple(range(count)))
            for n, own in zip(wanted, gaunt([*held, *cotangents], derivative, form, known), strict=True):
                cotangent = _unmixed(own) if form.parity == "both" else own
                found[n] = cotangent * rows[n] if needed[n] else None
                if needed[2 + n]:
                    found[2 + n] = (ctx.spreads[n].T @ ((x, y)[n] * cotangent).sum(0)).unsqueeze(0)
        if needed[4]:
            sums = torch.stack([(result * grad).sum(0) for result in results])
            own = ctx.spreads[2].mT @ (sums if form.parity == "both" else sums[0])
            found[4] = own.unsqueeze(0)
        return None, None, *found


def _rows(spreads: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """Weights of the rows of x, of y, and of each result."""
    one, two, three = (spread @ value[0] for spread, value in zip(spreads, values, strict=True))
    return [one, two, *(three.unbind() if three.ndim == 3 else (three,))]


def _operands(x: Tensor, y: Tensor, rows: Sequence[Tensor], form: Form) -> list[Tensor]:
    held = [x * rows[0], y * rows[1]]
    return [_mixed(tensor) for tensor in held] if form.parity == "both" else held


def _results(outs: Sequence[Tensor], form: Form) -> list[Tensor]:
    """Before they are weighed: of "both", the natural and pseudo rows of products, and of brackets."""
    return [_unmixed(outs[0]), _unmixed(outs[1], -1)] if form.parity == "both" else list(outs)


def _cotangents(grad: Tensor, rows: Sequence[Tensor], form: Form) -> list[Tensor]:
    own = [grad * row for row in rows]
    return [_mixed(own[0]), _mixed(own[1], -1)] if form.parity == "both" else own


def _total(results: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    out = results[0] * rows[0]
    return out if len(rows) == 1 else out.addcmul_(results[1], rows[1])


def _mixed(x: Tensor, sign: int = 1) -> Tensor:
    """Sums of natural and pseudo rows, and behind them their differences, as points of their own.

    Products of sums and of differences, and their brackets, contain those of all pairs of stacks.
    """
    natural, pseudo = x.chunk(2, dim=1)
    return torch.cat([natural + pseudo, natural - pseudo if sign > 0 else pseudo - natural])


def _unmixed(x: Tensor, sign: int = 1) -> Tensor:
    """The transpose of ``_mixed``; with -1 for brackets, where differences count the other way round."""
    both, other = x.chunk(2)
    first, second = both + other, both - other
    return torch.cat([first, second] if sign > 0 else [second, first], dim=1)
