"""``so2_linear`` as layers call it, with its derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.multilinear import Derivative, with_derivatives, with_joint_derivatives
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
    there = [k for k, w in enumerate(weights) if w is not None]
    saved = tuple(w for w in weights if w is not None)
    derivatives: list[Derivative] = []
    derivatives.append((y, lambda g, e, *ws: _transposed(g, e, _at(there, ws, layout), layout), saved))
    for k, w in zip(there, saved, strict=True):
        derivatives.append((w, lambda g, e, y, k=k: _weight(k, y, g, e, layout), (y,)))
    if bias is not None:
        width = layout.blocks[0].width_out
        derivatives.append((bias, lambda g, e: torch.cat([e.sum(0), g[:, :width].sum(0)])))
    out, extra = with_joint_derivatives(values, derivatives)
    return out, extra


def _transposed(grad: Tensor, extra: Tensor, weights: Weights, layout: Layout) -> Tensor:
    value = strided.transposed(_rows(grad), _rows(extra), [_plain(w) for w in weights], layout)
    there = [k for k, w in enumerate(weights) if w is not None]
    saved = tuple(w for w in weights if w is not None)
    derivatives: list[Derivative] = []
    derivatives.append((grad, lambda h, *ws: _forward(h, _at(there, ws, layout), None, layout)[0], saved))
    first, rows = layout.blocks[0], slice(layout.extra)
    if layout.extra and weights[0] is not None:
        derivatives.append((extra, lambda h, w: h[:, : first.width_in] @ w[rows].mT, (weights[0],)))
    for k, w in zip(there, saved, strict=True):
        derivatives.append((w, lambda h, g, e, k=k: _weight(k, h, g, e, layout), (grad, extra)))
    return with_derivatives(value, derivatives)


def _weight(k: int, y: Tensor, grad: Tensor, extra: Tensor, layout: Layout) -> Tensor:
    value = strided.weight(k, _rows(y), _rows(grad), _rows(extra), layout)

    def alone(h: Tensor) -> Weights:
        return [h if i == k else None for i in range(len(layout.blocks))]

    derivatives: list[Derivative] = []
    derivatives.append((y, lambda h, g, e: _transposed(g, e, alone(h), layout), (grad, extra)))
    derivatives.append((grad, lambda h, y: _forward(y, alone(h), None, layout)[0], (y,)))
    if k == 0 and layout.extra:
        width = layout.blocks[0].width_in
        derivatives.append((extra, lambda h, y: y[:, :width] @ h[: layout.extra].mT, (y,)))
    return with_derivatives(value, derivatives)


def _at(places: list[int], weights: Sequence[Tensor], layout: Layout) -> Weights:
    """The weights at their places among the blocks, none at the others."""
    found = dict(zip(places, weights, strict=True))
    return [found.get(k) for k in range(len(layout.blocks))]


def _plain(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach()


def _rows(x: Tensor) -> Tensor:
    """Without history, and with columns next to each other, as the matrix products want them."""
    return x.detach().contiguous()
