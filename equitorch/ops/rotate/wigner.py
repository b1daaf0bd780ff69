"""The rows of Wigner matrices that an edge needs, differentiable without a derivative of the matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import traced
from equitorch.ops.rotate.frames import edge_frames
from equitorch.reps.angular_momentum import so3_generators
from equitorch.reps.wigner import wigner_D_all


def kept_rows(lmax: int, mmax: int) -> list[int]:
    """Number of rows |m| <= M of each degree.

    >>> kept_rows(3, 1)
    [1, 3, 3, 3]
    """
    return [2 * min(l, mmax) + 1 for l in range(lmax + 1)]


def compact_wigner(vectors: Tensor, lmax: int, mmax: int, frames: Tensor | None = None) -> Tensor:
    r"""The rows |m| <= M of the Wigner matrices that turn each edge onto the polar axis, degree by degree.

    As a function of the vector they jump with the frame. What commutes with rolls about the edge does not see
    it, and its derivative follows from that of the direction n alone: with G the generators,

    .. math::
        \frac{\partial E}{\partial v} = \frac{n \times \tau}{|v|}, \qquad
        \tau_k = \sum \frac{\partial E}{\partial D} \cdot (D G_k)

    so no derivative runs through the matrices, nor through the frame. It is exact, to any order, if and only
    if E does not change under rolls; otherwise it is the part of the derivative that no roll can change.

    Args:
        vectors: of the edges, need not have unit length.
        lmax: highest degree L.
        mmax: highest order M of the rows that are kept.
        frames: rotations R with R v / |v| = (0, 1, 0), to choose others than :func:`edge_frames`.

    Shape:
        vectors: (edges, 3), frames: (edges, 3, 3) -> (edges, sum over l of kept rows times 2 l + 1)

    Raises:
        ValueError: if there is not one frame for each edge.

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN: edge frames). The derivative is that of a rigid turn.

    >>> compact_wigner(torch.randn(5, 3), 4, 2).shape
    torch.Size([5, 115])
    """
    if frames is not None and tuple(frames.shape) != (*vectors.shape[:1], 3, 3):
        raise ValueError(
            f"frames of edges have the shape (edges, 3, 3), here ({vectors.shape[0]}, 3, 3), "
            f"got {tuple(frames.shape)}"
        )
    out: Tensor = (_op if traced(vectors) else _Wigner.apply)(vectors, frames, lmax, mmax)
    return out


def _values(vectors: Tensor, frames: Tensor | None, lmax: int, mmax: int) -> Tensor:
    frames = edge_frames(vectors) if frames is None else frames
    blocks = [
        matrix[:, l - min(l, mmax) : l + min(l, mmax) + 1].flatten(1)
        for l, matrix in enumerate(wigner_D_all(lmax, frames.to(vectors)))
    ]
    return torch.cat(blocks, dim=1)


def _fake(vectors: Tensor, frames: Tensor | None, lmax: int, mmax: int) -> Tensor:
    entries = sum(rows * (2 * l + 1) for l, rows in enumerate(kept_rows(lmax, mmax)))
    return vectors.new_empty(vectors.shape[0], entries)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.degrees = inputs[2:]
    ctx.save_for_backward(inputs[0], output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    vectors, matrices = ctx.saved_tensors  # the matrices are this function's result, with its history
    square = vectors.square().sum(-1, keepdim=True)
    there = square > 0
    turn = torch.linalg.cross(vectors, torque(grad, matrices, *ctx.degrees))
    return turn * there / torch.where(there, square, 1.0), None, None, None


class _Wigner(torch.autograd.Function):
    generate_vmap_rule = True
    forward = staticmethod(_values)
    setup_context = staticmethod(_keep)
    backward = staticmethod(_backward)


_LIB = torch.library.Library("equitorch", "FRAGMENT")  # kept: its end would unregister the operator
_LIB.define(
    "compact_wigner(Tensor vectors, Tensor? frames, int lmax, int mmax) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIB.impl("compact_wigner", _values, "CompositeExplicitAutograd")
torch.library.register_fake("equitorch::compact_wigner", _fake, lib=_LIB)
torch.library.register_autograd("equitorch::compact_wigner", _backward, setup_context=_keep, lib=_LIB)
_op = torch.ops.equitorch.compact_wigner.default


def torque(grad: Tensor, matrices: Tensor, lmax: int, mmax: int) -> Tensor:
    """How a number changes when all its edges' frames turn about the axes x, y, z of space, undone.

    Args:
        grad: the number's derivative by the compact matrices.
        matrices: themselves, as :func:`compact_wigner` gives them.
        lmax: as there.
        mmax: as there.

    Shape:
        (edges, kept entries), twice -> (edges, 3)

    >>> torque(torch.ones(2, 10), torch.ones(2, 10), 1, 1).shape
    torch.Size([2, 3])
    """
    total, first = matrices.new_zeros(matrices.shape[0], 3), 1
    for l, rows in enumerate(kept_rows(lmax, mmax)[1:], start=1):
        size = rows * (2 * l + 1)
        g, block = (t[:, first : first + size].unflatten(1, (rows, 2 * l + 1)) for t in (grad, matrices))
        generators = so3_generators(l).to(matrices)
        overlap = block.mT @ g  # (edges, j, i): how much of the matrix's column j moves into i
        total = total + torch.einsum("eji,kji->ek", overlap, generators)
        first += size
    return total
