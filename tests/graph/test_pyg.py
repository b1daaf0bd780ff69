import re

import pytest
import torch
from ase.build import bulk, molecule

from equitorch.graph import AtomGraph

pytest.importorskip("torch_geometric")
from torch_geometric.data import Batch, Data


def test_goes_there_and_back():
    frames = [molecule("CH3CH2OH"), bulk("Cu", cubic=True), molecule("H2O")]
    for atoms in frames:
        atoms.info.update(charge=0, energy=1.0)
    graph = AtomGraph.batch([AtomGraph.from_ase(atoms, 3.0) for atoms in frames])
    batch = graph.to_pyg()
    assert isinstance(batch, Batch)
    again = AtomGraph.from_pyg(batch, 3.0)
    for name, value in graph.fields().items():
        if torch.is_tensor(value):
            torch.testing.assert_close(getattr(batch, name), value)
            torch.testing.assert_close(getattr(again, name), value)
    assert batch.to_data_list()[2].edge_index.max() == 2


def test_ignores_foreign_edges():
    atoms = molecule("CH4")
    data = Data(
        z=torch.tensor(atoms.numbers),
        pos=torch.tensor(atoms.positions),
        edge_index=torch.tensor([[0], [1]]),
        y=torch.randn(1, 19),
        force=torch.randn(5, 3),
        energy=torch.tensor([-1.0]),
    )
    graph = AtomGraph.from_pyg(Batch.from_data_list([data, data]), 5.0)
    expected = AtomGraph.batch([AtomGraph.from_ase(atoms, 5.0)] * 2)
    torch.testing.assert_close(graph.edge_index, expected.edge_index)
    torch.testing.assert_close(graph.forces, torch.cat([data.force] * 2))
    assert graph.energy.dtype == torch.float64
    assert AtomGraph.from_pyg(data, 5.0).num_graphs == 1


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=re.escape("data with pos and with z or atomic_numbers, got ['pos', 'x']")
    ):
        AtomGraph.from_pyg(Data(pos=torch.zeros(2, 3), x=torch.zeros(2)), 5.0)
    with pytest.raises(ValueError, match=re.escape("forces of shape (1, 3), got (2, 3)")):
        AtomGraph.from_pyg(Data(pos=torch.zeros(1, 3), z=torch.ones(1), forces=torch.zeros(2, 3)), 5.0)
