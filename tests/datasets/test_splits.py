import ase
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.datasets import AtomDataset, duplicates, split


def runs(frames: int, groups: int, repeat: int = 1) -> AtomDataset:
    structures = [
        ase.Atoms(
            "H2", [[0, 0, 0], [0, 0, 1 + k // repeat]], info={"config_type": f"run {k * groups // frames}"}
        )
        for k in range(frames)
    ]
    return AtomDataset.from_ase(structures)


@given(
    st.integers(3, 60),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from(["auto", "frame"]),
)
def test_divides_everything_once_and_keeps_twins_together(frames, groups, repeat, seed, by):
    data = runs(frames, min(groups, frames), repeat)
    parts = split(data, valid=0.2, test=0.1, seed=seed, by=by)
    assert sorted(np.concatenate(parts[:3])) == list(range(frames))
    owner = duplicates(data)
    homes = [set(owner[part]) for part in parts[:3]]
    assert sum(map(len, homes)) == len(set().union(*homes))
    again = split(data, valid=0.2, test=0.1, seed=seed, by=by)
    assert all(np.array_equal(a, b) for a, b in zip(parts[:3], again[:3], strict=True))


def test_keeps_trajectories_whole():
    data = runs(100, 10)
    parts = split(data, valid=0.2, seed=3)
    groups = np.array(data.groups)
    assert len(parts.valid) == 20
    assert not set(groups[parts.train]) & set(groups[parts.valid])
    assert parts.note == "10 groups (trajectories, kinds) whole, seed 3"
    assert not np.array_equal(parts.valid, split(data, valid=0.2, seed=4).valid)


def test_draws_frames_where_groups_are_too_large():
    parts = split(runs(100, 2), valid=0.1)
    assert len(parts.valid) == 10
    assert parts.note == "frames drawn one by one, duplicates together, seed 0"
    assert len(split(runs(100, 1), valid=50, test=49).train) == 1


def test_twins_do_not_cross_even_between_groups():
    data = runs(40, 8, repeat=4)  # runs of 5 frames share structures at their borders
    parts = split(data, valid=0.3, by="group")
    owner = duplicates(data)
    assert not set(owner[parts.train]) & set(owner[parts.valid])


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"frames left to train on, got 5 \+ 5 of 10 held out"):
        split(runs(10, 1), valid=0.5, test=5)
    with pytest.raises(ValueError, match="by='auto', 'group' or 'frame', got 'trajectory'"):
        split(runs(10, 1), by="trajectory")
    with pytest.raises(ValueError, match="valid as a share below 1 or a number of frames, got -0"):
        split(runs(10, 1), valid=-0.1)
