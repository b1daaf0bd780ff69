"""Envelopes that take every edge weight to zero at the cutoff, smoothly."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CosineCutoff(nn.Module):
    r"""Half a cosine wave from one to zero; zero at and beyond the cutoff, with a continuous slope.

    .. math:: C(d) = \tfrac12 \big(1 + \cos(\pi d / \text{upper})\big), \quad d < \text{upper}

    and with ``lower > 0`` one whole wave between the two ends, where it vanishes:
    :math:`\tfrac12 (1 + \cos \pi (2 \frac{d - \text{lower}}{\text{upper} - \text{lower}} + 1))`.
    The second derivative jumps at the cutoff: where Hessians matter, use :class:`PolynomialCutoff`.

    Args:
        upper: the cutoff (Å).
        lower: the inner end of the window (Å).

    Shape:
        d (Å): (...) -> (...)

    Raises:
        ValueError: unless ``0 <= lower < upper``.

    Source:
        Behler, Parrinello 2007, doi:10.1103/PhysRevLett.98.146401; the window as in torchmd-net 3.1.

    >>> CosineCutoff(5.0)(torch.tensor([0.0, 2.5, 5.0, 6.0]))
    tensor([1.0000, 0.5000, 0.0000, 0.0000])
    """

    def __init__(self, upper: float, lower: float = 0.0) -> None:
        super().__init__()
        if not 0 <= lower < upper:
            raise ValueError(f"CosineCutoff expects 0 <= lower < upper, got lower={lower}, upper={upper}")
        self.upper, self.lower = float(upper), float(lower)

    def forward(self, d: Tensor) -> Tensor:
        if self.lower > 0:
            phase = 2 * (d - self.lower) / (self.upper - self.lower) + 1
            inside = (d > self.lower) & (d < self.upper)
        else:
            phase, inside = d / self.upper, d < self.upper
        return torch.where(inside, 0.5 * (1 + torch.cos(math.pi * phase)), 0.0)

    def extra_repr(self) -> str:
        return f"upper={self.upper:g}, lower={self.lower:g}"


class PolynomialCutoff(nn.Module):
    r"""The polynomial of degree p + 2 that is flat at zero and vanishes to third order at the cutoff.

    .. math::
        C(d) = 1 - \tfrac{(p+1)(p+2)}{2} x^p + p (p+2) x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2}
             = (1-x)^3 \sum_{k<p} \tfrac{(k+1)(k+2)}{2} x^k, \quad x = d/\text{upper} < 1

    Value, slope and curvature vanish at the cutoff, so energies, forces and Hessians are continuous.
    The factored form is evaluated: it loses no digits near the cutoff and never turns negative.

    Args:
        upper: the cutoff (Å).
        p: how flat the envelope is at zero: its first p - 1 derivatives vanish there.

    Shape:
        d (Å): (...) -> (...)

    Raises:
        ValueError: unless ``upper > 0`` and ``p`` is an integer of at least 1.

    Source:
        Gasteiger, Groß, Günnemann 2020, arXiv:2003.03123 (the envelope of DimeNet, without its 1/d).

    >>> PolynomialCutoff(5.0)(torch.tensor([0.0, 2.5, 5.0, 6.0]))
    tensor([1.0000, 0.8555, 0.0000, 0.0000])
    """

    def __init__(self, upper: float, p: int = 6) -> None:
        super().__init__()
        if not upper > 0 or int(p) != p or p < 1:
            raise ValueError(
                f"PolynomialCutoff expects upper > 0 and an integer p >= 1, got upper={upper}, p={p}"
            )
        self.upper, self.p = float(upper), int(p)

    def forward(self, d: Tensor) -> Tensor:
        x = (d / self.upper).clamp(max=1)
        series = torch.full_like(x, self.p * (self.p + 1) / 2)
        for k in reversed(range(self.p - 1)):
            series = series * x + (k + 1) * (k + 2) / 2
        rest = 1 - x
        return rest * rest * rest * series

    def extra_repr(self) -> str:
        return f"upper={self.upper:g}, p={self.p}"
