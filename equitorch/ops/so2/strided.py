"""``so2_linear`` and its derivatives by matrix products that read and write columns where they lie.

A product of complex matrices takes three real ones: with t = W_r (a + b), the real part W_r a - W_i b is
t - (W_r + W_i) b, the imaginary part W_r b + W_i a is t + (W_i - W_r) a.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.so2.reference import COMPLEX, Block, Layout

Weights = Sequence[Tensor | None]


def forward(y: Tensor, weights: Weights, bias: Tensor | None, layout: Layout) -> tuple[Tensor, Tensor]:
    """As the reference; a block without a weight gives zeros."""
    out = y.new_empty(y.shape[0], layout.width_out)
    extra = y.new_empty(y.shape[0], layout.extra)
    for k, (block, weight) in enumerate(zip(layout.blocks, weights, strict=True)):
        source, target = _runs(y, block, into=False), _runs(out, block, into=True)
        if weight is None:
            _zero(target if k else [*target, extra])
        elif block.kind == COMPLEX:
            _complex(source, weight.mT, target)
        elif k == 0:
            _affine(source[0], weight, bias, target[0], slice(layout.extra, None))
            _affine(source[0], weight, bias, extra, slice(layout.extra))
        else:
            _real(source, weight.mT, target)
    return out, extra


def transposed(grad: Tensor, extra: Tensor, weights: Weights, layout: Layout) -> Tensor:
    """The derivative by the message: every matrix transposed, every number conjugated."""
    out = grad.new_empty(grad.shape[0], layout.width_in)
    for k, (block, weight) in enumerate(zip(layout.blocks, weights, strict=True)):
        source, target = _runs(grad, block, into=True), _runs(out, block, into=False)
        if weight is None:
            _zero(target)
        elif block.kind == COMPLEX:
            _complex(source, torch.stack([weight[0], -weight[1]]), target)
        elif k == 0:
            torch.mm(source[0], weight[layout.extra :], out=target[0])
            if layout.extra:
                target[0].addmm_(extra, weight[: layout.extra])
        else:
            _real(source, weight, target)
    return out


def weight(k: int, y: Tensor, grad: Tensor, extra: Tensor, layout: Layout) -> Tensor:
    """The derivative by the weight of block ``k``."""
    block = layout.blocks[k]
    x, g = _runs(y, block, into=False), _runs(grad, block, into=True)
    out = y.new_empty(layout.weight_shape(k))
    if block.kind == COMPLEX:
        first, second = g[0].mT @ x[0], g[1].mT @ x[1]
        torch.add(first, second, out=out[0])
        torch.sub(second, first, out=out[1])
        out[1].addmm_((g[0] + g[1]).mT, x[0] - x[1])
    elif k == 0:
        torch.mm(g[0].mT, x[0], out=out[layout.extra :])
        if layout.extra:
            torch.mm(extra.mT, x[0], out=out[: layout.extra])
    else:
        torch.mm(g[0].mT, x[0], out=out)
        for a, b in zip(g[1:], x[1:], strict=True):
            out.addmm_(a.mT, b)
    return out


def _runs(x: Tensor, block: Block, *, into: bool) -> list[Tensor]:
    """The runs of columns of a block, as views."""
    first, width = (block.first_out, block.width_out) if into else (block.first_in, block.width_in)
    return [x[:, first + i * width : first + (i + 1) * width] for i in range(block.runs)]


def _zero(runs: list[Tensor]) -> None:
    for run in runs:
        run.zero_()


def _affine(x: Tensor, matrix: Tensor, bias: Tensor | None, out: Tensor, rows: slice) -> None:
    if bias is None:
        torch.mm(x, matrix[rows].mT, out=out)
    else:
        torch.addmm(bias[rows], x, matrix[rows].mT, out=out)


def _real(source: list[Tensor], matrix: Tensor, target: list[Tensor]) -> None:
    for x, out in zip(source, target, strict=True):
        torch.mm(x, matrix, out=out)


def _complex(source: list[Tensor], matrix: Tensor, target: list[Tensor]) -> None:
    """Fill the runs of the target; the matrix has the shape (2, columns in, columns out)."""
    (a, b), (real, imag), (first, second) = source, matrix, target
    torch.mm(a + b, real, out=first)
    second.copy_(first)
    first.addmm_(b, real + imag, alpha=-1)
    second.addmm_(a, imag - real)
