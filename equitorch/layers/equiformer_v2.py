"""The block of EquiformerV2: attention between neighbours and a feed-forward network, each after a norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from equitorch.layers.attention import GraphAttention
from equitorch.layers.edge_degree import EdgeScalars
from equitorch.layers.feed_forward import FeedForward
from equitorch.layers.norm import LayerNorm, RMSNorm, SeparableLayerNorm
from equitorch.layers.stacks import Channels, PerStack, stack_irreps, stacks
from equitorch.ops.edges import EdgePlan
from equitorch.ops.pieces import recomputed
from equitorch.ops.rotate import EdgeRotation

NORMS = ("rms_norm_sh", "layer_norm_sh", "layer_norm")


class Edges(NamedTuple):
    """What a block knows of some edges: all those that lead to a range of nodes.

    Attributes:
        plan: their walks; nodes are those of the whole graph.
        rotation: their frames.
        basis: invariants of each. Shape (edges, scalars).
        envelope: zero at the cutoff and beyond, or None. Shape (edges,).
        nodes: the range of targets.
    """

    plan: EdgePlan
    rotation: EdgeRotation
    basis: Tensor
    envelope: Tensor | None
    nodes: slice

    def tensors(self) -> list[Tensor]:
        """What may need a gradient."""
        return [self.rotation.wigner, self.basis, *([] if self.envelope is None else [self.envelope])]

    def replaced(self, wigner: Tensor, basis: Tensor, envelope: Tensor | None = None) -> Edges:
        """The same edges with other tensors in the places of those that :meth:`tensors` gives."""
        rotation = self.rotation._replace(wigner=wigner)
        return self._replace(rotation=rotation, basis=basis, envelope=envelope)


def row_norm(kind: str, lmax: int, channels: Channels, *, parity: str = "natural") -> nn.Module:
    """A norm of features with degrees 0..lmax, of each stack by itself.

    Args:
        kind: "rms_norm_sh": one root mean square of all degrees; "layer_norm_sh": a layer norm of the
            invariants and one root mean square of all others; "layer_norm": one for each degree.
        lmax: highest degree.
        channels: of the feature; with parity "both" a pair.
        parity: of the rows, see :func:`equitorch.layers.stacks.stacks`.

    Raises:
        ValueError: if there is no such kind.

    >>> row_norm("rms_norm_sh", 2, 8)(torch.randn(5, 9, 8)).shape
    torch.Size([5, 9, 8])
    """
    if kind not in NORMS:
        raise ValueError(f"a norm of rows is one of {', '.join(NORMS)}, got {kind!r}")
    norms: list[nn.Module] = []
    for irreps, width in zip(stack_irreps(lmax, parity), stacks(channels, parity), strict=False):
        if kind == "rms_norm_sh":
            norms.append(RMSNorm(irreps, width, centered=True))
        else:
            norms.append((SeparableLayerNorm if kind == "layer_norm_sh" else LayerNorm)(irreps, width))
    return PerStack(norms, stacks(channels, parity)) if parity == "both" else norms[0]


class EdgeAttention(nn.Module):
    """Attention over a part of the edges, with vectors of its own for the elements at their ends.

    Args:
        lmax: highest degree.
        mmax: highest order in the frames of edges.
        channels: of the feature.
        basis: invariants of an edge, without those of its elements.
        elements: rows of the table of elements; None if they are in the basis already, or nowhere.
        edge_channels: hidden channels of the radial network, and length of the elements' vectors.
        **options: of :class:`GraphAttention`.

    Shape:
        x: (nodes, (lmax + 1)^2, channels) -> (targets, (lmax + 1)^2, channels_out)
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: Channels,
        *,
        basis: int,
        elements: int | None,
        edge_channels: int,
        **options: Any,
    ) -> None:
        super().__init__()
        self.scalars = None if elements is None else EdgeScalars(elements, edge_channels)
        width = basis + (0 if elements is None else 2 * edge_channels)
        self.graph = GraphAttention(
            lmax, mmax, channels, scalars=width, edge_channels=edge_channels, **options
        )

    def forward(self, x: Tensor, atomic_numbers: Tensor, edges: Edges) -> Tensor:
        scalars = (
            edges.basis if self.scalars is None else self.scalars(edges.basis, atomic_numbers, edges.plan)
        )
        out: Tensor = self.graph(x, scalars, edges.rotation, edges.plan, envelope=edges.envelope)
        return out[edges.nodes]


