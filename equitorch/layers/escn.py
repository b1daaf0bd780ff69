"""The messages of eSCN, made in the frames of edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.so2_activation import Activation
from equitorch.layers.stacks import Channels, stacks
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_in, rotate_out
from equitorch.ops.so2 import join_stacks, split_stacks
from equitorch.reps.order import order_sizes


class EdgeEmbedding(nn.Module):
    r"""Invariants of an edge from its length and the elements of its ends.

    .. math:: t = \phi(W_2 \, \phi(W_1 e(d) + a_{z_j} + b_{z_i} + c_1) + c_2), \qquad \phi = \text{silu}

    Args:
        radial: functions of the length.
        channels: of the result.
        max_z: number of rows of the tables of elements.

    Shape:
        basis: (edges, radial), source and target elements: (edges,) int64 -> (edges, channels)

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN).

    >>> z = torch.tensor([1, 8])
    >>> EdgeEmbedding(6, 4, 20)(torch.randn(2, 6), z, z.flip(0)).shape
    torch.Size([2, 4])
    """

    def __init__(self, radial: int, channels: int, max_z: int) -> None:
        super().__init__()
        self.fc1_dist = nn.Linear(radial, channels)
        self.source_embedding = nn.Embedding(max_z, channels)
        self.target_embedding = nn.Embedding(max_z, channels)
        for table in (self.source_embedding, self.target_embedding):
            nn.init.uniform_(table.weight, -0.001, 0.001)
        self.fc1_edge_attr = nn.Linear(channels, channels)

    def forward(self, basis: Tensor, source: Tensor, target: Tensor) -> Tensor:
        ends = self.source_embedding(source) + self.target_embedding(target)
        return F.silu(self.fc1_edge_attr(F.silu(ends + self.fc1_dist(basis))))


class ScaledMap(nn.Module):
    r"""A linear map through few hidden channels, which the edge scales.

    .. math:: z = W_2 \big(\text{silu}(W_d t + b) \odot W_1 y\big)

    Args:
        width_in: columns of the message.
        width_out: columns of the result.
        hidden: hidden channels.
        edge_channels: of the edge's invariants t.

    Shape:
        y: (edges, width_in), t: (edges, edge_channels) -> (edges, width_out)

    >>> ScaledMap(6, 5, 4, 8)(torch.randn(7, 6), torch.randn(7, 8)).shape
    torch.Size([7, 5])
    """

    def __init__(self, width_in: int, width_out: int, hidden: int, edge_channels: int) -> None:
        super().__init__()
        self.fc1_dist0 = nn.Linear(edge_channels, hidden)
        self.fc1_m0 = nn.Linear(width_in, hidden, bias=False)
        self.fc2_m0 = nn.Linear(hidden, width_out, bias=False)

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        return self.fc2_m0(self.fc1_m0(y) * F.silu(self.fc1_dist0(t)))


class OrderBlock(nn.Module):
    r"""A map of the rows +m and -m of a message through few hidden channels, which the edge scales.

    .. math:: r_\pm = R_2 (d_r \odot R_1 y_\pm), \quad i_\pm = I_2 (d_i \odot I_1 y_\pm), \qquad
        z_\pm = r_\pm \mp i_\mp

    Args:
        width_in: rows of +m times channels, of the message.
        width_out: as many of the result.
        hidden: hidden channels.
        edge_channels: of the edge's invariants, which give d.
        imaginary: have I; without it, mirrors that keep the edge commute too.

    Shape:
        y: (edges, 2, width_in), t: (edges, edge_channels) -> (edges, 2, width_out)

    >>> OrderBlock(6, 6, 4, 8, imaginary=True)(torch.randn(5, 2, 6), torch.randn(5, 8)).shape
    torch.Size([5, 2, 6])
    """

    def __init__(
        self, width_in: int, width_out: int, hidden: int, edge_channels: int, *, imaginary: bool
    ) -> None:
        super().__init__()
        self.fc1_dist = nn.Linear(edge_channels, 2 * hidden if imaginary else hidden)
        self.fc1_r = nn.Linear(width_in, hidden, bias=False)
        self.fc2_r = nn.Linear(hidden, width_out, bias=False)
        self.fc1_i = nn.Linear(width_in, hidden, bias=False) if imaginary else None
        self.fc2_i = nn.Linear(hidden, width_out, bias=False) if imaginary else None

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        scale = F.silu(self.fc1_dist(t)).unsqueeze(1)
        if self.fc1_i is None or self.fc2_i is None:
            return self.fc2_r(self.fc1_r(y) * scale)
        d_r, d_i = scale.chunk(2, dim=-1)
        plus, minus = (self.fc1_i(y) * d_i).unbind(1)
        hidden = torch.cat([self.fc1_r(y) * d_r, torch.stack([-minus, plus], dim=1)], dim=-1)
        return F.linear(hidden, torch.cat([self.fc2_r.weight, self.fc2_i.weight], dim=1))


class SO2Block(ScaledMap):
    r"""A map of a message, each order m by itself, through hidden channels that the edge scales.

    Parities and what they let mix are those of :class:`equitorch.layers.SO2Convolution`.

    Args:
        lmax: highest degree L.
        mmax: highest order M.
        channels_in: of the message; a pair (natural, pseudo) if ``parity`` is "both".
        channels_out: of the result, in the same form.
        hidden: hidden channels of each order.
        edge_channels: of the edge's invariants.
        extra: number of further scalars that the rows of m = 0 give.
        parity: "natural", "both" or "so3".

    Shape:
        y: (edges, rows, channels_in), t: (edges, edge_channels) ->
        (edges, rows, channels_out) and (edges, extra)

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN, parity "so3").

    >>> block = SO2Block(2, 1, 8, 8, hidden=4, edge_channels=6, extra=3)
    >>> y, scalars = block(torch.randn(10, 7, 8), torch.randn(10, 6))
    >>> y.shape, scalars.shape
    (torch.Size([10, 7, 8]), torch.Size([10, 3]))
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels_in: Channels,
        channels_out: Channels,
        *,
        hidden: int,
        edge_channels: int,
        extra: int = 0,
        parity: str = "natural",
    ) -> None:
        (a, b), (c, d) = stacks(channels_in, parity), stacks(channels_out, parity)
        k, *others = order_sizes(lmax, mmax)
        super().__init__(k * a, extra + k * c, hidden, edge_channels)
        self.lmax, self.mmax, self.extra, self.parity = lmax, mmax, extra, parity
        self.natural_in, self.natural_out, self.channels_out = a, c, c + d
        self.pseudo = ScaledMap(k * b, k * d, hidden, edge_channels) if parity == "both" else None
        self.widths = [k * a, *([k * b] if parity == "both" else []), *(2 * n * (a + b) for n in others)]
        self.so2_conv = nn.ModuleList(
            OrderBlock(n * (a + b), n * (c + d), hidden, edge_channels, imaginary=parity == "so3")
            for n in others
        )

    def forward(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        both = self.pseudo is not None
        columns = split_stacks(y, self.lmax, self.mmax, self.natural_in) if both else y.flatten(1)
        first, *rest = columns.split(self.widths, dim=1)
        z = super().forward(first, t)
        extra, z = z.split([self.extra, z.shape[1] - self.extra], dim=1)
        parts = [z] if self.pseudo is None else [z, self.pseudo(rest.pop(0), t)]
        for block, x in zip(self.so2_conv, rest, strict=True):
            parts.append(block(x.unflatten(1, (2, x.shape[1] // 2)), t).flatten(1))
        out = torch.cat(parts, dim=1)
        if both:
            return join_stacks(out, self.lmax, self.mmax, self.natural_out, self.channels_out), extra
        return out.unflatten(1, (out.shape[1] // self.channels_out, self.channels_out)), extra


class MessageBlock(nn.Module):
    r"""The sum of the messages to each atom: both ends of an edge, mapped and activated in the edge's frame.

    .. math:: m_i = \sum_{e: j \to i} w_e \, D_e^T \, \phi\big(B_s(D_e x_j, t_e) + B_t(D_e x_i, t_e)\big)

    Args:
        lmax: highest degree.
        mmax: highest order.
        channels: of the feature; a pair if ``parity`` is "both".
        activation: of messages in the frames of edges, with ``channels`` in the result.
        hidden: hidden channels of each order.
        edge_channels: of an edge's invariants.
        radial: functions of the length.
        max_z: number of rows of the tables of elements.
        parity: "natural", "both" or "so3".

    Shape:
        x: (nodes, (lmax + 1)^2, channels), basis: (edges, radial), atomic_numbers: (nodes,) int64,
        envelope: (edges,) or None -> as x

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN).
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: Channels,
        activation: Activation,
        *,
        hidden: int,
        edge_channels: int,
        radial: int,
        max_z: int,
        parity: str = "natural",
    ) -> None:
        super().__init__()
        self.edge_block = EdgeEmbedding(radial, edge_channels, max_z)
        self.so2_block_source, self.so2_block_target = (
            SO2Block(
                lmax,
                mmax,
                channels,
                activation.channels_in,
                hidden=hidden,
                edge_channels=edge_channels,
                extra=activation.extra,
                parity=parity,
            )
            for _ in range(2)
        )
        self.activation = activation

    def forward(
        self,
        x: Tensor,
        basis: Tensor,
        atomic_numbers: Tensor,
        rotation: EdgeRotation,
        plan: EdgePlan,
        envelope: Tensor | None = None,
    ) -> Tensor:
        t = self.edge_block(basis, atomic_numbers[plan.source], atomic_numbers[plan.target])
        source, s = self.so2_block_source(rotate_in(x, rotation, plan), t)
        target, u = self.so2_block_target(rotate_in(x, rotation, plan, end="target"), t)
        m = self.activation(source + target, s + u if self.activation.extra else None)
        return rotate_out(m if envelope is None else m * envelope[:, None, None], rotation, plan)
