"""Dropout that drops whole irreps."""

from __future__ import annotations

from torch import Tensor, nn

from equitorch.layers.rows import expect_rows, scale_irreps
from equitorch.reps import Irreps


class Dropout(nn.Module):
    """In training, zero each irrep of each channel with probability p, and divide the others by 1 - p.

    All rows of an irrep stay or go together, so the map commutes with rotations for every draw.

    Args:
        irreps: how the rows of the feature transform.
        p: probability to drop.

    Shape:
        x: (..., irreps.dim, channels) -> the same

    Raises:
        ValueError: if ``p`` is no probability, or ``x`` does not have ``irreps.dim`` rows.

    Source:
        Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html.

    >>> import torch
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
        ones = x.new_ones(*x.shape[:-2], self.irreps.num_irreps, x.shape[-1])
        return scale_irreps(self.irreps, x, nn.functional.dropout(ones, self.p))

    def extra_repr(self) -> str:
        return f"{self.irreps}, p={self.p:g}"
