"""The commands that need a model only: info, doctor, md, relax, bench."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from equitorch.cli import failure
from tests.cli.conftest import Command, waters


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """One water molecule."""
    path = tmp_path / "start here.xyz"
    write(path, waters(1), format="extxyz")
    return path


def test_info_reads_the_header_only(
    equitorch: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("info must not build the model")

    monkeypatch.setattr("equitorch.models.potential.Potential.load", refused)
    answer = equitorch("info", run_folder)
    assert answer.code == 0
    for words in (
        "tensornet",
        "parameters",
        "cutoff 3 Å",
        "H · O",
        "E0 (eV)",
        "sha256",
        "epoch 3",
        "forces MAE 20.0 meV/Å",
    ):
        assert words in answer.out, words


def test_info_of_something_else_is_a_sentence(equitorch: Command, tmp_path: Path) -> None:
    (tmp_path / "evil.eqt").write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    answer = equitorch("info", "evil.eqt")
    assert answer.code == failure.USER
    assert "evil.eqt" in answer.err
    assert not (tmp_path / "owned").exists()


def test_doctor_says_what_is_there(equitorch: Command) -> None:
    answer = equitorch("doctor")
    assert answer.code == 0, answer
    for words in ("torch", "Threads", "Numba", "Self test ok"):
        assert words in answer.out, words


def test_md_writes_trajectory_and_table(equitorch: Command, run_folder: Path, start: Path) -> None:
    answer = equitorch("md", run_folder, start, "--steps", 12, "--temperature", 100, "--quiet")
    assert answer.code == 0, answer
    assert len(read(run_folder / "md" / "nvt_100K.extxyz", index=":")) == 13
    assert json.loads((run_folder / "md" / "nvt_100K.json").read_text())["steps_done"] == 12
    assert "Next" in answer.out
    assert "equitorch report" in answer.out
    assert max(map(len, answer.out.replace(str(run_folder), "").splitlines())) <= 110


def test_md_tells_its_progress_to_a_pipe(equitorch: Command, run_folder: Path, start: Path) -> None:
    out = equitorch("md", run_folder, start, "--steps", 10, "--ensemble", "nve").out
    assert "step      10 of 10" in out
    assert "drift" in out
    assert "\x1b" not in out


def test_md_interrupted_says_how_to_go_on(
    equitorch: Command, run_folder: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equitorch.calculator import EquitorchCalculator

    calls, whole = [0], EquitorchCalculator.calculate

    def interrupted(self: EquitorchCalculator, *arguments: object, **options: object) -> None:
        calls[0] += 1
        if calls[0] == 4:
            signal.raise_signal(signal.SIGINT)
        whole(self, *arguments, **options)  # type: ignore[arg-type]

    settings = ("--temperature", 250, "--dt", 0.25, "--dtype", "float64")
    with monkeypatch.context() as patch:
        patch.setattr(EquitorchCalculator, "calculate", interrupted)
        answer = equitorch(
            "md", run_folder, start, "--steps", 20, "--friction", 0.02, "--seed", 4, "-q", *settings
        )
    assert answer.code == failure.INTERRUPTED, answer
    line = answer.out.splitlines()[-1].removeprefix("Next").strip()
    for words in (
        "--ensemble nvt",
        "--temperature 250",
        "--steps 17",
        "--dt 0.25",
        "--friction 0.02",
        "--seed 5",
    ):
        assert words in line, words
    assert line.endswith("--dtype float64")
    assert equitorch(*shlex.split(line)[1:], "-q").code == 0
    assert len(read(run_folder / "md" / "nvt_250K.extxyz", index=":")) == 4
    assert (run_folder / "md" / "nvt_250K_2.csv").exists()


def test_md_stops_an_explosion_with_exit_code_3(equitorch: Command, run_folder: Path, tmp_path: Path) -> None:
    atoms = waters(1)[0]
    atoms.set_momenta(np.random.default_rng(0).normal(size=(3, 3)) * 40)
    write(tmp_path / "hot.extxyz", atoms)
    answer = equitorch("md", run_folder, "hot.extxyz", "--temperature", 10, "--steps", 50)
    assert answer.code == failure.DIVERGED
    assert "more than 10 times the 10 K asked for" in answer.err
    assert (run_folder / "md" / "nvt_10K_last.extxyz").exists()
    assert "Traceback" not in answer.text.replace("Traceback in", "")


def test_md_names_unknown_elements(equitorch: Command, run_folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "cu.xyz", bulk("Cu"), format="extxyz")
    answer = equitorch("md", run_folder, "cu.xyz")
    assert answer.code == failure.USER
    assert "Cu" in answer.err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--ensemble", "nvp", "did you mean"),
        ("--dtype", "half", "float32 or float64"),
        ("--steps", "-1", "from 1 up"),
    ],
)
def test_md_refuses_wrong_options(
    equitorch: Command, run_folder: Path, start: Path, option: str, value: str, words: str
) -> None:
    answer = equitorch("md", run_folder, start, option, value)
    assert answer.code == failure.USER
    assert words in answer.err


def test_relax_lowers_the_energy(equitorch: Command, run_folder: Path, start: Path) -> None:
    answer = equitorch("relax", run_folder, start, "--fmax", 0.05, "--steps", 60)
    assert answer.code == 0, answer
    assert "converged" in answer.out
    assert (run_folder / "relax" / "start here.extxyz").exists()


def test_relax_keeps_its_earlier_results(equitorch: Command, run_folder: Path, start: Path) -> None:
    for _ in range(2):
        assert equitorch("relax", run_folder, start, "--steps", 1).code == 0
    assert {p.name for p in (run_folder / "relax").iterdir()} == {"start here.extxyz", "start here_2.extxyz"}


@pytest.mark.parametrize(("option", "value"), [("--fmax", "-1"), ("--fmax", "nan"), ("--steps", "0")])
def test_relax_refuses_wrong_options(
    equitorch: Command, run_folder: Path, start: Path, option: str, value: str
) -> None:
    answer = equitorch("relax", run_folder, start, option, value)
    assert answer.code == failure.USER
    assert f"{option}: expected" in answer.err
    assert not (run_folder / "relax").exists()


def test_relax_needs_a_cell_for_the_cell(equitorch: Command, run_folder: Path, start: Path) -> None:
    answer = equitorch("relax", run_folder, start, "--cell")
    assert answer.code == failure.USER
    assert "is not periodic in three directions" in answer.err


def test_bench_prints_a_table(
    equitorch: Command, run_folder: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equitorch.cli.commands.bench.BUDGET", 0.01)
    answer = equitorch("bench", run_folder, start, "--sizes", "1,2")
    assert answer.code == 0, answer
    assert "atoms/s" in answer.out
    assert equitorch("bench", run_folder, start, "--sizes", "1,x").code == failure.USER
    assert "name a structure" in equitorch("bench", run_folder).err


def test_nothing_is_written_outside_the_run(
    equitorch: Command, run_folder: Path, start: Path, tmp_path: Path
) -> None:
    before = {p for p in tmp_path.rglob("*") if run_folder not in p.parents}
    equitorch("md", run_folder, start, "--steps", 2)
    equitorch("info", run_folder)
    equitorch("report", run_folder)
    assert {p for p in tmp_path.rglob("*") if run_folder not in p.parents} == before


def test_evaluate_writes_no_colon_into_names_of_files(
    equitorch: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equitorch.cli.commands import evaluate

    frames = [evaluate.read_labelled(Path("shipped:ethanol")).to_ase(0)]
    for atoms in frames:
        atoms.numbers[:] = 1
    few = evaluate.read_labelled(_written(frames))
    monkeypatch.setattr(evaluate, "read_labelled", lambda path, **_: few)
    answer = equitorch("evaluate", run_folder, "shipped:ethanol")
    assert answer.code == failure.OK, answer.text
    assert [path.name for path in (run_folder / "predictions").iterdir()] == ["ethanol.npz"]


def _written(frames: list[Any]) -> Path:
    write("few.xyz", frames, format="extxyz")
    return Path("few.xyz")
