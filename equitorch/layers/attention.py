"""Attention over the edges of a graph, whose values are equivariant messages in the edges' frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.edge_degree import RadialMLP, row_rescale
from equitorch.layers.so2 import SO2Convolution
from equitorch.layers.so2_activation import row_activation
from equitorch.layers.stacks import Channels, both_ends, degree_linear, stacks
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_out
from equitorch.ops.segment import segment_sum, spread
from equitorch.reps.order import order_sizes

_EPS = 1e-16


class SmoothLeakyReLU(nn.Module):
    r"""Slope one far to the right, another far to the left, and smooth in between.

    .. math:: f(x) = \tfrac{1 + s}2 x + \tfrac{1 - s}2 x \, (2 \sigma(x) - 1)

    Args:
        slope: s, to the left.

    Shape:
        x: (...) -> (...)

    Source:
        Liao, Smidt 2023, arXiv:2206.11990 (Equiformer).

    >>> SmoothLeakyReLU()(torch.tensor([-20.0, 0.0, 20.0]))
    tensor([-4.,  0., 20.])
    """

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.slope) / 2 * x + (1 - self.slope) / 2 * x * (2 * torch.sigmoid(x) - 1)

    def extra_repr(self) -> str:
        return f"slope={self.slope:g}"


def edge_softmax(score: Tensor, plan: EdgePlan, *, envelope: Tensor | None = None) -> Tensor:
    r"""Attention weights of the edges that lead to a node; always summed in the same order.

    .. math:: a_e = w_e \, \frac{w_e \exp t_e}{\sum_{e' \to i(e)} w_{e'} \exp t_{e'} + \epsilon}

    The envelope w counts twice: inside, an edge that leaves does not disturb the others; outside, the last
    edge of a node may leave, too. Scores are shifted by the node's largest :math:`t + \log w`, so that no
    edge at the cutoff, whatever its score, changes the result.

    Args:
        score: t of each edge and head.
        plan: the edges, sorted by target.
        envelope: w of each edge, zero at the cutoff and beyond; 1 unless given.

    Shape:
        score: (edges, heads), envelope: (edges,) -> (edges, heads)

    Raises:
        ValueError: if ``score`` or ``envelope`` does not have one row for each edge.

    Source:
        Veličković et al. 2018, arXiv:1710.10903 (softmax over neighbours); smooth as in EquiformerV3.

    >>> plan = EdgePlan.build(torch.tensor([[1, 2, 0], [0, 0, 1]]), 3)
    >>> edge_softmax(torch.zeros(3, 1), plan).flatten()
    tensor([0.5000, 0.5000, 1.0000])
    """
    edges = plan.target.shape[0]
    if score.ndim != 2 or score.shape[0] != edges or (envelope is not None and envelope.shape != (edges,)):
        raise ValueError(
            f"edge_softmax expects scores of shape ({edges}, heads) and an envelope of shape ({edges},) or "
            f"None, got {tuple(score.shape)} and {None if envelope is None else tuple(envelope.shape)}"
        )
    if envelope is None:
        weight = torch.exp(score - _largest(score.detach(), plan))
        return weight / (spread(segment_sum(weight, plan), plan) + _EPS)
    w = envelope.unsqueeze(-1)
    shift = _largest(score.detach() + w.detach().log(), plan)
    weight = w * torch.exp((score - shift).masked_fill(w <= 0, 0.0))
    return weight / (spread(segment_sum(weight, plan), plan) + _EPS) * w


def _largest(score: Tensor, plan: EdgePlan) -> Tensor:
    """The largest score among the edges of the same target, for each edge; 0 where none is finite."""
    floor = score.new_full((plan.num_nodes, score.shape[1]), -torch.inf)
    largest = floor.scatter_reduce(0, plan.target.unsqueeze(-1).expand_as(score), score, "amax")
    return spread(largest.masked_fill(largest == -torch.inf, 0.0), plan)


class GraphAttention(nn.Module):
    r"""Equivariant messages between neighbours, weighted by attention, summed, and mixed.

    In the frame of each edge, a linear map of source and target, weighted by the edge's scalars, gives
    scores, scalars for the nonlinearity, and rows; a nonlinearity and a second linear map give the values:

    .. math::
        [f_e, s_e, y_e] = W_1 \, R(t_e) \, D(v_e) [x_{j} | x_{i}], \qquad
        z_i = \text{Linear} \sum_{e \to i} D(v_e)^T a_e \, W_2 \, \phi(y_e, s_e)

    with :math:`a` the softmax of :math:`q \cdot \text{leaky}(\text{LayerNorm}(f))`.

    Args:
        lmax: highest degree.
        mmax: highest order in the frames of edges.
        channels: of the input; of natural and pseudo stacks with parity "both", as all channels.
        hidden: channels between the two maps.
        heads: number of heads.
        score_channels: channels of each head's score.
        value_channels: channels of each head's value.
        scalars: of an edge.
        edge_channels: hidden channels of the radial network.
        channels_out: of the result; ``channels`` unless given.
        activation: of the rows, see :func:`equitorch.layers.so2_activation.row_activation`.
        parity: of the rows, see :func:`equitorch.layers.stacks.stacks`.
        exact: refuse what commutes with rotations only approximately, and use exact grids.
        renorm: normalise the scores' channels.
        rescale: multiply degrees l > mmax of the sums by sqrt((2 l + 1) / (2 mmax + 1)).
        share_orders: one radial weight for all orders of a degree.
        dropout: of attention weights, in training.
        **grid: of the activation.

    Shape:
        x: (nodes, (lmax + 1)^2, channels), scalars: (edges, scalars), envelope: (edges,) or None ->
        (nodes, (lmax + 1)^2, channels_out)

    Raises:
        ValueError: if the shapes are not these, or options do not belong together.

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2); with an envelope smooth as in EquiformerV3.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: Channels,
        *,
        hidden: Channels,
        heads: int,
        score_channels: int,
        value_channels: Channels,
        scalars: int,
        edge_channels: int,
        channels_out: Channels | None = None,
        activation: str = "gate",
        parity: str = "natural",
        exact: bool = True,
        renorm: bool = True,
        rescale: bool = False,
        share_orders: bool = False,
        dropout: float = 0.0,
        **grid: Any,
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.heads, self.scalars = lmax, mmax, heads, scalars
        self.channels, self.values = stacks(channels, parity), stacks(value_channels, parity)
        wide, value = (
            [k * n for n in stacks(c, parity)] for k, c in ((2, channels), (heads, value_channels))
        )
        ends = [(a, b) if parity == "both" else a for a, b in (wide, value)]
        self.act = row_activation(activation, lmax, mmax, hidden, parity=parity, exact=exact, **grid)
        self.split = [heads * score_channels, self.act.extra]
        self.conv1 = SO2Convolution(
            lmax, mmax, ends[0], self.act.channels_in, extra=sum(self.split), parity=parity
        )
        self.conv2 = SO2Convolution(lmax, mmax, self.act.channels_out, ends[1], parity=parity)
        degrees = [l for m, _ in enumerate(order_sizes(lmax, mmax)) for l in range(m, lmax + 1)]
        self.factors = lmax + 1 if share_orders else len(degrees)
        index = torch.tensor(degrees) if share_orders else None
        self.register_buffer("degrees", index, persistent=False)
        self.radial = RadialMLP(scalars, edge_channels, self.factors * sum(wide))
        self.score_norm = nn.LayerNorm(score_channels) if renorm else nn.Identity()
        self.score_act, self.dropout = SmoothLeakyReLU(), nn.Dropout(dropout)
        self.score = nn.Parameter(torch.empty(heads, score_channels))
        nn.init.uniform_(self.score, -(score_channels**-0.5), score_channels**-0.5)
        self.scale = Constant(row_rescale(lmax, mmax)) if rescale and mmax < lmax else None
        self.proj = degree_linear(
            lmax, ends[1], channels if channels_out is None else channels_out, parity=parity
        )

    degrees: Tensor | None

    def forward(
        self,
        x: Tensor,
        scalars: Tensor,
        rotation: EdgeRotation,
        plan: EdgePlan,
        *,
        envelope: Tensor | None = None,
    ) -> Tensor:
        self._check(x, scalars, rotation, plan)
        y, extra = self.conv1(both_ends(x, rotation, plan, self.channels), self._factor(scalars))
        scores, inner = extra.split(self.split, dim=-1)
        values, _ = self.conv2(self.act(y, inner) if self.act.extra else self.act(y))
        weight = self.dropout(self.attention(scores, plan, envelope))
        each = [weight.unsqueeze(-1).expand(-1, -1, width).flatten(1) for width in self.values if width]
        message = values * torch.cat(each, dim=-1).unsqueeze(1)
        z = rotate_out(message, rotation, plan)
        return self.proj(z if self.scale is None else z * self.scale.value[:, None])

    def attention(self, scores: Tensor, plan: EdgePlan, envelope: Tensor | None = None) -> Tensor:
        """The weight of each edge and head, from the channels of their scores."""
        f = self.score_act(self.score_norm(scores.unflatten(-1, (self.heads, -1))))
        return edge_softmax((f * self.score).sum(-1), plan, envelope=envelope)

    def _factor(self, scalars: Tensor) -> Tensor:
        factor = self.radial(scalars).unflatten(-1, (self.factors, -1))
        return factor if self.degrees is None else factor.index_select(1, self.degrees)

    def _check(self, x: Tensor, scalars: Tensor, rotation: EdgeRotation, plan: EdgePlan) -> None:
        wanted = (plan.num_nodes, (self.lmax + 1) ** 2, sum(self.channels))
        edges = (plan.source.shape[0], self.scalars)
        if tuple(x.shape) != wanted or tuple(scalars.shape) != edges:
            raise ValueError(
                f"{self._name()} expects x of shape {wanted} and scalars of shape {edges}, "
                f"got {tuple(x.shape)} and {tuple(scalars.shape)}"
            )
        if (rotation.lmax, rotation.mmax) != (self.lmax, self.mmax):
            raise ValueError(
                f"{self._name()} expects a rotation with lmax={self.lmax} and mmax={self.mmax}, "
                f"got lmax={rotation.lmax} and mmax={rotation.mmax}"
            )

    def _name(self) -> str:
        return f"GraphAttention(l<={self.lmax}, |m|<={self.mmax}, {self.heads} heads)"
