"""eSEN and UMA: features of high degree, exchanged in the frames of edges without attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from equitorch.layers.cutoff import PolynomialCutoff
from equitorch.layers.edge_degree import EdgeDegreeEmbedding, EdgeScalars, WideGaussians
from equitorch.layers.equiformer_v2 import NORMS, row_norm
from equitorch.layers.esen import EdgeMessage, ESENBlock, SystemEmbedding, smooth_start
from equitorch.layers.feed_forward import FeedForward, GridMLP
from equitorch.layers.mlp import MLP
from equitorch.layers.readout import pool
from equitorch.layers.so2_activation import row_activation
from equitorch.layers.stacks import PARITIES, Channels, stacks
from equitorch.models.edge_frame_options import check_choice, check_sizes, gaussians, pair, warn_inexact
from equitorch.models.elements import expect_elements
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation

UMA_DATASETS = ("oc20", "omol", "omat", "odac", "omc")
_ACTIVATIONS = {"exact": ("gate", "product"), "compat": ("gate", "s2")}
_FEED_FORWARD = {"exact": ("spectral", "gate", "product"), "compat": ("spectral", "grid")}


class ESEN(nn.Module):
    r"""Potential energy of molecules and crystals, smooth enough for long simulations and phonons.

    Messages are made in the frames of edges by maps that mix degrees and channels of each order by itself,
    weighted by an envelope, and summed without attention; the energy is a perceptron of the invariant rows.

    ``mode="exact"``, for new models: no imaginary weights and no pointwise functions on grids. Energies are
    invariant under rotations and reflections to rounding. ``mode="compat"``: what published weights were
    trained with; they tell mirror images apart, and a grid makes them approximate.

    Args:
        channels: copies of every row; with parity "both" a pair, natural and pseudo.
        layers: rounds of messages; each carries information one cutoff further.
        lmax: highest degree of the features.
        mmax: highest order that is kept in the frames of edges.
        hidden: channels between the two maps of a message, in the feed-forward network and in the head; with
            parity "both" a pair, of which the head takes the first.
        edge_channels: of the radial networks, and of the elements' vectors in them.
        radial: Gaussians of the distance; None means 6.4 for each Å, in compat mode 64.
        cutoff: Å.
        mode: "exact" or "compat".
        parity: "natural": rotations and reflections; "both": features of both parities; "so3": rotations
            only, with imaginary weights. None means natural, in compat mode so3.
        activation: of messages: "gate", or "product" of functions on exact grids; in compat mode "gate" or
            "s2".
        feed_forward: "spectral" (gates), "gate" or "product"; in compat mode "spectral" or "grid".
        norm: "rms_norm_sh", "layer_norm_sh" or "layer_norm".
        envelope: weigh edges so that they vanish at the cutoff; without it, energies jump (compat mode).
        latitudes: fewer latitudes for products in the frames of edges; equivariance does not need them.
        grid_resolution: latitudes and longitudes of the grids in compat mode.
        average_neighbors: by whose root the first sum over neighbours is divided; None for 25, for which
            training takes the mean of its frames.
        system: tell graphs of different charge, spin and data set apart, as UMA does.
        system_kind: how charge and spin become vectors: "pos_emb" or "rand_emb".
        datasets: names of the data sets, for ``system``.
        direct_forces: add "forces" from a head of its own. They are no gradient of the energy and conserve
            nothing.
        force_scale: factor of these forces.
        max_z: number of rows of the table of elements.

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of energy (graphs,) and node_energy (atoms,) in eV, node_features
        (atoms, (lmax + 1)^2, channels), and with a direct head forces (atoms, 3)

    Attributes:
        sees_charge: whether ``system`` is on.
        settings: the options, with what the mode chooses in the places of None.

    Raises:
        ValueError: if an option is not one of those named above, or a number makes no sense.

    Source:
        Fu et al. 2025, arXiv:2502.12147 (eSEN); Wood et al. 2025, arXiv:2506.23971 (UMA); compat mode as in
        fairchem-core 1.10 and 2.

    >>> model = ESEN(channels=8, layers=2, hidden=8, edge_channels=8, cutoff=5.0)
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> model(torch.tensor([1, 1]), edges, vectors, batch, 1)["energy"].shape
    torch.Size([1])
    """

    def __init__(
        self,
        *,
        channels: int | Sequence[int] = 128,
        layers: int = 4,
        lmax: int = 2,
        mmax: int = 2,
        hidden: int | Sequence[int] = 128,
        edge_channels: int = 128,
        radial: int | None = None,
        cutoff: float = 6.0,
        mode: str = "exact",
        parity: str | None = None,
        activation: str = "gate",
        feed_forward: str = "spectral",
        norm: str = "rms_norm_sh",
        envelope: bool = True,
        latitudes: int | None = None,
        grid_resolution: int | None = None,
        average_neighbors: float | None = None,
        system: bool = False,
        system_kind: str = "pos_emb",
        datasets: Sequence[str] = (),
        direct_forces: bool = False,
        force_scale: float = 1.0,
        max_z: int = 100,
    ) -> None:
        super().__init__()
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.options = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        self.settings = chosen = _resolved(self.options)
        self.cutoff, self.lmax, self.mmax, self.compat = float(cutoff), lmax, mmax, mode == "compat"
        self.channels, self.parity, inner = pair(channels), str(chosen["parity"]), pair(hidden)
        self.natural, self.pseudo = stacks(self.channels, self.parity)
        self.sees_charge = system
        self.basis = WideGaussians(chosen["radial"], cutoff)
        self.envelope = PolynomialCutoff(cutoff, p=5) if envelope else None
        self.sphere_embedding = nn.Embedding(max_z, self.natural)
        self.system = SystemEmbedding(self.natural, datasets, kind=system_kind) if system else None
        self.scalars = EdgeScalars(max_z, edge_channels)
        width = self.basis.count + 2 * edge_channels
        self.degree = EdgeDegreeEmbedding(
            lmax,
            mmax,
            self.natural,
            scalars=width,
            hidden=edge_channels,
            degree=(average_neighbors or 25.0) ** 0.5,
        )
        self.blocks = nn.ModuleList(self._block(inner, width, edge_channels) for _ in range(layers))
        self.norm = row_norm(norm, lmax, self.channels, parity=self.parity)
        if not self.compat:
            smooth_start(self, self.basis.count)
        head = stacks(inner, self.parity)[0]
        self.energy = MLP([self.natural, head, head, 1])
        self.forces = nn.Linear(self.natural, 1, bias=False) if direct_forces else None
        self.force_scale = float(force_scale)
        on_grid = [name for name in ("activation", "feed_forward") if chosen[name] in ("s2", "grid")]
        found = [f"{name}={chosen[name]!r} changes under rotations on every grid" for name in on_grid]
        warn_inexact("ESEN", chosen, found, envelope=envelope)

    def _block(self, hidden: Channels, scalars: int, edge_channels: int) -> ESENBlock:
        lmax, mmax, parity, exact, given = self.lmax, self.mmax, self.parity, not self.compat, self.settings
        grid: dict[str, Any] = {"latitudes": given["latitudes"]} if exact else {}
        if self.compat:
            grid = {"resolution": given["grid_resolution"], "normalization": "integral"}
        kind = "separable_s2" if given["activation"] == "s2" else given["activation"]
        act = row_activation(kind, lmax, mmax, hidden, parity=parity, exact=exact, **grid)
        message = EdgeMessage(
            lmax, mmax, self.channels, act, scalars=scalars, edge_channels=edge_channels, parity=parity
        )
        ffn: nn.Module
        if given["feed_forward"] == "grid":
            ffn = GridMLP(lmax, self.natural, stacks(hidden, parity)[0], exact=False, **grid)
        else:
            ffn = FeedForward(
                lmax, self.channels, hidden, kind=given["feed_forward"], parity=parity, exact=exact
            )
        norms = [row_norm(given["norm"], lmax, self.channels, parity=parity) for _ in range(2)]
        return ESENBlock(norms[0], message, norms[1], ffn)

    @classmethod
    def base_30M(cls, **options: Any) -> Self:
        """The published eSEN of 30,161,153 parameters, for crystals: lmax 3, mmax 2. Options win."""
        sizes: dict[str, Any] = {"mode": "compat", "layers": 10, "lmax": 3}
        return cls(**sizes | options)

    @classmethod
    def uma_s(cls, **options: Any) -> Self:
        """UMA-S for one composition, 6,310,529 parameters: 4 blocks, lmax 2, mmax 2. Options win."""
        sizes: dict[str, Any] = {"mode": "compat", "system": True, "datasets": UMA_DATASETS}
        return cls(**sizes | options)

    @classmethod
    def uma_m(cls, **options: Any) -> Self:
        """UMA-M for one composition, 50,648,705 parameters: 10 blocks, lmax 4, mmax 2. Options win."""
        sizes: dict[str, Any] = {"layers": 10, "lmax": 4, "radial": 128}
        return cls.uma_s(**sizes | options)

    def forward(
        self,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        batch: Tensor,
        num_graphs: int,
        *,
        charge: Tensor | None = None,
        spin: Tensor | None = None,
        dataset: Tensor | None = None,
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
            charge: of each graph, shape (graphs,), e; None means neutral. Seen with ``system`` only.
            spin: multiplicity of each graph, shape (graphs,); None means not given. Likewise.
            dataset: index of each graph's data set, shape (graphs,), int64; None means the first. Likewise.
            edge_reverse: index of the edge that leads back, shape (edges,).
            edge_frames: rotations R with R v / |v| = (0, 1, 0), shape (edges, 3, 3), for results of compat
                mode that depend on them; in exact mode they make no difference.
        """
        expect_elements("ESEN", atomic_numbers, self.sphere_embedding.num_embeddings)
        plan = EdgePlan.build(edge_index, atomic_numbers.shape[0], edge_reverse=edge_reverse)
        rotation = EdgeRotation.build(edge_vectors, self.lmax, self.mmax, frames=edge_frames)
        length = edge_vectors.double().norm(dim=-1)  # narrow Gaussians would amplify what float32 rounds off
        weight = None if self.envelope is None else self.envelope(length.to(edge_vectors.dtype))
        scalars = self.scalars(self.basis(length), atomic_numbers, plan)
        first, shared = self.sphere_embedding(atomic_numbers), None
        if self.system is not None:
            own = self.system(*_given(charge, spin, dataset, num_graphs, first))[batch]
            first = first + own
            shared = nn.functional.pad(own, (0, self.pseudo))
        x = self.degree(scalars, rotation, plan, envelope=weight)
        x = torch.cat([x[:, :1] + first.unsqueeze(1), x[:, 1:]], dim=1)
        x = nn.functional.pad(x, (0, self.pseudo))
        for block in self.blocks:
            x = block(x, scalars, rotation, plan, weight, shared)
        x = self.norm(x)
        out = {"node_features": x, "node_energy": self.energy(x[:, 0, : self.natural]).squeeze(-1)}
        out["energy"] = pool(out["node_energy"], batch, num_graphs)
        if self.forces is not None:
            out["forces"] = self.forces(x[:, 1:4, : self.natural]).squeeze(-1) * self.force_scale
        return out


