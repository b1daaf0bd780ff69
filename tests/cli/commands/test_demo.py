"""The demo, with a few frames of one molecule."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import read

from equitorch import datasets
from equitorch.cli import failure
from equitorch.cli.commands import demo
from equitorch.datasets import AtomDataset
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = datasets.load_shipped

    def few(name: str) -> AtomDataset:
        data = whole(name)
        return data.subset(range(0, len(data), 15))

    monkeypatch.setattr("equitorch.datasets.load_shipped", few)
    monkeypatch.setattr(demo, "MOLECULES", ("ethanol",))
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "STEPS", 5)
    monkeypatch.setattr("equitorch.cli.health._LONGEST", 0.2)


def test_ends_with_a_report_of_everything(equitorch: Command, tmp_path: Path) -> None:
    for _ in range(2):  # an earlier demo is replaced
        answer = equitorch("demo", "--output", "out")
        assert answer.code == 0, answer
    assert f"Report   {tmp_path / 'out' / 'report.html'}" in answer.out
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("Molecular dynamics · nvt_300K", "Molecular dynamics · nve_300K", "ethanol 500 K", "C2H6O"):
        assert words in page, words
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_no_trajectory_is_in_two_files(tmp_path: Path) -> None:
    frames = {part: read(path, index=":") for part, path in demo.write_data(tmp_path).items()}
    assert all(frames.values())
    data = datasets.load_shipped("ethanol")
    energies = {float(a.get_potential_energy()) for part in frames.values() for a in part}
    assert energies <= {round(float(e), 12) for e in data.energies} | set(data.energies.tolist())


def test_leaves_foreign_folders_alone(equitorch: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    answer = equitorch("demo", "--output", "mine")
    assert answer.code == failure.USER
    assert "no demo wrote it; choose another --output" in answer.err
    assert (tmp_path / "mine" / "thesis.tex").exists()
