"""Batch normalisation of irreps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.reps import Irreps


class BatchNorm(nn.Module):
    r"""Each irrep and channel divided by its root mean square over the batch; invariants are centred first.

    .. math:: y_{nmc} = w_{nc} \frac{x_{nmc} - \mu_{nc}\,[0e]}{\sqrt{v_{nc} + \epsilon}} + b_{nc}\,[0e]

    with v the (biased) mean over the batch of the mean square of the components. In evaluation the running
    averages stand for the batch's. The state is e3nn's: its vectors count copy * channels + channel.

    Args:
        irreps: how the rows of the feature transform.
        channels: channels of the feature.
        eps: added to the mean square.
        momentum: weight of the newest batch in the running averages.
        affine: learn a weight for each irrep and channel.
        reduce: "mean" or "max": how the samples of one batch entry are pooled; the batch is always averaged.
        instance: take the statistics of each batch entry by itself, over its samples; no running averages.
        include_bias: with ``affine``, learn a bias for the invariants.
        normalization: "component": the mean of the squared components; "norm": their sum.

    Shape:
        x: (batch, ..., irreps.dim, channels) -> the same

    Raises:
        ValueError: for an unknown option, or an ``x`` without ``irreps.dim`` rows and ``channels`` channels.

    Source:
        Ioffe, Szegedy 2015, arXiv:1502.03167; for irreps as in e3nn's ``BatchNorm``, arXiv:2207.09453.

    >>> BatchNorm("0e+1o", 8)(torch.randn(10, 4, 8)).shape
    torch.Size([10, 4, 8])
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    kind: Tensor
    scalar_rows: Tensor

    def __init__(
        self,
        irreps: Irreps | str,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        reduce: str = "mean",
        instance: bool = False,
        include_bias: bool = True,
        normalization: str = "component",
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("reduce", reduce, ("mean", "max")),
            ("normalization", normalization, ("component", "norm")),
        ):
            if value not in allowed:
                raise ValueError(f"BatchNorm expects {name} to be one of {', '.join(allowed)}, got {value!r}")
        self.irreps, self.channels, self.eps, self.momentum = Irreps(irreps), channels, eps, momentum
        self.reduce, self.instance, self.normalization = reduce, instance, normalization
        copies = enumerate(self.irreps.copies)
        kind = torch.tensor([n for n, ir in copies for _ in range(ir.dim)], dtype=torch.int64)
        scalar_rows = self.irreps.rows("0e" if self.irreps.group == "O(3)" else "0")
        self.register_buffer("kind", kind, persistent=False)
        self.register_buffer("scalar_rows", scalar_rows.to(kind.device), persistent=False)
        count, scalar_count = self.irreps.num_irreps * channels, scalar_rows.numel() * channels
        self.register_buffer("running_mean", None if instance else torch.zeros(scalar_count))
        self.register_buffer("running_var", None if instance else torch.ones(count))
        self.weight = nn.Parameter(torch.ones(count)) if affine else None
        self.bias = nn.Parameter(torch.zeros(scalar_count)) if affine and include_bias else None

    def forward(self, x: Tensor) -> Tensor:
        rows = (self.irreps.dim, self.channels)
        if x.ndim < 3 or x.shape[-2:] != rows:
            raise ValueError(
                f"BatchNorm({self.irreps}) expects x of shape (batch, ..., {rows[0]}, {rows[1]}), "
                f"got {tuple(x.shape)}"
            )
        if x.numel() == 0:  # no statistics, and none to be spoilt
            return x
        fields = x.reshape(x.shape[0], -1, *rows)
        if self.training or self.instance:
            mean = self._mean(fields)
            variance = self._variance(fields, mean)
        else:
            mean, variance = self._rows(self.running_mean), self._rows(self.running_var)
        if self.training and not self.instance:
            self._update(self.running_mean, mean)
            self._update(self.running_var, variance)
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self._rows(self.weight)
        shift = -mean * scale[..., self.kind[self.scalar_rows], :]
        shift = shift if self.bias is None else shift + self._rows(self.bias)
        y = fields * scale.index_select(-2, self.kind)  # one factor for each row, a shift for invariant ones
        y = y.index_add(-2, self.scalar_rows, shift.expand(*y.shape[:-2], *shift.shape[-2:]))
        return y.reshape(x.shape)

    def _rows(self, flat: Tensor | None) -> Tensor:
        assert flat is not None, "without running averages the statistics come from the batch"
        return flat.view(-1, self.channels)

    def _mean(self, fields: Tensor) -> Tensor:
        """Mean of the invariants: ([batch, 1 if instance,] scalars, channels)."""
        scalars = fields.index_select(-2, self.scalar_rows)
        return scalars.mean(1, keepdim=True) if self.instance else scalars.mean((0, 1))

    def _variance(self, fields: Tensor, mean: Tensor) -> Tensor:
        """Mean square of each irrep and channel: ([batch, 1 if instance,] irreps, channels)."""
        pooled, used = [], 0
        blocks = fields.split([mul * ir.dim for mul, ir in self.irreps], dim=-2)
        for (mul, ir), block in zip(self.irreps, blocks, strict=True):
            if ir.is_scalar():
                block, used = block - mean[..., used : used + mul, :], used + mul
            square = block * block
            if self.reduce == "mean":
                square = square.mean(1 if self.instance else (0, 1), keepdim=self.instance)
            parts = square.unflatten(-2, (mul, ir.dim))
            square = parts.mean(-2) if self.normalization == "component" else parts.sum(-2)
            if self.reduce == "max":
                square = square.amax(1, keepdim=self.instance)
                square = square if self.instance else square.mean(0)
            pooled.append(square)
        return torch.cat(pooled, dim=-2)

    def _update(self, running: Tensor | None, new: Tensor) -> None:
        assert running is not None, "running averages exist unless instance=True"
        with torch.no_grad():
            running.mul_(1 - self.momentum).add_(new.flatten(), alpha=self.momentum)

    def extra_repr(self) -> str:
        return f"{self.irreps}, {self.channels}, eps={self.eps:g}, momentum={self.momentum:g}"
