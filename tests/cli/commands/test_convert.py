"""equitorch/cli/commands/convert.py"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equitorch.cli import failure
from equitorch.models import Potential
from tests.cli.conftest import Command
from tests.interop.test_fairchem import Hostile, checkpoint, molecule

pytestmark = pytest.mark.filterwarnings("ignore:.*is not exact")


def test_writes_a_model_file_of_a_published_checkpoint(equitorch: Command, tmp_path: Path) -> None:
    model, content = checkpoint()
    torch.save(content, tmp_path / "published.pt")
    answer = equitorch("convert", tmp_path / "published.pt", tmp_path / "new" / "model.eqt")
    assert answer.code == failure.OK
    assert "EquiformerV2" in answer.text
    again, graph = Potential.load(tmp_path / "new" / "model.eqt"), molecule()
    args = graph.atomic_numbers, graph.edge_index, graph.edge_vectors(), graph.batch, 1
    assert (again.model(*args)["energy"] - model(*args)["energy"]).abs() < 1e-13


def test_runs_code_only_when_told_to(
    equitorch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint()[1] | {"scheduler": Hostile()}, "a.pt")
    refused = equitorch("convert", "a.pt", "a.eqt")
    assert refused.code == failure.USER
    assert "--unsafe-pickle" in refused.text
    assert not Path("harm-was-done").exists()
    done = equitorch("convert", "--unsafe-pickle", "a.pt", "a.eqt")
    assert done.code == failure.OK
    assert "runs whatever code it holds" in done.text
    assert Path("harm-was-done").exists()


def test_says_what_it_expected(equitorch: Command, tmp_path: Path) -> None:
    torch.save(checkpoint()[1], tmp_path / "a.pt")
    for arguments, words in (
        (("none.pt", "a.eqt"), "not found"),
        ((tmp_path / "a.pt", tmp_path / "b.pt"), "ends in .eqt"),
        ((tmp_path / "a.pt", tmp_path / "b.eqt", "--config", tmp_path / "c.yml"), "config"),
    ):
        answer = equitorch("convert", *arguments)
        assert answer.code == failure.USER
        assert words in answer.text
    (tmp_path / "b.eqt").touch()
    assert "exists" in equitorch("convert", tmp_path / "a.pt", tmp_path / "b.eqt").text
