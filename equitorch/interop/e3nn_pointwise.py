"""e3nn's modules that act irrep by irrep: activations, gates, norms, dropout, parts of a feature.

A flat feature of e3nn is rows with a single channel, so that the layers of this library serve as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.interop.e3nn_dropin import DropIn, Keep, own_parameter
from equitorch.layers import batch_norm, norm
from equitorch.layers.rows import scale_irreps
from equitorch.reps import Irreps


class Scaled(DropIn):
    """``e3nn.math.normalize2mom``: a function times e3nn's constant."""

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.f = keep(theirs.f)
        self.cst: float = theirs.cst
        self._is_id: bool = theirs._is_id

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(x)
        return y if self._is_id else y * self.cst


class Activation(DropIn):
    """``e3nn.nn.Activation``."""

    attributes = ("irreps_in", "irreps_out")

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.acts = nn.ModuleList([None if act is None else Scaled(act, keep) for act in theirs.acts])  # type: ignore[misc]
        self._sizes = [entry.dim for entry in theirs.irreps_in]

    def forward(self, features: Tensor, dim: int = -1) -> Tensor:
        if features.shape[dim] != sum(self._sizes):
            raise ValueError(
                f"{self} expects features with {sum(self._sizes)} components in dimension {dim}, "
                f"got {tuple(features.shape)}"
            )
        blocks = features.split(self._sizes, dim=dim)
        parts = [block if act is None else act(block) for act, block in zip(self.acts, blocks, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim) if parts else features

    def __repr__(self) -> str:
        marks = "".join(" " if act is None else "x" for act in self.acts)
        return f"Activation [{marks}] ({self.irreps_in} -> {self.irreps_out})"


class Extract(DropIn):
    """``e3nn.nn.Extract`` and ``ExtractIr``; parts that lie together are cut out in one piece."""

    attributes = ("irreps_in", "irreps_outs", "instructions")

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        if hasattr(theirs, "irreps_out"):
            self.irreps_out = theirs.irreps_out
        slices = theirs.irreps_in.slices()
        self._dim = theirs.irreps_in.dim
        self._parts = [_joined([slices[i] for i in chosen]) for chosen in theirs.instructions]
        self._single = isinstance(theirs(torch.zeros(self._dim)), Tensor)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if x.shape[-1] != self._dim:
            raise ValueError(f"{self} expects x of shape (..., {self._dim}), got {tuple(x.shape)}")
        parts = tuple(_cut(x, part) for part in self._parts)
        return parts[0] if self._single else parts


def _joined(slices: Sequence[slice]) -> list[tuple[int, int]]:
    """Slices as (start, length), neighbours merged."""
    out: list[tuple[int, int]] = []
    for s in slices:
        if out and sum(out[-1]) == s.start:
            out[-1] = (out[-1][0], out[-1][1] + s.stop - s.start)
        else:
            out.append((s.start, s.stop - s.start))
    return out


def _cut(x: Tensor, part: Sequence[tuple[int, int]]) -> Tensor:
    pieces = [x.narrow(-1, start, length) for start, length in part]
    return torch.cat(pieces, dim=-1) if pieces else x[..., :0]


class Gate(DropIn):
    """``e3nn.nn.Gate``."""

    attributes = ("irreps_in", "irreps_out", "irreps_scalars", "irreps_gates", "irreps_gated")

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.act_scalars = Activation(theirs.act_scalars, keep)
        self.act_gates = Activation(theirs.act_gates, keep)
        cut = theirs.sc.cut
        slices = cut.irreps_in.slices()
        self._dim = cut.irreps_in.dim
        self._parts = [_joined([slices[i] for i in chosen]) for chosen in cut.instructions]
        self._gated = Irreps(theirs.irreps_gated)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self._dim:
            raise ValueError(
                f"{self} expects features of shape (..., {self._dim}), got {tuple(features.shape)}"
            )
        scalars, gates, gated = (_views(features, part) for part in self._parts)
        scalars = self.act_scalars(scalars)
        if not gates.shape[-1]:
            return scalars
        factor = self.act_gates(gates)
        product = scale_irreps(self._gated, gated[..., None], factor[..., None]).squeeze(-1)
        return torch.cat([scalars, product], dim=-1)

    def __repr__(self) -> str:
        return f"Gate ({self.irreps_in} -> {self.irreps_out})"


def _views(x: Tensor, part: Sequence[tuple[int, int]]) -> Tensor:
    """As ``_cut``, but a view where there is one piece: for what nobody else will see."""
    return x.narrow(-1, *part[0]) if len(part) == 1 else _cut(x, part)


class NormActivation(DropIn):
    """``e3nn.nn.NormActivation``."""

    attributes = ("irreps_in", "irreps_out", "epsilon", "normalize", "bias")
    biases: nn.Parameter | None
    epsilon: float | None
    normalize: bool

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.scalar_nonlinearity = keep(theirs.scalar_nonlinearity)
        self.biases = own_parameter(theirs, "biases", keep)
        self._irreps = Irreps(theirs.irreps_in)
        self._norm = norm.Norm(self._irreps, squared=self.epsilon is not None)

    def forward(self, features: Tensor) -> Tensor:
        x = features[..., None]
        length = self._norm(x)
        if self.epsilon is not None:
            length = length.clamp(min=self.epsilon**2).sqrt()
        argument = length if self.biases is None else length + self.biases[:, None]
        scale = self.scalar_nonlinearity(argument.squeeze(-1))[..., None]
        return scale_irreps(self._irreps, x, scale / length if self.normalize else scale).squeeze(-1)


class BatchNorm(DropIn, batch_norm.BatchNorm):
    """``e3nn.nn.BatchNorm``."""

    attributes = ("affine", "include_bias")
    include_bias: bool

    def __init__(self, theirs: Any, keep: Keep) -> None:
        options = {name: getattr(theirs, name) for name in ("eps", "momentum", "affine", "reduce")}
        options |= {name: getattr(theirs, name) for name in ("instance", "include_bias", "normalization")}
        super().__init__(theirs, keep, Irreps(theirs.irreps), 1, **options)
        for name in ("weight", "bias", "running_mean", "running_var"):
            setattr(self, name, keep(getattr(theirs, name, None)))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim < 2 or input.shape[-1] != self.irreps.dim:
            raise ValueError(
                f"BatchNorm({self.irreps}) expects input of shape (batch, ..., {self.irreps.dim}), "
                f"got {tuple(input.shape)}"
            )
        return super().forward(input[..., None]).squeeze(-1)


class Dropout(DropIn):
    """``e3nn.nn.Dropout``; it draws the same random numbers in the same order."""

    attributes = ("irreps", "p")
    p: float

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self._irreps = Irreps(theirs.irreps)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        factors = [self._factor(x.new_empty(x.shape[0], mul)) for mul, _ in self._irreps]
        factor = torch.cat(factors, dim=-1)[..., None]
        while factor.ndim <= x.ndim:
            factor = factor[:, None]
        return scale_irreps(self._irreps, x[..., None], factor).squeeze(-1)

    def _factor(self, empty: Tensor) -> Tensor:
        if self.p >= 1:
            return empty.fill_(0)
        return empty.fill_(1) if self.p <= 0 else empty.bernoulli_(1 - self.p).div_(1 - self.p)


class FullyConnectedNet(DropIn, nn.Sequential):
    """``e3nn.nn.FullyConnectedNet``."""

    attributes = ("hs",)

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        for name, layer in theirs.named_children():
            setattr(self, name, DenseLayer(layer, keep))

    def __repr__(self) -> str:
        return f"FullyConnectedNet{self.hs}"


class DenseLayer(DropIn):
    """One layer of ``e3nn.nn.FullyConnectedNet``."""

    attributes = ("h_in", "h_out", "var_in", "var_out")
    h_in: int
    var_in: float
    var_out: float

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.weight = keep(theirs.weight)
        act = theirs.act
        self.act = Scaled(act, keep) if hasattr(act, "cst") else keep(act)

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.h_in * self.var_in) ** -0.5
        if self.act is None:
            return x @ (self.weight * (scale * self.var_out**0.5))
        y = self.act(x @ (self.weight * scale))
        return y if self.var_out == 1 else y * self.var_out**0.5


class Identity(DropIn):
    """``e3nn.nn.Identity``."""

    attributes = ("irreps_in", "irreps_out")

    def forward(self, features: Tensor) -> Tensor:
        return features


class Norm(DropIn):
    """``e3nn.o3.Norm``."""

    attributes = ("irreps_in", "irreps_out", "squared")
    squared: bool

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self._norm = norm.Norm(Irreps(theirs.irreps_in), squared=self.squared)

    def forward(self, features: Tensor) -> Tensor:
        return self._norm(features[..., None]).squeeze(-1)
