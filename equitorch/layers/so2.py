"""The linear map between messages in the frames of edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equitorch.layers.stacks import Channels, stacks
from equitorch.ops.so2 import Layout, join_stacks, scale_orders, so2_linear, split_stacks
from equitorch.ops.so2.reference import COMPLEX, ONCE, TWICE
from equitorch.reps.order import order_rows, order_sizes


class SO2Convolution(nn.Module):
    r"""Mix the degrees and channels of messages in their edges' frames, each order m by itself.

    .. math:: z_{+m} + i z_{-m} = (W_r + i W_i) (y_{+m} + i y_{-m}), \qquad z_0 = W_0 y_0 + b

    Every linear map that commutes with rolls about the edge has this form. A mirror that keeps the edge
    turns the rows of order -m round; what may be mixed then depends on the parity of the rows:

    - "natural": every degree l has parity (-1)^l. There is no W_i: half of the products and weights.
    - "both": natural channels, then as many as you like of the opposite parity. W_r mixes within, W_i
      between; b and the extra scalars belong to the natural ones alone. With these two a model knows a
      molecule's mirror image for what it is.
    - "so3": one stack with W_r and W_i, as published weights have it. Only rotations commute.

    Args:
        lmax: highest degree L.
        mmax: highest order M.
        channels_in: channels per row of the message; a pair (natural, pseudo) if ``parity`` is "both".
        channels_out: channels per row of the result, in the same form.
        extra: number of further scalars of each edge that the rows of m = 0 give.
        parity: "natural", "both" or "so3".

    Shape:
        y: (..., rows, channels_in), order-major; factor: (..., sum over m of L + 1 - m, channels_in), m-major
        -> (..., rows, channels_out), and (..., extra) or None if there are none

    ``forward(y, factor)`` multiplies rows +m and -m of each degree and channel by the same factor first.

    Raises:
        ValueError: if the options do not fit together, or ``y`` or its factors do not have these shapes.

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN); Liao et al. 2023, arXiv:2306.12059 (extra scalars).

    >>> conv = SO2Convolution(2, 1, 8, 16, extra=3)
    >>> y, scalars = conv(torch.randn(10, 7, 8))
    >>> y.shape, scalars.shape
    (torch.Size([10, 7, 16]), torch.Size([10, 3]))
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels_in: Channels,
        channels_out: Channels,
        *,
        extra: int = 0,
        parity: str = "natural",
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.extra, self.parity = lmax, mmax, extra, parity
        sizes = order_sizes(lmax, mmax)
        self.rows = len(order_rows(lmax, mmax))
        self.stacks_in, self.stacks_out = stacks(channels_in, parity), stacks(channels_out, parity)
        self.channels_in, self.channels_out = sum(self.stacks_in), sum(self.stacks_out)
        (a, b), (c, d), k = self.stacks_in, self.stacks_out, sizes[0]
        self.m0 = _linear(k * a, extra + k * c, bias=True)
        self.m0_pseudo = _linear(k * b, k * d, bias=False) if parity == "both" else None
        self.real, self.real_pseudo = nn.ParameterList(), nn.ParameterList()
        self.imag, self.imag_pseudo = nn.ParameterList(), nn.ParameterList()
        for k in sizes[1:]:
            bound = 1 / math.sqrt(max(k * self.channels_in, 1) * (2 if parity == "so3" else 1))
            self.real.append(_uniform(k * c, k * a, bound=bound))
            if parity == "so3":
                self.imag.append(_uniform(k * c, k * a, bound=bound))
            if parity == "both":
                self.real_pseudo.append(_uniform(k * d, k * b, bound=bound))
                self.imag.append(_uniform(k * c, k * b, bound=bound))
                self.imag_pseudo.append(_uniform(k * d, k * a, bound=bound))
        self.layout = self._layout(sizes)

    def _layout(self, sizes: list[int]) -> Layout:
        (a, b), (c, d), k = self.stacks_in, self.stacks_out, sizes[0]
        scalars = [(ONCE, k * a, k * c)] + ([(ONCE, k * b, k * d)] if self.parity == "both" else [])
        kind = COMPLEX if self.parity == "so3" else TWICE
        return Layout.build(
            scalars + [(kind, k * self.channels_in, k * self.channels_out) for k in sizes[1:]], self.extra
        )

    def forward(self, y: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self._check(y)
        batch, degrees = y.shape[:-2], (self.lmax, self.mmax)
        if factor is not None:
            y = scale_orders(y, factor, *degrees)
        if self.parity == "both":
            columns = split_stacks(y.reshape(math.prod(batch), *y.shape[-2:]), *degrees, self.stacks_in[0])
        else:
            columns = y.reshape(math.prod(batch), self.layout.width_in)
        out, extra = so2_linear(columns, self._weights(), self.m0.bias, self.layout)
        if self.parity == "both":
            out = join_stacks(out, *degrees, self.stacks_out[0], self.channels_out)
        rows = out.reshape(*batch, self.rows, self.channels_out)
        return rows, extra.reshape(*batch, self.extra) if self.extra else None

    def _weights(self) -> list[Tensor]:
        """The weight of each block of the layout."""
        if self.parity == "natural":
            return [self.m0.weight, *self.real]
        if self.parity == "so3":
            pairs = zip(self.real, self.imag, strict=True)
            return [self.m0.weight, *(torch.stack(pair) for pair in pairs)]
        assert self.m0_pseudo is not None  # as the constructor made it
        parts = zip(self.real, self.imag, self.imag_pseudo, self.real_pseudo, strict=True)
        mixed = [torch.cat([torch.cat([r, -i], 1), torch.cat([j, s], 1)]) for r, i, j, s in parts]
        return [self.m0.weight, self.m0_pseudo.weight, *mixed]

    def _check(self, y: Tensor) -> None:
        if tuple(y.shape[-2:]) != (self.rows, self.channels_in):
            raise ValueError(
                f"SO2Convolution({self.extra_repr()}) expects y of shape (..., {self.rows}, "
                f"{self.channels_in}), got {tuple(y.shape)}"
            )

    def extra_repr(self) -> str:
        ends = [s if self.parity == "both" else s[0] for s in (self.stacks_in, self.stacks_out)]
        return f"{self.lmax}, {self.mmax}, {ends[0]} -> {ends[1]}, extra={self.extra}, {self.parity}"


def _linear(columns: int, rows: int, *, bias: bool) -> nn.Linear:
    """As ``nn.Linear`` starts out; it may be empty."""
    if columns and rows:
        return nn.Linear(columns, rows, bias=bias)
    linear, bound = nn.Linear(1, 1, bias=bias), 1 / math.sqrt(max(columns, 1))
    linear.in_features, linear.out_features = columns, rows
    linear.weight = _uniform(rows, columns, bound=bound)
    if bias:
        linear.bias = _uniform(rows, bound=bound)
    return linear


def _uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
