"""EquiformerV2: features of high degree, exchanged by attention in the frames of edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from equitorch.layers.cutoff import PolynomialCutoff
from equitorch.layers.edge_degree import EdgeDegreeEmbedding, EdgeScalars, WideGaussians
from equitorch.layers.equiformer_v2 import EdgeAttention, Edges, EquiformerBlock, attend, recompute, row_norm
from equitorch.layers.feed_forward import FeedForward
from equitorch.layers.gaunt_selfmix import GauntSelfmix
from equitorch.layers.mlp import MLP
from equitorch.layers.readout import pool
from equitorch.layers.stacks import stack_irreps, stacks
from equitorch.models.edge_frame_options import pair, warn_inexact
from equitorch.models.elements import expect_elements
from equitorch.models.equiformer_v2_options import inexact, resolved, sized
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation


class EquiformerV2(nn.Module):
    r"""Potential energy of molecules and crystals by equivariant graph attention.

    Each edge is turned onto the polar axis, where a linear map that commutes with rolls mixes degrees and
    channels of each order; attention weighs the messages. ``mode="exact"``, for new models, is invariant
    under rotations and reflections to rounding, smooth at the cutoff, and repeats bit for bit.
    ``mode="compat"`` is what published weights were trained as, which is none of this: their functions on
    grids change under rotations, mirror images differ, and pairs jump at the cutoff.

    Args:
        mode: "exact" or "compat"; it chooses the options below that are None.
        layers: blocks; each carries information one cutoff further.
        lmax: highest degree of the features.
        mmax: highest order that is kept in the frames of edges.
        channels: copies of every row; with parity "both" a pair, natural and pseudo.
        hidden: channels inside attention; a pair as above.
        heads: of the attention.
        score_channels: of each head's score.
        value_channels: of each head's values; a pair as above.
        ffn_hidden: channels inside the feed-forward networks; a pair as above.
        edge_channels: hidden channels of radial networks, and length of the elements' vectors in them.
        radial: Gaussians of the distance; None: 6.4 for each Å in exact mode, 600 in compat mode.
        cutoff: Å.
        parity: "natural": rotations and reflections; "both": features of both parities; "so3": rotations
            only, with imaginary weights.
        norm: "rms_norm_sh", "layer_norm_sh" or "layer_norm", see :func:`row_norm`.
        activation: of messages: "gate" or "product"; in compat mode also "s2" and "separable_s2".
        feed_forward: of nodes: "gate", "spectral" or "product"; in compat mode also "s2", "separable_s2",
            "grid" and "separable_grid".
        grid_resolution: latitudes (even) and longitudes of published grids; None for their default.
        latitudes: of the exact grids in the frames of edges; any number is equivariant.
        selfmix: in each block, before the feed-forward network, add a product of the nodes' features with
            themselves as functions on the sphere.
        envelope: multiply what edges give by a polynomial that vanishes at the cutoff.
        rescale: scale rows of degrees above mmax as published models do.
        average_neighbors: number of neighbours by which the first sum over them is divided; None for that
            of the training frames, or of OC20.
        average_atoms: what energies are divided by.
        element_scalars: let radial networks see the elements of an edge's ends.
        share_element_scalars: one table of elements for all of them.
        share_radial: one radial weight for all orders of a degree.
        attention_norm: normalise the channels of scores.
        attention_drop: probability to drop an attention weight in training.
        path_drop: probability that a graph skips a branch in training.
        feature_drop: probability to drop a channel of a branch in training.
        max_neighbors: keep the nearest neighbours only (compat mode): energies then jump.
        direct_forces: add "forces" from a head of its own. They are no gradient of the energy and conserve
            nothing.
        force_scale: factor of these forces.
        recompute: compute blocks again for their derivatives, instead of keeping what they compute.
        edge_chunk: edges at a time, for a bounded memory; those to one atom stay together.
        max_z: number of rows of the table of elements.

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of energy (graphs,) and node_energy (atoms,) in eV, node_features
        (atoms, (lmax + 1)^2, channels), and with a direct head forces (atoms, 3) in eV/Å

    Attributes:
        sees_charge: False: graphs that differ in their charge only have equal energies.
        settings: the options, with what the mode chooses in the places of None.

    Raises:
        ValueError: if an option is not one of those named above, a number makes no sense, or exact mode is
            asked for something that is not.

    Source:
        Liao et al. 2023, arXiv:2306.12059; compat mode as in fairchem-core 1.10. Luo et al. 2024,
        arXiv:2401.10216 (selfmix).

    >>> model = EquiformerV2(channels=8, layers=2, lmax=2, hidden=8, heads=2)
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> model(torch.tensor([1, 1]), edges, vectors, batch, 1)["energy"].shape
    torch.Size([1])
    """

    sees_charge = False

    def __init__(
        self,
        *,
        mode: str = "exact",
        layers: int = 4,
        lmax: int = 3,
        mmax: int = 2,
        channels: int | Sequence[int] = 64,
        hidden: int | Sequence[int] = 32,
        heads: int = 4,
        score_channels: int = 32,
        value_channels: int | Sequence[int] = 16,
        ffn_hidden: int | Sequence[int] = 128,
        edge_channels: int = 64,
        radial: int | None = None,
        cutoff: float = 5.0,
        parity: str | None = None,
        norm: str = "rms_norm_sh",
        activation: str | None = None,
        feed_forward: str | None = None,
        grid_resolution: int | None = None,
        latitudes: int | None = None,
        selfmix: bool = False,
        envelope: bool | None = None,
        rescale: bool | None = None,
        average_neighbors: float | None = None,
        average_atoms: float | None = None,
        element_scalars: bool = True,
        share_element_scalars: bool = False,
        share_radial: bool = False,
        attention_norm: bool = True,
        attention_drop: float = 0.0,
        path_drop: float = 0.0,
        feature_drop: float = 0.0,
        max_neighbors: int | None = None,
        direct_forces: bool = False,
        force_scale: float = 1.0,
        recompute: bool = False,
        edge_chunk: int | None = None,
        max_z: int = 100,
    ) -> None:
        super().__init__()
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.options = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        self.settings = chosen = resolved(self.options)
        self.cutoff, self.lmax, self.mmax, self.parity = float(cutoff), lmax, mmax, str(chosen["parity"])
        self.channels = pair(channels)
        self.natural, self.pseudo = stacks(self.channels, self.parity)
        self.irreps_out = stack_irreps(lmax, self.parity)[0] if self.parity != "both" else None
        self.average_atoms, self.max_neighbors = float(chosen["average_atoms"]), max_neighbors
        self.recompute, self.edge_chunk = recompute, edge_chunk
        self.direct_forces, self.force_scale = direct_forces, float(force_scale)
        self.embed = nn.Embedding(max_z, self.natural)
        self.basis = WideGaussians(chosen["radial"], cutoff)
        self.envelope = PolynomialCutoff(cutoff, p=5) if chosen["envelope"] else None
        self._embeddings(chosen)
        self.blocks = nn.ModuleList(self._block(chosen) for _ in range(layers))
        self.norm = row_norm(norm, lmax, self.channels, parity=self.parity)
        self.energy = self._energy_head(chosen)
        head = {"channels_out": (1, 0) if self.parity == "both" else 1, "dropout": 0.0}
        self.forces = self._attention(chosen, **head) if direct_forces else None
        warn_inexact("EquiformerV2", chosen, inexact(chosen), envelope=True)

    def _embeddings(self, chosen: Mapping[str, Any]) -> None:
        """The first feature, and what all edges share."""
        edge, max_z = chosen["edge_channels"], chosen["max_z"]
        with_elements = chosen["element_scalars"]
        shared = with_elements and chosen["share_element_scalars"]
        self.scalars = EdgeScalars(max_z, edge) if shared else None
        self.degree_scalars = EdgeScalars(max_z, edge) if with_elements and not shared else None
        self.shared_width = self.basis.count + (2 * edge if shared else 0)
        self.own_elements = max_z if with_elements and not shared else None
        self.degree = EdgeDegreeEmbedding(
            self.lmax,
            self.mmax,
            self.natural,
            scalars=self.shared_width + (2 * edge if self.own_elements else 0),
            hidden=edge,
            degree=chosen["average_neighbors"],
            rescale=chosen["rescale"],
        )

    def _block(self, chosen: Mapping[str, Any]) -> EquiformerBlock:
        selfmix = chosen["selfmix"]
        norms = [
            row_norm(chosen["norm"], self.lmax, self.channels, parity=self.parity) for _ in range(2 + selfmix)
        ]
        return EquiformerBlock(
            self._attention(chosen),
            self._feed_forward(chosen),
            norms,
            selfmix=GauntSelfmix(self.lmax, self.channels, parity=self.parity) if selfmix else None,
            path_drop=chosen["path_drop"],
            feature_drop=chosen["feature_drop"],
        )

    def _attention(self, chosen: Mapping[str, Any], **options: Any) -> EdgeAttention:
        exact = chosen["mode"] == "exact"
        grid = {"latitudes": chosen["latitudes"]} if exact else {"resolution": chosen["grid_resolution"]}
        common = {
            "hidden": pair(chosen["hidden"]),
            "heads": chosen["heads"],
            "score_channels": chosen["score_channels"],
            "value_channels": pair(chosen["value_channels"]),
            "edge_channels": chosen["edge_channels"],
            "activation": chosen["activation"],
            "parity": self.parity,
            "exact": exact,
            "renorm": chosen["attention_norm"],
            "rescale": chosen["rescale"],
            "share_orders": chosen["share_radial"],
            "dropout": chosen["attention_drop"],
        }
        return EdgeAttention(
            self.lmax,
            self.mmax,
            self.channels,
            basis=self.shared_width,
            elements=self.own_elements,
            **common | grid | options,
        )

    def _feed_forward(self, chosen: Mapping[str, Any], channels_out: int | None = None) -> FeedForward:
        exact = chosen["mode"] == "exact"
        grid = {} if exact else {"resolution": chosen["grid_resolution"]}
        hidden, kind = pair(chosen["ffn_hidden"]), chosen["feed_forward"]
        return FeedForward(
            self.lmax, self.channels, hidden, channels_out, kind=kind, parity=self.parity, exact=exact, **grid
        )

    def _energy_head(self, chosen: Mapping[str, Any]) -> MLP | FeedForward:
        """In exact mode a perceptron of the invariants, which is all that a gated network comes to."""
        if chosen["mode"] == "compat":
            return self._feed_forward(chosen, 1)
        return MLP([self.natural, stacks(pair(chosen["ffn_hidden"]), self.parity)[0], 1])

    @classmethod
    def base_31M(cls, **options: Any) -> Self:
        """The published model of 31,058,690 parameters: 8 blocks, lmax 4, mmax 2. Options win."""
        return cls(**sized("31M", options))

    @classmethod
    def base_83M(cls, **options: Any) -> Self:
        """The published model of 83,164,802 parameters: 12 blocks, lmax 6, mmax 2. Options win."""
        return cls(**sized("83M", options))

    @classmethod
    def base_153M(cls, **options: Any) -> Self:
        """The published model of 153,602,690 parameters: 20 blocks, lmax 6, mmax 3. Options win."""
        return cls(**sized("153M", options))

    def forward(
        self,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        batch: Tensor,
        num_graphs: int,
        *,
        charge: Tensor | None = None,
        edge_reverse: Tensor | None = None,
        edge_frames: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Energies, and forces if there is a direct head, of a batch of graphs.

        Args:
            atomic_numbers: shape (atoms,), int64.
            edge_index: neighbour j and centre i of each edge, sorted by centre. Shape (2, edges), int64.
            edge_vectors: from centre to neighbour, shape (edges, 3), Å.
            batch: graph of each atom, shape (atoms,), int64.
            num_graphs: number of graphs.
            charge: of each graph, shape (graphs,), e; makes no difference to this model.
            edge_reverse: index of the edge that leads back, shape (edges,): saves the sort of edges.
            edge_frames: rotations that turn each edge onto the axis y, shape (edges, 3, 3), to choose others
                than this library's. In exact mode they make no difference.
        """
        expect_elements("EquiformerV2", atomic_numbers, self.embed.num_embeddings)
        if self.max_neighbors is not None:
            kept = nearest(edge_index[1], edge_vectors, atomic_numbers.shape[0], self.max_neighbors)
            if kept is not None:
                edge_index, edge_vectors, edge_reverse = edge_index[:, kept], edge_vectors[kept], None
                edge_frames = None if edge_frames is None else edge_frames[kept]
        whole = self._edges(atomic_numbers, edge_index, edge_vectors, edge_reverse, edge_frames)
        parts = self._parts(whole, edge_index)
        x = self._first(atomic_numbers, whole)
        for block in self.blocks:
            rest = atomic_numbers, parts, batch, num_graphs
            x = recompute(block, x, *rest) if self.recompute else block(x, *rest)
        x = self.norm(x)
        node_energy = self._node_energy(x) / self.average_atoms
        out = {"node_features": x, "node_energy": node_energy, "energy": pool(node_energy, batch, num_graphs)}
        if self.forces is not None:
            out["forces"] = attend(self.forces, x, atomic_numbers, parts)[:, 1:4, 0] * self.force_scale
        return out

    def _edges(
        self,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        vectors: Tensor,
        reverse: Tensor | None,
        frames: Tensor | None,
    ) -> Edges:
        atoms = atomic_numbers.shape[0]
        plan = EdgePlan.build(edge_index, atoms, edge_reverse=reverse)
        rotation = EdgeRotation.build(vectors, self.lmax, self.mmax, frames=frames)
        length = vectors.double().norm(dim=-1)  # narrow Gaussians would amplify what float32 rounds off
        basis, distance = self.basis(length), length.to(vectors.dtype)
        basis = basis if self.scalars is None else self.scalars(basis, atomic_numbers, plan)
        envelope = None if self.envelope is None else self.envelope(distance)
        return Edges(plan, rotation, basis, envelope, slice(0, atoms))

    def _parts(self, whole: Edges, edge_index: Tensor) -> list[Edges]:
        """Ranges of nodes with at most ``edge_chunk`` edges, or of a single node with more."""
        if self.edge_chunk is None or edge_index.shape[1] <= self.edge_chunk:
            return [whole]
        starts, parts, node = whole.plan.row_ptr.tolist(), [], 0
        atoms = len(starts) - 1
        while node < atoms:
            end = node + 1
            while end < atoms and starts[end + 1] - starts[node] <= self.edge_chunk:
                end += 1
            some = slice(starts[node], starts[end])
            envelope = None if whole.envelope is None else whole.envelope[some]
            rotation = whole.rotation._replace(wigner=whole.rotation.wigner[some])
            plan = EdgePlan.build(edge_index[:, some], atoms)
            parts.append(Edges(plan, rotation, whole.basis[some], envelope, slice(node, end)))
            node = end
        return parts

    def _first(self, atomic_numbers: Tensor, edges: Edges) -> Tensor:
        """The features before the first block: the element, and harmonics of the neighbours."""
        scalars = edges.basis
        if self.degree_scalars is not None:
            scalars = self.degree_scalars(scalars, atomic_numbers, edges.plan)
        x = self.degree(scalars, edges.rotation, edges.plan, envelope=edges.envelope)
        element = self.embed(atomic_numbers).unsqueeze(1)
        x = torch.cat([x[:, :1] + element, x[:, 1:]], dim=1)
        return nn.functional.pad(x, (0, self.pseudo)) if self.pseudo else x

    def _node_energy(self, x: Tensor) -> Tensor:
        if isinstance(self.energy, MLP):
            invariant: Tensor = self.energy(x[:, 0, : self.natural])
            return invariant.squeeze(-1)
        rows: Tensor = self.energy(x)
        return rows[:, 0, 0]


def nearest(target: Tensor, vectors: Tensor, num_nodes: int, count: int) -> Tensor | None:
    """The edges to the ``count`` nearest neighbours of each node, in their order; None if those are all.

    >>> vectors = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    >>> nearest(torch.tensor([0, 0, 1]), vectors, 2, 1)
    tensor([1, 2])
    """
    degree = torch.bincount(target, minlength=num_nodes)
    if target.shape[0] == 0 or int(degree.max()) <= count:
        return None
    by_length = torch.argsort(vectors.detach().square().sum(-1), stable=True)
    order = by_length[torch.argsort(target[by_length], stable=True)]
    rank = torch.arange(order.shape[0], device=order.device) - (degree.cumsum(0) - degree)[target[order]]
    return order[rank < count].sort().values
