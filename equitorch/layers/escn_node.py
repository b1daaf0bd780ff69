"""What an atom of eSCN makes of its messages, and what is read off it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.equiformer_v2 import row_norm
from equitorch.layers.escn import MessageBlock
from equitorch.layers.linear import Linear
from equitorch.layers.row_grid import RowGrid
from equitorch.layers.so2_activation import Activation
from equitorch.layers.stacks import Channels, degree_linear, stacks
from equitorch.reps.sphere import harmonics_at


class GridUpdate(nn.Module):
    r"""A perceptron at each point of the sphere, on the functions of the atom and of its messages.

    Args:
        message: gives the messages.
        grid: the points, of all degrees and orders; equivariant as far as it is fine.
        channels: of the feature.

    Shape:
        x: (nodes, (lmax + 1)^2, channels), then what ``message`` wants -> as x

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN).
    """

    def __init__(self, message: MessageBlock, grid: RowGrid, channels: int) -> None:
        super().__init__()
        self.message_block, self.grid = message, grid
        self.fc1_sphere = nn.Linear(2 * channels, channels, bias=False)
        self.fc2_sphere = nn.Linear(channels, channels, bias=False)
        self.fc3_sphere = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, *edges: Any) -> Tensor:
        both = torch.cat([x, self.message_block(x, *edges)], dim=-1)
        maps = self.fc1_sphere, self.fc2_sphere, self.fc3_sphere
        return self.grid(_perceptron, both, *[fc.weight for fc in maps])


class ExactUpdate(nn.Module):
    r"""A norm, then linear maps of the atom's rows and of its messages, an exact activation, a linear map.

    .. math:: z = \text{norm} \, x, \qquad y = W_3 \, \phi\big(W_1 z + W_2 \, m(z), \; V [z_0 | m(z)_0]\big)

    eSCN itself has no norm. Without one, products of features grow beyond all bounds from layer to layer.

    Args:
        message: gives the messages.
        activation: of nodes' rows, with ``channels`` in the result.
        lmax: highest degree.
        channels: of the feature; a pair if ``parity`` is "both".
        parity: "natural", "both" or "so3".

    Shape:
        x: (nodes, (lmax + 1)^2, channels), then what ``message`` wants -> as x
    """

    def __init__(
        self,
        message: MessageBlock,
        activation: Activation,
        lmax: int,
        channels: Channels,
        *,
        parity: str = "natural",
    ) -> None:
        super().__init__()
        self.norm = row_norm("rms_norm_sh", lmax, channels, parity=parity)
        self.message_block, self.activation = message, activation
        self.natural, self.pseudo = stacks(channels, parity)
        self.atom, self.sum = (
            degree_linear(lmax, channels, activation.channels_in, parity=parity) for _ in range(2)
        )
        self.scalars = nn.Linear(2 * self.natural, activation.extra)
        self.out = degree_linear(lmax, channels, channels, parity=parity)

    def forward(self, x: Tensor, *edges: Any) -> Tensor:
        x = self.norm(x)
        m = self.message_block(x, *edges)
        scalars = self.scalars(torch.cat([x[:, 0, : self.natural], m[:, 0, : self.natural]], dim=-1))
        return self.out(self.activation(self.atom(x) + self.sum(m), scalars))


class PointHead(nn.Module):
    """A perceptron from the values at a point to one number.

    Args:
        channels: of the values.

    Shape:
        (..., channels) -> (...)

    >>> PointHead(8)(torch.randn(5, 128, 8)).shape
    torch.Size([5, 128])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.fc3 = nn.Linear(channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.silu(self.fc2(F.silu(self.fc1(x))))).squeeze(-1)


class PointSample(nn.Module):
    r"""The function whose coefficients the rows are, at points about the unit sphere: saved, not learned.

    Args:
        count: number of points, by default on a spiral of equal areas.
        lmax: highest degree.

    Shape:
        x: (nodes, (lmax + 1)^2, channels) -> (nodes, count, channels)

    >>> PointSample(128, 2)(torch.randn(5, 9, 8)).shape
    torch.Size([5, 128, 8])
    """

    def __init__(self, count: int, lmax: int) -> None:
        super().__init__()
        i = torch.arange(count, dtype=torch.float64, device="cpu") + 0.5
        z, turn = 1 - 2 * i / count, math.pi * (1 + 5**0.5) * i
        s = (1 - z * z).sqrt()
        points = torch.stack([s * turn.cos(), s * turn.sin(), z], dim=-1)
        self.sphere_points, self.sphharm_weights = (
            nn.Parameter(t.to(torch.get_default_device(), torch.get_default_dtype()), requires_grad=False)
            for t in (points, harmonics_at(lmax, points))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.sphharm_weights, x)


@torch.no_grad()
def unit_start(layers: nn.ModuleList) -> None:
    """Draw weights anew so that features, messages and what the edges scale start with variances near one.

    As published they shrink from map to map, and a new model hardly sees its edges. Maps of the radial basis
    stay small: functions of the distance then start out smooth.

    Args:
        layers: of :class:`ExactUpdate`.
    """
    silu = 0.3558**-0.5  # the mean square of silu of a unit normal number
    for name, module in layers.named_modules():
        kind, scales = name.rpartition(".")[2], name.endswith(("fc1_dist", "fc1_dist0"))
        if isinstance(module, nn.Embedding):
            nn.init.uniform_(module.weight, -1, 1)
        elif isinstance(module, Linear):
            nn.init.uniform_(module.weight, -(3**0.5), 3**0.5)
        elif isinstance(module, nn.Linear) and module.weight.numel():
            basis = name.endswith("edge_block.fc1_dist")
            gain = silu if (scales and not basis) or kind == "fc1_edge_attr" else 1.0
            bound = gain * (3 / module.in_features) ** 0.5
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.constant_(module.bias, float(scales and not basis))


def _perceptron(x: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(F.silu(F.linear(x, first)), second)), third)
