"""equitorch/calculator.py"""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import full_3x3_to_voigt_6_stress

from equitorch import EquitorchCalculator
from equitorch.graph import AtomGraph
from equitorch.models import checkpoint
from equitorch.models.potential import Potential
from tests.models.toy import Toy

E0 = {1: -13.6, 6: -1000.5, 8: -2040.25, 14: -7800.0}


def potential(dtype=torch.float64, **options):
    return Potential(Toy(cutoff=3.5), reference_energies=E0, **options).to(dtype).eval()


def calculator(**options):
    return EquitorchCalculator(potential(), **options)


def crystal(seed=0):
    atoms = bulk("Si", "diamond", a=5.0) * (2, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return atoms


def fresh(atoms, key="energy", **options):
    """The same property from a calculator that has seen nothing else."""
    twin = atoms.copy()
    twin.calc = calculator(**options)
    return twin.calc.get_property(key, twin)


def test_gives_what_the_potential_gives_in_the_form_ase_wants():
    atoms = crystal()
    atoms.calc = calculator()
    out = potential()(AtomGraph.from_ase(atoms.copy(), 3.5, dtype=torch.float64), stress=True)
    energy = atoms.get_potential_energy()
    assert type(energy) is float
    assert energy == pytest.approx(out["energy"].item(), abs=1e-10)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), out["forces"].numpy(), atol=1e-12)
    voigt = full_3x3_to_voigt_6_stress(out["stress"][0].numpy())
    np.testing.assert_allclose(atoms.get_stress(), voigt, atol=1e-14)
    for key in ("forces", "stress", "energies"):
        assert atoms.calc.results[key].dtype == np.float64


def test_stress_has_the_sign_and_order_of_ase():
    """EMT, by others, defines them: each agrees with the same strain differences of its own energy."""
    copper = bulk("Cu", a=3.5, cubic=True)
    copper.rattle(0.05, seed=1)
    silicon = crystal()
    for atoms, engine in ((copper, EMT()), (silicon, calculator())):
        atoms.calc = engine
        stress = atoms.get_stress(voigt=True)
        for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
            energies, h = [], 1e-4
            for sign in (1, -1):
                strain = np.eye(3)
                strain[a, b] += sign * h / 2
                strain[b, a] += sign * h / 2
                bent = atoms.copy()
                bent.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
                bent.calc = engine
                energies.append(bent.get_potential_energy())
            numeric = (energies[0] - energies[1]) / (2 * h * atoms.get_volume())
            assert numeric == pytest.approx(stress[k], abs=1e-7)


def test_has_no_stress_without_a_cell():
    for atoms in (molecule("H2O"), Atoms("O", cell=[9, 9, 9], pbc=[True, True, False])):
        atoms.calc = calculator()
        atoms.get_forces()
        for ask in (atoms.get_stress, atoms.get_stresses):
            with pytest.raises(PropertyNotImplementedError, match="pbc is True in all directions, got"):
                ask()


def test_stresses_of_atoms_sum_to_the_stress():
    atoms = crystal()
    atoms.calc = calculator()
    np.testing.assert_allclose(atoms.get_stresses().sum(0), atoms.get_stress(), atol=1e-13)


def test_notices_a_changed_charge():
    atoms = molecule("H2O")
    atoms.calc = calculator()
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    charged = atoms.get_potential_energy()
    assert abs(charged - neutral) > 1e-3
    assert charged == fresh(atoms)
    del atoms.info["charge"]
    assert atoms.get_potential_energy() == neutral


def test_computes_once_for_all_properties():
    atoms, calls = crystal(), []
    atoms.calc = calculator()
    atoms.calc.potential.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    assert len(calls) == 1
    atoms.positions[0, 0] += 1e-3
    atoms.get_forces()
    assert len(calls) == 2


@pytest.mark.parametrize("skin", [0.0, 0.5, 2.0])
def test_is_exact_with_any_skin(skin):
    atoms = crystal()
    atoms.calc = calculator(skin=skin)
    for step in range(12):
        atoms.rattle(0.03, seed=step)
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        assert energy == pytest.approx(fresh(atoms, skin=0.0), abs=1e-9)
        np.testing.assert_allclose(forces, fresh(atoms, "forces", skin=0.0), atol=1e-10)
        np.testing.assert_allclose(stress, fresh(atoms, "stress", skin=0.0), atol=1e-12)
    assert (atoms.calc.neighbors.searches < 12) == (skin > 0)


def test_follows_cell_numbers_and_periodicity():
    atoms = crystal()
    atoms.calc = calculator(skin=2.0)
    atoms.get_potential_energy()
    atoms.set_cell(atoms.cell[:] * 1.01, scale_atoms=False)
    assert atoms.get_potential_energy() == pytest.approx(fresh(atoms), abs=1e-9)
    atoms.numbers[0] = 6
    assert atoms.get_potential_energy() == pytest.approx(fresh(atoms), abs=1e-9)
    atoms.pbc = [True, True, False]
    assert atoms.get_potential_energy() == pytest.approx(fresh(atoms), abs=1e-9)


