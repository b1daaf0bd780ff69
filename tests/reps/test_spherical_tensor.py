"""equitorch/reps/spherical_tensor.py"""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Irreps, SphericalTensor
from tests.strategies import random, seeds

signs = st.sampled_from([1, -1])


@pytest.fixture
def io():
    return pytest.importorskip("e3nn.io")


@pytest.fixture(autouse=True)
def float64():
    """e3nn makes its grids in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("arguments", [(0, 1, 1), (3, 1, -1), (2, -1, 1), (2, -1, -1)])
def test_is_the_irreps_of_e3nns(io, arguments):
    ours = SphericalTensor(*arguments)
    assert repr(ours) == repr(io.SphericalTensor(*arguments))
    assert ours == Irreps(repr(ours))
    assert Irreps(repr(ours)) == ours
    assert hash(ours) == hash(Irreps(repr(ours)))
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert again == ours
        assert type(again) is SphericalTensor


@given(st.integers(0, 6), seeds)
def test_evaluates_as_e3nn_does(lmax, seed):
    io = pytest.importorskip("e3nn.io")
    ours, theirs = SphericalTensor(lmax, 1, -1), io.SphericalTensor(lmax, 1, -1)
    x, r = random(seed, 2, 1, ours.dim), random(seed, 3, 4, 3)
    r[0, 0] = 0  # no direction
    torch.testing.assert_close(ours.signal_xyz(x, r), theirs.signal_xyz(x, r))
    torch.testing.assert_close(ours.norms(x), theirs.norms(x))
    for normalization in ("integral", "component", "norm"):
        for a, b in zip(
            ours.signal_on_grid(x, 14, normalization),
            theirs.signal_on_grid(x, 14, normalization),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


@given(st.integers(1, 5), signs, seeds)
def test_is_made_from_points_as_e3nn_does(lmax, p_arg, seed):
    io = pytest.importorskip("e3nn.io")
    ours, theirs = SphericalTensor(lmax, 1, p_arg), io.SphericalTensor(lmax, 1, p_arg)
    at, values = random(seed, 2, 3), random(seed, 4, 2)
    for given_values in (None, values[0]):
        peaks = ours.with_peaks_at(at, given_values)
        torch.testing.assert_close(peaks, theirs.with_peaks_at(at, given_values), rtol=1e-4, atol=1e-4)
        wanted = at.norm(dim=1) if given_values is None else given_values
        torch.testing.assert_close(ours.signal_xyz(peaks, at), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.sum_of_diracs(at, values), theirs.sum_of_diracs(at, values))
    several = random(seed, 3, 1, 5, 3), random(seed, 1, 4, 5)
    torch.testing.assert_close(
        ours.from_samples_on_s2(*several, res=14), theirs.from_samples_on_s2(*several, res=14)
    )


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_peaks_that_e3nn_finds(io, seed):
    ours, theirs = SphericalTensor(5, 1, -1), io.SphericalTensor(5, 1, -1)
    signal = random(seed, ours.dim)
    (at, height), (at_theirs, height_theirs) = (s.find_peaks(signal, 40) for s in (ours, theirs))
    order, order_theirs = height.argsort(), height_theirs.argsort()
    torch.testing.assert_close(height[order], height_theirs[order_theirs])
    torch.testing.assert_close(at[order], at_theirs[order_theirs])


def test_finds_a_peak_where_it_was_put():
    s = SphericalTensor(6, 1, -1)
    for direction in ([0.0, 1.0, 0.0], [0.6, 0.0, -0.8]):
        peak = 3 * torch.tensor([direction])
        at, height = s.find_peaks(s.with_peaks_at(peak), 60)
        best = height.argmax()
        assert height[best].item() == pytest.approx(3.0, rel=0.03)
        assert (at[best] @ peak[0] / 3).item() > 0.995


def test_empty_sets_give_zero_functions():
    s = SphericalTensor(2, 1, -1)
    assert torch.equal(s.with_peaks_at(torch.empty(0, 3)), torch.zeros(9))
    assert torch.equal(s.with_peaks_at(torch.ones(1, 3), torch.zeros(1)), torch.zeros(9))
    assert s.sum_of_diracs(torch.empty(1, 0, 2, 3), torch.empty(2, 0, 1)).shape == (2, 0, 9)
    assert s.from_samples_on_s2(torch.empty(2, 0, 10, 3), torch.empty(2, 0, 10)).shape == (2, 0, 9)


def test_the_check_can_fail():
    """A peak elsewhere has another value here."""
    s = SphericalTensor(4, 1, -1)
    x = s.with_peaks_at(torch.tensor([[0.0, 2.0, 0.0]]))
    assert abs(s.signal_xyz(x, torch.tensor([0.0, 0.0, 1.0])).item() - 2.0) > 0.1


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"p_val and p_arg of 1 or -1, got lmax=2, p_val=0"):
        SphericalTensor(2, 0, 1)
    with pytest.raises(ValueError, match=r"expects even values \(p_val=1\) and vectors of shape \(n, 3\)"):
        SphericalTensor(2, -1, 1).with_peaks_at(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"raise lmax, or merge equal directions"):
        SphericalTensor(2, 1, 1).with_peaks_at(torch.ones(2, 3), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"expects res >= 8 latitudes, got 6"):
        SphericalTensor(3, 1, 1).find_peaks(torch.ones(16), 6)
