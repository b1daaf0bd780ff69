import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from equitorch.datasets import AtomDataset, check_dataset, load_shipped


def copper(*, energy=1.0, forces=1.0, stress=1.0, length=1.0, frames=12) -> AtomDataset:
    structures = []
    for k in range(frames):
        atoms = bulk("Cu", cubic=True, a=3.6 * (1 + 0.04 * (k // 6)))
        atoms.rattle(0.08, seed=k)
        atoms.calc = EMT()
        info = {"energy": energy * atoms.get_potential_energy(), "stress": stress * atoms.get_stress()}
        arrays = {"REF_forces": forces * atoms.get_forces()}
        atoms.calc = None
        atoms.info.update(info)
        atoms.arrays.update(arrays)
        atoms.set_cell(length * atoms.cell, scale_atoms=True)
        structures.append(atoms)
    return AtomDataset.from_ase(structures)


def troubles(data: AtomDataset) -> dict[str, str]:
    return {finding.name: finding.text for finding in check_dataset(data) if finding.level != "ok"}


def test_finds_nothing_in_good_data():
    assert troubles(copper()) == {}
    assert troubles(load_shipped("ethanol")) == {}


@pytest.mark.parametrize(
    ("wrong", "name", "words"),
    [
        ({"energy": 23.06}, "units", "energies change 1"),
        ({"forces": -1.0}, "units", "energies change -"),
        ({"stress": -1.0}, "stress sign", "change the sign"),
        ({"length": 0.1}, "distances", "nearest atom is 0.2"),
        ({"length": 1.9}, "distances", "exceeds 4 Angstrom: is length_unit right"),
        ({"forces": 200.0}, "forces", "has a force of "),
    ],
)
def test_finds_what_was_put_wrong(wrong, name, words):
    assert words in troubles(copper(**wrong))[name]


def test_finds_missing_labels_and_duplicates():
    data = copper(frames=3)
    bare = AtomDataset.from_ase([bulk("Cu")])
    assert "no frame has an energy" in troubles(bare)["labels"]
    both = AtomDataset.concatenate([data, bare, data])
    found = troubles(both)
    assert found["labels"].endswith("energy 6/7, forces 6/7, stress 6/7")
    assert found["duplicates"] == "3 frames occur earlier; splits keep them together"
    twins = [ase.Atoms("H", info={"energy": e}) for e in (0.0, 0.01)]
    assert troubles(AtomDataset.from_ase(twins))["duplicates"].endswith("energies 10.0 meV/atom apart")


def test_finds_atoms_too_close_and_forces_out_of_balance():
    atoms = ase.Atoms("H4", [[0, 0, 0], [0, 0, 0.4], [0, 0, 1.4], [0, 0, 2.4]], info={"energy": 0.0})
    atoms.arrays["REF_forces"] = np.eye(4)[:, :3]
    found = troubles(AtomDataset.from_ase([atoms]))
    assert found["distances"] == "two atoms of frame 0 are 0.4 Angstrom apart"
    assert found["forces"].startswith("forces of a frame add up to 1.7")


def names(data: AtomDataset) -> list[str]:
    return [finding.name for finding in check_dataset(data) if finding.level == "ok"]


def test_says_ok_only_of_what_it_could_check():
    everything = ["labels", "duplicates", "distances", "forces", "units", "stress sign"]
    assert names(copper()) == everything
    assert names(copper(frames=3)) == everything[:4]
    energies = [ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7 + k]], info={"energy": 0.0}) for k in range(3)]
    assert names(AtomDataset.from_ase(energies)) == ["labels", "duplicates", "distances"]
    assert names(AtomDataset.from_ase([ase.Atoms("H", info={"energy": 0.0})])) == ["labels", "duplicates"]
