import io
import re

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from equitorch.graph import AtomGraph, read_charge, read_labels


def labelled_copper() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    atoms.get_forces(), atoms.get_stress()
    return atoms


def through_extxyz(atoms: ase.Atoms, **options) -> ase.Atoms:
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz", **options)
    return ase.io.read(io.StringIO(text.getvalue()), format="extxyz")


def test_reads_what_ase_reads():
    atoms = through_extxyz(labelled_copper())
    graph = AtomGraph.from_ase(atoms, 3.0, dtype=torch.float64)
    assert graph.energy.item() == atoms.get_potential_energy()
    np.testing.assert_array_equal(graph.forces.numpy(), atoms.get_forces())
    np.testing.assert_allclose(graph.stress[0].numpy(), atoms.get_stress(voigt=False))
    assert read_labels(atoms).keys == {name: f"calc[{name!r}]" for name in ("energy", "forces", "stress")}


def test_stress_is_the_derivative_by_strain():
    atoms = labelled_copper()
    found = read_labels(atoms).stress
    strain = np.zeros((3, 3))
    strain[0, 1] = strain[1, 0] = 5e-5

    def energy(sign):
        bent = atoms.copy()
        bent.set_cell(atoms.cell @ (np.eye(3) + sign * strain), scale_atoms=True)
        bent.calc = EMT()
        return bent.get_potential_energy()

    slope = (energy(1) - energy(-1)) / 2e-4 / atoms.get_volume()
    assert found[0, 1] == pytest.approx(slope, rel=1e-5)


def test_constraints_do_not_hide_forces():
    atoms = labelled_copper()
    atoms.set_constraint(FixAtoms([0, 1, 2, 3]))
    again = through_extxyz(atoms)
    assert np.abs(again.get_forces()).max() == 0
    assert np.abs(read_labels(again).forces).max() > 0.5


@pytest.mark.parametrize("prefix", ["REF_", "dft_", "ref-", "Reference_", ""])
def test_recognises_prefixes(prefix):
    atoms = molecule("H2O")
    atoms.info[f"{prefix}energy"], atoms.arrays[f"{prefix}forces"] = -3.0, np.ones((3, 3))
    found = read_labels(atoms)
    assert (found.energy, found.forces.sum()) == (-3.0, 9.0)
    assert found.keys == {"energy": f"info['{prefix}energy']", "forces": f"arrays['{prefix}forces']"}


def test_takes_6_and_9_numbers_and_virials():
    voigt = np.array([1.0, 2, 3, 4, 5, 6])
    whole = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    atoms = ase.Atoms("H", cell=np.eye(3) * 2, pbc=True)
    for value, key, factor in ((voigt, "stress", 1), (whole, "REF_stress", 1), (whole.ravel(), "virial", -8)):
        atoms.info = {key: value}
        np.testing.assert_allclose(read_labels(atoms).stress * factor, whole)


def test_forgets_results_of_other_positions():
    atoms = labelled_copper()
    atoms.positions += 0.01 * np.arange(12).reshape(4, 3)
    assert read_labels(atoms).keys == {}


def test_reads_the_charge():
    assert read_charge(ase.Atoms("H", info={"charge": -1})) == -1.0
    assert read_charge(ase.Atoms("H", info={"total_charge": np.array([2.0])})) == 2.0
    assert read_charge(ase.Atoms("H")) is None
    assert AtomGraph.from_ase(ase.Atoms("H", info={"charge": 1})).charge.tolist() == [1.0]


def test_says_what_it_expected():
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.info["REF_energy"] = -2.0
    with pytest.raises(
        ValueError, match=re.escape("calc['energy'] and info['REF_energy']; name the right one")
    ):
        read_labels(atoms)
    assert read_labels(atoms, keys={"energy": "REF_energy"}).energy == -2.0
    assert read_labels(atoms, keys={"energy": "none"}).energy is None
    with pytest.raises(ValueError, match=re.escape("names 'dft' for the energy, but the frame has only [")):
        read_labels(atoms, keys={"energy": "dft"})
    with pytest.raises(ValueError, match=re.escape("the labels ['energy', 'forces', 'stress'], got 'enery'")):
        read_labels(atoms, keys={"enery": "dft"})
    bad = ase.Atoms("H", info={"energy": "low", "stress": [1.0, 2.0]})
    with pytest.raises(ValueError, match="the energy label 'energy' expects numbers, got 'low'"):
        read_labels(bad)
    with pytest.raises(
        ValueError, match=re.escape("the stress label 'stress' expects 6 or 9 numbers, got shape (2,)")
    ):
        read_labels(bad, keys={"energy": "none"})
    with pytest.raises(ValueError, match=r"different charges: \{'charge': 0\.0, 'total_charge': 1\.0\}"):
        read_charge(ase.Atoms("H", info={"charge": 0, "total_charge": 1}))
    with pytest.raises(
        ValueError, match=re.escape("info['charge'] expects a total charge in e, got 'minus'")
    ):
        read_charge(ase.Atoms("H", info={"charge": "minus"}))
