"""Parameters of equivariant maps: those that a basis keeps, and where they belong among all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Indices


class Entry(NamedTuple):
    """What one parameter holds.

    Attributes:
        name: of the parameter.
        shape: numbers of permutations, lower halves and upper halves.
        deviation: how large the weights start, for one channel. Broadcasts to ``shape``; float64.
        kept: flat positions of the maps that there are weights for; all, if None.
    """

    name: str
    shape: tuple[int, int, int]
    deviation: Tensor
    kept: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of maps."""
        return math.prod(self.shape) if self.kept is None else len(self.kept)


class Weights(nn.ParameterDict):
    """A parameter for each entry.

    Args:
        entries: what they hold.
        channels_in: second axis of each matrix of channels.
        channels_out: its other axis; None for one number for each channel instead of a matrix.

    >>> entry = Entry("maps", (1, 3, 1), torch.ones(1), torch.tensor([0, 2]))
    >>> weights = Weights([entry], 4, 5)
    >>> weights["maps"].shape, weights.full()[0].shape
    (torch.Size([2, 4, 5]), torch.Size([1, 3, 4, 1, 5]))
    """

    def __init__(self, entries: Sequence[Entry], channels_in: int, channels_out: int | None) -> None:
        super().__init__()
        self.entries, self.channels_in, self.channels_out = tuple(entries), channels_in, channels_out
        self.kept = nn.ModuleDict()
        last = () if channels_out is None else (channels_out,)
        for entry in self.entries:
            p, h, g = entry.shape
            whole = (p, h, channels_in, g, *last)
            shape = whole if entry.kept is None else (len(entry.kept), channels_in, *last)
            self[entry.name] = nn.Parameter(torch.empty(shape))
            if entry.kept is not None:
                self.kept[entry.name] = Indices(entry.kept)

    def full(self) -> list[Tensor]:
        """All weights, zero where a map is not kept: (permutations, lower, channels, upper, channels)."""
        return [self._spread_out(entry, self[entry.name]) for entry in self.entries]

    @torch.no_grad()
    def reset(self, fan_in: int, *, zero: bool = False) -> None:
        """Draw the weights, each with its deviation over the root of ``fan_in``."""
        for entry in self.entries:
            weight = self[entry.name]
            if zero:
                nn.init.zeros_(weight)
                continue
            deviation = entry.deviation.expand(entry.shape)
            if entry.kept is not None:
                deviation = deviation.flatten()[entry.kept][:, None]
            else:
                deviation = deviation.unsqueeze(2)
            deviation = deviation if self.channels_out is None else deviation.unsqueeze(-1)
            weight.normal_().mul_(deviation.to(weight) * max(fan_in, 1) ** -0.5)

    def _spread_out(self, entry: Entry, weight: Tensor) -> Tensor:
        if entry.kept is None:
            return weight
        p, h, g = entry.shape
        flat = weight
        if len(entry.kept) < p * h * g:
            zeros = weight.new_zeros(p * h * g, *weight.shape[1:])
            flat = zeros.index_copy(0, self.get_buffer(f"kept.{entry.name}.value"), weight)
        return flat.unflatten(0, (p, h, g)).transpose(2, 3)
