"""``so2_linear`` as layers call it, with its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.multilinear import with_derivatives, with_joint_derivatives
from equitorch.ops.so2 import strided
from equitorch.ops.so2.reference import Layout
from equitorch.ops.so2.reference import so2_linear as reference

Weights = Sequence[Tensor | None]


def so2_linear(
    y: Tensor, weights: Sequence[Tensor], bias: Tensor | None, layout: Layout
) -> tuple[Tensor, Tensor]:
    r"""Block-diagonal matrices on the columns of messages, real ones or complex ones.

    .. math:: z_{+} + i z_{-} = (W_r + i W_i) \, (y_{+} + i y_{-})

    for two runs of columns that belong to the orders +m and -m. See ``reference.so2_linear`` for arguments.

    Shape:
        y: (edges, width_in) -> (edges, width_out) and (edges, extra)

    Raises:
        ValueError: if the shapes do not belong together.

    >>> layout = Layout.build([(0, 2, 3), (2, 1, 1)], extra=1)
    >>> weights = [torch.ones(layout.weight_shape(k)) for k in range(2)]
    >>> so2_linear(torch.ones(5, 4), weights, None, layout)[0][0].tolist()
    [2.0, 2.0, 2.0, 0.0, 2.0]
    """
    shapes = [layout.weight_shape(k) for k in range(len(layout.blocks))]
    if y.ndim != 2 or y.shape[1] != layout.width_in or [tuple(w.shape) for w in weights] != shapes:
        raise ValueError(
            f"so2_linear expects y of shape (edges, {layout.width_in}) and weights of shapes {shapes}, got "
            f"{tuple(y.shape)} and {[tuple(w.shape) for w in weights]}"
        )
    if traced(y, *weights) or not fused(y, *weights):
        return reference(y, weights, bias, layout)
    return _forward(y, weights, bias, layout)


def _forward(y: Tensor, weights: Weights, bias: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:
    plain = None if bias is None else bias.detach()
    values = strided.forward(_rows(y), [_plain(w) for w in weights], plain, layout)
    derivatives: list[tuple[Tensor, Callable[..., Tensor]]] = []
    derivatives.append((y, lambda g, e: _transposed(g, e, weights, layout)))
    for k, w in enumerate(weights):
        if w is not None:
            derivatives.append((w, lambda g, e, k=k: _weight(k, y, g, e, layout)))
    if bias is not None:
        width = layout.blocks[0].width_out
        derivatives.append((bias, lambda g, e: torch.cat([e.sum(0), g[:, :width].sum(0)])))
    out, extra = with_joint_derivatives(values, _guarded(derivatives))
    return out, extra


def _transposed(grad: Tensor, extra: Tensor, weights: Weights, layout: Layout) -> Tensor:
    value = strided.transposed(_rows(grad), _rows(extra), [_plain(w) for w in weights], layout)
    derivatives: list[tuple[Tensor, Callable[..., Tensor]]] = []
    derivatives.append((grad, lambda h: _forward(h, weights, None, layout)[0]))
    first, rows = layout.blocks[0], slice(layout.extra)
    if layout.extra and weights[0] is not None:
        derivatives.append((extra, lambda h, w=weights[0]: h[:, : first.width_in] @ w[rows].mT))
    for k, w in enumerate(weights):
        if w is not None:
            derivatives.append((w, lambda h, k=k: _weight(k, h, grad, extra, layout)))
    return with_derivatives(value, _guarded(derivatives))


def _weight(k: int, y: Tensor, grad: Tensor, extra: Tensor, layout: Layout) -> Tensor:
    value = strided.weight(k, _rows(y), _rows(grad), _rows(extra), layout)

    def alone(h: Tensor) -> Weights:
        return [h if i == k else None for i in range(len(layout.blocks))]

    derivatives: list[tuple[Tensor, Callable[..., Tensor]]] = []
    derivatives.append((y, lambda h: _transposed(grad, extra, alone(h), layout)))
    derivatives.append((grad, lambda h: _forward(y, alone(h), None, layout)[0]))
    if k == 0 and layout.extra:
        width = layout.blocks[0].width_in
        derivatives.append((extra, lambda h: y[:, :width] @ h[: layout.extra].mT))
    return with_derivatives(value, _guarded(derivatives))


def _guarded(
    derivatives: list[tuple[Tensor, Callable[..., Tensor]]],
) -> list[tuple[Tensor, Callable[..., Tensor]]]:
    """The same derivatives; they refuse to use an operand that was changed in place since."""
    operands = [x for x, _ in derivatives]
    versions = [x._version for x in operands]

    def guarded(derivative: Callable[..., Tensor], *cotangents: Tensor) -> Tensor:
        if [x._version for x in operands] != versions:
            raise RuntimeError("an operand of so2_linear was changed in place before its backward pass")
        return derivative(*cotangents)

    return [(x, partial(guarded, derivative)) for x, derivative in derivatives]


def _plain(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach()


def _rows(x: Tensor) -> Tensor:
    """Without history, and with columns next to each other, as the matrix products want them."""
    return x.detach().contiguous()
