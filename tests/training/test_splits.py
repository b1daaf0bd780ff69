import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from equitorch.datasets import AtomDataset
from equitorch.training.config import Config, ConfigError
from equitorch.training.splits import (
    energies_per_atom,
    find_references,
    frame_names,
    label_values,
    read_splits,
)


def atoms(index, group="a", energy=True):
    image = Atoms("OH2", [[0, 0, 0], [1, 0, 0.01 * index], [0, 1, 0]], info={"config_type": group})
    results = {"forces": np.full((3, 3), 0.5)} | ({"energy": -100.0 - index} if energy else {})
    image.calc = SinglePointCalculator(image, **results)
    return image


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "one.xyz", [atoms(i, "ab"[i % 2], energy=i != 3) for i in range(10)])
    write(tmp_path / "two.xyz", [atoms(100 + i) for i in range(5)])
    return tmp_path


def splits(**data):
    return read_splits(Config.from_dict({"data": data}).data, seed=1)


def test_deals_out_shares_and_reads_files(files):
    found, notes = splits(train=str(files / "one.xyz"), valid="20%", test=str(files / "two.xyz"))
    assert [len(found[name]) for name in ("train", "valid", "test")] == [8, 2, 5]
    assert not set(found["train"].indices) & set(found["valid"].indices)
    assert any("seed 1" in note for note in notes)
    assert frame_names(found["test"])[2] == f"{files / 'two.xyz'} #2"
    again, _ = splits(train=str(files / "one.xyz"), valid="20%")
    assert again["valid"].indices.tolist() == found["valid"].indices.tolist()


def test_keeps_groups_whole_when_asked(files):
    found, _ = splits(train=str(files / "one.xyz"), valid="40%", group="config_type")
    assert set(found["valid"].groups).isdisjoint(found["train"].groups)


def test_joins_files_and_takes_out_unwanted_labels(files):
    keys = {"forces": "none"}
    found, _ = splits(train=[str(files / "one.xyz"), str(files / "two.xyz")], valid=None, keys=keys)
    assert found["train"].labels == {"energy": 14, "forces": 0, "stress": 0}
    assert found["train"].graph(0).forces is None


def test_sums_up_the_labels(files):
    found, _ = splits(train=str(files / "one.xyz"), valid=0)
    values = energies_per_atom(found["train"], {1: -10.0, 8: -70.0})
    assert len(values) == 9
    assert values[1] == pytest.approx(-11 / 3)
    assert label_values(found["train"], "forces").tolist() == [0.5] * 90


def test_references_are_given_found_or_none():
    data = AtomDataset.from_ase([atoms(0)])
    energies, note, isolated = find_references(data, "auto", [1, 8, 9])
    assert not isolated
    assert 2 * energies[1] + energies[8] == pytest.approx(-100)
    assert energies[9] == pytest.approx((energies[1] + energies[8]) / 2)
    assert "ridge fit" in note
    assert find_references(data, {"H": -1.0, "O": -2.0, "Cu": 3.0}, [1, 8])[0] == {1: -1.0, 8: -2.0}
    assert find_references(data, "none", [1, 8])[0] == {1: 0.0, 8: 0.0}
    with pytest.raises(ConfigError, match="has no energy for O; give one for every element"):
        find_references(data, {"H": -1.0}, [1, 8])


def test_says_what_is_wrong_with_the_data(files):
    with pytest.raises(ConfigError, match=r"data\.valid: split expects frames left to train on"):
        splits(train=str(files / "one.xyz"), valid=10)
    (files / "bad.xyz").write_text("3\n\nO 0 0\n")
    with pytest.raises(ConfigError, match=r"data\.train: .*bad\.xyz, frame 0"):
        splits(train=str(files / "bad.xyz"))
    with pytest.raises(
        ConfigError, match=r"data\.train: nothing shipped is called 'ethanoll'; did you mean 'ethanol'"
    ):
        splits(train="shipped:ethanoll")


def test_isolated_atoms_always_train(files):
    singles = [Atoms(symbol, info={"energy": energy}) for symbol, energy in (("H", -13.0), ("O", -430.0))]
    cells = [Atoms("O", cell=[2 + 0.1 * k] * 3, pbc=True, info={"energy": -1.0}) for k in range(4)]
    write(files / "mixed.xyz", [*singles, *cells, *[atoms(i) for i in range(6)]])
    for seed in range(5):
        data = Config.from_dict({"data": {"train": str(files / "mixed.xyz"), "valid": 8}}).data
        found, notes = read_splits(data, seed=seed)
        assert len(found["valid"]) == 8
        assert {0, 1} <= set(found["train"].indices.tolist())
    assert "2 training frames are isolated atoms: never held out, errors told apart" in notes
    energies, note, isolated = find_references(found["train"], "auto", [1, 8])
    assert (energies, isolated) == ({1: -13.0, 8: -430.0}, True)
    assert "isolated atoms in the data" in note
    assert len(energies_per_atom(found["train"], energies)) == len(found["train"]) - 2
