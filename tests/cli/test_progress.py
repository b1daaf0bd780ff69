"""The training screen: what it prints, and that the terminal is given back."""

from __future__ import annotations

import pytest

from equitorch.cli.progress import TrainingScreen, epoch_line, header_line

ROW = {
    "epoch": 12,
    "train_loss": 0.0213,
    "valid_energy_mae": 0.0021,
    "valid_forces_mae": 0.041,
    "valid_stress_mae": 0.002,
    "lr": 9.9e-4,
    "seconds": 1.6,
    "best": True,
}


def test_every_number_has_its_unit_and_80_columns_hold_it() -> None:
    line = epoch_line(ROW)
    for words in ("2.10 meV/at", "41.0 meV/Å", "0.320 GPa", "9.9e-4", "1.6 s", "★"):
        assert words in line, words
    assert len(line) <= 80
    assert len(header_line()) <= 80
    assert len(epoch_line({"epoch": 3})) <= 80


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TrainingScreen(3, quiet=True)
    screen.on_start({})
    screen.on_epoch(ROW)
    screen.on_message("note")
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_live_line_and_is_given_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("equitorch.cli.screen.is_live", lambda: True)
    screen = TrainingScreen(3, resume="equitorch train a.yaml --resume")
    screen.on_start({})
    assert screen.live is not None
    for done in range(1, 4):
        screen.on_batch(done, 3, 0.5)
    screen.on_epoch(ROW)
    screen.on_batch(1, 3, 0.4)
    screen.close()
    screen.close()
    assert screen.live is None
    assert "2.10 meV/at" in capsys.readouterr().out
