"""Errors on the screen: the right words, the right exit code, a traceback only where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from equitorch.cli import failure
from equitorch.cli.failure import UserError, existing, exit_code
from tests.cli.conftest import Command


def test_names_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "train.xyz").touch()
    with pytest.raises(UserError, match=r"data file '.*trian.xyz' not found; did you mean 'train.xyz'\?"):
        existing(tmp_path / "trian.xyz", "data file")


def test_names_the_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder '.*nowhere'"):
        existing(tmp_path / "nowhere" / "train.xyz")


def test_sorts_exceptions_into_exit_codes() -> None:
    from equitorch.training.run import DivergedError

    assert [
        exit_code(e) for e in (ValueError(), OSError(), DivergedError(), KeyboardInterrupt(), KeyError())
    ] == [
        failure.USER,
        failure.USER,
        failure.DIVERGED,
        failure.INTERRUPTED,
        failure.INTERNAL,
    ]


@pytest.mark.parametrize(
    "arguments", [("trian", "x"), ("md",), ("md", "a", "b", "--stepz", "3"), ("train", "no.yaml")]
)
def test_a_wrong_command_line_is_exit_code_2_without_traceback(
    equitorch: Command, arguments: tuple[str, ...]
) -> None:
    answer = equitorch(*arguments)
    assert answer.code == failure.USER
    assert "Traceback" not in answer.text


def test_suggests_the_command(equitorch: Command) -> None:
    assert "train" in equitorch("trian").err


def test_debug_shows_the_traceback(equitorch: Command) -> None:
    assert "Traceback (most recent call last)" in equitorch("info", "nothing.eqt", "--debug").err


def test_a_fault_of_the_library_says_so(equitorch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("inner")

    monkeypatch.setattr("equitorch.cli.commands.doctor.run", broken)
    answer = equitorch("doctor")
    assert answer.code == failure.INTERNAL
    assert "fault of equitorch" in answer.err
    assert "--debug" in answer.err
    assert "Traceback" not in answer.err


def test_an_interruption_is_130(equitorch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("equitorch.cli.commands.doctor.run", interrupted)
    assert equitorch("doctor").code == failure.INTERRUPTED


def test_the_traceback_of_a_fault_goes_to_error_log(
    equitorch: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("inner")

    monkeypatch.setattr("equitorch.cli.commands.md.read_structures", broken)
    answer = equitorch("md", run_folder, "start.xyz")
    assert answer.code == failure.INTERNAL
    assert "Traceback (most recent call last)" in (run_folder / "error.log").read_text()
    assert "Traceback in" in answer.err


def test_a_mistake_leaves_no_log_and_a_divergence_one_line(equitorch: Command, run_folder: Path) -> None:
    assert equitorch("md", run_folder, "nowhere.xyz").code == failure.USER
    assert not (run_folder / "error.log").exists()
    failure.write_log(failure.Diverged("too hot"), run_folder)
    text = (run_folder / "error.log").read_text()
    assert "too hot" in text
    assert "Traceback" not in text


def test_a_log_that_cannot_be_written_is_no_second_error(tmp_path: Path) -> None:
    (tmp_path / "error.log").mkdir()
    assert failure.write_log(ValueError("x"), tmp_path) is None
    assert failure.write_log(ValueError("x"), tmp_path / "absent") is None


def test_help_and_version_are_ok(equitorch: Command) -> None:
    assert equitorch("--help").code == failure.OK
    assert equitorch("--version").out.startswith("equitorch ")
    assert max(len(line) for line in equitorch("md", "--help").out.splitlines()) <= 80
