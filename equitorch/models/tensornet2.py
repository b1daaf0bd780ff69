"""TensorNet2: TensorNet whose messages depend on learned charges of the atoms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.mlp import MLP
from equitorch.layers.radial import RadialFunction
from equitorch.layers.readout import pool
from equitorch.layers.tensornet import TensorEmbedding, TensorNorms
from equitorch.layers.tensornet2 import ChargedInteraction, ChargeHead
from equitorch.models.elements import expect_elements
from equitorch.models.tensornet import BASES, check_numbers, check_options, energy_head, envelope
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics


class TensorNet2(nn.Module):
    r"""Potential energy of charged molecules from one 3x3 matrix per atom and channel, and latent charges.

    After the embedding and after every layer each atom gets ``charges`` numbers that add up to the charge of
    its molecule, however far apart its atoms are; the next layer's messages depend on them. The energy itself
    is a sum over atoms, without a Coulomb term.

    Args:
        channels: matrices per atom.
        layers: rounds of messages.
        radial: functions of the distance.
        charges: latent charges per atom.
        cutoff: Å.
        lower: where the radial functions start (Å); with a cosine cutoff, closer atoms do not interact.
        basis: "expnorm" or "gauss".
        trainable_basis: learn the radial functions' centres and widths.
        cutoff_function: "cosine" (forces continuous) or "polynomial" (second derivatives too).
        activation: "silu", "tanh", "ssp", ...
        group: "O(3)" or "SO(3)".
        max_z: number of rows of the table of elements.

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of energy (graphs,), node_energy (atoms,) in eV, node_features (atoms, 9, channels) and
        node_charges (atoms, layers + 1, charges) in e.

    Raises:
        ValueError: if an option is not one of those named above, or a number makes no sense.

    Source:
        Simeon et al. 2026, arXiv:2601.00581; every detail as in torchmd-net 3.1's PyTorch path.

    >>> model = TensorNet2(channels=8, layers=1, charges=2)
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> out = model(torch.tensor([1, 1]), edges, vectors, batch, 1, charge=torch.tensor([1.0]))
    >>> out["energy"].shape, out["node_charges"].shape
    (torch.Size([1]), torch.Size([2, 2, 2]))
    """

    def __init__(
        self,
        *,
        channels: int = 128,
        layers: int = 2,
        radial: int = 32,
        charges: int = 16,
        cutoff: float = 4.5,
        lower: float = 0.0,
        basis: str = "expnorm",
        trainable_basis: bool = False,
        cutoff_function: str = "cosine",
        activation: str = "silu",
        group: str = "O(3)",
        max_z: int = 128,
    ) -> None:
        super().__init__()
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_options("TensorNet2", basis=basis, cutoff_function=cutoff_function, group=group)
        check_numbers("TensorNet2", self.options)
        self.cutoff = float(cutoff)
        self.basis = BASES[basis](radial, cutoff, lower=lower, trainable=trainable_basis)
        self.envelope = envelope(cutoff_function, cutoff, lower=lower)
        function = RadialFunction(self.basis, MLP([radial, 3 * channels]), self.envelope, cutoff=cutoff)
        self.embedding = TensorEmbedding(channels, function, activation=activation, max_z=max_z)
        self.heads = nn.ModuleList(
            ChargeHead(channels, charges, activation=activation) for _ in range(layers + 1)
        )
        self.interactions = nn.ModuleList(
            ChargedInteraction(channels, radial, charges, activation=activation, group=group)
            for _ in range(layers)
        )
        self.norms = TensorNorms(channels, activation=activation)
        self.energy = energy_head(channels, activation)

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
    ) -> dict[str, Tensor]:
        """Energies of a batch of graphs.

        Args:
            atomic_numbers: shape (atoms,), int64.
            edge_index: neighbour j and centre i of each edge, sorted by centre. Shape (2, edges), int64.
            edge_vectors: from centre to neighbour, shape (edges, 3), Å.
            batch: graph of each atom, shape (atoms,), int64.
            num_graphs: number of graphs.
            charge: of each graph, shape (graphs,), e; None means neutral.
            edge_reverse: index of the edge that leads back, shape (edges,): saves some of the radial work.
        """
        expect_elements("TensorNet2", atomic_numbers, int(self.options["max_z"]))
        plan = EdgePlan.build(edge_index, atomic_numbers.shape[0], edge_reverse=edge_reverse)
        directed = plan.directed()
        distance = edge_vectors[plan.pair_edge[:, 0]].norm(dim=-1)
        harmonics = spherical_harmonics(2, -edge_vectors, normalization="norm")
        total = None if charge is None else charge.to(edge_vectors.dtype)
        edge = self.basis(distance)[plan.pair], self.envelope(distance)[plan.pair]
        zero = distance.new_zeros(1)
        own = self.basis(zero), self.envelope(zero)
        x = self.embedding(atomic_numbers, distance, harmonics, plan)
        charges = [self.heads[0](x, total, batch, num_graphs)]
        for interaction, head in zip(self.interactions, self.heads[1:], strict=True):
            x = interaction(x, charges[-1], edge, own, directed)
            charges.append(head(x, total, batch, num_graphs))
        invariants = self.norms(x)
        node_energy = self.energy(invariants).squeeze(-1)
        return {
            "energy": pool(node_energy, batch, num_graphs),
            "node_energy": node_energy,
            "node_features": x,
            "node_invariants": invariants,
            "node_charges": torch.stack(charges, dim=1),
        }
