"""``Bilinear`` as users call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from equitorch.ops.bilinear.reference import bilinear as reference
from equitorch.ops.bilinear.reference import fake
from equitorch.ops.multilinear import Kernel, Multilinear
from equitorch.reps import Coupling


class Bilinear(nn.Module):
    r"""Combine two features, channel by channel, through an equivariant coupling.

    .. math:: z_{k c} = \sum_{ij} T_{ijk} \, x_{i c} \, y_{j c}

    Clebsch-Gordan products, TensorNet's matrix products and Brauer contractions of two
    arguments are all of this form; only the coupling differs. There are no parameters: the
    coefficients are buffers, so they follow ``.to(device)`` and are left out of checkpoints.

    Args:
        coupling: the form T, with ``dims == (I, J, K)``.

    Shape:
        x: (..., I, channels or 1), y: (..., J, channels or 1) -> (..., K, channels)

    Raises:
        ValueError: if ``x`` or ``y`` does not have the rows that the coupling joins.

    Source:
        Thomas et al. 2018, arXiv:1802.08219 (point convolution).

    >>> Bilinear(Coupling.matrix_product(3))(torch.randn(5, 9, 16), torch.randn(5, 9, 1)).shape
    torch.Size([5, 9, 16])
    """

    def __init__(self, coupling: Coupling) -> None:
        super().__init__()
        self.dims = coupling.dims
        self.entries = coupling.value.numel()
        for name, tensor in zip(_PLAN, coupling.plan(), strict=True):
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return bilinear(x, y, [getattr(self, name) for name in _PLAN])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the coefficients, but never round them: they are converted where they are used."""
        exact = {name: getattr(self, name) for name in _PLAN if name.startswith("value")}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        i, j, k = self.dims
        return f"{i} x {j} -> {k} rows, {self.entries} entries"


_PLAN = [f"{what}_{slot}" for slot in range(3) for what in ("index", "value", "start")]


def _cpu() -> Kernel:
    from equitorch.ops.bilinear.cpu import bilinear as kernel  # imports Numba

    return kernel


def _cuda() -> Kernel:
    from equitorch.ops.bilinear.triton import bilinear as kernel  # imports Triton

    return kernel


_bilinear = Multilinear("bilinear", reference=reference, fake=fake, cpu=_cpu, cuda=_cuda)


def bilinear(x: Tensor, y: Tensor, plan: Sequence[Tensor]) -> Tensor:
    r"""Combine two features through a coupling given by its plan: the function under ``Bilinear``.

    Args:
        x: first feature.
        y: second feature; either of the two may have a single channel that goes with all of the other's.
        plan: the nine tensors of ``Coupling.plan()``, on the device of the operands.

    Shape:
        x: (..., I, channels or 1), y: (..., J, channels or 1) -> (..., K, channels)

    Raises:
        ValueError: if the operands do not fit the plan or each other.
    """
    i, j, k = (plan[slot].shape[0] - 1 for slot in (2, 5, 8))
    if x.ndim < 2 or y.ndim < 2 or x.shape[-2] != i or y.shape[-2] != j:
        raise ValueError(
            f"this coupling joins {i} and {j} rows into {k}, "
            f"got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}"
        )
    channels = y.shape[-1] if x.shape[-1] == 1 else x.shape[-1]
    wide = y.shape[-1]  # not "in (1, channels)": Dynamo fails on that where sizes are symbols
    if (wide != 1 and wide != channels) or x.dtype != y.dtype:
        raise ValueError(
            "bilinear expects x and y of one dtype with equally many channels, or one of them with a single "
            f"channel, got {x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
        )
    batch = x.shape[:-2]
    if y.shape[:-2] != batch:
        batch = torch.broadcast_shapes(batch, y.shape[:-2])
        x, y = x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])
    if len(batch) != 1:
        x, y = x.reshape(batch.numel(), i, x.shape[-1]), y.reshape(batch.numel(), j, y.shape[-1])
    out = _bilinear(2, [x, y], plan, [x.shape[2], y.shape[2], channels])
    return out if len(batch) == 1 else out.reshape(*batch, k, channels)
