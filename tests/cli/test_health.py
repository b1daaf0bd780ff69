"""The health card: sound models pass, and each check can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equitorch.cli import health
from equitorch.graph import AtomGraph
from equitorch.models.potential import Potential
from tests.cli.conftest import small_potential, waters


class Spoiled(Potential):
    """A potential whose answer is tampered with."""

    def __init__(self, fault: str) -> None:
        inner = small_potential()
        super().__init__(inner.model, species=[1, 8], reference_energies={1: -13.0, 8: -430.0}, scale=0.1)
        self.fault = fault
        self.eval()

    def forward(self, graph: AtomGraph, **options: Any) -> dict[str, torch.Tensor]:
        out = super().forward(graph, **options)
        if self.fault == "rotation":
            out["energy"] = out["energy"] + 0.01 * graph.pos[:, 0].square().sum()
        if self.fault == "gradient":
            out["forces"] = 1.001 * out["forces"]
        if self.fault == "drift":
            out["forces"] = out["forces"] - 0.2 * torch.roll(graph.pos, 1, 0)
        if self.fault == "cutoff":
            out["forces"] = out["forces"] + 0.1
        return out


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_LONGEST", 0.5)
    monkeypatch.setattr(health, "_ENOUGH", 30)


def exact(potential: Potential) -> Potential:
    return potential.double()


def test_a_sound_model_passes_every_check(tmp_path: Path) -> None:
    card = health.check_health(small_potential(), waters(1)[0])
    assert [check.passed for check in card] == [True] * 4, card
    saved = json.loads(health.save(card, tmp_path).read_text())
    assert len(saved["checks"]) == 4


def test_every_check_can_fail() -> None:
    atoms = waters(1)[0]
    atoms.positions += np.array([1.0, 0.5, 0.2])
    assert health.rotation(exact(Spoiled("rotation")), atoms).passed is False
    assert health.gradient(exact(Spoiled("gradient")), atoms).passed is False
    assert health.smoothness(exact(Spoiled("cutoff")), atoms).passed is False
    assert health.conservation(exact(Spoiled("drift")), atoms, steps=100).passed is False


def test_the_model_is_left_as_it_was() -> None:
    potential = small_potential()
    health.check_health(potential, waters(1)[0])
    assert potential.dtype == torch.float32


def test_a_check_that_cannot_be_made_says_so() -> None:
    atoms = waters(1)[0]
    atoms.numbers[0] = 6
    card = health.check_health(small_potential(), atoms)
    assert card[0].passed is None
    assert "not measured: ValueError" in card[0].text
    assert card[2].passed is True
