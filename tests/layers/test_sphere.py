"""equitorch/layers/sphere.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import FromS2Grid, S2Activation, ToS2Grid
from equitorch.ops import spherical_harmonics
from equitorch.reps import Irreps, rand_matrix
from equitorch.testing import assert_equivariant, equivariance_error
from tests.strategies import random, seeds

NORMALIZATIONS = ["component", "norm", "integral"]


@pytest.fixture(autouse=True)
def float64():
    """e3nn makes its grids in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@st.composite
def grids(draw):
    """A degree, numbers of latitudes and longitudes that it may have, and whether they are left out."""
    lmax = draw(st.integers(0, 5))
    beta = 2 * (lmax + 1 + draw(st.integers(0, 3)))
    res = draw(st.sampled_from([None, beta, (beta, None), (beta, draw(st.integers(1, 14)))]))
    return (None if isinstance(res, int) and draw(st.booleans()) else lmax), res


@given(grids(), st.sampled_from(NORMALIZATIONS), st.integers(0, 5), seeds)
def test_are_e3nns(grid, normalization, lmax_in, seed):
    """Any number of longitudes, odd (where e3nn has a fast transform), even, and too few."""
    o3 = pytest.importorskip("e3nn.o3")
    lmax, res = grid
    ours, theirs = ToS2Grid(lmax, res, normalization), o3.ToS2Grid(lmax, res, normalization)
    assert (ours.lmax, ours.res_beta, ours.res_alpha) == (theirs.lmax, theirs.res_beta, theirs.res_alpha)
    x = random(seed, 2, 1, (ours.lmax + 1) ** 2, 3)
    by_channel = torch.stack([theirs(part) for part in x.unbind(-1)], dim=-1)
    torch.testing.assert_close(ours(x), by_channel, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.grid, theirs.grid)
    res = (ours.res_beta, ours.res_alpha)
    back, theirs = (kind(res, lmax, normalization, lmax_in=lmax_in) for kind in (FromS2Grid, o3.FromS2Grid))
    f = random(seed, 2, 1, *res, 3)
    by_channel = torch.stack([theirs(part) for part in f.unbind(-1)], dim=-1)
    torch.testing.assert_close(back(f), by_channel, rtol=1e-11, atol=1e-11)
    assert ours(x[:0]).shape == (0, 1, *res, 3)
    assert back(f[..., :0]).shape == (*x.shape[:-1], 0)


def test_takes_factors_of_its_own_as_e3nn_does():
    o3 = pytest.importorskip("e3nn.o3")
    factors, x = torch.randn(4), torch.randn(2, 16)
    f = o3.ToS2Grid(3, (8, 7), factors)(x)
    torch.testing.assert_close(ToS2Grid(3, (8, 7), factors)(x[..., None])[..., 0], f)
    torch.testing.assert_close(
        FromS2Grid((8, 7), 3, factors)(f[..., None])[..., 0], o3.FromS2Grid((8, 7), 3, factors)(f)
    )


def test_evaluates_the_harmonics():
    """Orthonormal ones, at the points of the grid."""
    to_grid = ToS2Grid(3, (8, 9), "integral")
    y = spherical_harmonics(3, to_grid.grid, normalization="integral")
    torch.testing.assert_close(to_grid(torch.eye(16))[..., 3], y[..., 3])
    torch.testing.assert_close(to_grid(torch.eye(16)), y)


@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.sampled_from(NORMALIZATIONS), seeds)
def test_are_inverse_of_each_other(lmax, more, around, normalization, seed):
    res = (2 * (lmax + 1 + more), 2 * lmax + 1 + around)
    x = random(seed, 3, (lmax + 1) ** 2, 2)
    torch.testing.assert_close(FromS2Grid(res, lmax, normalization)(ToS2Grid(lmax, res, normalization)(x)), x)


def test_rows_of_unit_variance_give_a_function_of_unit_variance():
    f = ToS2Grid(4, (10, 9))(random(0, 25, 4000))
    assert f.square().mean().item() == pytest.approx(1.0, rel=0.05)


CASES = [
    ("0e+1o+2e", torch.tanh, 12, "component", None, False),
    ("0e+1e+2e+3e", torch.nn.functional.silu, (16, 15), "norm", 2, False),
    ("0o+1o+2o", torch.tanh, (10, 11), "component", 3, False),
    ("0o+1e+2o", torch.abs, (10, 12), "component", 1, False),
    ("0e", torch.sigmoid, 4, "component", None, False),
    ("0e+1o+2e", torch.tanh, 12, "component", 1, True),
]


