"""``convolution`` as layers call it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from equitorch.ops.convolution.reference import RESULT, WEIGHT_TYPES, fake
from equitorch.ops.convolution.reference import convolution as reference
from equitorch.ops.edges import EdgePlan, walks
from equitorch.ops.multilinear import Kernel, Multilinear


def _cpu() -> Kernel:
    from equitorch.ops.convolution.cpu import convolution as kernel  # imports Numba

    return kernel


_convolution = Multilinear("convolution", reference=reference, fake=fake, cpu=_cpu)


def convolution(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    edges: Tensor | EdgePlan,
    form: Sequence[Tensor],
    dims: tuple[int, int, int, int],
) -> Tensor:
    r"""Couple each neighbour's features with the filter of its edge, weigh every path, sum at the receiver.

    .. math::
        g_{i k c} = \sum_{e: j \to i} \sum_p w_{e p c} \sum_{i' j'} T^p_{i' j' k} \, x_{j i' c} \, y_{e j'}

    Only the operands are kept for the backward pass, and no message is ever stored.

    Args:
        x: features of the nodes.
        y: filters of the edges, without channels.
        weight: of each edge, or of each undirected pair of an ``EdgePlan``; bfloat16 and float16 are allowed
            beside wider x and y.
        edges: source and target of each edge, in any order, or their plan.
        form: ``form_lists`` of the coupling T and of the one with its first and last slots exchanged.
        dims: rows of x, of y and of the result, and number of paths.

    Shape:
        x: (nodes, I, channels), y: (edges, J), weight: (edges, paths, channels), edges: (2, edges)
        -> (nodes, K, channels)

    Raises:
        ValueError: if the operands do not belong together.
    """
    rows, filters, _, paths = dims
    shapes = f"x {tuple(x.shape)}, y {tuple(y.shape)}, weight {tuple(weight.shape)}"
    if x.ndim != 3 or x.shape[1] != rows or y.ndim != 2 or y.shape[1] != filters:
        raise ValueError(
            f"convolution expects x of shape (nodes, {rows}, channels) and y of shape (edges, {filters}), "
            f"got {shapes}"
        )
    count, pairs = (
        (edges.source.shape[0], edges.num_pairs)
        if isinstance(edges, EdgePlan)
        else (edges.shape[-1], edges.shape[-1])
    )
    if y.shape[0] != count or tuple(weight.shape) != (pairs, paths, x.shape[2]):
        raise ValueError(
            f"convolution expects y for each of {count} edges and weight of shape "
            f"({pairs}, {paths}, {x.shape[2]}), got {shapes}"
        )
    if x.dtype != y.dtype or (weight.dtype != x.dtype and weight.dtype.itemsize > 2):
        raise ValueError(
            f"convolution expects x, y and weight of one type, or a weight of half precision, "
            f"got {x.dtype}, {y.dtype} and {weight.dtype}"
        )
    walk = edges.walks() if isinstance(edges, EdgePlan) else walks(edges, x.shape[0])
    sizes = [*dims, WEIGHT_TYPES.index(weight.dtype)]
    return _convolution(RESULT, [x, y, weight], [*walk, *form], sizes)
