"""Write a network of NequIP's kind from layers, and teach it the energies and forces of ethanol.

``python examples/05_write_a_network.py [--steps 60]``
"""

import argparse

import torch
from torch import Tensor, nn

from equitorch import AtomGraph
from equitorch.datasets import load_shipped
from equitorch.layers import MLP, ElementEmbedding, EquivariantConvolution, Gate, Linear, SmoothBessel, pool
from equitorch.ops import spherical_harmonics
from equitorch.ops.edges import EdgePlan
from equitorch.reps import Irreps

CUTOFF, CHANNELS = 4.5, 16
SCALARS, FEATURES = Irreps("0e"), Irreps("0e + 1o + 2e")  # rows; the channels come on top


class Layer(nn.Module):
    """Messages of the neighbours, mixed with the atom's own features, through a gate."""

    def __init__(self, irreps: Irreps) -> None:
        super().__init__()
        self.gate = Gate("0e", ["silu"], "2x0e", ["sigmoid"], "1o + 2e")
        self.convolution = EquivariantConvolution(irreps, FEATURES, FEATURES, CHANNELS)
        self.radial = MLP([8, 32, len(self.convolution.paths) * CHANNELS], bias=False)
        self.own, self.received = (
            Linear(rows, CHANNELS, CHANNELS, irreps_out=self.gate.irreps_in) for rows in (irreps, FEATURES)
        )

    def forward(self, x: Tensor, harmonics: Tensor, radial: Tensor, plan: EdgePlan) -> Tensor:
        weight = self.radial(radial).unflatten(-1, (-1, CHANNELS))  # (pairs, paths, channels)
        return self.gate(self.own(x) + self.received(self.convolution(x, harmonics, weight, plan)))


class Network(nn.Module):
    """Energies of a batch of graphs."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embedding = ElementEmbedding(CHANNELS, species=[1, 6, 8])
        self.basis = SmoothBessel(8, CUTOFF)
        self.layers = nn.ModuleList(Layer(FEATURES if k else SCALARS) for k in range(layers))
        self.readout = Linear(FEATURES, CHANNELS, 1, irreps_out=SCALARS)

    def forward(self, graph: AtomGraph) -> Tensor:
        vectors = graph.edge_vectors()  # from each atom to its neighbours
        plan = EdgePlan.build(graph.edge_index, graph.num_atoms, edge_reverse=graph.edge_reverse)
        harmonics = spherical_harmonics(2, vectors)  # 0e + 1o + 2e
        radial = self.basis(vectors[plan.pair_edge[:, 0]].norm(dim=-1))  # once for both directions
        x = self.embedding(graph.atomic_numbers).unsqueeze(-2)  # (atoms, 1 row, channels)
        for layer in self.layers:
            x = layer(x, harmonics, radial, plan)
        return pool(self.readout(x).flatten(1).squeeze(-1), graph.batch, graph.num_graphs)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=60)
steps = parser.parse_args().steps
torch.manual_seed(0)
data = load_shipped("ethanol")
mean = torch.stack([frame.energy for frame in data]).mean()
network = Network()
optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
for step in range(steps):
    graph = AtomGraph.batch([data.graph(i, cutoff=CUTOFF) for i in torch.randint(len(data), (8,)).tolist()])
    graph = graph.replace(pos=graph.pos.requires_grad_())
    energy = network(graph)
    [gradient] = torch.autograd.grad(energy.sum(), graph.pos, create_graph=True)
    off = energy - (graph.energy - mean).float(), -gradient - graph.forces
    optimizer.zero_grad()
    (off[0].square().mean() / 100 + off[1].square().mean()).backward()
    optimizer.step()
    if step % 10 == 0 or step == steps - 1:
        rms = [error.square().mean().sqrt().item() for error in off]
        print(f"step {step:3d}  energy {rms[0]:.2f} eV  forces {rms[1]:.2f} eV/Å")
