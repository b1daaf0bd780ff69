"""``squash`` as layers call it."""

from __future__ import annotations

from torch import Tensor

from equitorch.ops.squash.reference import squash as reference


def squash(x: Tensor) -> Tensor:
    r"""Bound a feature's size, channel by channel, and keep its direction.

    .. math:: y_{m c} = \frac{x_{m c}}{1 + \sum_{m'} x_{m' c}^2}

    Shape:
        x: (..., rows, channels) -> (..., rows, channels)

    Source:
        Simeon, de Fabritiis 2023, arXiv:2306.06482 (normalisation of tensor features).
    """
    return reference(x)
