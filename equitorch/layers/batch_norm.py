"""Batch normalisation of irreps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.rows import scale_irreps, shift_scalars
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
        self.scalars = sum(mul for mul, ir in self.irreps if ir.is_scalar())
        count, scalar_count = self.irreps.num_irreps * channels, self.scalars * channels
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
        from_batch = self.training or self.instance
        if self.scalars:
            fields, mean = self._centered(fields, from_batch)
        variance = self._variance(fields) if from_batch else self._rows(self.running_var)
        if self.training and not self.instance:
            if self.scalars:
                self._update(self.running_mean, mean)
            self._update(self.running_var, variance)
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self._rows(self.weight)
        y = scale_irreps(self.irreps, fields, scale.unsqueeze(1) if self.instance else scale)
        if self.bias is not None and self.scalars:
            y = shift_scalars(self.irreps, y, self._rows(self.bias))
        return y.reshape(x.shape)

    def _rows(self, flat: Tensor | None) -> Tensor:
        assert flat is not None, "without running averages the statistics come from the batch"
        return flat.view(-1, self.channels)

    def _centered(self, fields: Tensor, from_batch: bool) -> tuple[Tensor, Tensor]:
        """The fields with the mean of the invariants taken off, and that mean."""
        if from_batch:
            sizes = [mul * ir.dim for mul, ir in self.irreps]
            blocks = zip(self.irreps, fields.split(sizes, dim=-2), strict=True)
            scalars = torch.cat([block for (_, ir), block in blocks if ir.is_scalar()], dim=-2)
            mean = scalars.mean(1, keepdim=True) if self.instance else scalars.mean((0, 1))
        else:
            mean = self._rows(self.running_mean)
        return shift_scalars(self.irreps, fields, -mean), mean

    def _variance(self, fields: Tensor) -> Tensor:
        """Mean square of each irrep and channel: ([batch if instance,] irreps, channels)."""
        squares = (fields * fields).split([mul * ir.dim for mul, ir in self.irreps], dim=-2)
        pooled = []
        for (mul, ir), square in zip(self.irreps, squares, strict=True):
            parts = square.unflatten(-2, (mul, ir.dim))
            pooled.append(parts.mean(-2) if self.normalization == "component" else parts.sum(-2))
        per_sample = torch.cat(pooled, dim=-2)
        per_entry = per_sample.mean(1) if self.reduce == "mean" else per_sample.amax(1)
        return per_entry if self.instance else per_entry.mean(0)

    def _update(self, running: Tensor | None, new: Tensor) -> None:
        assert running is not None, "running averages exist unless instance=True"
        with torch.no_grad():
            running.mul_(1 - self.momentum).add_(new.flatten(), alpha=self.momentum)

    def extra_repr(self) -> str:
        return f"{self.irreps}, {self.channels}, eps={self.eps:g}, momentum={self.momentum:g}"
