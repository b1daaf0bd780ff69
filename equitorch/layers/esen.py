"""The block of eSEN and UMA: messages that vanish at the cutoff, and a network of each atom."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.edge_degree import RadialMLP
from equitorch.layers.so2 import SO2Convolution
from equitorch.layers.so2_activation import Activation
from equitorch.layers.stacks import Channels, both_ends, stacks
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_out
from equitorch.reps.order import order_sizes


class EdgeMessage(nn.Module):
    r"""The sum of the messages to each atom, made of both ends of an edge in the edge's frame.

    .. math:: m_i = \sum_{e: j \to i} w_e \, D_e^T \, W_2 \, \phi\big(W_1 (f(t_e) \odot D_e [x_j | x_i])\big)

    where f weighs every order, degree and channel.

    Args:
        lmax: highest degree.
        mmax: highest order.
        channels: of the feature; a pair if ``parity`` is "both".
        activation: of messages in the frames of edges.
        scalars: invariants of an edge.
        edge_channels: hidden channels of the radial network.
        parity: "natural", "both" or "so3".

    Shape:
        x: (nodes, (lmax + 1)^2, channels), scalars: (edges, scalars), envelope: (edges,) or None -> as x

    Source:
        Fu et al. 2025, arXiv:2502.12147 (eSEN).
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: Channels,
        activation: Activation,
        *,
        scalars: int,
        edge_channels: int,
        parity: str = "natural",
    ) -> None:
        super().__init__()
        self.stacks = stacks(channels, parity)
        width = (2 * self.stacks[0], 2 * self.stacks[1]) if parity == "both" else 2 * self.stacks[0]
        self.conv1 = SO2Convolution(
            lmax, mmax, width, activation.channels_in, extra=activation.extra, parity=parity
        )
        self.radial = RadialMLP(scalars, edge_channels, sum(order_sizes(lmax, mmax)) * 2 * sum(self.stacks))
        self.activation = activation
        self.conv2 = SO2Convolution(lmax, mmax, activation.channels_out, channels, parity=parity)

    def forward(
        self,
        x: Tensor,
        scalars: Tensor,
        rotation: EdgeRotation,
        plan: EdgePlan,
        envelope: Tensor | None = None,
    ) -> Tensor:
        factor = self.radial(scalars).unflatten(-1, (-1, 2 * sum(self.stacks)))
        y, extra = self.conv1(both_ends(x, rotation, plan, self.stacks), factor)
        m, _ = self.conv2(self.activation(y) if extra is None else self.activation(y, extra))
        return rotate_out(m if envelope is None else m * envelope[:, None, None], rotation, plan)


class ESENBlock(nn.Module):
    r"""Messages and a feed-forward network, each of a norm of the features and added to them.

    .. math:: x \leftarrow x + \text{message}(\text{norm}_1 x + s \, [l = 0]), \qquad
        x \leftarrow x + \text{ffn}(\text{norm}_2 x)

    Args:
        norm1: before the messages.
        message: between atoms.
        norm2: before the network.
        ffn: of each atom.

    Shape:
        x: (nodes, rows, channels), system: s, (nodes, channels) or None -> as x

    Source:
        Fu et al. 2025, arXiv:2502.12147 (eSEN); Wood et al. 2025, arXiv:2506.23971 (UMA: s).
    """

    def __init__(self, norm1: nn.Module, message: EdgeMessage, norm2: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.message, self.norm2, self.ffn = norm1, message, norm2, ffn

    def forward(
        self,
        x: Tensor,
        scalars: Tensor,
        rotation: EdgeRotation,
        plan: EdgePlan,
        envelope: Tensor | None = None,
        system: Tensor | None = None,
    ) -> Tensor:
        y = self.norm1(x)
        if system is not None:
            y = torch.cat([y[:, :1] + system.unsqueeze(1), y[:, 1:]], dim=1)
        x = x + self.message(y, scalars, rotation, plan, envelope)
        return x + self.ffn(self.norm2(x))


class SystemEmbedding(nn.Module):
    r"""A vector of each graph from its charge, its spin multiplicity and the data set that it belongs to.

    .. math:: s = \text{silu}(W [e(Q, \omega) | e(S, \omega') | d] + b), \qquad
        e(n, \omega) = [\sin 2 \pi n \omega | \cos 2 \pi n \omega]

    where S = 0, no spin given, has the vector zero. Frequencies and d are drawn once, and not learned.

    Args:
        channels: of the result, even.
        datasets: names of the data sets; none for no d.
        kind: "pos_emb": sines and cosines, for charges of any value; "rand_emb": random vectors of whole
            charges from -100 to 100 and spins up to 100.

    Shape:
        charge, spin: (graphs,), dataset: (graphs,) int64 -> (graphs, channels)

    Raises:
        ValueError: if ``channels`` is odd, or there is no such kind.

    Source:
        Wood et al. 2025, arXiv:2506.23971 (UMA).

    >>> SystemEmbedding(8, ["omol"])(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.tensor([0, 0])).shape
    torch.Size([2, 8])
    """

    def __init__(self, channels: int, datasets: Sequence[str] = (), *, kind: str = "pos_emb") -> None:
        super().__init__()
        if kind not in ("pos_emb", "rand_emb") or channels % 2:
            raise ValueError(
                "SystemEmbedding expects kind to be pos_emb or rand_emb and an even number of channels, "
                f"got {kind!r} and {channels}"
            )
        self.kind, self.datasets = kind, list(datasets)
        shapes = [(channels // 2,)] * 2 if kind == "pos_emb" else [(201, channels), (101, channels)]
        self.charge, self.spin = (nn.Parameter(torch.randn(shape), requires_grad=False) for shape in shapes)
        self.dataset = nn.ParameterList(
            nn.Parameter(torch.randn(1, channels), requires_grad=False) for _ in self.datasets
        )
        self.mix = nn.Linear((3 if self.datasets else 2) * channels, channels)

    def forward(self, charge: Tensor, spin: Tensor, dataset: Tensor) -> Tensor:
        if self.kind == "pos_emb":
            waves = _waves(spin, self.spin)
            ends = [_waves(charge, self.charge), torch.where((spin == 0).unsqueeze(-1), 0.0, waves)]
        else:
            ends = [self.charge[charge.long() + 100], self.spin[spin.long()]]
        if self.datasets:
            ends.append(torch.cat(list(self.dataset))[dataset])
        return nn.functional.silu(self.mix(torch.cat(ends, dim=-1)))


@torch.no_grad()
def smooth_start(model: nn.Module, radial: int, waves: int = 4) -> None:
    """Draw the weights of the radial basis anew in all radial networks, neighbouring ones nearly alike.

    Each is a sum of few long waves over the centres of the Gaussians. Independent weights, as published, give
    functions of the distance that oscillate on the Gaussians' width; forces then are rough, and lose digits.

    Args:
        model: with radial networks inside.
        radial: number of Gaussians, the first scalars of an edge.
        waves: how many, from a constant on.
    """
    place = torch.linspace(0, math.pi, radial)
    shapes = torch.cos(torch.arange(waves).unsqueeze(1) * place)
    for network in model.modules():
        if isinstance(network, RadialMLP):
            weight = network[0].get_parameter("weight")
            amplitude = torch.randn(weight.shape[0], waves) / (3 * weight.shape[1] * waves) ** 0.5
            weight[:, :radial] = (amplitude @ shapes).to(weight)


def _waves(number: Tensor, frequency: Tensor) -> Tensor:
    phase = number.to(frequency.dtype).unsqueeze(-1) * frequency * (2 * math.pi)
    return torch.cat([phase.sin(), phase.cos()], dim=-1)
