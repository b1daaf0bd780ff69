"""A small smooth model, and frames labelled by a pair potential that it can learn."""

import torch
from torch import nn

from equitorch.graph import AtomGraph

CUTOFF = 4.0


class Toy(nn.Module):
    """Pair and density energies from Gaussians of the distance, with a weight per element."""

    def __init__(
        self,
        *,
        channels: int = 8,
        cutoff: float = CUTOFF,
        max_z: int = 20,
        outputs: tuple[str, ...] = ("energy",),
    ) -> None:
        super().__init__()
        self.options = {"channels": channels, "cutoff": cutoff, "max_z": max_z, "outputs": outputs}
        self.cutoff = cutoff
        self.embedding = nn.Embedding(max_z, channels)
        self.first, self.last = nn.Linear(channels, channels), nn.Linear(channels, 1)

    def forward(
        self, atomic_numbers, edge_index, edge_vectors, batch, num_graphs, *, charge=None, edge_reverse=None
    ):
        source, target = edge_index
        d = edge_vectors.norm(dim=-1, keepdim=True)
        centers = torch.linspace(0.5, self.cutoff, self.embedding.embedding_dim).to(d)
        envelope = (1 - (d / self.cutoff).clamp(max=1) ** 2) ** 3
        message = envelope * torch.exp(-((d - centers) ** 2) * 4) * self.embedding(atomic_numbers)[source]
        density = message.new_zeros(len(atomic_numbers), message.shape[1]).index_add(0, target, message)
        node = self.last(torch.nn.functional.silu(self.first(density)))[:, 0]
        return {"energy": node.new_zeros(num_graphs).index_add(0, batch, node), "node_energy": node}


def label(numbers, pos):
    """Energy and forces of a Morse potential on top of element energies."""
    pos = pos.clone().requires_grad_()
    d = torch.pdist(pos)
    energy = ((1 - torch.exp(-1.5 * (d - 1.4))) ** 2 * torch.exp(-d)).sum() - 10.0 * numbers.sum()
    (gradient,) = torch.autograd.grad(energy, pos)
    return energy.detach(), -gradient


def frames(count=12, seed=0, **changes):
    """Clusters of hydrogen and oxygen."""
    generator, graphs = torch.Generator().manual_seed(seed), []
    for index in range(count):
        atoms = 3 + index % 3
        numbers = torch.where(torch.rand(atoms, generator=generator) > 0.5, 8, 1)
        grid = torch.tensor(
            [[0, 0, 0], [1.2, 0, 0], [0, 1.2, 0], [0, 0, 1.2], [1.2, 1.2, 0]], dtype=torch.float64
        )
        pos = grid[:atoms] + 0.15 * torch.randn(atoms, 3, generator=generator, dtype=torch.float64)
        energy, forces = label(numbers, pos)
        graphs.append(
            AtomGraph.build(
                numbers, pos, dtype=torch.float64, energy=energy.reshape(1), forces=forces
            ).replace(**changes)
        )
    return graphs


def write(path, count=12, seed=0):
    """The frames as an extxyz file."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as write_file

    images = []
    for graph in frames(count, seed):
        atoms = Atoms(graph.atomic_numbers.numpy(), graph.pos.numpy())
        atoms.calc = SinglePointCalculator(atoms, energy=float(graph.energy), forces=graph.forces.numpy())
        images.append(atoms)
    write_file(path, images)
    return path
