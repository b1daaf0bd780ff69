"""Rotation into and out of the frames of edges, as layers call it."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.ops.edges import EdgePlan
from equitorch.ops.multilinear import Kernel, Multilinear
from equitorch.ops.rotate.reference import FEATURE, MESSAGE, fake
from equitorch.ops.rotate.reference import rotate as reference
from equitorch.ops.rotate.wigner import compact_wigner, kept_rows
from equitorch.reps.order import order_rows


def _cpu() -> Kernel:
    from equitorch.ops.rotate.cpu import rotate as kernel  # imports Numba

    return kernel


def _cuda() -> Kernel:
    from equitorch.ops.rotate.triton import rotate as kernel  # imports Triton

    return kernel


_rotate = Multilinear("rotate", reference=reference, fake=fake, cpu=_cpu, cuda=_cuda)


class EdgeRotation(NamedTuple):
    """The frames of a graph's edges, for one choice of degrees and orders; built once for all layers.

    Attributes:
        lmax: highest degree L of the features.
        mmax: highest order M that is kept in the edges' frames.
        wigner: kept rows of the Wigner matrices, degree by degree. Shape (edges, entries).
        terms: six lists of which entry joins which rows, int64.

    >>> rotation = EdgeRotation.build(torch.randn(5, 3), 4, 2)
    >>> rotation.rows, rotation.kept
    (25, 19)
    """

    lmax: int
    mmax: int
    wigner: Tensor
    terms: tuple[Tensor, ...]

    @classmethod
    def build(cls, vectors: Tensor, lmax: int, mmax: int, *, frames: Tensor | None = None) -> EdgeRotation:
        """Compute the matrices of edges with these vectors; see ``compact_wigner`` on their derivatives."""
        terms = tuple(t.to(vectors.device) for t in _terms(lmax, mmax))
        return cls(lmax, mmax, compact_wigner(vectors, lmax, mmax, frames), terms)

    @property
    def rows(self) -> int:
        """Rows of a feature, degree-major."""
        return (self.lmax + 1) ** 2

    @property
    def kept(self) -> int:
        """Rows of a message, order-major."""
        return self.terms[0].shape[0] - 1

    @property
    def sizes(self) -> list[int]:
        return [self.rows, self.wigner.shape[1], self.kept]


def rotate_in(x: Tensor, rotation: EdgeRotation, plan: EdgePlan, *, end: str = "source") -> Tensor:
    r"""The feature of each edge's source (or target), seen from the edge: rows |m| <= M, order-major.

    .. math:: y_e = S_M D(v_e) \, x_{j(e)}

    Args:
        x: features of the nodes.
        rotation: of the edges.
        plan: of the edges.
        end: "source" or "target".

    Shape:
        x: (nodes, (L + 1)^2, channels) -> (edges, kept rows, channels)

    Raises:
        ValueError: if ``x`` does not have (L + 1)^2 rows for each node of the plan.
    """
    _check("rotate_in", x, (plan.num_nodes, rotation.rows), "x of shape (nodes, rows, channels)")
    walk = _ends(plan, end)
    return _rotate(MESSAGE, [x, rotation.wigner], [*walk, *rotation.terms], rotation.sizes)


def rotate_out(m: Tensor, rotation: EdgeRotation, plan: EdgePlan, *, end: str = "target") -> Tensor:
    r"""Messages turned back into the frame of space and summed at each edge's target (or source).

    .. math:: z_i = \sum_{e: j \to i} D(v_e)^T S_M^T \, m_e

    Args:
        m: messages, rows order-major.
        rotation: of the edges.
        plan: of the edges.
        end: "target" or "source".

    Shape:
        m: (edges, kept rows, channels) -> (nodes, (L + 1)^2, channels)

    Raises:
        ValueError: if ``m`` does not have the kept rows for each edge of the plan.
    """
    edges = plan.source.shape[0]
    _check("rotate_out", m, (edges, rotation.kept), "m of shape (edges, kept rows, channels)")
    return _rotate(FEATURE, [rotation.wigner, m], [*_ends(plan, end), *rotation.terms], rotation.sizes)


def rotate_back(m: Tensor, rotation: EdgeRotation) -> Tensor:
    """Messages turned back into the frame of space, edge by edge.

    Shape:
        m: (edges, kept rows, channels) -> (edges, (L + 1)^2, channels)
    """
    edges = rotation.wigner.shape[0]
    _check("rotate_back", m, (edges, rotation.kept), "m of shape (edges, kept rows, channels)")
    each = torch.arange(edges + 1, device=m.device)
    walk = [each[:-1], each, each[:-1]]
    return _rotate(FEATURE, [rotation.wigner, m], [*walk, *rotation.terms], rotation.sizes)


def _check(name: str, x: Tensor, shape: tuple[int, int], what: str) -> None:
    if x.ndim != 3 or tuple(x.shape[:2]) != shape:
        raise ValueError(
            f"{name} expects {what}, here ({shape[0]}, {shape[1]}, channels), got {tuple(x.shape)}"
        )


def _ends(plan: EdgePlan, end: str) -> list[Tensor]:
    if end == "source":
        return [plan.source, plan.sender_ptr, plan.sender_edge]
    if end != "target":
        raise ValueError(f"an edge's end is 'source' or 'target', got {end!r}")
    return [plan.target, plan.row_ptr, torch.arange(plan.target.shape[0], device=plan.target.device)]


def _terms(lmax: int, mmax: int) -> list[Tensor]:
    """The entries of compact matrices by kept row, and by row: begin, other row, entry; six int64 lists."""
    first = [0]
    for l, rows in enumerate(kept_rows(lmax, mmax)):
        first.append(first[-1] + rows * (2 * l + 1))
    found = [
        (k, l * l + i, first[l] + (m + min(l, mmax)) * (2 * l + 1) + i)
        for k, (l, m) in enumerate(order_rows(lmax, mmax))
        for i in range(2 * l + 1)
    ]
    lists = []
    for own, other, count in ((0, 1, len(order_rows(lmax, mmax))), (1, 0, (lmax + 1) ** 2)):
        terms = sorted(found, key=lambda term: term[own])
        size = [0] * (count + 1)
        for term in found:
            size[term[own] + 1] += 1
        lists += [list(accumulate(size)), [term[other] for term in terms], [term[2] for term in terms]]
    return [torch.tensor(numbers, device="cpu") for numbers in lists]
