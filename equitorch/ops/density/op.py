"""``density`` as layers call it."""

from __future__ import annotations

from torch import Tensor

from equitorch.ops.density.reference import RECEIVER, fake
from equitorch.ops.density.reference import density as reference
from equitorch.ops.edges import EdgePlan
from equitorch.ops.multilinear import Kernel, Multilinear


def _cpu() -> Kernel:
    from equitorch.ops.density.cpu import density as kernel  # imports Numba

    return kernel


def _cuda() -> Kernel:
    from equitorch.ops.density.triton import density as kernel  # imports Triton

    return kernel


_density = Multilinear("density", reference=reference, fake=fake, cpu=_cpu, cuda=_cuda)


def density(weight: Tensor, species: Tensor, angle: Tensor, degree: Tensor, plan: EdgePlan) -> Tensor:
    r"""Project the neighbourhood of each node on radial and angular functions: the atomic density.

    .. math:: \rho_{i m c} = \sum_{e: j \to i} w_{p(e) \, l(m) \, c} \, (a_{i c} + b_{j c}) \, y_{e m}

    Args:
        weight: radial functions of each undirected pair p(e), by degree. Shape (pairs, degrees, channels).
        species: what the receiver (a) and the sender (b) contribute. Shape (2, nodes, channels).
        angle: angular functions of each edge. Shape (edges, rows).
        degree: which weight acts on each row. Shape (rows,), int64.
        plan: the edges, sorted by target.

    Shape:
        (nodes, rows, channels)

    Raises:
        ValueError: if the shapes do not belong together.
    """
    pairs, _, channels = weight.shape
    wanted = (plan.num_pairs, (2, plan.num_nodes, channels), (plan.source.shape[0], degree.shape[0]))
    if (pairs, tuple(species.shape), tuple(angle.shape)) != wanted:
        raise ValueError(
            f"density expects {wanted[0]} pairs of weights, species of shape {wanted[1]} and angle of shape "
            f"{wanted[2]}, got {tuple(weight.shape)}, {tuple(species.shape)} and {tuple(angle.shape)}"
        )
    return _density(RECEIVER, [weight, species, angle], [*plan, degree], [weight.shape[1]])
