"""A small, smooth many-body model: the second model that every potential test runs on."""

import torch
from torch import nn

from equitorch.layers.cutoff import PolynomialCutoff


class Toy(nn.Module):
    """Density and polar moment of each atom's neighbours, through a small network; also a dipole."""

    def __init__(self, *, channels=8, cutoff=4.0, max_z=20, seed=0):
        super().__init__()
        self.options = {"channels": channels, "cutoff": cutoff, "max_z": max_z, "seed": seed}
        self.cutoff = cutoff
        self.envelope = PolynomialCutoff(cutoff)
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape):
            return nn.Parameter(0.5 * torch.randn(*shape, generator=generator))

        self.species, self.decay = weight(max_z, channels), nn.Parameter(torch.linspace(0.3, 2.0, channels))
        self.inner, self.outer, self.level = weight(3 * channels, channels), weight(channels), weight(max_z)

    def forward(
        self, atomic_numbers, edge_index, edge_vectors, batch, num_graphs, *, charge=None, edge_reverse=None
    ):
        source, target = edge_index
        d = torch.linalg.vector_norm(edge_vectors, dim=-1, keepdim=True)
        f = self.envelope(d) * torch.exp(-self.decay * d) * self.species[atomic_numbers[source]]
        zeros = f.new_zeros(len(atomic_numbers), f.shape[-1])
        density = zeros.index_add(0, target, f)
        moment = zeros.new_zeros(len(atomic_numbers), 3, f.shape[-1]).index_add(
            0, target, (edge_vectors / d)[:, :, None] * f[:, None, :]
        )
        own = self.species[atomic_numbers]
        features = torch.cat([density, moment.square().sum(1), density * own], dim=-1)
        node = torch.tanh(features @ self.inner) @ self.outer + self.level[atomic_numbers]
        if charge is not None:
            node = node + 0.1 * charge[batch] * density.sum(-1)
        energy = node.new_zeros(num_graphs).index_add(0, batch, node)
        dipole = node.new_zeros(num_graphs, 3).index_add(0, batch, moment.sum(-1))
        return {"energy": energy, "node_energy": node, "dipole": dipole}
