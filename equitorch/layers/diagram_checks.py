"""What ``DiagramLinear`` asks of its options and features, and says when it gets something else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.diagram_maps import DiagramMaps
from equitorch.layers.diagram_tables import TableMaps

_OPTIONS = {
    "normalization": ("auto", "sum", "mean", "sqrt"),
    "basis": ("spanning", "minimal"),
    "mixing": ("auto", "full", "depthwise"),
    "backend": ("auto", "dense", "plan", "fused"),
}


def expect_options(**options: str) -> None:
    """Each is one of those that there are.

    >>> expect_options(basis="small")
    Traceback (most recent call last):
    ValueError: DiagramLinear expects basis to be spanning or minimal, got 'small'
    """
    for name, given in options.items():
        if given not in _OPTIONS[name]:
            raise ValueError(
                f"DiagramLinear expects {name} to be {' or '.join(_OPTIONS[name])}, got {given!r}"
            )


def expect_channels(**channels: int) -> None:
    """Each is a whole number of 0 or more."""
    for name, given in channels.items():
        if isinstance(given, bool) or not isinstance(given, int) or given < 0:
            raise ValueError(f"DiagramLinear expects {name} to be a whole number >= 0, got {given!r}")


def expect_feature(
    module: nn.Module, x: Tensor, maps: DiagramMaps | TableMaps, channels: int
) -> tuple[int, ...]:
    """The dimension of each group at which a feature of shape (..., rows, channels) has so many rows."""
    fits = x.ndim >= 2 and x.shape[-1] == channels
    sizes = maps.sizes_for(x.shape[-2]) if fits else None
    if sizes is None:
        other = " (or the rows of another n)" if maps.is_free else ""
        rows = maps.rows(maps.sizes)[0]
        raise ValueError(
            f"{module} expects x of shape (..., {rows}, {channels}){other}, got {tuple(x.shape)}"
        )
    return sizes


def expect_dimension(module: nn.Module, n: int, maps: DiagramMaps | TableMaps) -> tuple[int, ...]:
    """The dimension of each group, when that which is free is n."""
    sizes = maps.sizes_at(n)
    if sizes is None or not isinstance(maps, DiagramMaps):
        raise ValueError(f"{module} has the same dimension n always, got n={n}")
    step = maps.inner.step
    if isinstance(n, bool) or not isinstance(n, int) or n < step or n % step:
        raise ValueError(
            f"{module} expects n to be {'an even' if step > 1 else 'a whole'} number > 0, got {n!r}"
        )
    return sizes


def expect_every_n(module: nn.Module, maps: DiagramMaps | TableMaps) -> None:
    """The maps are not those that are a basis at one n."""
    if maps.partial:
        raise ValueError(
            f"{module} has basis=minimal, which is one at its own n only; "
            'use basis="spanning" for a layer that runs at every n'
        )


def expect_mask(
    module: nn.Module, mask: Tensor, x: Tensor, maps: DiagramMaps | TableMaps, sizes: tuple[int, ...]
) -> None:
    """It says of each point of each sample whether it is there; and there are points."""
    n = maps.masked(sizes)
    if n is None:
        raise ValueError(f"{module} takes no mask: points are there or not under permutations S only")
    if mask.dtype != torch.bool or mask.shape != (*x.shape[:-2], n):
        raise ValueError(
            f"{module} expects a mask of shape {(*x.shape[:-2], n)} and dtype bool, "
            f"got {tuple(mask.shape)} and {mask.dtype}"
        )
