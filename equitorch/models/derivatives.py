"""From the gradient of an energy by edge vectors to forces and virials; and how to take that gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def gradient_of(
    y: Tensor, x: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """dy/dx of a number, zero where nothing connects the two: an isolated atom has no edges.

    Shape:
        y: (), x: (...) -> (...)

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> gradient_of(x.square().sum(), x), gradient_of(torch.tensor(3.0), x)
    (tensor([2., 4.]), tensor([0., 0.]))
    """
    if not y.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(
        y, x, retain_graph=retain_graph, create_graph=create_graph, materialize_grads=True
    )
    return gradient


def sum_by(x: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum the rows of ``x`` that share an index.

    Shape:
        x: (rows, ...), index: (rows,) -> (size, ...)

    >>> sum_by(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), 2)
    tensor([5., 2.])
    """
    if size == 1:
        return x.sum(0, keepdim=True)
    return x.new_zeros(size, *x.shape[1:]).index_add(0, index, x)


def edge_forces(gradient: Tensor, edge_index: Tensor, atoms: int) -> Tensor:
    """Minus the gradient by positions: an edge vector points from its target to its source.

    Shape:
        gradient: (edges, 3), edge_index: (2, edges) -> (atoms, 3)
    """
    source, target = edge_index
    pull = gradient.new_zeros(atoms, 3).index_add(0, target, gradient)
    return pull.index_add(0, source, gradient, alpha=-1)


def edge_virials(vectors: Tensor, gradient: Tensor) -> Tensor:
    """What each edge adds to dE/d(strain), symmetric.

    Shape:
        vectors, gradient: (edges, 3) -> (edges, 3, 3)
    """
    outer = vectors[:, :, None] * gradient[:, None, :]
    return 0.5 * (outer + outer.mT)


def atomic_virials(virials: Tensor, edge_index: Tensor, atoms: int) -> Tensor:
    """The virial of each edge, half for each of its two atoms.

    Shape:
        virials: (edges, 3, 3), edge_index: (2, edges) -> (atoms, 3, 3)
    """
    shared = virials.new_zeros(atoms, 3, 3)
    for end in edge_index:
        shared = shared.index_add(0, end, virials, alpha=0.5)
    return shared


def stress_of(virial: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """dE/d(strain) over the volume, NaN where the cell is not periodic in 3-D: no stress is invented there.

    Shape:
        virial, cell: (graphs, 3, 3), pbc: (graphs, 3) -> (graphs, 3, 3)
    """
    a, b, c = cell.unbind(-2)
    volume = (torch.linalg.cross(a, b) * c).sum(-1).abs()
    periodic = pbc.all(-1)
    # two wheres: a gradient through a division by zero would be NaN even where it is masked
    stress = virial / torch.where(periodic, volume, 1.0)[:, None, None]
    return torch.where(periodic[:, None, None], stress, torch.nan)


@contextlib.contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let no operation prepare a weight's gradient: custom ones decide in forward what they will compute."""
    weights = [p for p in parameters if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
