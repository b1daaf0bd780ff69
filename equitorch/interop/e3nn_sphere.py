"""e3nn's modules about functions on the sphere and on SO(3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equitorch.interop.e3nn_dropin import DropIn, Keep
from equitorch.interop.e3nn_pointwise import Scaled
from equitorch.reps import Irreps
from equitorch.reps.rotation import angles_to_xyz, rand_angles


class ToS2Grid(DropIn):
    """``e3nn.o3.ToS2Grid``."""

    attributes = ("lmax", "res_beta", "res_alpha")
    sha: Tensor
    shb: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        _take_buffers(self, theirs, keep)

    @property
    def grid(self) -> Tensor:
        """Points of the grid. Shape (res_beta, res_alpha, 3)."""
        return _grid(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("mbi,...i->...bm", self.shb, x) @ self.sha.mT


class FromS2Grid(DropIn):
    """``e3nn.o3.FromS2Grid``."""

    attributes = ("lmax", "res_beta", "res_alpha")
    sha: Tensor
    shb: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        _take_buffers(self, theirs, keep)

    @property
    def grid(self) -> Tensor:
        """Points of the grid. Shape (res_beta, res_alpha, 3)."""
        return _grid(self)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("mbi,...bm->...i", self.shb, x @ self.sha)


def _take_buffers(ours: nn.Module, theirs: nn.Module, keep: Keep) -> None:
    for name, value in theirs._buffers.items():  # where one tensor may have two names
        ours.register_buffer(name, keep(value))


def _grid(module: Any) -> Tensor:
    beta, alpha = torch.meshgrid(module.betas, module.alphas, indexing="ij")
    return angles_to_xyz(alpha, beta)


class S2Activation(DropIn):
    """``e3nn.nn.S2Activation``."""

    attributes = ("irreps_in", "irreps_out", "random_rot")
    random_rot: bool

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.to_s2 = ToS2Grid(theirs.to_s2, keep)
        self.from_s2 = FromS2Grid(theirs.from_s2, keep)
        self.act = Scaled(theirs.act, keep)
        self._in, self._out = Irreps(theirs.irreps_in), Irreps(theirs.irreps_out)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self._in.dim:
            raise ValueError(
                f"S2Activation expects features of shape (..., {self._in.dim}), got {tuple(features.shape)}"
            )
        if not self.random_rot:
            return self.from_s2(self.act(self.to_s2(features)))
        angles = rand_angles(dtype=features.dtype, device=features.device)
        turned = features @ self._in.D_from_angles(*angles).mT
        return self.from_s2(self.act(self.to_s2(turned))) @ self._out.D_from_angles(*angles)


class SO3Grid(DropIn):
    """``e3nn.o3.SO3Grid``."""

    attributes = ("res_alpha", "res_beta", "res_gamma")
    D: Tensor
    qw: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        _take_buffers(self, theirs, keep)

    def to_grid(self, features: Tensor) -> Tensor:
        """(..., components) -> (..., res_alpha, res_beta, res_gamma)."""
        flat = self.D.flatten(0, 2)
        return (features @ flat.mT / flat.shape[1] ** 0.5).unflatten(-1, self.D.shape[:3])

    def from_grid(self, features: Tensor) -> Tensor:
        """(..., res_alpha, res_beta, res_gamma) -> (..., components)."""
        flat = self.D.flatten(0, 2)
        weighted = (features * self.qw[:, None]).flatten(-3)
        return weighted @ flat * flat.shape[1] ** 0.5


class SO3Activation(DropIn):
    """``e3nn.nn.SO3Activation``."""

    attributes = ("lmax_in", "lmax_out")

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.grid_in, self.grid_out = SO3Grid(theirs.grid_in, keep), SO3Grid(theirs.grid_out, keep)
        self.act = Scaled(theirs.act, keep)

    def forward(self, features: Tensor) -> Tensor:
        return self.grid_out.from_grid(self.act(self.grid_in.to_grid(features)))
