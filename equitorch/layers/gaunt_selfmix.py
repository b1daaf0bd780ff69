"""The product of each node's feature with itself, as a branch of a residual network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.gaunt import GauntTensorProduct
from equitorch.layers.stacks import Channels, degree_linear, stacks


class GauntSelfmix(nn.Module):
    r"""Mix the degrees of a feature by the product of two mixtures of its channels.

    .. math:: z = A_3 \, \text{product}(A_1 x, \, A_2 x)

    with linear maps A and a :class:`GauntTensorProduct`.

    Args:
        lmax: highest degree.
        channels: of the feature and of the result; with parity "both" a pair.
        parity: of the rows, see :func:`equitorch.layers.stacks.stacks`. With "both", products and brackets of
            natural and pseudo rows are taken in as many channels as there are natural ones; else products.

    Shape:
        x: (..., (lmax + 1)^2, channels) -> the same

    Raises:
        ValueError: if the channels do not fit the parity, or x has another shape.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216 ("Selfmix"; its place in a block is our choice).

    >>> GauntSelfmix(2, 8)(torch.randn(5, 9, 8)).shape
    torch.Size([5, 9, 8])
    """

    def __init__(self, lmax: int, channels: Channels, *, parity: str = "natural") -> None:
        super().__init__()
        self.width, self.both = stacks(channels, parity)[0], parity == "both"
        inner: Channels = (self.width, self.width) if self.both else self.width
        self.first = degree_linear(lmax, channels, inner, parity=parity)
        self.second = degree_linear(lmax, channels, inner, parity=parity)
        self.product = GauntTensorProduct(lmax, lmax, lmax, self.width, "full" if self.both else "even")
        self.last = degree_linear(lmax, inner, channels, parity=parity)

    def forward(self, x: Tensor) -> Tensor:
        z = self.product(self._rows(self.first(x)), self._rows(self.second(x)))
        out: Tensor = self.last(torch.cat(z.chunk(2, dim=-2), dim=-1) if self.both else z)
        return out

    def _rows(self, x: Tensor) -> Tensor:
        """Pseudo rows below the natural ones instead of beside them."""
        return torch.cat(x.chunk(2, dim=-1), dim=-2) if self.both else x
