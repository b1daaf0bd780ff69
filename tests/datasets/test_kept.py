"""equitorch/datasets/kept.py"""

import ase
import pytest
import torch
from ase.build import bulk, molecule
from torch.utils.data import DataLoader

from equitorch.datasets import AtomDataset, KeptGraphs, kept
from equitorch.graph import AtomGraph


@pytest.fixture
def data() -> AtomDataset:
    frames = []
    for k in range(11):
        atoms = [molecule("H2O"), bulk("Cu", cubic=True), ase.Atoms("He")][k % 3]
        atoms.info["energy"] = float(k)
        frames.append(atoms)
    return AtomDataset.from_ase(frames)


def test_batches_are_those_of_single_graphs(data):
    graphs = KeptGraphs(data, 3.0, torch.float64)
    expected = AtomGraph.batch([data.graph(i, cutoff=3.0, dtype=torch.float64) for i in (3, 4, 5)])
    for batch in (AtomGraph.batch(graphs[3:6]), AtomGraph.batch(graphs[3:6])):
        for name, value in expected.fields().items():
            if torch.is_tensor(value):
                torch.testing.assert_close(getattr(batch, name), value, rtol=0, atol=0)


def test_gives_every_frame_once_to_torchs_loader(data):
    loader = DataLoader(KeptGraphs(data, 3.0), batch_size=4, shuffle=True, collate_fn=AtomGraph.batch)
    found = [batch.energy.tolist() for batch in loader]
    assert [len(batch) for batch in found] == [4, 4, 3]
    assert sorted(energy for batch in found for energy in batch) == list(range(11))


def test_keeps_small_sets_only(data, monkeypatch):
    graphs = KeptGraphs(data, 3.0)
    assert graphs[2] is graphs[2]
    monkeypatch.setattr(kept, "_KEPT_ATOMS", 3)
    graphs = KeptGraphs(data, 3.0)
    assert graphs[2] is not graphs[2]


def test_says_which_frame_there_is_not(data):
    with pytest.raises(IndexError):
        KeptGraphs(data, 3.0)[11]