def _resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the parity that the mode chooses."""
    mode = options["mode"]
    check_choice("ESEN", "mode", mode, tuple(_ACTIVATIONS))
    compat = mode == "compat"
    parity = options["parity"] or ("so3" if compat else "natural")
    check_choice("ESEN", "parity", parity, ("natural", "so3") if compat else PARITIES)
    check_choice(f"ESEN in mode {mode}", "activation", options["activation"], _ACTIVATIONS[mode])
    check_choice(f"ESEN in mode {mode}", "feed_forward", options["feed_forward"], _FEED_FORWARD[mode])
    check_choice("ESEN", "norm", options["norm"], NORMS)
    check_sizes("ESEN", options)
    if not options["envelope"] and not compat:
        raise ValueError("ESEN without an envelope has energies that jump at the cutoff; use mode='compat'")
    radial = options["radial"] or (64 if compat else gaussians(options))
    return dict(options) | {"parity": parity, "radial": radial}


def _given(
    charge: Tensor | None, spin: Tensor | None, dataset: Tensor | None, num_graphs: int, like: Tensor
) -> list[Tensor]:
    """Charge, spin and data set of each graph; zeros for what is not given."""
    zeros = like.new_zeros(num_graphs)
    values = [zeros if value is None else value for value in (charge, spin)]
    return [*values, zeros.long() if dataset is None else dataset]
