import json
from pathlib import Path

import numpy as np
import pytest

import equitorch.datasets.shipped as package
from equitorch.datasets import duplicates, load_shipped, shipped_names, split

NAMES = ("aspirin", "ethanol", "malonaldehyde")
FOLDER = Path(package.__file__).parent


@pytest.mark.parametrize("name", NAMES)
def test_holds_what_it_says(name):
    data = load_shipped(name)
    found = data.statistics()
    assert found.frames >= 1000
    assert found.labels == {"energy": len(data), "forces": len(data), "stress": 0}
    assert found.groups == 8
    assert found.net_force_max < 1e-3
    assert 0.5 < found.force_rms < 3
    assert found.force_max < 15
    assert len(set(duplicates(data).tolist())) == len(data)
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        text = json.loads(str(file["metadata"]))
    assert text["licence"] == "CC0-1.0"
    assert {"tblite", "ase"} <= set(text["versions"])


def test_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 3_000_000
    assert shipped_names() == NAMES


def test_is_warmer_at_500_kelvin():
    data = load_shipped("ethanol")
    hot = np.array([group.startswith("500K") for group in data.groups])
    assert data.energies[hot].mean() - data.energies[~hot].mean() == pytest.approx(
        200 * 8.617e-5 * (27 - 3) / 2, rel=0.5
    )  # equipartition of a nearly harmonic molecule


def test_splits_by_trajectory():
    data = load_shipped("ethanol")
    parts = split(data, valid=0.1, test=0.1)
    assert parts.note.startswith("8 groups")
    assert len(parts.train) == 6 * len(data) // 8


def test_forces_are_the_gradient_of_the_energies():
    tblite = pytest.importorskip("tblite.ase", reason="needs tblite")
    data = load_shipped("ethanol")
    atoms = data.to_ase(7)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = tblite.TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-4)
    step = 1e-3
    for atom, axis in ((0, 0), (2, 1), (5, 2)):
        ends = []
        for sign in (1, -1):
            atoms.positions[atom, axis] += sign * step
            ends.append(atoms.get_potential_energy())
            atoms.positions[atom, axis] -= sign * step
        assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(forces[atom, axis], abs=2e-3)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="one of aspirin, ethanol, malonaldehyde, got 'benzene'"):
        load_shipped("benzene")
