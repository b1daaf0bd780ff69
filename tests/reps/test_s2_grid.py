"""equitorch/reps/s2_grid.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import (
    Irreps,
    Legendre,
    angles_to_xyz,
    irfft,
    rfft,
    s2_grid,
    spherical_harmonics_alpha,
    spherical_harmonics_alpha_beta,
    spherical_harmonics_s2_grid,
)
from equitorch.reps.sphere import harmonics_at
from tests.strategies import random, seeds


def test_legendre_functions_are_the_tabulated_ones():
    z = torch.linspace(-1, 1, 9, dtype=torch.float64)
    y = (1 - z * z).sqrt()
    p = Legendre([2])(z, y)
    torch.testing.assert_close(p[:, 2], math.sqrt(5 / 16 / math.pi) * (3 * z * z - 1))
    torch.testing.assert_close(p[:, 3], math.sqrt(15 / 8 / math.pi) * z * y * math.sqrt(1))
    torch.testing.assert_close(p[:, 0], math.sqrt(15 / 32 / math.pi) * y * y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_grid_and_its_harmonics_are_e3nns(o3, dtype):
    assert [t.dtype for t in s2_grid(4, 3)] == [torch.get_default_dtype()] * 2
    for a, b in zip(s2_grid(4, 3, dtype), o3.s2_grid(4, 3, dtype), strict=True):
        torch.testing.assert_close(a, b)
    ours = spherical_harmonics_s2_grid(3, 8, 9, dtype)
    for a, b in zip(ours, o3.spherical_harmonics_s2_grid(3, 8, 9, dtype), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6 if dtype == torch.float32 else 1e-13, rtol=1e-5)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), seeds)
def test_legendre_is_e3nns(ls, seed):
    o3 = pytest.importorskip("e3nn.o3")
    z, y = random(seed, 2, 7).unbind(0)  # as polynomials, off the circle too
    torch.testing.assert_close(Legendre(ls)(z, y), o3.Legendre(ls)(z, y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("normalization", ["integral", "component", "norm"])
@pytest.mark.parametrize("l", [0, 3, [2, 0, 5], [1, 1]])
def test_harmonics_by_angles_are_e3nns(o3, l, normalization):
    alpha, beta = torch.randn(2, 3, 4, dtype=torch.float64)
    ours = spherical_harmonics_alpha_beta(l, alpha, beta, normalization=normalization)
    theirs = o3.spherical_harmonics_alpha_beta(l, alpha, beta, normalization=normalization)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)  # a factor of theirs is in float32
    assert spherical_harmonics_alpha_beta(Irreps("2x1o"), alpha, beta).shape == (3, 4, 6)
    torch.testing.assert_close(spherical_harmonics_alpha(3, alpha), o3.spherical_harmonics_alpha(3, alpha))


@pytest.mark.parametrize("lmax", [0, 1, 4, 9])
def test_harmonics_of_vectors_and_of_their_angles_agree(o3, lmax):
    alpha, beta = torch.randn(2, 20, dtype=torch.float64)
    points = angles_to_xyz(alpha, beta)
    by_angles = spherical_harmonics_alpha_beta(range(lmax + 1), alpha, beta)
    torch.testing.assert_close(harmonics_at(lmax, points), by_angles, rtol=1e-10, atol=1e-10)
    theirs = o3.spherical_harmonics(list(range(lmax + 1)), points, False)
    torch.testing.assert_close(by_angles, theirs, rtol=1e-10, atol=1e-10)


@given(st.integers(0, 6), st.integers(0, 4), seeds)
def test_fast_transforms_are_sums_over_waves(l, more, seed):
    res = 2 * l + 1 + more
    _, alpha = s2_grid(2, res, torch.float64)
    waves = spherical_harmonics_alpha(l, alpha)
    x, y = random(seed, 2, 3, res), random(seed, 2, 3, 2 * l + 1)
    torch.testing.assert_close(rfft(x, l), x @ waves)
    torch.testing.assert_close(irfft(y, res), y @ waves.T)
    if res % 2:
        o3 = pytest.importorskip("e3nn.o3")
        torch.testing.assert_close(rfft(x, l), o3.rfft(x, l))
        torch.testing.assert_close(irfft(y, res), o3.irfft(y, res))


def test_the_check_can_fail():
    """One sign in the waves, and the transform is another one."""
    x = torch.randn(7, dtype=torch.float64)
    _, alpha = s2_grid(2, 7, torch.float64)
    assert (rfft(x, 2) - x @ spherical_harmonics_alpha(2, -alpha)).abs().max() > 1e-3


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"rfft\(x, 3\) expects x with at least 7 longitudes .* got \(2, 6\)"
    ):
        rfft(torch.ones(2, 6), 3)
    with pytest.raises(ValueError, match=r"odd number 2 l \+ 1 <= 4 of coefficients, got \(5,\)"):
        irfft(torch.ones(5), 4)
    with pytest.raises(ValueError, match=r"one of integral, component, norm, got 'unit'"):
        spherical_harmonics_alpha_beta(1, torch.ones(1), torch.ones(1), normalization="unit")