class EquiformerBlock(nn.Module):
    r"""Attention and a feed-forward network, each added to its input, of which it sees a norm.

    .. math::
        x \leftarrow x + \text{attention}(\text{norm}_1 x), \qquad
        x \leftarrow x + \text{ffn}(\text{norm}_2 x)

    and between them, where asked for, the product of the feature with itself in the same form.

    Args:
        attention: of the edges.
        ffn: of the nodes.
        norms: the norms of the two, and of the self-product if there is one.
        selfmix: a :class:`equitorch.layers.gaunt_selfmix.GauntSelfmix`, or None.
        path_drop: probability that a graph skips a branch, in training.
        feature_drop: probability that a node's channel is zero in what a branch adds, in training.

    Shape:
        x: (nodes, rows, channels) -> the same

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2); Larsson et al. 2017, arXiv:1605.07648 (drop path).
    """

    def __init__(
        self,
        attention: EdgeAttention,
        ffn: FeedForward,
        norms: Sequence[nn.Module],
        *,
        selfmix: nn.Module | None = None,
        path_drop: float = 0.0,
        feature_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, *others = norms
        self.selfmix, self.norm_selfmix = selfmix, others[0] if selfmix is not None else None
        self.attention, self.ffn = attention, ffn
        self.path_drop, self.feature_drop = path_drop, feature_drop

    def forward(
        self, x: Tensor, atomic_numbers: Tensor, edges: Sequence[Edges], batch: Tensor, num_graphs: int
    ) -> Tensor:
        x = x + self._dropped(attend(self.attention, self.norm1(x), atomic_numbers, edges), batch, num_graphs)
        if self.selfmix is not None and self.norm_selfmix is not None:
            x = x + self._dropped(self.selfmix(self.norm_selfmix(x)), batch, num_graphs)
        return x + self._dropped(self.ffn(self.norm2(x)), batch, num_graphs)

    def _dropped(self, y: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        if not self.training:
            return y
        if self.path_drop:
            y = y * nn.functional.dropout(y.new_ones(num_graphs), self.path_drop)[batch][:, None, None]
        if self.feature_drop:
            y = y * nn.functional.dropout(y.new_ones(y.shape[0], 1, y.shape[2]), self.feature_drop)
        return y


def attend(attention: EdgeAttention, x: Tensor, atomic_numbers: Tensor, parts: Sequence[Edges]) -> Tensor:
    """What all nodes receive, one part of the edges after another: nothing of a part outlives it.

    Shape:
        x: (nodes, (lmax + 1)^2, channels) -> (nodes, (lmax + 1)^2, channels_out)
    """
    if len(parts) == 1:
        out: Tensor = attention(x, atomic_numbers, parts[0])
        return out
    return torch.cat([recompute(attention, x, atomic_numbers, part) for part in parts])


def recompute(
    module: nn.Module, x: Tensor, atomic_numbers: Tensor, edges: Edges | Sequence[Edges], *rest: Any
) -> Tensor:
    """``module(x, atomic_numbers, edges, *rest)``, of which nothing inside is kept for its derivatives.

    Dropout draws the same when it is computed again.

    Args:
        module: the module.
        x: features of the nodes.
        atomic_numbers: of the nodes.
        edges: a part of the edges, or all parts.
        *rest: further arguments, which get no gradients.
    """
    names, parameters = zip(*module.named_parameters(), strict=True)
    parts = [edges] if isinstance(edges, Edges) else list(edges)
    each = [part.tensors() for part in parts]
    seed = int(torch.randint(2**62, ())) if module.training else None

    def run(*given: Tensor) -> Tensor:
        own, features, others = (
            dict(zip(names, given, strict=False)),
            given[len(names)],
            iter(given[len(names) + 1 :]),
        )
        again = [part.replaced(*[next(others) for _ in own_]) for part, own_ in zip(parts, each, strict=True)]
        called = again[0] if isinstance(edges, Edges) else again
        with _seeded(seed, x.device):
            out: Tensor = functional_call(module, own, (features, atomic_numbers, called, *rest))
        return out

    return recomputed(run, [*parameters, x, *[t for tensors in each for t in tensors]])


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
