"""Dropout that drops whole irreps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.rows import expect_rows, scale_irreps
from equitorch.reps import Irreps


class Dropout(nn.Module):
    """In training, zero each irrep of each channel with probability p, and divide the others by 1 - p.

    All rows of an irrep stay or go together, so the map commutes with rotations for every draw. One draw
    serves all axes between the first, the batch, and the rows; with equal seeds, e3nn's draw is the same.

    Args:
        irreps: how the rows of the feature transform.
        p: probability to drop.

    Shape:
        x: (batch, ..., irreps.dim, channels) -> the same

    Raises:
        ValueError: if ``p`` is no probability, or ``x`` does not have ``irreps.dim`` rows.

    Source:
        Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html.

    >>> Dropout("0e+1o", p=0.5).eval()(torch.ones(4, 1)).sum()
    tensor(4.)
    """

    def __init__(self, irreps: Irreps | str, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout expects a probability p between 0 and 1, got {p}")
        self.irreps, self.p = Irreps(irreps), p

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("Dropout", self.irreps, x)
        if not self.training or self.p == 0:
            return x
        batch, channels = x.shape[:1] if x.ndim > 2 else (), x.shape[-1]
        draws = [self._draw(x, (*batch, mul * channels)) for mul, _ in self.irreps]
        kept = torch.cat(draws, dim=-1).view(*batch, *[1] * (x.ndim - 3), -1, channels) if draws else x
        return scale_irreps(self.irreps, x, kept.expand(*x.shape[:-2], -1, -1))

    def _draw(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self.p == 1:
            return x.new_zeros(shape)
        return x.new_empty(shape).bernoulli_(1 - self.p).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"{self.irreps}, p={self.p:g}"
