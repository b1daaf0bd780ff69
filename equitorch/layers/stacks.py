"""Natural and pseudo features side by side: two stacks in the channels of one tensor, each its own irreps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.linear import Linear
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_in
from equitorch.reps import Irrep, Irreps

Channels = int | Sequence[int]
PARITIES = ("natural", "both", "so3")


def stacks(channels: Channels, parity: str) -> tuple[int, int]:
    """Natural and pseudo channels of a feature.

    Args:
        channels: how many; of each kind for "both".
        parity: "natural": harmonics, 0e 1o 2e..; "both": as many as asked for of these, and then of
            0o 1e 2o..; "so3": one stack that knows no mirror.

    Raises:
        ValueError: if ``parity`` is unknown, or ``channels`` are not of its form.

    >>> stacks(8, "natural"), stacks((8, 4), "both")
    ((8, 0), (8, 4))
    """
    if parity not in PARITIES:
        raise ValueError(f"parity expects one of {', '.join(PARITIES)}, got {parity!r}")
    if parity != "both" and isinstance(channels, int):
        return channels, 0
    if parity == "both" and not isinstance(channels, int) and len(channels) == 2:
        return channels[0], channels[1]
    expected = "a pair of numbers (natural, pseudo)" if parity == "both" else "one number"
    raise ValueError(f"parity {parity!r} expects channels as {expected}, got {channels!r}")


def stack_irreps(lmax: int, parity: str) -> list[Irreps]:
    """How the rows of each stack transform.

    >>> stack_irreps(2, "both")
    [1x0e+1x1o+1x2e, 1x0o+1x1e+1x2o]
    """
    natural = Irreps.spherical_harmonics(lmax, p=0 if parity == "so3" else -1)
    if parity != "both":
        return [natural]
    return [natural, Irreps([(1, Irrep(l, -((-1) ** l))) for l in range(lmax + 1)])]


class PerStack(nn.Module):
    """A module of its own for each stack of a feature.

    Args:
        modules: one for each stack.
        channels: of each stack.

    Shape:
        x: (..., rows, sum of channels) -> (..., rows, sum of the modules' channels)

    Raises:
        ValueError: if ``x`` does not have as many channels.

    >>> PerStack([nn.Identity(), nn.Tanh()], (2, 1))(torch.ones(1, 3))
    tensor([[1.0000, 1.0000, 0.7616]])
    """

    def __init__(self, modules: list[nn.Module], channels: tuple[int, int]) -> None:
        super().__init__()
        self.natural, self.pseudo = modules
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != sum(self.channels):
            raise ValueError(
                f"PerStack expects {self.channels[0]} + {self.channels[1]} channels, got {x.shape[-1]}"
            )
        natural, pseudo = x.split(self.channels, dim=-1)
        return torch.cat([self.natural(natural), self.pseudo(pseudo)], dim=-1)


def both_ends(x: Tensor, rotation: EdgeRotation, plan: EdgePlan, channels: tuple[int, int]) -> Tensor:
    """Source and target of each edge, seen from the edge, side by side in each stack.

    Args:
        x: features of the nodes.
        rotation: of the edges.
        plan: of the edges.
        channels: of each stack.

    Shape:
        x: (nodes, rows, channels) -> (edges, kept rows, 2 * channels)
    """
    source, target = (rotate_in(x, rotation, plan, end=end) for end in ("source", "target"))
    if not channels[1]:
        return torch.cat([source, target], dim=-1)
    (a, b), (c, d) = (y.split(channels, dim=-1) for y in (source, target))
    return torch.cat([a, c, b, d], dim=-1)


def degree_linear(
    lmax: int, channels_in: Channels, channels_out: Channels, *, parity: str = "natural"
) -> Linear | PerStack:
    """A ``Linear`` for each stack of a feature; weights start uniform, a third of the usual variance.

    >>> degree_linear(2, (8, 4), (6, 2), parity="both")(torch.randn(5, 9, 12)).shape
    torch.Size([5, 9, 8])
    """
    sizes = zip(stacks(channels_in, parity), stacks(channels_out, parity), strict=True)
    maps = [Linear(ir, a, b) for ir, (a, b) in zip(stack_irreps(lmax, parity), sizes, strict=False)]
    for linear in maps:
        nn.init.uniform_(linear.weight, -1, 1)
    return PerStack([*maps], stacks(channels_in, parity)) if parity == "both" else maps[0]


def uniform_linear(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Linear:
    """A dense map whose weights start from U(-1, 1) / sqrt(channels_in), its bias from zero.

    >>> uniform_linear(4, 2).bias.tolist()
    [0.0, 0.0]
    """
    linear = nn.Linear(channels_in, channels_out, bias=bias)
    nn.init.uniform_(linear.weight, -(max(channels_in, 1) ** -0.5), max(channels_in, 1) ** -0.5)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
