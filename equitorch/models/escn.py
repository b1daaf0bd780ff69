"""eSCN: features of high degree, exchanged in the frames of edges, where each order is mapped by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch  # noqa: F401 (for the example)
from torch import Tensor, nn

from equitorch.layers.cutoff import PolynomialCutoff
from equitorch.layers.edge_degree import WideGaussians
from equitorch.layers.equiformer_v2 import row_norm
from equitorch.layers.escn import MessageBlock
from equitorch.layers.escn_node import ExactUpdate, GridUpdate, PointHead, PointSample, unit_start
from equitorch.layers.mlp import MLP
from equitorch.layers.readout import pool
from equitorch.layers.row_grid import RowGrid
from equitorch.layers.so2_activation import EXACT, row_activation
from equitorch.layers.stacks import PARITIES, stacks
from equitorch.models.edge_frame_options import check_choice, check_sizes, gaussians, pair, warn_inexact
from equitorch.models.elements import expect_elements
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation

_MODES: dict[str, dict[str, Any]] = {
    "exact": {"parity": "natural", "activation": "gate", "direct_forces": False},
    "compat": {"parity": "so3", "activation": "s2", "direct_forces": True},
}


class ESCN(nn.Module):
    r"""Potential energy of molecules and crystals from messages that are made in the frames of edges.

    Turned onto the polar axis, an edge leaves only rolls as a symmetry; a linear map then mixes degrees and
    channels of each order by itself, which makes degrees of six and more affordable.

    ``mode="exact"``, for new models: activations on exact grids or none, an envelope on all messages, no
    imaginary weights, energies from the invariant rows. Energies are invariant under rotations and
    reflections to rounding, and smooth. ``mode="compat"``: what published weights were trained with, which
    is neither; its energies and direct forces are those of the published code for the same edge frames.

    Args:
        channels: copies of every row; with parity "both" a pair, natural and pseudo.
        layers: rounds of messages; each carries information one cutoff further.
        lmax: highest degree of the features.
        mmax: highest order that is kept in the frames of edges.
        hidden: hidden channels of each order in a message.
        edge_channels: invariants of an edge.
        radial: Gaussians of the distance; None means 6.4 for each Å, in compat mode 50.
        radial_width: their width over their spacing.
        cutoff: Å.
        mode: "exact" or "compat".
        parity: "natural": rotations and reflections; "both": features of both parities; "so3": rotations
            only, with imaginary weights. None means natural, in compat mode so3.
        activation: "gate" or "product" (of functions on exact grids); in compat mode "s2".
        latitudes: fewer latitudes for products in the frames of edges; equivariance does not need them.
        grid_resolution: latitudes and longitudes of the grids in compat mode; None for the published ones.
        average_neighbors: by whose root sums of messages are divided in exact mode; None for no division, for
            which training takes the mean of its frames.
        direct_forces: add "forces" from a head of its own. They are no gradient of the energy and conserve
            nothing. None means no, in compat mode yes.
        force_scale: factor of these forces.
        points: samples of the sphere that compat mode's heads average over.
        max_z: number of rows of the table of elements.

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of energy (graphs,) and node_energy (atoms,) in eV, node_features
        (atoms, (lmax + 1)^2, channels), and with a direct head forces (atoms, 3)

    Attributes:
        sees_charge: False: graphs that differ in their charge only have equal energies.
        settings: the options, with what the mode chooses in the places of None.

    Raises:
        ValueError: if an option is not one of those named above, or a number makes no sense.

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655; compat mode as in fairchem-core 1.10.

    >>> model = ESCN(channels=8, layers=2, lmax=2, hidden=8, edge_channels=8, cutoff=5.0)
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> model(torch.tensor([1, 1]), edges, vectors, batch, 1)["energy"].shape
    torch.Size([1])
    """

    sees_charge = False

    def __init__(
        self,
        *,
        channels: int | Sequence[int] = 128,
        layers: int = 12,
        lmax: int = 6,
        mmax: int = 2,
        hidden: int = 256,
        edge_channels: int = 128,
        radial: int | None = None,
        radial_width: float = 2.0,
        cutoff: float = 12.0,
        mode: str = "exact",
        parity: str | None = None,
        activation: str | None = None,
        latitudes: int | None = None,
        grid_resolution: int | None = None,
        average_neighbors: float | None = None,
        direct_forces: bool | None = None,
        force_scale: float = 1.0,
        points: int = 128,
        max_z: int = 90,
    ) -> None:
        super().__init__()
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.options = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        self.settings = chosen = _resolved(self.options)
        self.cutoff, self.lmax, self.mmax, self.compat = float(cutoff), lmax, mmax, mode == "compat"
        self.channels, self.parity = pair(channels), str(chosen["parity"])
        self.natural, self.pseudo = stacks(self.channels, self.parity)
        self.basis = WideGaussians(chosen["radial"], cutoff, width=radial_width)
        self.envelope = None if self.compat else PolynomialCutoff(cutoff, p=5)
        self.share = (average_neighbors or 1.0) ** -0.5
        self.sphere_embedding = nn.Embedding(max_z, self.natural)
        self.layer_blocks = nn.ModuleList(self._layers(chosen))
        self.norm = None if self.compat else row_norm("rms_norm_sh", lmax, self.channels, parity=self.parity)
        if not self.compat:
            unit_start(self.layer_blocks)
        self._heads(points, chosen["direct_forces"])
        self.force_scale = float(force_scale)
        found = [f"activation={chosen['activation']!r} changes under rotations on every grid"] * self.compat
        warn_inexact("ESCN", chosen, found, envelope=not self.compat)

    def _layers(self, chosen: Mapping[str, Any]) -> list[GridUpdate | ExactUpdate]:
        """All layers; they share what holds no weights: activations and grids."""
        lmax, mmax, parity, kind = self.lmax, self.mmax, self.parity, chosen["activation"]
        grid: dict[str, Any] = {"latitudes": chosen["latitudes"]}
        if self.compat:
            grid = {"resolution": chosen["grid_resolution"], "normalization": "integral", "rescale": False}
        act = row_activation(kind, lmax, mmax, self.channels, parity=parity, exact=not self.compat, **grid)
        sizes = {k: chosen[k] for k in ("hidden", "edge_channels", "radial", "max_z", "parity")}
        messages = [MessageBlock(lmax, mmax, self.channels, act, **sizes) for _ in range(chosen["layers"])]
        if self.compat:
            points = RowGrid.published(lmax, rows="degree", **grid)
            return [GridUpdate(message, points, self.natural) for message in messages]
        act = row_activation(kind, lmax, lmax, self.channels, rows="degree", parity=parity)
        return [ExactUpdate(message, act, lmax, self.channels, parity=parity) for message in messages]

    def _heads(self, points: int, direct_forces: bool) -> None:
        width = self.natural
        if self.compat:
            self.sample = PointSample(points, self.lmax)
            self.energy_block = PointHead(width)
            self.force_block = PointHead(width) if direct_forces else None
        else:
            self.energy = MLP([width, width, width, 1])
            self.forces = nn.Linear(width, 1, bias=False) if direct_forces else None

    @classmethod
    def base_52M(cls, **options: Any) -> Self:
        """The published model of 51,837,952 parameters, for OC20's 2M split: lmax 6, mmax 2. Options win."""
        sizes: dict[str, Any] = {"mode": "compat"}
        return cls(**sizes | options)

    @classmethod
    def base_200M(cls, **options: Any) -> Self:
        """The published model of 200,227,840 parameters, for all of OC20: lmax 6, mmax 3. Options win."""
        sizes: dict[str, Any] = {"mode": "compat", "channels": 160, "layers": 20, "mmax": 3, "hidden": 384}
        return cls(**sizes | options)

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
        """Energies of a batch of graphs.

        Args:
            atomic_numbers: shape (atoms,), int64.
            edge_index: neighbour j and centre i of each edge, sorted by centre. Shape (2, edges), int64.
            edge_vectors: from centre to neighbour, shape (edges, 3), Å.
            batch: graph of each atom, shape (atoms,), int64.
            num_graphs: number of graphs.
            charge: of each graph, shape (graphs,), e; makes no difference to this model.
            edge_reverse: index of the edge that leads back, shape (edges,).
            edge_frames: rotations R with R v / |v| = (0, 1, 0), shape (edges, 3, 3), for results of compat
                mode that depend on them; in exact mode they make no difference.
        """
        expect_elements("ESCN", atomic_numbers, self.sphere_embedding.num_embeddings)
        plan = EdgePlan.build(edge_index, atomic_numbers.shape[0], edge_reverse=edge_reverse)
        rotation = EdgeRotation.build(edge_vectors, self.lmax, self.mmax, frames=edge_frames)
        length = edge_vectors.double().norm(dim=-1)  # narrow Gaussians would amplify what float32 rounds off
        distance = length.to(edge_vectors.dtype)
        weight = None if self.envelope is None else self.envelope(distance) * self.share
        edges = self.basis(length), atomic_numbers, rotation, plan, weight
        first = self.sphere_embedding(atomic_numbers).unsqueeze(1)
        x = nn.functional.pad(first, (0, self.pseudo, 0, rotation.rows - 1))
        for k, layer in enumerate(self.layer_blocks):
            x = layer(x, *edges) if self.compat and k == 0 else x + layer(x, *edges)
        x = x if self.norm is None else self.norm(x)
        out = self._published_heads(x) if self.compat else self._invariant_heads(x)
        return {"energy": pool(out["node_energy"], batch, num_graphs), "node_features": x, **out}

    def _invariant_heads(self, x: Tensor) -> dict[str, Tensor]:
        natural = x[..., : self.natural]
        out = {"node_energy": self.energy(natural[:, 0]).squeeze(-1)}
        if self.forces is not None:
            out["forces"] = self.forces(natural[:, 1:4]).squeeze(-1) * self.force_scale
        return out

    def _published_heads(self, x: Tensor) -> dict[str, Tensor]:
        values = self.sample(x)
        out = {"node_energy": 1e-3 * self.energy_block(values).mean(dim=1)}
        if self.force_block is not None:
            points = self.sample.sphere_points
            out["forces"] = self.force_block(values) @ points * (self.force_scale / points.shape[0])
        return out


def _resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those filled in that the mode chooses."""
    mode = options["mode"]
    check_choice("ESCN", "mode", mode, tuple(_MODES))
    chosen = dict(options) | {k: v for k, v in _MODES[mode].items() if options[k] is None}
    check_sizes("ESCN", options)
    compat = mode == "compat"
    chosen["radial"] = chosen["radial"] or (int(options["cutoff"] / 0.02) if compat else gaussians(options))
    check_choice("ESCN", "parity", chosen["parity"], ("natural", "so3") if compat else PARITIES)
    known = ("s2",) if compat else EXACT
    check_choice(f"ESCN in mode {mode}", "activation", chosen["activation"], known)
    return chosen
