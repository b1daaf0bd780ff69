"""``segment`` as layers call it."""

from __future__ import annotations

from torch import Tensor

from equitorch.ops.edges import EdgePlan
from equitorch.ops.multilinear import Kernel, Multilinear
from equitorch.ops.segment.reference import EDGES, NODES, fake
from equitorch.ops.segment.reference import segment as reference


def _ordered() -> Kernel:
    from equitorch.ops.segment.ordered import segment as kernel

    return kernel


_segment = Multilinear("segment", reference=reference, fake=fake, cpu=_ordered, cuda=_ordered)


def segment_sum(x: Tensor, plan: EdgePlan) -> Tensor:
    r"""Sum over the edges that lead to each node, always in the same order.

    .. math:: y_i = \sum_{e \to i} x_e

    Args:
        x: a number, or several, of each edge.
        plan: the edges, sorted by target.

    Shape:
        (edges, channels) -> (nodes, channels)

    Raises:
        ValueError: if ``x`` does not have one row for each edge.
    """
    return _segment(NODES, [_rows("segment_sum", x, plan.target.shape[0], "edges")], _walk(plan))


def spread(y: Tensor, plan: EdgePlan) -> Tensor:
    r"""What belongs to a node, for each edge that leads to it: the transpose of :func:`segment_sum`.

    .. math:: x_e = y_{i(e)}

    Shape:
        (nodes, channels) -> (edges, channels)

    Raises:
        ValueError: if ``y`` does not have one row for each node.
    """
    return _segment(EDGES, [_rows("spread", y, plan.num_nodes, "nodes")], _walk(plan))


def _walk(plan: EdgePlan) -> list[Tensor]:
    return [plan.target, plan.row_ptr]


def _rows(name: str, x: Tensor, count: int, what: str) -> Tensor:
    if x.ndim != 2 or x.shape[0] != count:
        raise ValueError(f"{name} expects shape ({count} {what}, channels), got {tuple(x.shape)}")
    return x
