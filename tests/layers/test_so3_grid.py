"""equitorch/layers/so3_grid.py"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equitorch.layers import SO3Activation, SO3Grid
from equitorch.reps import Irreps, rand_matrix, wigner_D_from_angles
from tests.strategies import random, seeds


@pytest.fixture(autouse=True)
def float64():
    """e3nn makes its grids in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@given(st.integers(0, 3), st.integers(1, 4), st.sampled_from([1, 1.5, 2]), seeds)
def test_is_e3nns(lmax, resolution, aspect_ratio, seed):
    o3 = pytest.importorskip("e3nn.o3")
    ours, theirs = (kind(lmax, resolution, aspect_ratio=aspect_ratio) for kind in (SO3Grid, o3.SO3Grid))
    x = random(seed, 2, 1, ours.dim, 3)
    f = torch.stack([theirs.to_grid(part) for part in x.unbind(-1)], dim=-1)
    torch.testing.assert_close(ours.to_grid(x), f, rtol=1e-10, atol=1e-10)
    back = torch.stack([theirs.from_grid(part) for part in f.unbind(-1)], dim=-1)
    torch.testing.assert_close(ours.from_grid(f), back, rtol=1e-10, atol=1e-10)
    assert ours.to_grid(x[:0]).shape == (0, *f.shape[1:])
    assert ours.from_grid(f[..., :0]).shape == (*x.shape[:-1], 0)


def test_values_are_wigner_matrices():
    grid = SO3Grid(2, 3)
    one = torch.zeros(grid.dim, 1)
    one[1 + 9 + 5 * 1 + 3] = 1  # row 1, column 3 of degree 2
    alpha, beta, gamma = grid.alpha[:, None, None], grid.beta[:, None], grid.gamma
    D = wigner_D_from_angles(2, alpha, beta, gamma)[..., 1, 3] * (5 / 35) ** 0.5
    torch.testing.assert_close(grid.to_grid(one)[..., 0], D)


@settings(max_examples=8)
@given(st.integers(0, 2), st.integers(0, 1), seeds)
def test_there_and_back_is_nothing(lmax, more, seed):
    grid = SO3Grid(lmax, lmax + 1 + more)
    x = random(seed, 3, grid.dim, 2)
    torch.testing.assert_close(grid.from_grid(grid.to_grid(x)), x)
    mean_square = SO3Grid(
        0, 2 * grid.res_beta
    ).from_grid  # of degree 2 lmax at most: any fine grid averages it
    fine = SO3Grid(lmax, 2 * grid.res_beta).to_grid(x)
    torch.testing.assert_close(mean_square(fine.square())[:, 0], x.square().sum(1) / grid.dim)


@pytest.mark.parametrize(("lmax_in", "lmax_out", "resolution"), [(2, 1, 3), (1, 2, 4)])
def test_activation_is_e3nns(lmax_in, lmax_out, resolution):
    nn = pytest.importorskip("e3nn.nn")
    ours, theirs = (
        kind(lmax_in, lmax_out, torch.tanh, resolution) for kind in (SO3Activation, nn.SO3Activation)
    )
    x = torch.randn(4, ours.grid_in.dim)
    torch.testing.assert_close(ours(x[..., None])[..., 0], theirs(x), rtol=1e-10, atol=1e-10)


def turned(lmax, R, x):
    """The copies of each degree, turned."""
    return Irreps([(2 * l + 1, (l, 0)) for l in range(lmax + 1)]).matrix(R) @ x


def test_activation_commutes_the_better_the_finer_the_grid():
    x, R = torch.randn(3, 10, 2), rand_matrix()
    errors = []
    for resolution in (2, 8):
        layer = SO3Activation(1, 2, torch.tanh, resolution)
        errors.append((layer(turned(1, R, x)) - turned(2, R, layer(x))).abs().max().item())
    assert errors[1] < 1e-4 < errors[0]  # and so the check can fail


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"normalization='component', got .*'norm'"):
        SO3Grid(2, 3, normalization="norm")
    with pytest.raises(
        ValueError, match=r"to_grid expects x of shape \(\.\.\., 10, channels\), got \(2, 9, 1\)"
    ):
        SO3Grid(1, 2).to_grid(torch.ones(2, 9, 1))
    with pytest.raises(ValueError, match=r"values of shape \(\.\.\., 8, 4, 8, channels\), got \(8, 4, 8\)"):
        SO3Grid(1, 2).from_grid(torch.ones(8, 4, 8))
