"""What an edge knows that no rotation changes, its length and its elements; and what a node learns of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.stacks import uniform_linear
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_out


class WideGaussians(nn.Module):
    r"""Evenly spaced Gaussians, as wide as asked for in units of their spacing; nothing to learn or save.

    .. math:: e_k(d) = \exp\big(-\tfrac12 (d - \mu_k)^2 / (w \Delta\mu)^2\big)

    Args:
        count: number of functions, at least 2, from zero to the cutoff.
        cutoff: centre of the last one (Å).
        width: w.

    Shape:
        d (Å): (...) -> (..., count)

    Raises:
        ValueError: unless ``count >= 2``, ``cutoff > 0`` and ``width > 0``.

    Source:
        Schütt et al. 2017, arXiv:1706.08566; 600 of them, two spacings wide, in EquiformerV2.

    >>> WideGaussians(3, 2.0, width=1.0)(torch.tensor(1.0))
    tensor([0.6065, 1.0000, 0.6065])
    """

    def __init__(self, count: int, cutoff: float, *, width: float = 2.0) -> None:
        super().__init__()
        if count < 2 or cutoff <= 0 or width <= 0:
            raise ValueError(
                "WideGaussians expects count >= 2, cutoff > 0 and width > 0, "
                f"got count={count}, cutoff={cutoff}, width={width}"
            )
        self.count, self.cutoff, self.width = count, float(cutoff), float(width)
        self.centre = Constant(torch.linspace(0, cutoff, count, dtype=torch.float64, device="cpu"))

    def forward(self, d: Tensor) -> Tensor:
        away = (d.unsqueeze(-1) - self.centre.value) * ((self.count - 1) / (self.width * self.cutoff))
        away = away.to(self.centre.value.dtype)
        e = torch.exp(-0.5 * away * away)
        # Far out they are subnormal numbers, with which matrix products are a hundred times slower.
        return e.masked_fill(e < 1e6 * torch.finfo(e.dtype).tiny, 0.0)

    def extra_repr(self) -> str:
        return f"{self.count}, cutoff={self.cutoff:g}, width={self.width:g}"


class EdgeScalars(nn.Module):
    r"""The radial basis of each edge beside a learned vector of its source's element and one of its target's.

    .. math:: t_e = [\, e(d_e) \;|\; s_{Z_{j(e)}} \;|\; t_{Z_{i(e)}} \,]

    Args:
        elements: number of elements, atomic numbers 0..elements - 1.
        channels: length of each vector. They start from U(-1e-3, 1e-3).

    Shape:
        basis: (edges, n), atomic_numbers: (nodes,) int64 -> (edges, n + 2 channels)

    Raises:
        ValueError: if there is not a basis for each edge of the plan and a number for each of its nodes.

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2).
    """

    def __init__(self, elements: int, channels: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(elements, channels), nn.Embedding(elements, channels)
        for embedding in (self.source, self.target):
            nn.init.uniform_(embedding.weight, -1e-3, 1e-3)

    def forward(self, basis: Tensor, atomic_numbers: Tensor, plan: EdgePlan) -> Tensor:
        edges, nodes = plan.source.shape[0], plan.num_nodes
        if basis.ndim != 2 or basis.shape[0] != edges or atomic_numbers.shape != (nodes,):
            raise ValueError(
                f"EdgeScalars expects a basis of shape ({edges}, n) and {nodes} atomic numbers, "
                f"got {tuple(basis.shape)} and {tuple(atomic_numbers.shape)}"
            )
        ends = [
            embedding(atomic_numbers).index_select(0, end)
            for embedding, end in ((self.source, plan.source), (self.target, plan.target))
        ]
        return torch.cat([basis, *ends], dim=-1)


class RadialMLP(nn.Sequential):
    """Linear, LayerNorm, SiLU, twice, and a last Linear: from the scalars of an edge to weights.

    Args:
        channels_in: scalars of an edge.
        hidden: channels between the maps.
        channels_out: number of weights.

    Shape:
        (..., channels_in) -> (..., channels_out)

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2).

    >>> RadialMLP(10, 8, 3)(torch.randn(5, 10)).shape
    torch.Size([5, 3])
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__(
            uniform_linear(channels_in, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            uniform_linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            uniform_linear(hidden, channels_out),
        )


class EdgeDegreeEmbedding(nn.Module):
    r"""A feature of each node from the directions and the scalars of its edges alone.

    .. math:: x_{i, lm} = \frac1{\nu} \sum_{e \to i} w_e \, f_l(t_e) \, D^l_{0m}(v_e)

    the row m = 0 of the Wigner matrix being the harmonic of the edge's direction.

    Args:
        lmax: highest degree.
        mmax: highest order of the model's edge frames.
        channels: of the feature.
        scalars: of an edge.
        hidden: channels of the radial network.
        degree: ν, about the number of neighbours.
        rescale: multiply degrees l > mmax by sqrt((2 l + 1) / (2 mmax + 1)).

    Shape:
        scalars: (edges, scalars), envelope: (edges,) or None -> (nodes, (lmax + 1)^2, channels)

    Raises:
        ValueError: if the shapes are not these, or the rotation has another lmax or mmax.

    Source:
        Liao, Smidt 2023, arXiv:2206.11990 (Equiformer: edge-degree embedding); as in EquiformerV2.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        *,
        scalars: int,
        hidden: int,
        degree: float,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.channels, self.scalars = lmax, mmax, channels, scalars
        self.degree = float(degree)
        self.radial = RadialMLP(scalars, hidden, (lmax + 1) * channels)
        self.scale = Constant(row_rescale(lmax, mmax if rescale else lmax) / degree)
        self.axis = _AxisRows(lmax, mmax)

    def forward(
        self, scalars: Tensor, rotation: EdgeRotation, plan: EdgePlan, *, envelope: Tensor | None = None
    ) -> Tensor:
        edges = plan.source.shape[0]
        if tuple(scalars.shape) != (edges, self.scalars):
            raise ValueError(
                f"{self} expects scalars of shape ({edges}, {self.scalars}), got {tuple(scalars.shape)}"
            )
        m = self.radial(scalars).unflatten(-1, (self.lmax + 1, self.channels))
        m = m if envelope is None else m * envelope[:, None, None]
        return rotate_out(m, self.axis(rotation), plan) * self.scale.value[:, None]

    def __repr__(self) -> str:
        return f"EdgeDegreeEmbedding(l<={self.lmax}, |m|<={self.mmax}, {self.channels} channels)"


class _AxisRows(nn.Module):
    """Of the rows that are kept of an edge's Wigner matrices, those with m = 0."""

    entries: Tensor

    def __init__(self, lmax: int, mmax: int) -> None:
        super().__init__()
        self.lmax, self.mmax = lmax, mmax
        pole = torch.tensor([[0.0, 1.0, 0.0]], device="cpu")
        first = 0
        picked: list[int] = []
        for l in range(lmax + 1):
            own, size = min(l, mmax), 2 * l + 1
            picked += range(first + own * size, first + (own + 1) * size)
            first += (2 * own + 1) * size
        self.register_buffer("entries", torch.tensor(picked), persistent=False)
        self.terms = len(EdgeRotation.build(pole, lmax, 0).terms)
        for k, term in enumerate(EdgeRotation.build(pole, lmax, 0).terms):
            self.register_buffer(f"term{k}", term.to(self.entries.device), persistent=False)

    def forward(self, rotation: EdgeRotation) -> EdgeRotation:
        if (rotation.lmax, rotation.mmax) != (self.lmax, self.mmax):
            raise ValueError(
                f"EdgeDegreeEmbedding expects a rotation with lmax={self.lmax} and mmax={self.mmax}, "
                f"got lmax={rotation.lmax} and mmax={rotation.mmax}"
            )
        wigner = rotation.wigner.index_select(1, self.entries)
        return EdgeRotation(self.lmax, 0, wigner, tuple(getattr(self, f"term{k}") for k in range(self.terms)))


def row_rescale(lmax: int, mmax: int) -> Tensor:
    """For each degree-major row sqrt((2 l + 1) / (2 mmax + 1)) where l > mmax, else 1. Float64.

    Published models make up so for the orders that an edge's frame leaves out.

    >>> row_rescale(2, 1)[3:5]
    tensor([1.0000, 1.2910], dtype=torch.float64)
    """
    factor = [((2 * l + 1) / (2 * mmax + 1)) ** 0.5 if l > mmax else 1.0 for l in range(lmax + 1)]
    repeats = torch.arange(1, 2 * lmax + 2, 2, device="cpu")
    return torch.tensor(factor, dtype=torch.float64, device="cpu").repeat_interleave(repeats)
