import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from equitorch.datasets import AtomDataset


@pytest.fixture
def data() -> AtomDataset:
    water, copper = molecule("H2O"), bulk("Cu", cubic=True)
    water.info.update(energy=-3.0, config_type="w", charge=-1)
    water.arrays["REF_forces"] = np.array([[3.0, 0, 4], [0, 0, 0], [0, 0, 0]])
    copper.info.update(energy=-8.0, stress=np.arange(6.0))
    return AtomDataset.from_ase([water, copper, ase.Atoms("He")])


def test_gives_graphs(data):
    assert [graph.num_atoms for graph in data] == [3, 4, 1]
    assert data[0].edge_index.shape == (2, 0)
    assert data.graph(1, cutoff=2.7).num_edges == 48
    assert data[-1].atomic_numbers.tolist() == [2]
    assert data[2].energy is None
    assert data[0].charge.tolist() == [-1.0]
    assert data.graph(0, dtype=torch.float64).pos.dtype == torch.float64


def test_subsets_are_the_same_frames(data):
    part = data[::-2]
    assert (len(part), part.species, part.labels["energy"]) == (2, (1, 2, 8), 1)
    torch.testing.assert_close(part[1].pos, data[0].pos)
    torch.testing.assert_close(part.subset([1])[0].forces, data[0].forces)
    assert part.groups == ("", "w")
    flat = AtomDataset(part.materialised())
    assert flat.digest() == part.digest() != data.digest()
    both = AtomDataset.concatenate([part, data])
    assert [graph.num_atoms for graph in both] == [1, 3, 3, 4, 1]
    assert both.labels == {"energy": 3, "forces": 2, "stress": 1}


def test_counts(data):
    assert data.composition().tolist() == [[2, 0, 1, 0], [0, 0, 0, 4], [0, 1, 0, 0]]
    found = data.statistics()
    assert (found.frames, found.atoms, found.smallest, found.largest) == (3, 8, 1, 4)
    assert found.species == {1: 2, 2: 1, 8: 1, 29: 4}
    assert found.periodic == {"0D": 2, "3D periodic": 1}
    assert found.labels == {"energy": 2, "forces": 1, "stress": 1}
    assert found.charges == {-1.0: 1}
    assert (found.energy_mean, found.energy_std) == (-1.5, 0.5)
    assert (found.force_max, found.force_max_frame, found.net_force_max) == (5.0, 0, 5.0)
    assert found.force_rms == pytest.approx((25 / 9) ** 0.5)
    assert found.stress_max == 5.0


def test_counts_nothing_without_labels():
    found = AtomDataset.from_ase([ase.Atoms("H")]).statistics()
    assert np.isnan([found.energy_mean, found.force_rms, found.stress_max]).all()
    assert found.labels == {"energy": 0, "forces": 0, "stress": 0}


def test_says_what_it_expected(data):
    with pytest.raises(ValueError, match="indices from 0 to 2, got 3"):
        AtomDataset(data.frames, [0, 3])
    with pytest.raises(IndexError, match="frame 3 of a data set of 3"):
        data[3]
