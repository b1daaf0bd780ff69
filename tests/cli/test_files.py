"""Names on the command line become runs, models and structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equitorch.cli.failure import UserError
from equitorch.cli.files import RunPath, read_structures


def test_a_folder_and_its_model_file_mean_the_same_run(run_folder: Path) -> None:
    assert RunPath.of(run_folder) == RunPath.of(run_folder / "model.eqt")
    assert RunPath.of(run_folder).load("float64").dtype.itemsize == 8


def test_says_where_the_runs_are(run_folder: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.eqt; there are runs inside it: tiny"):
        RunPath.of(run_folder.parent)


def test_says_what_a_run_is(tmp_path: Path) -> None:
    (tmp_path / "train.xyz").touch()
    with pytest.raises(UserError, match="is no run: name the folder of a training, or a model file"):
        RunPath.of(tmp_path / "train.xyz")
    with pytest.raises(UserError, match="expected float32 or float64, got 'float16'"):
        RunPath(tmp_path, tmp_path).load("float16")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty.xyz", ""),
        ("short.xyz", "3\n\nO 0 0 0\n"),
        ("words.xyz", "this is not a structure\n"),
        ("binary.xyz", "\x00\x01\x02"),
        ("none.xyz", "0\n\n"),
        ("letters.xyz", "1\n\nH a b c\n"),
        ("unknown.xyz", "1\n\nQq 0 0 0\n"),
        ("what.abc", "1 2 3"),
    ],
)
def test_every_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        read_structures(tmp_path / name)


def test_a_data_set_in_an_archive_gives_structures(tmp_path: Path) -> None:
    pos = np.arange(12.0).reshape(2, 2, 3)
    labels = {"energies": np.zeros(2), "forces": np.zeros((2, 2, 3))}
    np.savez(tmp_path / "a.npz", nuclear_charges=[1, 8], coords=pos, **labels)
    assert len(read_structures(tmp_path / "a.npz")) == 2
    last = read_structures(tmp_path / "a.npz", "-1")
    assert len(last) == 1
    assert np.allclose(last[0].positions, pos[1])
    np.savez(tmp_path / "b.npz", x=pos)
    with pytest.raises(UserError, match=r"b\.npz.*write the frame you mean to an \.xyz file"):
        read_structures(tmp_path / "b.npz")


def test_a_path_with_spaces_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / "a b.xyz").write_text("1\n\nH 0 0 0\n")
    assert len(read_structures(folder / "a b.xyz")) == 1
