"""Norms of irreps, and the layers that keep them of order one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.rows import expect_rows, scale_irreps, shift_scalars
from equitorch.reps import Irreps


class Norm(nn.Module):
    r"""The length of each irrep, channel by channel: invariants of a feature.

    .. math:: |x|_n = \sqrt{\textstyle\sum_m x_{nm}^2}

    with gradient zero at x = 0. Squared norms are smooth there and cheaper.

    Args:
        irreps_in: how the rows of the feature transform.
        squared: leave the root out.

    Shape:
        x: (..., irreps.dim, channels) -> (..., irreps.num_irreps, channels)

    Raises:
        ValueError: if ``x`` does not have ``irreps.dim`` rows.

    >>> Norm("0e+1o")(torch.tensor([[-2.0], [3.0], [0.0], [4.0]])).flatten()
    tensor([2., 5.])
    """

    def __init__(self, irreps_in: Irreps | str, squared: bool = False) -> None:
        super().__init__()
        self.irreps_in, self.squared = Irreps(irreps_in).simplify(), squared
        self.irreps = self.irreps_in
        invariant = (0, int(self.irreps_in.group == "O(3)"))
        self.irreps_out = Irreps([(self.irreps_in.num_irreps, invariant)]).simplify()

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("Norm", self.irreps_in, x)
        blocks = (x * x).split([mul * ir.dim for mul, ir in self.irreps_in], dim=-2)
        sums = [
            block if ir.dim == 1 else block.unflatten(-2, (mul, ir.dim)).sum(-2)
            for (mul, ir), block in zip(self.irreps_in, blocks, strict=True)
        ]
        square = torch.cat(sums, dim=-2) if sums else x
        if self.squared:
            return square
        positive = square > 0
        return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)

    def extra_repr(self) -> str:
        return f"{self.irreps_in}, squared={self.squared}"


class LayerNorm(nn.Module):
    r"""Each block of equal irreps divided by the root mean square of its components over channels.

    .. math::
        y_{nmc} = w_{nc} \frac{z_{nmc}}{\sqrt{\langle z_{nmc}^2 \rangle_{n m c} + \epsilon}} + b_{nc}\,[0e],
        \qquad z = x - \mu\,[0e]

    Only invariant blocks are centred and shifted. On one ``0e`` row this is ``torch.nn.LayerNorm``.

    Args:
        irreps: how the rows of the feature transform.
        channels: channels of the feature.
        eps: added to the mean square; keeps the gradient finite where a block vanishes.
        affine: learn a weight for each irrep and channel, and a bias for the invariant ones.

    Shape:
        x: (..., irreps.dim, channels) -> (..., irreps.dim, channels)

    Raises:
        ValueError: if ``x`` does not have ``irreps.dim`` rows and ``channels`` channels.

    Source:
        Liao, Smidt 2023, arXiv:2206.11990 (Equiformer); Ba, Kiros, Hinton 2016, arXiv:1607.06450.

    >>> LayerNorm("0e+1o", 8)(torch.randn(10, 4, 8)).shape
    torch.Size([10, 4, 8])
    """

    def __init__(
        self, irreps: Irreps | str, channels: int, *, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__()
        self.irreps, self.channels, self.eps = Irreps(irreps).simplify(), channels, eps
        self.weight, self.bias = _affine(self.irreps, channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("LayerNorm", self.irreps, x, self.channels)
        blocks = list(x.split([mul * ir.dim for mul, ir in self.irreps], dim=-2))
        scales = []
        for k, (mul, ir) in enumerate(self.irreps):
            if ir.is_scalar():
                blocks[k] = blocks[k] - blocks[k].mean((-2, -1), keepdim=True)
            mean_square = (blocks[k] * blocks[k]).mean((-2, -1), keepdim=True)
            scales.append(torch.rsqrt(mean_square + self.eps).expand(*x.shape[:-2], mul, 1))
        scale = torch.cat(scales, dim=-2)
        scale = scale if self.weight is None else scale * self.weight
        y = scale_irreps(self.irreps, torch.cat(blocks, dim=-2), scale)
        return y if self.bias is None else shift_scalars(self.irreps, y, self.bias)

    def extra_repr(self) -> str:
        return f"{self.irreps}, {self.channels}, eps={self.eps:g}, affine={self.weight is not None}"


class RMSNorm(nn.Module):
    r"""The whole feature divided by one number, the root mean square in which every irrep counts alike.

    .. math::
        y_{nmc} = w_{nc} \, x_{nmc} \Big/ \sqrt{\tfrac{1}{N} \textstyle\sum_n
                  \langle x_{nmc}^2 \rangle_{m c} + \epsilon}

    It keeps the ratios between degrees, as :class:`LayerNorm` does not. On one ``0e`` row it is
    ``torch.nn.RMSNorm``.

    Args:
        irreps: how the rows of the feature transform.
        channels: channels of the feature.
        eps: added to the mean square; keeps the gradient finite where the feature vanishes.
        affine: learn a weight for each irrep and channel.
        centered: take the channel mean off the invariant rows first; with ``affine``, learn a bias for them.

    Shape:
        x: (..., irreps.dim, channels) -> (..., irreps.dim, channels)

    Raises:
        ValueError: if ``x`` does not have ``irreps.dim`` rows and ``channels`` channels.

    Source:
        Zhang, Sennrich 2019, arXiv:1910.07467; balanced over degrees as in EquiformerV2, arXiv:2306.12059.

    >>> RMSNorm("0e+1o", 8)(torch.randn(10, 4, 8)).shape
    torch.Size([10, 4, 8])
    """

    def __init__(
        self,
        irreps: Irreps | str,
        channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        centered: bool = False,
    ) -> None:
        super().__init__()
        self.irreps, self.channels = Irreps(irreps).simplify(), channels
        self.eps, self.centered = eps, centered
        self.weight, bias = _affine(self.irreps, channels, affine)
        self.bias = bias if centered else None
        rows = [1 / ir.dim for mul, ir in self.irreps for _ in range(mul * ir.dim)]
        share = torch.tensor(rows, dtype=torch.float64, device="cpu") / max(self.irreps.num_irreps, 1)
        self.share = Constant(share)

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("RMSNorm", self.irreps, x, self.channels)
        x = _centered(self.irreps, x) if self.centered else x
        mean_square = (x * x).mean(-1) @ self.share.value.to(x)
        scale = torch.rsqrt(mean_square + self.eps)[..., None, None]
        if self.weight is None:
            return x * scale
        y = scale_irreps(self.irreps, x * scale, self.weight)
        return y if self.bias is None else shift_scalars(self.irreps, y, self.bias)

    def extra_repr(self) -> str:
        return f"{self.irreps}, {self.channels}, eps={self.eps:g}, affine={self.weight is not None}"


class SeparableLayerNorm(nn.Module):
    r"""PyTorch's layer norm of the invariants, and one root mean square for all other irreps together.

    .. math::
        y_0 = \text{LayerNorm}(x_0), \qquad
        y_{nmc} = w_{nc} \, x_{nmc} \Big/ \sqrt{\tfrac{1}{N} \textstyle\sum_n
                  \langle x_{nmc}^2 \rangle_{m c} + \epsilon}

    where n runs over the N irreps that are not invariant. It keeps the ratios between their degrees.

    Args:
        irreps: how the rows of the feature transform.
        channels: channels of the feature.
        eps: added to the mean square; keeps the gradient finite where the feature vanishes.
        affine: learn a weight for each irrep and channel, and a bias for the invariant ones.

    Shape:
        x: (..., irreps.dim, channels) -> (..., irreps.dim, channels)

    Raises:
        ValueError: if ``x`` does not have ``irreps.dim`` rows and ``channels`` channels.

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2: separable layer normalisation).

    >>> SeparableLayerNorm("0e+1o+2e", 8)(torch.randn(10, 9, 8)).shape
    torch.Size([10, 9, 8])
    """

    def __init__(
        self, irreps: Irreps | str, channels: int, *, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__()
        self.irreps, self.channels, self.eps = Irreps(irreps).simplify(), channels, eps
        others = [(mul, ir) for mul, ir in self.irreps if not ir.is_scalar()]
        count = sum(mul for mul, _ in others)
        self.scalars = self.irreps.num_irreps - count
        self.scalar = (
            nn.LayerNorm(self.scalars * channels, eps=eps, elementwise_affine=affine)
            if self.scalars
            else None
        )
        self.weight = nn.Parameter(torch.ones(count, channels)) if affine else None
        self.others = Irreps(others)
        share = [1 / ir.dim for mul, ir in others for _ in range(mul * ir.dim)]
        self.share = Constant(torch.tensor(share, dtype=torch.float64, device="cpu") / max(count, 1))

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("SeparableLayerNorm", self.irreps, x, self.channels)
        blocks = x.split([mul * ir.dim for mul, ir in self.irreps], dim=-2)
        invariant = [ir.is_scalar() for _, ir in self.irreps]
        others = [b for b, scalar in zip(blocks, invariant, strict=True) if not scalar]
        parts = list(others)
        if others:
            rest = torch.cat(others, dim=-2)
            scale = torch.rsqrt((rest * rest).mean(-1) @ self.share.value.to(x) + self.eps)[..., None, None]
            rest = rest * scale
            rest = rest if self.weight is None else scale_irreps(self.others, rest, self.weight)
            parts = list(rest.split([b.shape[-2] for b in others], dim=-2))
        if self.scalar is not None:
            rows = [b for b, scalar in zip(blocks, invariant, strict=True) if scalar]
            normed = self.scalar(torch.cat(rows, dim=-2).flatten(-2)).unflatten(-1, (-1, self.channels))
            first = list(normed.split([b.shape[-2] for b in rows], dim=-2))
            parts = [(first if scalar else parts).pop(0) for scalar in invariant]
        return torch.cat(parts, dim=-2) if parts else x

    def extra_repr(self) -> str:
        return f"{self.irreps}, {self.channels}, eps={self.eps:g}, affine={self.weight is not None}"


def _affine(irreps: Irreps, channels: int, affine: bool) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    if not affine:
        return None, None
    scalars = sum(mul for mul, ir in irreps if ir.is_scalar())
    weight = nn.Parameter(torch.ones(irreps.num_irreps, channels))
    return weight, nn.Parameter(torch.zeros(scalars, channels)) if scalars else None


def _centered(irreps: Irreps, x: Tensor) -> Tensor:
    """The feature with the mean over copies and channels taken off each invariant block."""
    blocks = x.split([mul * ir.dim for mul, ir in irreps], dim=-2)
    return torch.cat(
        [
            b - b.mean((-2, -1), keepdim=True) if ir.is_scalar() else b
            for (_, ir), b in zip(irreps, blocks, strict=True)
        ],
        dim=-2,
    )
