"""``diagram_linear`` for weights that stay: everything but the feature is looked at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from equitorch.ops.backend import kernels_allowed, traced
from equitorch.ops.diagrams.linear import diagram_linear
from equitorch.ops.diagrams.op import kernel_for
from equitorch.ops.diagrams.program import LinearPlan


def prepared_linear(
    weights: Sequence[Tensor],
    plan: LinearPlan,
    n: int,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
) -> Callable[[Tensor], Tensor]:
    r"""``diagram_linear`` with these weights, from one tensor to one tensor, with as little to do as can be.

    The function reads the memory that the weights have now: what is written there counts, what is put in
    place of them does not. Any number of threads can call it, but neither a compiler nor ``torch.func`` can
    follow it.

    Args:
        weights: one for each of ``plan.pairs``; no gradient goes to them.
        plan: of one input and one output.
        n: dimension.
        bias: as there.
        scale: as there.

    Shape:
        (batch, n**k, channels_in) -> (batch, n**l, channels_out)

    >>> from equitorch.ops.diagrams import linear_plan
    >>> plan = linear_plan("S", 3, [1], [1])
    >>> apply = prepared_linear([torch.ones(pair.weight_shape(1, 1)) for pair in plan.pairs], plan, 3)
    >>> apply(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1)).flatten()  # each entry and the sum of all
    tensor([7., 8., 9.])
    """
    weights, bias = [w.detach() for w in weights], None if bias is None else bias.detach()
    run = _kernel(weights, bias, plan, n, scale)

    def apply(x: Tensor) -> Tensor:
        if run is not None and x.is_cpu and kernels_allowed():
            y = None if x.requires_grad and torch.is_grad_enabled() else run(x)
            if y is not None:
                return y
        return diagram_linear([x], weights, plan, n, bias=bias, scale=scale)[0]

    return apply


def _kernel(
    weights: Sequence[Tensor], bias: Tensor | None, plan: LinearPlan, n: int, scale: float
) -> Callable[[Tensor], Tensor | None] | None:
    given = [*weights] if bias is None else [*weights, bias]
    if not plan.single or not weights or any(w.dtype is not weights[0].dtype for w in given):
        return None
    kernel = None if traced(*given) else kernel_for(*given)
    if kernel is None or not all(w.is_cpu for w in given):
        return None
    found = kernel.prepared(weights, bias, plan.keys_in[0], plan.keys_out[0], n, plan.form, scale)
    return None if found is None else found.run
