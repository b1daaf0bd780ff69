"""All diagrams of a group at once: ANALYSIS, MIX, SYNTHESIS."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from equitorch.ops.diagrams.program import LinearPlan


def diagram_linear(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    plan: LinearPlan,
    n: int,
    *,
    scale: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> list[Tensor]:
    r"""The equivariant linear map with these weights, between direct sums of tensor powers of R^n.

    Bilinear in ``xs`` and ``weights`` and differentiable to any order; without the matrix of the map.

    Args:
        xs: one tensor for each of ``plan.orders_in``.
        weights: one for each of ``plan.pairs``.
        plan: of the group, from ``linear_plan``; made once, where the module is made.
        n: dimension.
        scale: a factor for each closed block of a lower half: 1, 1 / n or n ** -0.5; or one for each sample.
        mask: of permutation groups: which of the n points of each sample are there. The rest count as zero,
            and the results are zero there. For means, ``scale`` is 1 / mask.sum(1).

    Shape:
        xs: (batch, n**k, channels_in) each, weights: ``pair.weight_shape(channels_in, channels_out)`` each,
        scale: (batch,), mask: (batch, n) -> (batch, n**l, channels_out) for each of ``plan.orders_out``

    Raises:
        ValueError: if the shapes do not belong together.
    """
    raise NotImplementedError


def diagram_analysis(x: Tensor, key: str, n: int, form: str = "", scale: float = 1.0) -> list[Tensor]:
    """All halves of a tensor, sector by sector: (batch, n**order, channels) -> (batch, n**rank, halves, channels).

    ``key`` is a ``Plan.key``; rank counts through and alternating axes, in C order.
    """
    raise NotImplementedError


def diagram_synthesis(zs: Sequence[Tensor], key: str, n: int, form: str = "", scale: float = 1.0) -> Tensor:
    """The transpose of ``diagram_analysis``."""
    raise NotImplementedError


def orbit_map(x: Tensor, weight: Tensor, orbits: Tensor) -> Tensor:
    r"""The equivariant linear map of any permutation group: a weight for each orbit of pairs of rows.

    .. math:: y_i = \sum_j x_j W^{(o_{i j})}

    Args:
        x: the feature.
        weight: of each orbit.
        orbits: the number of the orbit of each pair; ``Automorphism.orbits(l + k)`` as a matrix.

    Shape:
        x: (batch, n**k, channels_in), weight: (orbits, channels_in, channels_out), orbits: (n**l, n**k)
        -> (batch, n**l, channels_out)
    """
    raise NotImplementedError
