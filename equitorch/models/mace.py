"""MACE: features of many bodies from powers of what one sum over the neighbours gathers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.embedding import ElementEmbedding
from equitorch.layers.mace import PRODUCTS, ManyBodyConvolution
from equitorch.layers.nequip import SmoothBessel, scalar_network
from equitorch.layers.readout import pool
from equitorch.models.elements import element_numbers, expect_elements
from equitorch.models.nequip import check_numbers
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics
from equitorch.reps import Irreps

_LEAST = {
    "channels": 1, "layers": 1, "lmax": 0, "max_ell": 0, "correlation": 1, "radial": 1, "power": 1,
    "readout": 1, "max_z": 2,
}  # fmt: skip


class MACE(nn.Module):
    r"""Potential energy of molecules and crystals from products of many neighbours' messages.

    Each atom starts as a vector of its element. In every layer it gathers the features of its neighbours,
    coupled with the harmonics of their directions, once; polynomials of what it gathered then describe up to
    ``correlation`` neighbours together. Each layer's invariant rows add to the energies of the atoms, through
    a linear map and, in the last layer, a perceptron. Exactly invariant under rotations and reflections,
    smooth, and zero for an atom alone.

    Args:
        channels: copies of every irrep.
        layers: rounds of messages; each carries information one cutoff further.
        lmax: highest degree of the features between layers.
        max_ell: highest degree of the harmonics, and of what is multiplied.
        correlation: factors of the products: one less than the number of bodies.
        radial: Bessel functions of the distance.
        hidden: channels of the radial networks' hidden layers.
        cutoff: Å.
        power: of the polynomial envelope.
        average_neighbors: by which sums over neighbours are divided; None for no division, for which training
            takes the mean of its frames.
        product: "cg", every equivariant polynomial, with a weight for each (MACE); "gaunt", powers of
            functions on the sphere, faster and with fewer weights.
        readout: hidden channels of the last layer's perceptron.
        elements: atomic numbers, or chemical symbols, for which there are weights; None for all below
            ``max_z``, for which training takes those of its frames.
        max_z: number of rows of the tables of elements where they are not named.

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of node_features (atoms, 1, channels), energy (graphs,) and node_energy (atoms,) in eV

    Attributes:
        irreps_out: how the rows of ``node_features`` transform: invariant.
        sees_charge: False: graphs that differ in their charge only have equal energies.

    Raises:
        ValueError: if an option is not one of those named above, or a number makes no sense.

    Source:
        Batatia et al. 2022, arXiv:2206.07697; "gaunt": Luo et al. 2024, arXiv:2401.10216.

    >>> model = MACE(channels=8, elements=["H", "O"])
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> model(torch.tensor([1, 8]), edges, vectors, batch, 1)["energy"].shape
    torch.Size([1])
    """

    sees_charge = False

    def __init__(
        self,
        *,
        channels: int = 128,
        layers: int = 2,
        lmax: int = 1,
        max_ell: int = 3,
        correlation: int = 3,
        radial: int = 8,
        hidden: Sequence[int] = (64, 64, 64),
        cutoff: float = 5.0,
        power: int = 5,
        average_neighbors: float | None = None,
        product: str = "cg",
        readout: int = 16,
        elements: Sequence[int | str] | None = None,
        max_z: int = 119,
    ) -> None:
        super().__init__()
        hidden, elements = list(hidden), None if elements is None else element_numbers("MACE", elements)
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_numbers("MACE", self.options, _LEAST)
        if product not in PRODUCTS:
            raise ValueError(f"MACE expects product to be cg or gaunt, got {product!r}")
        self.cutoff, self.max_ell, self.irreps_out = float(cutoff), max_ell, Irreps("0e")
        self.embedding = ElementEmbedding(channels, species=elements, max_atomic_number=max_z - 1)
        basis = SmoothBessel(radial, cutoff, p=power)
        degrees = [0] + [lmax] * (layers - 1) + [0]
        self.layers = nn.ModuleList(
            ManyBodyConvolution(
                degrees[k],
                degrees[k + 1],
                channels,
                max_ell=max_ell,
                basis=basis,
                hidden=hidden,
                correlation=correlation,
                elements=self.embedding.weight.shape[0],
                product=product,
                residual=k > 0,  # an atom alone then stays zero
                average_neighbors=average_neighbors or 1.0,
            )
            for k in range(layers)
        )
        self.readouts = nn.ModuleList(scalar_network([channels, 1]) for _ in range(layers - 1))
        self.readouts.append(scalar_network([channels, readout, 1]))

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
            charge: of each graph, shape (graphs,), e; makes no difference to this model.
            edge_reverse: index of the edge that leads back, shape (edges,): halves the radial work.
        """
        kind = self._kinds(atomic_numbers)
        plan = EdgePlan.build(edge_index, atomic_numbers.shape[0], edge_reverse=edge_reverse)
        distance = edge_vectors[plan.pair_edge[:, 0]].norm(dim=-1)
        harmonics = spherical_harmonics(self.max_ell, edge_vectors)
        x = nn.functional.embedding(kind, self.embedding.weight).unsqueeze(-2)
        parts = []
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            x = layer(x, harmonics, distance, plan, kind)
            parts.append(readout(x[:, 0]).squeeze(-1))
        node = torch.stack(parts).sum(0)
        return {"node_features": x, "node_energy": node, "energy": pool(node, batch, num_graphs)}

    def _kinds(self, atomic_numbers: Tensor) -> Tensor:
        """Which row of the tables is whose."""
        expect_elements("MACE", atomic_numbers, self.options["max_z"], self.embedding.species)
        return self.embedding.species_index(atomic_numbers)
