"""From data to a report in one command, and every way in which that can go wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import read, write

from equitorch.cli import failure
from tests.cli.conftest import Command, waters

SMALL = ("model.channels=4", "model.layers=1", "model.radial=4", "model.cutoff=2.5", "train.warmup=2")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equitorch.cli.health._LONGEST", 0.2)


def test_trains_on_a_bare_data_file_and_reports(equitorch: Command, water_file: Path, tmp_path: Path) -> None:
    answer = equitorch("train", "water.xyz", *SMALL, "train.epochs=3")
    assert answer.code == 0, answer
    run = tmp_path / "runs" / "water"
    for name in (
        "model.eqt",
        "report.html",
        "metrics.csv",
        "config.yaml",
        "train.log",
        "health.json",
        "run.json",
    ):
        assert (run / name).exists(), name
    out = answer.out
    for words in (
        "meV/Å",
        "meV/at",
        "★",
        "Health",
        "rotation error",
        "Wrote",
        "Next     equitorch md runs/water START",
    ):
        assert words in out, words
    epochs = [line for line in out.splitlines() if line.strip().startswith(("1 ", "2 ", "3 "))]
    assert len(epochs) == 3
    assert "\x1b" not in out
    assert [line for line in out.splitlines() if len(line) > 80 and not line.startswith("Wrote")] == []
    assert "not available" in (run / "report.html").read_text()  # no stress, no dynamics yet
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "water.xyz"}


def test_the_whole_way_from_new_to_report(equitorch: Command, water_file: Path, tmp_path: Path) -> None:
    assert equitorch("new", "w.yaml", "--data", "water.xyz", "--size", "small").code == 0
    assert "# Å" in (tmp_path / "w.yaml").read_text()
    assert "ok: labels" in equitorch("check", "w.yaml").out
    assert equitorch("train", "w.yaml", *SMALL, "train.epochs=1", "--quiet").code == 0
    assert equitorch("train", "w.yaml", *SMALL, "train.epochs=2", "--resume").code == 0
    write("more.xyz", waters(4, seed=7), format="extxyz")
    answer = equitorch("evaluate", "runs/w", "more.xyz", "--by", "element", "--write", "out/seen.xyz")
    assert answer.code == 0, answer
    assert "F MAE meV/Å" in answer.out
    assert "energy_equitorch" in read("out/seen.xyz").info
    assert equitorch("md", "runs/w", "more.xyz", "--steps", 3, "--quiet").code == 0
    assert equitorch("report", "runs/w").code == 0
    page = (tmp_path / "runs" / "w" / "report.html").read_text()
    for words in ("more", "Molecular dynamics · nvt_300K", "Energy, valid"):
        assert words in page, words


def test_by_a_group_key(equitorch: Command, run_folder: Path, water_file: Path) -> None:
    answer = equitorch("evaluate", run_folder, water_file, "--by", "config_type")
    assert answer.code == 0, answer
    assert "cold" in answer.out
    assert "hot" in answer.out


def test_by_a_key_that_no_frame_has(equitorch: Command, run_folder: Path, tmp_path: Path) -> None:
    frames = waters(3)
    for atoms in frames:
        atoms.info["vector"] = np.zeros(3)
    write("w.xyz", frames, format="extxyz")
    answer = equitorch("evaluate", run_folder, "w.xyz", "--by", "config_typ")
    assert answer.code == failure.USER
    assert "no frame has 'config_typ'; info keys are: config_type, vector; did you mean" in answer.err
    answer = equitorch("evaluate", run_folder, "w.xyz", "--by", "vector")
    assert answer.code == failure.USER
    assert "--by vector: expected a word or a number per frame, frame 0 has an array" in answer.err
    assert not (run_folder / "predictions").exists()


def test_write_keeps_what_the_file_says(equitorch: Command, run_folder: Path, tmp_path: Path) -> None:
    frames = waters(2)
    for k, atoms in enumerate(frames):
        del atoms.info["config_type"]
        atoms.info["mine"] = k
        atoms.set_array("site", np.arange(3))
    write("w.xyz", frames, format="extxyz")
    assert equitorch("evaluate", run_folder, "w.xyz", "--write", "seen.xyz").code == 0
    seen = read("seen.xyz", index=":")
    assert [a.info["mine"] for a in seen] == [0, 1]
    assert seen[1].arrays["site"].tolist() == [0, 1, 2]
    assert seen[1].info["energy_reference"] == pytest.approx(frames[1].get_potential_energy())
    assert np.allclose(seen[1].arrays["forces_reference"], frames[1].get_forces(), atol=1e-7)
    assert set(seen[0].info) == {"mine", "energy_equitorch", "energy_reference"}
    assert {"forces_equitorch", "forces_reference"} <= set(seen[0].arrays)
    assert np.allclose(seen[1].get_forces(), frames[1].get_forces(), atol=1e-7)
    assert equitorch("evaluate", run_folder, "seen.xyz").code == 0
    answer = equitorch("evaluate", run_folder, "shipped:ethanol", "--by", "config_type")
    assert answer.code == failure.USER
    assert "has no info keys" in answer.err


def test_lists_every_problem_of_a_config_before_anything_runs(
    equitorch: Command, water_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text(
        "data:\n  train: watre.xyz\nmodel:\n  name: tensornet\n  cutof: 5.0\n"
        "train:\n  epochs: ten\noutput: here\n"
    )
    answer = equitorch("train", "bad.yaml")
    assert answer.code == failure.USER
    assert "3 problems" in answer.err
    assert "bad.yaml:2" in answer.err
    assert "did you mean 'water.xyz'?" in answer.err
    assert "did you mean 'cutoff'?" in answer.err
    assert "expected an integer, got 'ten'" in answer.err
    assert "Traceback" not in answer.text
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("typo", ["epocs", "epoch", "bacth", "seeed", "clipp", "precission"])
def test_names_the_setting_that_was_meant(equitorch: Command, water_file: Path, typo: str) -> None:
    answer = equitorch("train", "water.xyz", f"train.{typo}=1")
    assert answer.code == failure.USER
    assert "did you mean '" in answer.err


def test_a_run_is_never_overwritten(equitorch: Command, water_file: Path, run_folder: Path) -> None:
    answer = equitorch("train", "water.xyz", *SMALL, "train.epochs=1", f"output={run_folder}")
    assert answer.code == failure.USER
    assert "resume" in answer.err


def test_data_without_labels_are_an_error(equitorch: Command, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.xyz").write_text("2\n\nH 0 0 0\nO 0 0 1\n" * 10)
    for arguments in (("train", "bare.xyz"), ("evaluate", run_folder, "bare.xyz")):
        answer = equitorch(*arguments)
        assert answer.code == failure.USER, answer
        assert "has" in answer.err
        assert "energ" in answer.err


def test_check_of_data_without_usual_labels_says_how_to_name_them(equitorch: Command) -> None:
    frames = waters(4)
    for atoms in frames:
        atoms.info["gap"], atoms.arrays["pull"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
    write("odd.xyz", frames, format="extxyz")
    answer = equitorch("check", "odd.xyz")
    assert answer.code == failure.USER
    assert "Next" not in answer.out
    assert "info keys are: config_type, gap; its arrays are: pull" in answer.err
    assert "data.keys.energy=NAME" in answer.err
    keys = ("data.keys.energy=gap", "data.keys.forces=pull")
    answer = equitorch("check", "odd.xyz", *keys)
    assert answer.code == 0, answer
    assert "energy 4/4 · forces 4/4" in answer.out
    assert f"Next     equitorch train odd.xyz {' '.join(keys)}" in answer.out
    assert equitorch("train", "odd.xyz", *keys, *SMALL, "train.epochs=1", "--quiet").code == 0
    answer = equitorch("evaluate", "runs/odd", "odd.xyz")  # with the keys of the training
    assert answer.code == 0, answer
    assert "energy 4/4 · forces 4/4" in answer.out


def test_check_tells_problems_of_the_config_and_then_shows_the_data(
    equitorch: Command, water_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "w.yaml").write_text("data:\n  train: water.xyz\nmodel:\n  reference_energies: {H: -13.0}\n")
    answer = equitorch("check", "w.yaml")
    assert answer.code == failure.USER
    assert "has no energy for O" in answer.err
    assert "12 frames" in answer.out
    assert "Next" not in answer.out


def test_check_warns_of_what_looks_wrong(equitorch: Command, tmp_path: Path) -> None:
    frames = waters(3)
    write("odd.xyz", [*frames, frames[0]], format="extxyz")
    out = equitorch("check", "odd.xyz").out
    assert "1 frames occur earlier; splits keep them together" in out


def test_a_path_with_spaces_works(equitorch: Command, tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    write(folder / "my water.xyz", waters(8), format="extxyz")
    answer = equitorch("train", "my data/my water.xyz", *SMALL, "train.epochs=1", "output=my runs/one")
    assert answer.code == 0, answer
    assert "equitorch md 'my runs/one' START" in answer.out
    assert equitorch("info", "my runs/one").code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_cannot_be_written_is_a_sentence(
    equitorch: Command, water_file: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    answer = equitorch("train", "water.xyz", *SMALL, "train.epochs=1", "output=locked/run")
    assert answer.code == failure.USER
    assert "Permission denied" in answer.err


def test_an_interruption_says_how_to_go_on(
    equitorch: Command, water_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from equitorch.cli.progress import TrainingScreen

    def stop(self: TrainingScreen, done: int, batches: int, loss: float) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingScreen, "on_batch", stop)
        answer = equitorch("train", "water.xyz", *SMALL, "train.epochs=3", "train.batch=64")
    assert answer.code == failure.INTERRUPTED, answer
    assert "Resume   equitorch train water.xyz" in answer.out
    assert "--resume" in answer.out
    assert equitorch("train", "water.xyz", *SMALL, "train.epochs=3", "train.batch=64", "--resume").code == 0


def test_an_interruption_of_the_final_phase_says_how_to_go_on(
    equitorch: Command, water_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("equitorch.cli.health.check_health", stop)
        answer = equitorch("train", "water.xyz", *SMALL, "train.epochs=2")
    assert answer.code == failure.INTERRUPTED, answer
    assert "Stopped after the training" in answer.out
    assert "Resume   equitorch train water.xyz" in answer.out
    assert not (tmp_path / "runs" / "water" / "report.html").exists()
    answer = equitorch("train", "runs/water", "--resume")  # the folder stands for its config
    assert answer.code == 0, answer
    assert "Nothing is left to train: the run has its 2 epochs" in answer.out
    assert "valid F" not in answer.out
    assert (tmp_path / "runs" / "water" / "report.html").exists()
    (tmp_path / "runs" / "water").rename(tmp_path / "moved")
    answer = equitorch("train", "moved", "train.epochs=3", "--resume")
    assert answer.code == 0, answer
    assert "into moved" in answer.out
    assert not (tmp_path / "runs" / "water").exists()


def test_nothing_is_printed_before_the_config_is_known_to_fit(equitorch: Command, water_file: Path) -> None:
    answer = equitorch("train", "water.xyz", *SMALL, "--resume")
    assert answer.code == failure.USER
    assert "no run to resume" in answer.err
    assert answer.out == ""


def test_a_sample_of_the_training_set_is_called_one(
    equitorch: Command, water_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equitorch.cli.commands.train._SHOWN", 4)
    out = equitorch("train", "water.xyz", *SMALL, "train.epochs=1", "data.valid=2").out
    assert "train (4 of 10)" in out
    assert "valid (2) " in out
    assert "1 epoch at most" in out


def test_a_failing_report_does_not_fail_the_run(
    equitorch: Command, water_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("equitorch.cli.report.write_report", broken)
    answer = equitorch("train", "water.xyz", *SMALL, "train.epochs=1")
    assert answer.code == 0
    assert "WARNING  the report could not be written: RuntimeError: no ink" in answer.out
    assert "report.html" not in answer.out


def test_new_refuses_to_replace_a_file(equitorch: Command, water_file: Path, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("mine")
    answer = equitorch("new", "w.yaml", "--data", "water.xyz")
    assert answer.code == failure.USER
    assert "replace it with --force" in answer.err
    assert (tmp_path / "w.yaml").read_text() == "mine"
    assert equitorch("new", "w.yaml", "--data", "water.xyz", "--full", "--force").code == 0
    assert "warmup" in (tmp_path / "w.yaml").read_text()


def test_evaluate_reads_units_as_the_training_did(
    equitorch: Command, run_folder: Path, water_file: Path
) -> None:
    """The same numbers in kcal/mol are other energies in eV: they must not be taken for eV."""
    plain = equitorch("evaluate", run_folder, water_file).out
    config = f"data:\n  train: {water_file}\n  energy_unit: kcal/mol\n"
    (run_folder / "config.yaml").write_text(config, encoding="utf-8")
    answer = equitorch("evaluate", run_folder, water_file)
    assert answer.code == 0, answer.err
    assert "read in kcal/mol, as in training" in answer.out
    assert answer.out.splitlines()[-3] != plain.splitlines()[-3]


def test_new_takes_shipped_data_and_names_of_models_in_any_case(equitorch: Command) -> None:
    answer = equitorch("new", "e.yaml", "--data", "shipped:ethanol", "--model", "NequIP")
    assert answer.code == failure.OK, answer.text
    text = Path("e.yaml").read_text()
    assert "train: shipped:ethanol" in text
    assert "name: nequip" in text
    answer = equitorch("new", "f.yaml", "--data", "shipped:ethanol", "--model", "EquiformerV2")
    assert answer.code == failure.OK
    assert "name: equiformer_v2" in Path("f.yaml").read_text()
    answer = equitorch("new", "g.yaml", "--data", "shipped:ethanol", "--model", "nequipp")
    assert answer.code == failure.USER
    assert "did you mean 'nequip'" in answer.text


@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("model", ["tensornet", "nequip", "equiformer_v2", "escn", "esen"])
def test_new_has_sizes_and_true_comments_for_every_model(equitorch: Command, model: str, size: str) -> None:
    from equitorch.cli.commands.new import _SIZES, SIZES

    answer = equitorch("new", "e.yaml", "--data", "shipped:ethanol", "--model", model, "--size", size)
    assert answer.code == failure.OK, answer.text
    text = Path("e.yaml").read_text()
    written = yaml.safe_load(text)["model"]
    assert written.items() >= _SIZES.get(model, SIZES)[size].items()
    assert ("radial" in written) == (model in ("tensornet", "nequip"))
    assert ("false is faster" in text) == (model == "nequip")
    assert "width of every layer" not in text
    assert "; 2 is more accurate" not in text
    if model in ("escn", "esen"):
        assert 5.0 <= written["cutoff"] <= 6.0


def test_check_suggests_a_file_name_without_a_colon(equitorch: Command) -> None:
    answer = equitorch("check", "shipped:ethanol")
    assert answer.code == failure.OK
    assert "equitorch new ethanol.yaml --data shipped:ethanol" in " ".join(answer.text.split())
