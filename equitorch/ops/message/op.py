"""``message`` as layers call it."""

from __future__ import annotations

from torch import Tensor

from equitorch.ops.edges import EdgePlan
from equitorch.ops.message.reference import RECEIVER, fake
from equitorch.ops.message.reference import message as reference
from equitorch.ops.multilinear import Kernel, Multilinear


def _cpu() -> Kernel:
    from equitorch.ops.message.cpu import message as kernel  # imports Numba

    return kernel


def _cuda() -> Kernel:
    from equitorch.ops.message.triton import message as kernel  # imports Triton

    return kernel


_message = Multilinear("message", reference=reference, fake=fake, cpu=_cpu, cuda=_cuda)


def message(weight: Tensor, feature: Tensor, degree: Tensor, plan: EdgePlan) -> Tensor:
    r"""Sum the features of a node's neighbours, weighted by degree and channel.

    .. math:: m_{i m c} = \sum_{e: j \to i} w_{p(e) \, l(m) \, c} \, x_{j m c}

    The weights belong to undirected pairs p(e) of edges where the plan knows them, else to edges.

    Args:
        weight: one number per pair, degree and channel. Shape (pairs, degrees, channels).
        feature: what the neighbours send. Shape (nodes, rows, channels).
        degree: which weight acts on each row. Shape (rows,), int64.
        plan: the edges, sorted by target.

    Shape:
        (nodes, rows, channels)

    Raises:
        ValueError: if the shapes do not belong together.
    """
    pairs, _, channels = weight.shape
    if pairs != plan.num_pairs or feature.shape[1:] != (degree.shape[0], channels):
        raise ValueError(
            f"message expects weight ({plan.num_pairs} pairs, degrees, channels) and feature (nodes, "
            f"{degree.shape[0]} rows, channels), got {tuple(weight.shape)} and {tuple(feature.shape)}"
        )
    return _message(RECEIVER, [weight, feature], [*plan, degree], [weight.shape[1]])
