import ase
import numpy as np
import pytest
from ase.build import molecule

from equitorch.datasets import AtomDataset, reference_energies

TRUE = {1: -13.6, 6: -1030.0, 8: -2040.0}


def labelled(names: list[str], noise: float = 0.0) -> AtomDataset:
    random, frames = np.random.default_rng(0), []
    for name in names:
        atoms = ase.Atoms(name) if len(name) == 1 else molecule(name)
        atoms.info["energy"] = (
            sum(TRUE[z] for z in atoms.numbers) + noise * len(atoms) * random.standard_normal()
        )
        frames.append(atoms)
    return AtomDataset.from_ase(frames)


def test_finds_the_energies_it_was_made_with():
    found = reference_energies(labelled(["H2O", "CO2", "CH4", "CH3CH2OH", "H2"]), ridge=1e-14)
    assert found.energies == pytest.approx(TRUE, abs=1e-6)
    assert found.residual < 1e-6
    assert found.note == "ridge fit to 5 frames; no isolated atom in the data"


def test_prefers_isolated_atoms():
    data = labelled(["H2O", "CH4", "H", "C", "O"], noise=0.1)
    found = reference_energies(data)
    isolated = {int(data[i].atomic_numbers): float(data[i].energy) for i in (2, 3, 4)}
    assert (found.energies, found.note) == (isolated, "isolated atoms in the data")
    assert reference_energies(data, method="fit").note == "ridge fit to 5 frames"


def test_ignores_charged_atoms():
    frames = [ase.Atoms("H", info={"energy": -1.0, "charge": 1}), molecule("H2")]
    frames[1].info.update(energy=-30.0, charge=0)
    assert reference_energies(AtomDataset.from_ase(frames)).note.startswith("ridge fit")


def test_one_composition_is_reproduced():
    data = labelled(["CH3CH2OH"] * 5)
    found = reference_energies(data)
    assert sum(n * e for n, e in zip((6, 2, 1), found.energies.values(), strict=True)) == pytest.approx(
        float(data.energies[0]), rel=1e-6
    )


def test_leaves_out_frames_without_energy():
    data = AtomDataset.concatenate([labelled(["H2", "H2O"]), AtomDataset.from_ase([ase.Atoms("Cu")])])
    assert set(reference_energies(data).energies) == {1, 8}


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects frames with an energy, AtomDataset"):
        reference_energies(AtomDataset.from_ase([ase.Atoms("H")]))
    with pytest.raises(ValueError, match=r"an isolated atom of each element, none for Z = \[8\]"):
        reference_energies(labelled(["H2O", "H"]), method="isolated")
    with pytest.raises(ValueError, match="method 'auto', 'isolated' or 'fit', got 'mean'"):
        reference_energies(labelled(["H"]), method="mean")
