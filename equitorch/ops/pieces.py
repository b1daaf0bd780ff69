"""Functions of many points, a few points at a time: what lies between input and result is never whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import traced

Pieces = Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


def by_pieces(
    function: Callable[..., Tensor], points: Sequence[Tensor], shared: Sequence[Tensor], size: int
) -> Tensor:
    """Evaluate ``function(*points, *shared)``, which treats every point by itself, ``size`` points at a time.

    Nothing is kept for the derivatives but the arguments: each derivative, of any order, computes its piece
    again. Recorded programs (``torch.compile``) and ``torch.func`` see the function as it is.

    Args:
        function: a differentiable function of tensors.
        points: tensors with the points along their first axis.
        shared: tensors that all points use, such as weights.
        size: points in a piece.

    Shape:
        points: (n, ...) each -> (n, ...)

    >>> by_pieces(lambda x, w: x.exp() * w, [torch.zeros(5, 2)], [torch.tensor(3.0)], 2).shape
    torch.Size([5, 2])
    """
    tensors = [*points, *shared]
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    if transformed or traced(*tensors) or points[0].shape[0] <= size:
        return function(*points, *shared)

    def run(xs: list[Tensor], ws: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [function(*xs, *ws)], []

    out: tuple[Tensor, ...] = _Pieces.apply(run, size, len(points), *tensors)
    return out[0]


class _Pieces(torch.autograd.Function):
    """Results point by point, and results summed over the points; its derivative is another one of these."""

    @staticmethod
    def forward(ctx: Any, run: Pieces, size: int, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.run, ctx.size, ctx.count = run, size, count
        ctx.save_for_backward(*tensors)
        plain = [t.detach() for t in tensors]
        rows: list[Tensor] = []
        sums: list[Tensor] = []
        for k, piece in enumerate(zip(*[x.split(size) for x in plain[:count]], strict=True)):
            found, total = run(list(piece), plain[count:])
            rows = rows or [y.new_empty(plain[0].shape[0], *y.shape[1:]) for y in found]
            for y, part in zip(rows, found, strict=True):
                y[k * size : (k + 1) * size] = part  # while it is in the cache
            sums = [a + b for a, b in zip(sums, total, strict=True)] if sums else total
        ctx.rows = len(rows)
        return (*rows, *sums)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[3:]
        run = _derivative(ctx.run, ctx.count, ctx.rows, wanted)
        points = [*tensors[: ctx.count], *grads[: ctx.rows]]
        shared = [*tensors[ctx.count :], *grads[ctx.rows :]]
        found = iter(_Pieces.apply(run, ctx.size, len(points), *points, *shared))
        return None, None, None, *[next(found) if want else None for want in wanted]


def _derivative(run: Pieces, count: int, rows: int, wanted: Sequence[bool]) -> Pieces:
    """The transposed derivative of ``run``, in the same form: cotangents are arguments like the others."""

    def transposed(xs: list[Tensor], ws: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        create_graph = torch.is_grad_enabled()  # off for the derivative itself, on inside the next one
        cotangents = [*xs[count:], *ws[len(wanted) - count :]]
        values = [*xs[:count], *ws[: len(wanted) - count]]
        values = [
            v if v.requires_grad or not want else v.detach().requires_grad_()
            for v, want in zip(values, wanted, strict=True)
        ]
        with torch.enable_grad():
            found_rows, found_sums = run(values[:count], values[count:])
        outputs = [
            (y, g) for y, g in zip([*found_rows, *found_sums], cotangents, strict=True) if y.requires_grad
        ]
        inputs = [v for v, want in zip(values, wanted, strict=True) if want]
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if outputs:
            ys, gs = zip(*outputs, strict=True)
            found = torch.autograd.grad(ys, inputs, gs, create_graph=create_graph, allow_unused=True)
        full = [torch.zeros_like(v) if g is None else g for v, g in zip(inputs, found, strict=True)]
        of_points = sum(wanted[:count])
        return full[:of_points], full[of_points:]

    return transposed


def recomputed(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Evaluate ``function(*tensors)`` and keep nothing for its derivatives, of any order, but the arguments.

    Recorded programs and ``torch.func`` see the function as it is.

    Args:
        function: a differentiable function of tensors; it computes the same at every call.
        tensors: all that it depends on and that may need a gradient.

    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> torch.autograd.grad(recomputed(lambda x: x.exp().log() ** 2, [x]), x)[0]
    tensor(4.)
    """
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    if transformed or traced(*tensors) or not torch.is_grad_enabled():
        return function(*tensors)

    def run(_: list[Tensor], ws: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [], [function(*ws)]

    out: tuple[Tensor, ...] = _Pieces.apply(run, 1, 1, tensors[0].new_empty(1), *tensors)
    return out[0]
