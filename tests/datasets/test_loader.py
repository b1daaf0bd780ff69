import ase
import pytest
import torch
from ase.build import bulk, molecule

from equitorch.datasets import AtomDataset, Loader
from equitorch.graph import AtomGraph


@pytest.fixture
def data() -> AtomDataset:
    frames = []
    for k in range(11):
        atoms = [molecule("H2O"), bulk("Cu", cubic=True), ase.Atoms("He")][k % 3]
        atoms.info["energy"] = float(k)
        frames.append(atoms)
    return AtomDataset.from_ase(frames)


def energies(loader: Loader) -> list[list[float]]:
    return [batch.energy.tolist() for batch in loader]


def test_gives_every_frame_once(data):
    loader = Loader(data, cutoff=3.0, batch_size=4, seed=1)
    for epoch in range(3):
        found = energies(loader)
        assert sorted(energy for batch in found for energy in batch) == list(range(11))
        assert [len(batch) for batch in found] == [4, 4, 3]
        assert loader.epoch == epoch + 1
    assert len(loader) == 3


def test_order_depends_on_seed_and_epoch_alone(data):
    loader = Loader(data, cutoff=3.0, batch_size=4, seed=1)
    first, second = energies(loader), energies(loader)
    assert first != second
    resumed = Loader(data, cutoff=3.0, batch_size=4)
    state = loader.state_dict()
    assert state == {"seed": 1, "epoch": 2}
    resumed.load_state_dict({**state, "epoch": 1})
    torch.manual_seed(99)
    assert energies(resumed) == second
    assert energies(Loader(data, cutoff=3.0, batch_size=4, seed=2)) != first


def test_an_interrupted_epoch_is_not_counted(data):
    loader = Loader(data, cutoff=3.0, batch_size=4, seed=1)
    next(iter(loader))
    assert loader.state_dict()["epoch"] == 0


def test_batches_are_those_of_single_graphs(data):
    loader = Loader(data, cutoff=3.0, batch_size=3, shuffle=False, dtype=torch.float64)
    expected = AtomGraph.batch([data.graph(i, cutoff=3.0, dtype=torch.float64) for i in (3, 4, 5)])
    for batch in (list(loader)[1], list(loader)[1]):
        for name, value in expected.fields().items():
            if torch.is_tensor(value):
                torch.testing.assert_close(getattr(batch, name), value, rtol=0, atol=0)


def test_keeps_to_its_atoms(data):
    loader = Loader(data, cutoff=3.0, max_atoms=5, seed=0)
    sizes = [batch.num_atoms for batch in loader]
    assert max(sizes) <= 5
    assert sum(sizes) == int(data.sizes.sum())
    assert {batch.num_graphs for batch in Loader(data, cutoff=3.0, max_atoms=1)} == {1}


def test_shares_an_epoch_between_processes(data):
    whole = Loader(data, cutoff=3.0, batch_size=2, seed=3).batches()
    parts = [Loader(data, cutoff=3.0, batch_size=2, seed=3, rank=r, world_size=4).batches() for r in range(4)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert {tuple(b) for part in parts for b in part} == {tuple(b) for b in whole}


def test_says_what_it_expected(data):
    with pytest.raises(ValueError, match="either batch_size or max_atoms, got neither"):
        Loader(data, cutoff=3.0)
    with pytest.raises(ValueError, match="at least 1 in a batch, got 0"):
        Loader(data, cutoff=3.0, batch_size=0)
    with pytest.raises(ValueError, match="at least one frame, got an empty data set"):
        Loader(data.subset([]), cutoff=3.0, batch_size=1)
