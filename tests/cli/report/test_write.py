"""The whole report: complete, self-contained, honest about what is not there."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from equitorch.cli import health
from equitorch.cli.commands import report
from equitorch.cli.dynamics import Settings, run_dynamics
from equitorch.cli.predictions import predict
from equitorch.cli.report import write_report
from equitorch.graph import AtomGraph
from tests.cli.conftest import Command, small_potential, waters
from tests.cli.test_dynamics import Spring

SECTIONS = [
    "Errors",
    "Predicted against reference",
    "Structures",
    "Molecular dynamics",
    "Health card",
    "Learning curves",
    "Provenance",
]


class Page(HTMLParser):
    """Collects titles and everything that could be fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
            self.open.append("")


@pytest.fixture
def full_run(run_folder: Path) -> Path:
    """Everything that a report can show."""
    graphs = [AtomGraph.from_ase(a) for a in waters(8)]
    for name in ("train", "valid", "test"):
        predict(small_potential(), graphs, ["hot", "cold"] * 4).save(
            run_folder / "predictions" / f"{name}.npz"
        )
    rows = [f"{k},{1 / k},{2 / k},{0.01 / k},{0.02 / k},{0.1 / k},{0.2 / k},0.001" for k in range(1, 6)]
    names = "valid_energy_mae,valid_energy_rmse,valid_forces_mae,valid_forces_rmse"
    (run_folder / "metrics.csv").write_text("\n".join([f"epoch,train_loss,valid_loss,{names},lr", *rows]))
    (run_folder / "run.json").write_text(
        json.dumps({"epochs": 5, "best_epoch": 5, "seconds": 63.0, "frames": {"train": 8}})
    )
    (run_folder / "config.yaml").write_text("data: {train: <water>.xyz}\n")
    health.save([health.Check("Rotation", "r", "fine", 0.0, 1.0, True)], run_folder)
    (run_folder / "md").mkdir()
    atoms = Atoms("OH2", waters(1)[0].positions, calculator=Spring(1.0))
    run_dynamics(atoms, Settings("nvt", 300.0, 20, 0.5), run_folder / "md", "nvt_300K")
    return run_folder


def test_shows_every_section_of_a_full_run(full_run: Path) -> None:
    path, problems = write_report(full_run)
    text = path.read_text(encoding="utf-8")
    assert problems == []
    titles = Page(text).titles
    assert [t.split(" · ")[0] for t in titles] == SECTIONS
    assert text.count("<svg") >= 15
    for words in (
        "R²",
        "By element",
        "By group",
        "meV/Å",
        "H2O",
        "running mean",
        "Stress errors: not available",
    ):
        assert words in text, words
    assert "&lt;water&gt;.xyz" in text


def test_needs_nothing_from_elsewhere(full_run: Path) -> None:
    text = write_report(full_run)[0].read_text(encoding="utf-8")
    page = Page(text)
    assert page.links == []
    assert page.scripts == 0
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(set(re.findall(r"url\(#([^)]+)\)", text)) - set(ids)) == 0


def test_the_numbers_are_those_of_the_run(full_run: Path) -> None:
    from equitorch.cli.predictions import Predictions
    from equitorch.cli.screen import number

    p = Predictions.load(full_run / "predictions" / "test.npz")
    text = write_report(full_run)[0].read_text(encoding="utf-8")
    assert f"<b>{number(p.force_errors().mae * 1e3)} <small>meV/Å</small></b>" in text


def test_an_empty_run_names_everything_that_is_missing(tmp_path: Path) -> None:
    path, problems = write_report(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert problems == []
    assert Page(text).titles == SECTIONS
    assert text.count("not available") >= len(SECTIONS)
    assert "run: equitorch md RUN START" in text


def test_a_damaged_file_costs_its_own_section_only(full_run: Path) -> None:
    (full_run / "metrics.csv").write_text("epoch,train_loss\n")
    (full_run / "health.json").write_text("{")
    (full_run / "predictions" / "valid.npz").write_bytes(b"no zip")
    path, _ = write_report(full_run)
    text = path.read_text(encoding="utf-8")
    assert (
        text.count("could not be read") == 2 + 3
    )  # curves, health; the predictions are missed in three sections
    assert "running mean" in text


def test_a_damaged_dynamics_is_named_beside_the_others(full_run: Path) -> None:
    (full_run / "md" / "nvt_20K.csv").write_text("step,time_fs\n")
    (full_run / "md" / "nvt_20K.json").write_text("{}")
    text = write_report(full_run)[0].read_text(encoding="utf-8")
    assert "running mean" in text
    assert "nvt_20K.csv&#x27; has no rows" in text
    for path in (full_run / "md").glob("nvt_300K.*"):
        path.unlink()
    text = write_report(full_run)[0].read_text(encoding="utf-8")
    assert "Molecular dynamics · nvt_20K" in text
    assert "was run yet" not in text


def test_a_section_that_fails_is_named(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(record: object) -> str:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("equitorch.cli.report.sections.parity", broken)
    path, problems = write_report(full_run)
    assert problems == ["Predicted against reference: ZeroDivisionError: by nothing"]
    assert "drawing it failed (ZeroDivisionError: by nothing)" in path.read_text(encoding="utf-8")


def test_a_report_that_fails_is_a_warning_on_the_screen(
    full_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("equitorch.cli.report.write_report", broken)
    assert report.write(full_run) is None
    assert "WARNING  the report could not be written: OSError: disk full" in capsys.readouterr().out


def test_missing_labels_are_said_to_be_missing(run_folder: Path) -> None:
    frames = waters(3)
    for atoms in frames:
        atoms.calc.results.pop("forces")
    predict(small_potential(), [AtomGraph.from_ase(a) for a in frames]).save(
        run_folder / "predictions" / "test.npz"
    )
    text = write_report(run_folder)[0].read_text(encoding="utf-8")
    assert "Force components, test: not available" in text
    assert not re.search(r"\bnan\b", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL), re.IGNORECASE)


def test_the_command_says_where_the_report_is(equitorch: Command, run_folder: Path) -> None:
    answer = equitorch("report", run_folder)
    assert answer.code == 0
    assert str(run_folder / "report.html") in answer.out
    assert np.isclose(
        (run_folder / "report.html").stat().st_size / 1e3,
        int(re.findall(r"\((\d+) kB", answer.out)[0]),
        atol=1,
    )
