"""How edges are walked: by receiver, by sender, and as undirected pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.ops.backend import traced
from equitorch.ops.indices import expect_indices, readable


class EdgePlan(NamedTuple):
    """Index tensors of a list of edges sorted by target; built once per graph, shared by every op and layer.

    Attributes:
        source: node j that each edge comes from. Shape (edges,), int64.
        target: node i that each edge goes to, ascending. Shape (edges,).
        row_ptr: where each target's edges begin. Shape (nodes + 1,).
        sender_ptr: where each source's edges begin in ``sender_edge``. Shape (nodes + 1,).
        sender_edge: the edges sorted by source. Shape (edges,).
        pair: the undirected pair of each edge. Shape (edges,).
        pair_edge: the edge of each pair, and the opposite one or -1. Shape (pairs, 2).
    """

    source: Tensor
    target: Tensor
    row_ptr: Tensor
    sender_ptr: Tensor
    sender_edge: Tensor
    pair: Tensor
    pair_edge: Tensor

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.row_ptr.shape[0] - 1

    @property
    def num_pairs(self) -> int:
        """Number of undirected pairs, or of edges where the opposite ones are not known."""
        return self.pair_edge.shape[0]

    @classmethod
    def build(cls, edge_index: Tensor, num_nodes: int, *, edge_reverse: Tensor | None = None) -> EdgePlan:
        """Plan the walks over ``edge_index``, which must be sorted by target.

        Args:
            edge_index: source and target of each edge. Shape (2, edges).
            num_nodes: number of nodes.
            edge_reverse: index of the edge that leads back, if every edge has one: weights that depend on
                the distance only are then shared by the two. Shape (edges,).

        Raises:
            ValueError: if these are no edges between so many nodes, or not sorted; see ``expect_indices``.
        """
        source, target = _ends(edge_index, num_nodes)
        if readable(target) and bool((target[1:] < target[:-1]).any()):
            raise ValueError(
                "EdgePlan.build expects edge_index sorted by target, got targets that descend; "
                "write edge_index[:, edge_index[1].argsort(stable=True)], and sort what belongs to the edges"
            )
        count = torch.arange(target.shape[0], device=target.device)
        row_ptr = _starts(target, num_nodes)
        if edge_reverse is None:
            order = torch.argsort(source, stable=True)
            pair_edge = torch.stack([count, torch.full_like(count, -1)], dim=1)
            return cls(source, target, row_ptr, _starts(source[order], num_nodes), order, count, pair_edge)
        if traced(edge_index):  # a size that is known beforehand
            first = torch.argsort((count > edge_reverse).int(), stable=True)[: count.shape[0] // 2]
        else:
            first = torch.nonzero(count < edge_reverse).squeeze(1)
        second = edge_reverse[first]
        pair = torch.empty_like(count)
        pair[first] = pair[second] = count[: first.shape[0]]
        pair_edge = torch.stack([first, second], dim=1)
        return cls(source, target, row_ptr, row_ptr, edge_reverse.contiguous(), pair, pair_edge)

    def directed(self) -> EdgePlan:
        """The same walks, with every edge a pair of its own: for weights that tell two directions apart."""
        count = torch.arange(self.source.shape[0], device=self.source.device)
        pair_edge = torch.stack([count, torch.full_like(count, -1)], dim=1)
        return self._replace(pair=count, pair_edge=pair_edge)

    def walks(self) -> list[Tensor]:
        """The walks as :func:`walks` gives them."""
        count = torch.arange(self.source.shape[0], device=self.source.device)
        receiver = self.source, self.target, self.row_ptr, count
        return [*receiver, self.sender_ptr, self.sender_edge, self.pair, self.pair_edge]


def walks(edge_index: Tensor, num_nodes: int) -> list[Tensor]:
    """How to walk over edges in any order, each a pair of its own.

    Args:
        edge_index: source and target of each edge. Shape (2, edges).
        num_nodes: number of nodes.

    Returns:
        source, target, where each target's edges begin in the list of edges by target, that list, the same
        two for sources, the pair of each edge, and the edges of each pair.

    Raises:
        ValueError: if these are no edges between so many nodes; see ``expect_indices``.

    >>> [w.tolist() for w in walks(torch.tensor([[1, 0], [1, 0]]), 2)[2:4]]
    [[0, 1, 2], [1, 0]]
    """
    source, target = _ends(edge_index, num_nodes)
    ends = []
    for index in (target, source):
        order = torch.argsort(index, stable=True)
        ends += [_starts(index[order], num_nodes), order]
    count = torch.arange(target.shape[0], device=target.device)
    pair_edge = torch.stack([count, torch.full_like(count, -1)], dim=1)
    return [source, target, *ends, count, pair_edge]


def _ends(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Source and target of each edge, between nodes that exist."""
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        turned = "; give edge_index.T" if edge_index.ndim == 2 and edge_index.shape[1] == 2 else ""
        raise ValueError(
            "edge_index is expected to be of shape (2, edges), source and target, "
            f"got {tuple(edge_index.shape)}{turned}"
        )
    expect_indices("edge_index", edge_index, num_nodes)
    source, target = edge_index.long().unbind()
    return source.contiguous(), target.contiguous()


def _starts(index: Tensor, count: int) -> Tensor:
    """Where each value 0..count-1 begins in the ascending ``index``. Shape (count + 1,)."""
    values = index.new_zeros(count + 1) + torch.arange(count + 1, device=index.device)  # under vmap, for each
    return torch.searchsorted(index, values)
