"""equitorch/datasets/bpa3.py"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from equitorch.datasets import AtomDataset, duplicates, read_3bpa
from equitorch.datasets.bpa3 import isolated_energies

SHARED = Path(os.environ.get("EQUITORCH_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "3bpa"
published = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published files")


def frames(count, elements="OH"):
    made = []
    for k in range(count):
        atoms = Atoms(elements, np.arange(3.0 * len(elements)).reshape(-1, 3) + 0.001 * k)
        atoms.calc = SinglePointCalculator(atoms, energy=-float(k), forces=np.zeros((len(elements), 3)))
        made.append(atoms)
    return made


def test_blocks_of_the_mixed_file_are_told_apart_by_their_place(tmp_path):
    write(tmp_path / "train_mixedT.xyz", frames(500), format="extxyz")
    parts = [read_3bpa(tmp_path, f"mixedT_{name}") for name in ("300K", "600K", "1200K")]
    assert [len(part) for part in parts] == [167, 167, 166]
    assert np.concatenate([part.energies for part in parts]).tolist() == [-float(k) for k in range(500)]
    assert len(read_3bpa(tmp_path, "train_mixedT")) == 500


def test_finds_the_files_in_the_folder_of_the_repository(tmp_path):
    folder = tmp_path / "dataset_3BPA"
    folder.mkdir()
    write(folder / "test_dih.xyz", frames(3), format="extxyz")
    write(folder / "iso_atoms.xyz", [frames(2, "O")[1], frames(3, "H")[2]], format="extxyz")
    assert len(read_3bpa(tmp_path, "test_dihedrals")) == 3
    assert isolated_energies(tmp_path) == {8: -1.0, 1: -2.0}


@published
def test_reads_the_published_files():
    train, hot = read_3bpa(SHARED), read_3bpa(SHARED, "mixedT_1200K")
    assert (len(train), len(hot), train.species) == (500, 166, (1, 6, 7, 8))
    assert set(train.sizes.tolist()) == {27}
    assert isolated_energies(SHARED) == pytest.approx(
        {6: -1029.489, 1: -13.58722, 7: -1484.98146, 8: -2041.9816}
    )
    warmer = [read_3bpa(SHARED, f"mixedT_{name}").energies for name in ("300K", "600K", "1200K")]
    assert [np.mean(e) for e in warmer] == sorted(np.mean(e) for e in warmer)
    assert [np.std(e) for e in warmer] == sorted(np.std(e) for e in warmer)
    assert train.statistics().net_force_max < 0.01


@published
@pytest.mark.parametrize(("part", "shared"), [("300K", 31), ("600K", 0), ("1200K", 0)])
def test_knows_which_blocks_share_frames_with_those_at_300_k(part, shared):
    train = read_3bpa(SHARED)
    both = AtomDataset.concatenate([train, read_3bpa(SHARED, f"mixedT_{part}")])
    first = duplicates(both)[len(train) :]
    assert np.count_nonzero(first < len(train)) == shared


def test_says_what_it_expected(tmp_path):
    with pytest.raises(ValueError, match=re.escape("3BPA expects train_300K.xyz here, found no .xyz")):
        read_3bpa(tmp_path)
    write(tmp_path / "train_mixedT.xyz", frames(3), format="extxyz")
    with pytest.raises(ValueError, match=r"here, found train_mixedT\.xyz"):
        read_3bpa(tmp_path, "test_600K")
    with pytest.raises(ValueError, match="expects 500 frames in the order of temperature, got 3"):
        read_3bpa(tmp_path, "mixedT_600K")
    with pytest.raises(ValueError, match=r"expects part to be one of train_300K, .*, got '600K'"):
        read_3bpa(tmp_path, "600K")
