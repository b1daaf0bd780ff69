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
from hypothesis import given
from hypothesis import strategies as st

from equitorch.datasets import AtomDataset, read_ase


def copper(seed: int, **info) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    calculator = EMT()
    atoms.calc = calculator
    atoms.get_forces(), atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **calculator.results)
    atoms.info.update(info)
    return atoms


@pytest.fixture
def frames() -> list[ase.Atoms]:
    return [copper(0, config_type="a"), copper(1, config_type="b"), molecule("CH3CH2OH")]


@pytest.mark.parametrize("name", ["x.xyz", "x.extxyz", "x.traj", "x.db", "x.xyz.gz"])
def test_reads_what_was_written(tmp_path, frames, name):
    ase.io.write(tmp_path / name, frames)
    data = read_ase(tmp_path / name)
    assert len(data) == 3
    assert data.species == (1, 6, 8, 29)
    assert data.labels == {"energy": 2, "forces": 2, "stress": 2}
    for index, atoms in enumerate(frames):
        graph = data.graph(index, dtype=torch.float64)
        np.testing.assert_allclose(graph.pos.numpy(), atoms.positions, atol=1e-7)
        np.testing.assert_array_equal(graph.atomic_numbers.numpy(), atoms.numbers)
        if atoms.calc is not None:
            assert graph.energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
            np.testing.assert_allclose(graph.forces.numpy(), atoms.get_forces(), atol=1e-6)
            np.testing.assert_allclose(graph.stress[0].numpy(), atoms.get_stress(voigt=False), atol=1e-6)
    if "xyz" in name:
        assert data.groups == ("a", "b", "")
        assert data.frames.keys["energy"] == {"calc['energy']": 2}


def test_reads_a_folder(tmp_path, frames):
    ase.io.write(tmp_path / "b.xyz", frames[:2])
    ase.io.write(tmp_path / "a.xyz", frames[2:])
    (tmp_path / "LICENSE").write_text("CC0")
    (tmp_path / "notes.rst").write_text("read me")
    data = read_ase(tmp_path)
    assert [graph.num_atoms for graph in data] == [9, 4, 4]
    assert len(set(data.groups)) == 3


def test_survives_ase_and_back(frames):
    data = AtomDataset.from_ase(frames)
    again = AtomDataset.from_ase([data.to_ase(index) for index in range(3)])
    assert again.digest() == data.digest()
    assert again.groups == data.groups


def test_keeps_raw_forces_and_says_so(tmp_path):
    atoms = copper(0)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "x.xyz", atoms)
    data = read_ase(tmp_path / "x.xyz")
    np.testing.assert_allclose(data[0].forces, atoms.get_forces(apply_constraint=False), atol=1e-6)
    assert data.frames.notes == ("constraints in 1 frames: the raw forces are used",)


def test_converts_units(tmp_path):
    atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 1.4]], info={"REF_energy": -1.0})
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    graph = AtomDataset.from_ase([atoms], energy_unit="Hartree", length_unit="Bohr").graph(
        0, dtype=torch.float64
    )
    assert graph.pos[1, 2].item() == pytest.approx(0.7408481)
    assert graph.energy.item() == pytest.approx(-27.2113862)
    assert graph.forces[0, 0].item() == pytest.approx(51.4220675)


LINE = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"2\n{LINE}\nH 0 0 0\n", "frame 0: ASE cannot read it: "),
        (f"1\n{LINE}\nH 0 0 0\n2\n{LINE}\nH 0 0 0\n", "frame 1: ASE cannot read it: "),
        (f"1\n{LINE}\nQq 0 0 0\n", "frame 0: ASE cannot read it: "),
        ("1\n\nX 0 0 0\n", "frame 0: AtomGraph expects atomic numbers from 1 to 118, but atom 0 has 0"),
        ("0\n\n", "frame 0: AtomGraph expects at least one atom, got an empty structure"),
        ("2\n\nH 0 0 0\nH 0 0 0\n", "frame 0: the neighbour list expects atoms apart from one another"),
        (
            "1\n\nH 0 0 0\n2\n\nH 0 0 0\nH 0 0 4\n2\n\nO 1 1 1\nH 1 1 1\n",
            "frame 2: the neighbour list expects atoms",
        ),
        (
            f"2\n{LINE}\nH 0 0 0\nH 0 0 4\n",
            "frame 0: the neighbour list expects atoms apart from one another",
        ),
        ("1\n\nH 0 0 nan\n", "frame 0: AtomGraph expects finite positions, but atom 0"),
        ('1\npbc="T T T"\nH 0 0 0\n', "frame 0: the neighbour list expects a lattice vector along each"),
        (f"1\n{LINE} energy=low\nH 0 0 0\n", "frame 0: the energy label 'energy' expects numbers, got 'low'"),
        (
            f"1\n{LINE} energy=1.0 dft_energy=2.0\nH 0 0 0\n",
            "frame 0: the frame has two different labels for the",
        ),
        (f"1\n{LINE} REF_energy=inf\nH 0 0 0\n", "frame 0: the energy label info['REF_energy'] is infinite"),
        ("", "expected at least one frame, found none"),
    ],
)
def test_says_file_frame_and_field(tmp_path, text, message):
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_ase(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"1\r\n{LINE}\r\nH 0 0 0\r\n",
        "1\n\nH 0 0 0\n",
        '1\nLattice="4 0 0 0 4 0 0 0 -4" pbc="T T T"\nH 0 0 0\n',
        '1\nLattice="4 0 0 9 4 0 0 9 4" pbc="T F T"\nH 0 0 0\n',
        "2\n\nH 0 0 0\nH 1e6 0 0\n",
        "1\n\nH 0 0 0\n1\nREF_energy=-1.0\nH 0 0 0\n",
    ],
)
def test_takes_unusual_files(tmp_path, text):
    (tmp_path / "x.xyz").write_bytes(text.encode())
    for graph in read_ase(tmp_path / "x.xyz"):
        assert graph.with_edges(4.5).num_atoms >= 1


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_any_damage_is_one_line(tmp_path_factory, where, junk):
    path = tmp_path_factory.mktemp("fuzz") / "x.xyz"
    text = f"2\n{LINE} energy=-1.0\nH 0 0 0\nO 1 0 0\n".encode() * 3
    path.write_bytes(text[: where % len(text)] + junk + text[where % len(text) + 2 :])
    message = ""
    try:
        assert len(read_ase(path)) > 0
    except ValueError as error:
        message = str(error)
    assert not message or message.startswith(str(path))
    assert "\n" not in message


def test_says_what_it_expected(tmp_path):
    with pytest.raises(ValueError, match=re.escape("nowhere.xyz: no such file")):
        read_ase("nowhere.xyz")
    with pytest.raises(ValueError, match="the folder holds no file that ASE can read"):
        read_ase(tmp_path)
    with pytest.raises(ValueError, match=r"energy_unit expects one of eV, meV, .*, got 'kcal'"):
        AtomDataset.from_ase([ase.Atoms("H")], energy_unit="kcal")
