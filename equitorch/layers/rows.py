"""What the layers do to the rows of a feature, irrep by irrep."""

from __future__ import annotations

import torch
from torch import Tensor

from equitorch.reps import Irreps


def expect_rows(name: str, irreps: Irreps, x: Tensor, channels: int | None = None) -> None:
    """Refuse a feature of the wrong shape.

    Args:
        name: the layer, as the user wrote it.
        irreps: how the rows of the feature transform.
        x: the feature.
        channels: how many it must have; None for any number.

    Raises:
        ValueError: if ``x`` does not have ``irreps.dim`` rows and ``channels`` channels.

    >>> expect_rows("Norm", Irreps("0e+1o"), torch.zeros(10, 4, 8))
    """
    if x.ndim < 2 or x.shape[-2] != irreps.dim or channels not in (None, x.shape[-1]):
        raise ValueError(
            f"{name}({irreps}) expects x of shape (..., {irreps.dim}, {channels or 'channels'}), "
            f"got {tuple(x.shape)}"
        )


def expect_dtype(layer: object, x: Tensor, weight: Tensor) -> None:
    """Refuse a feature whose dtype is not that of the weights, unless autocast chooses the dtype.

    Args:
        layer: the layer, as the user shall read it.
        x: the feature.
        weight: what it meets.

    Raises:
        ValueError: naming the two dtypes.

    >>> expect_dtype("Linear", torch.zeros(4, 8), torch.zeros(8))
    """
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"{layer} expects x of its own dtype, {weight.dtype}, got {x.dtype}; "
            "convert x, or the layer with .to(dtype)"
        )


def scale_irreps(irreps: Irreps, x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the rows of each irrep by a factor of its own.

    Shape:
        x: (..., irreps.dim, channels); factor: (..., irreps.num_irreps, channels or 1) -> shape of x

    >>> scale_irreps(Irreps("0e+1o"), torch.ones(4, 1), torch.tensor([[2.0], [3.0]])).flatten()
    tensor([2., 3., 3., 3.])
    """
    blocks = x.split([mul * ir.dim for mul, ir in irreps], dim=-2)
    factors = factor.split([mul for mul, _ in irreps], dim=-2)
    scaled = [
        block * f if ir.dim == 1 or mul == 1 else _each(block, mul, ir.dim, f)
        for (mul, ir), block, f in zip(irreps, blocks, factors, strict=True)
    ]
    return torch.cat(scaled, dim=-2) if scaled else x


def _each(block: Tensor, mul: int, dim: int, factor: Tensor) -> Tensor:
    return (block.unflatten(-2, (mul, dim)) * factor.unsqueeze(-2)).flatten(-3, -2)


def shift_scalars(irreps: Irreps, x: Tensor, shift: Tensor) -> Tensor:
    """Add to the invariant rows.

    Shape:
        x: (..., irreps.dim, channels); shift: (..., invariant rows, channels) -> shape of x

    >>> shift_scalars(Irreps("0e+1o"), torch.ones(4, 1), torch.tensor([[2.0]])).flatten()
    tensor([3., 1., 1., 1.])
    """
    blocks = list(x.split([mul * ir.dim for mul, ir in irreps], dim=-2))
    used = 0
    for k, (mul, ir) in enumerate(irreps):
        if ir.is_scalar():
            blocks[k] = blocks[k] + shift[..., used : used + mul, :]
            used += mul
    return torch.cat(blocks, dim=-2) if len(blocks) > 1 else blocks[0] if blocks else x
