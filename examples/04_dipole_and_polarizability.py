"""One model, three properties: the energy, a vector and a tensor, each turning as it must.

``python examples/04_dipole_and_polarizability.py``
"""

import torch
from ase.build import molecule

from equitorch import AtomGraph
from equitorch.models import TensorNet
from equitorch.testing import random_rotation

model = TensorNet(channels=16, outputs=("energy", "dipole", "polarizability")).double()
atoms = molecule("CH3CH2OH")
rotation = random_rotation(3, generator=torch.Generator().manual_seed(0))


def properties(positions: torch.Tensor) -> dict[str, torch.Tensor]:
    turned = atoms.copy()
    turned.positions = positions.numpy()
    g = AtomGraph.from_ase(turned, model.cutoff, dtype=torch.float64)
    return model(g.atomic_numbers, g.edge_index, g.edge_vectors(), g.batch, g.num_graphs)


before = properties(torch.tensor(atoms.positions))
after = properties(torch.tensor(atoms.positions) @ rotation.T)
checks = {
    "energy": before["energy"],
    "dipole": before["dipole"] @ rotation.T,
    "polarizability": rotation @ before["polarizability"] @ rotation.T,
}
for name, expected in checks.items():
    error = (after[name] - expected).abs().max()
    print(f"{name:15} {tuple(expected.shape)!s:12} turns with the molecule to {error:.0e}")