def test_does_not_mind_wrapping():
    atoms = crystal()
    forces, energy = fresh(atoms, "forces"), fresh(atoms)
    atoms.positions[1] += 2 * atoms.cell[0] - atoms.cell[2]
    assert fresh(atoms) == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(fresh(atoms, "forces"), forces, atol=1e-10)
    atoms.wrap()
    assert fresh(atoms) == pytest.approx(energy, abs=1e-9)


@pytest.mark.parametrize("repeat", [(2, 2, 2), (3, 1, 1)])
def test_is_extensive(repeat):
    atoms = crystal()
    assert fresh(atoms * repeat) == pytest.approx(np.prod(repeat) * fresh(atoms), abs=1e-8, rel=0)


def test_treats_a_single_atom():
    atoms = Atoms("O")
    atoms.calc = calculator()
    assert atoms.get_potential_energy() == pytest.approx(fresh(Atoms("O", cell=[30] * 3, pbc=True)), abs=1e-9)
    assert not atoms.get_forces().any()


def test_shares_the_offset_among_atoms():
    atoms = molecule("H2O")
    atoms.calc = EquitorchCalculator(potential(offset=9.0))
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())


def test_leaves_raw_forces_under_constraints():
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = calculator()
    assert not atoms.get_forces()[0].any()
    assert atoms.calc.results["forces"][0].any()


def test_survives_copies_pickles_and_single_points():
    atoms = crystal()
    atoms.calc = calculator()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    for twin in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        assert twin.get_potential_energy() == energy
        twin.rattle(0.05, seed=9)
        assert twin.get_potential_energy() == pytest.approx(fresh(twin), abs=1e-9)
        assert twin.get_potential_energy() != energy
    assert np.array_equal(atoms.get_forces(), forces)
    stored = SinglePointCalculator(atoms, **atoms.calc.results)
    assert stored.get_potential_energy(atoms) == energy


def test_results_belong_to_the_caller():
    atoms = crystal()
    atoms.calc = calculator()
    forces = atoms.calc.results.get("forces", atoms.get_forces())
    before = forces.copy()
    atoms.rattle(0.1, seed=3)
    atoms.get_forces()
    assert np.array_equal(forces, before)


def test_reads_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoint.MODELS, "toy", "tests.models.toy:Toy")
    potential(torch.float32).save(tmp_path / "model.eqt")
    atoms = crystal()
    for path in (tmp_path, str(tmp_path / "model.eqt")):
        atoms.calc = EquitorchCalculator(path, device="cpu", dtype="float64")
        assert atoms.calc.potential.dtype == torch.float64
        assert atoms.get_potential_energy() == pytest.approx(fresh(atoms), abs=1e-9)


def test_copies_a_potential_only_to_change_it():
    own = potential(torch.float32)
    assert EquitorchCalculator(own).potential is own
    other = EquitorchCalculator(own, dtype=torch.float64).potential
    assert (own.dtype, other.dtype) == (torch.float32, torch.float64)


def test_conserves_energy():
    atoms = crystal() * (1, 2, 2)
    atoms.calc = calculator()
    BFGS(atoms, logfile=None).run(fmax=0.5, steps=20)
    thermal = np.sqrt(units.kB * 300 * atoms.get_masses())[:, None]
    atoms.set_momenta(thermal * np.random.default_rng(0).standard_normal((len(atoms), 3)))
    drifts = []
    for step in (2.0, 1.0):
        twin = atoms.copy()
        twin.calc = calculator()
        dynamics, totals = VelocityVerlet(twin, step * units.fs), []
        dynamics.attach(lambda t=twin, e=totals: e.append(t.get_total_energy()))
        dynamics.run(int(60 / step))
        drifts.append(np.std(totals))
    assert 3.0 < drifts[0] / drifts[1] < 5.0  # the fluctuation goes with the square of the step


def test_relaxes_cells():
    atoms = crystal()
    atoms.calc = calculator()
    before = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=5)
    assert atoms.get_potential_energy() < before


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"expects a Potential or the path of one, got Toy; wrap a model as"):
        EquitorchCalculator(Toy())
    with pytest.raises(ValueError, match=r"expects dtype torch\.float32 or torch\.float64, got 'int'"):
        calculator(dtype="int")
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        EquitorchCalculator("nowhere.eqt")
    atoms = molecule("HCl")
    atoms.calc = calculator()
    with pytest.raises(ValueError, match="knows H, C, O, Si, got Cl"):
        atoms.get_potential_energy()
    flat = Atoms("Si2", [[0, 0, 0], [2, 0, 0]], pbc=True)
    flat.calc = calculator()
    with pytest.raises(ValueError, match="cell"):
        flat.get_potential_energy()
