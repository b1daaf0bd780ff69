"""Predictions beside labels: error statistics and their storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.cli.predictions import Errors, Predictions, predict
from equitorch.graph import AtomGraph
from tests.cli.conftest import small_potential, waters


def evaluated(frames: int = 6) -> Predictions:
    """Water, predicted by an untrained model."""
    graphs = [AtomGraph.from_ase(a) for a in waters(frames)]
    return predict(small_potential(), graphs, ["hot", "cold"] * (frames // 2), most_atoms=7)


def test_errors_have_their_textbook_values() -> None:
    e = Errors.of(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0, 1.0]))
    assert (e.mae, e.rmse, e.largest, e.count) == (0.75, np.sqrt(1.25), 2.0, 4)
    assert e.r2 == pytest.approx(1 - 5 / 5)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_a_missing_label_counts_for_nothing(values: list[float]) -> None:
    label = np.array(values)
    prediction = label + 1
    with_hole = Errors.of(np.append(label, np.nan), np.append(prediction, 99.0))
    assert (with_hole.mae, with_hole.count) == (Errors.of(label, prediction).mae, len(values))


def test_batches_do_not_change_the_numbers() -> None:
    potential, frames = small_potential(), waters(6)
    one = potential.predict(frames)
    all_of_them = evaluated()
    assert np.allclose(all_of_them.energy_predicted, [f["energy"] for f in one], atol=1e-6)
    assert np.allclose(all_of_them.forces_predicted, np.concatenate([f["forces"] for f in one]), atol=1e-5)


def test_the_labels_are_those_of_the_file() -> None:
    p, frames = evaluated(), waters(6)
    assert np.allclose(p.energy, [a.get_potential_energy() for a in frames])
    assert np.isnan(p.stress).all()


def test_parts_add_up_to_the_whole() -> None:
    p = evaluated()
    for by, names in (("element", {"H", "O"}), ("group", {"hot", "cold"})):
        parts = list(p.select(by))
        assert {name for name, _, _ in parts} == names
        total = sum(p.force_errors(a).mae * p.force_errors(a).count for _, _, a in parts)
        assert total / p.force_errors().count == pytest.approx(p.force_errors().mae)


def test_comes_back_from_disk(tmp_path: Path) -> None:
    p = evaluated()
    again = Predictions.load(p.save(tmp_path / "deep" / "test.npz"))
    assert np.array_equal(p.forces_predicted, again.forces_predicted)
    assert list(again.group) == list(p.group)


def test_says_what_it_expected() -> None:
    with pytest.raises(ValueError, match="by 'group' or 'element', got 'atom'"):
        list(evaluated(2).select("atom"))
    with pytest.raises(ValueError, match="data set is empty"):
        predict(small_potential(), [])