@pytest.mark.parametrize("case", CASES)
def test_activation_is_e3nns(case):
    nn = pytest.importorskip("e3nn.nn")
    ours, theirs = S2Activation(*case), nn.S2Activation(*case)
    x = torch.randn(2, 3, ours.irreps_in.dim)
    torch.manual_seed(1)
    expected = theirs(x)
    torch.manual_seed(1)
    torch.testing.assert_close(ours(x[..., None])[..., 0], expected, rtol=1e-10, atol=1e-10)
    assert repr(ours.irreps_out) == repr(theirs.irreps_out)


@pytest.mark.parametrize("case", CASES[:5])
def test_activation_commutes_the_better_the_finer_the_grid(case):
    irreps, act, _, normalization, lmax_out, _ = case
    act = torch.tanh if act is torch.abs else act  # a kink needs finer grids
    coarse, fine = (S2Activation(irreps, act, res, normalization, lmax_out) for res in (8, 60))
    assert_equivariant(fine, [irreps], fine.irreps_out, atol=1e-5)
    assert equivariance_error(coarse, [irreps], coarse.irreps_out) > 1e-4 or len(coarse.irreps_in) == 1
    without = S2Activation(Irreps(irreps).without_parity(), torch.sigmoid, 20)
    assert without.irreps_out == Irreps(irreps).without_parity()


def test_activation_of_degree_one_is_known():
    """On 1o alone, in the direction of the vector, f is linear: relu(cos) has the projections 1/4 and 1/2."""
    layer = S2Activation("0e+1o", torch.relu, (200, 3), "integral", e3nn_compat=False)
    layer.act.constant = 1.0
    x = torch.zeros(4, 1)
    x[2] = math.sqrt(4 * math.pi / 3)  # f = cos(angle to y)
    y = layer(x)[:, 0]
    assert y[0].item() == pytest.approx(0.25 * math.sqrt(4 * math.pi), rel=1e-4)
    assert (y[2] / x[2, 0]).item() == pytest.approx(0.5, rel=1e-4)
    assert layer(2 * x)[0, 0].item() == pytest.approx(2 * y[0].item())


def test_the_grid_may_be_turned_at_random():
    layer = S2Activation("0e+1o+2e", torch.tanh, 8, random_rot=True)
    x = torch.randn(3, 9, 2)
    assert (layer(x) - layer(x)).abs().max() > 1e-6
    assert (layer(x) - layer(x)).abs().max() < 0.5


def test_the_check_can_fail():
    """Values at the points of another grid are another function."""
    x, R = torch.randn(9, 1), rand_matrix()
    layer = FromS2Grid((6, 5), 2)
    turned = Irreps("0e+1o+2e").matrix(R) @ x
    assert (layer(ToS2Grid(2, (6, 5))(turned)) - x).abs().max() > 1e-3


def test_say_what_they_expected():
    with pytest.raises(ValueError, match=r"ToS2Grid expects a degree or a resolution, got neither"):
        ToS2Grid()
    with pytest.raises(
        ValueError, match=r"even number of latitudes, at least 2 \(lmax \+ 1\), got 6 for lmax=3"
    ):
        FromS2Grid(6, 3)
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 9, channels\), got \(2, 8, 1\)"):
        ToS2Grid(2)(torch.ones(2, 8, 1))
    with pytest.raises(
        ValueError, match=r"expects values of shape \(\.\.\., 6, 5, channels\), got \(2, 6, 5\)"
    ):
        FromS2Grid((6, 5), 2)(torch.ones(2, 6, 5))
    with pytest.raises(ValueError, match=r"neither: the result would have no parity"):
        S2Activation("0o+1e", torch.nn.functional.silu, 8)
    with pytest.raises(ValueError, match=r"one irrep of each degree from 0, .* got 2x0e\+1x1o; multiplicity"):
        S2Activation("2x0e+1o", torch.tanh, 8)
    with pytest.raises(ValueError, match=r"one factor for each of 3 degrees, got \(2,\)"):
        ToS2Grid(2, 6, torch.ones(2))
    with pytest.raises(ValueError, match=r"normalization is one of component, norm, integral, got 'unit'"):
        ToS2Grid(2, 6, "unit")


def test_s2_activation_refuses_another_dtype_by_name():
    layer = S2Activation("0e+1o", "tanh", 6)
    with pytest.raises(ValueError, match=r"S2Activation\(.*\) expects .*torch.float32, got torch.float64"):
        layer.float()(torch.ones(2, 4, 1, dtype=torch.float64))
