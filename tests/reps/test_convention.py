"""equitorch/reps/convention.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Irreps
from equitorch.reps.convention import (
    common_channels,
    from_cuequivariance,
    from_e3nn,
    from_zpolar,
    linear_blocks,
    rows_of,
    to_cuequivariance,
    to_e3nn,
    to_zpolar,
)
from equitorch.reps.sphere import legendre, waves
from equitorch.testing import random_orthogonal, transform
from tests.strategies import irreps, seeds


@given(irreps, st.integers(1, 4), seeds)
def test_goes_there_and_back(rep, factor, seed):
    flat = Irreps([(mul * factor, ir) for mul, ir in rep])
    x = torch.randn(2, flat.dim, generator=torch.Generator().manual_seed(seed))
    for channels in (None, factor, 1):
        for into, out in ((from_e3nn, to_e3nn), (from_cuequivariance, to_cuequivariance)):
            rows = into(x, flat, channels)
            assert rows.shape == (2, rows_of(flat, channels).dim, channels or common_channels(flat))
            assert torch.equal(out(rows, flat), x)


@given(irreps, seeds)
def test_rows_turn_as_the_flat_feature_does(rep, seed):
    """The layouts hold the same feature: turned before or after makes no difference."""
    flat = Irreps([(2 * mul, ir) for mul, ir in rep])
    generator = torch.Generator().manual_seed(seed)
    x, g = (
        torch.randn(flat.dim, dtype=torch.float64, generator=generator),
        random_orthogonal(generator=generator),
    )
    turned = transform(rows_of(flat), g, from_e3nn(x, flat))
    torch.testing.assert_close(to_e3nn(turned, flat), flat.matrix(g) @ x)


def test_cuequivariance_is_e3nn_with_each_block_transposed():
    flat = Irreps("4x0e+2x1o+6x2e")
    x = torch.randn(3, flat.dim)
    blocks = [
        x[:, s].unflatten(1, (mul, ir.dim)).mT.flatten(1)
        for s, (mul, ir) in zip(flat.slices(), flat, strict=True)
    ]
    torch.testing.assert_close(from_cuequivariance(torch.cat(blocks, dim=1), flat), from_e3nn(x, flat))


def test_equal_multiplicities_of_cuequivariance_are_a_view():
    x = torch.randn(5, 4 * 9)
    rows = from_cuequivariance(x, "4x0e+4x1o+4x2e")
    assert rows.data_ptr() == x.data_ptr()
    assert rows.shape == (5, 9, 4)


def test_linear_weights_are_those_of_e3nn(o3):
    flat_in, flat_out = Irreps("4x0e+2x1o+2x0e"), Irreps("3x1o+6x0e+3x2e")
    theirs = o3.Linear(repr(flat_in), repr(flat_out)).double()
    x = torch.randn(7, flat_in.dim, dtype=torch.float64)
    rows = from_e3nn(x, flat_in)
    parts_in, parts_out = rows_of(flat_in).slices(), rows_of(flat_out)
    out = [torch.zeros(7, entry.dim, 3, dtype=torch.float64) for entry in parts_out]
    fan = [sum(mul for mul, ir in flat_in if ir == entry.ir) for entry in flat_out]
    for (i, o), weight in linear_blocks(theirs.weight.detach(), flat_in, flat_out).items():
        block = rows[:, parts_in[i]].unflatten(1, (weight.shape[0], -1))
        out[o] += torch.einsum("epmc,pcqd->eqmd", block, weight).flatten(1, 2) / fan[o] ** 0.5
    torch.testing.assert_close(to_e3nn(torch.cat(out, dim=1), flat_out), theirs(x))


@given(st.integers(0, 4), seeds)
def test_zpolar_rows_are_the_usual_harmonics(l, seed):
    """Y_lm about z, from the angles of a textbook: theta from z, phi from x towards y."""
    v = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, y, z = v.unbind()

    def harmonics(polar, azimuth):
        return (legendre(l, polar)[l * l :] * waves(l, azimuth))[:, None]

    ours = harmonics(torch.atan2(torch.hypot(x, z), y), torch.atan2(x, z))
    usual = harmonics(torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x))
    rep = Irreps([(1, (l, (-1) ** l))])
    torch.testing.assert_close(to_zpolar(ours, rep), usual, atol=1e-13, rtol=0)
    torch.testing.assert_close(from_zpolar(usual, rep), ours, atol=1e-13, rtol=0)


def test_usual_harmonics_of_scipy():
    special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
    theta, phi = 0.7, 2.1
    v = torch.tensor([math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)])
    alpha, beta = torch.atan2(v[0], v[2]), torch.acos(v[1])
    ours = (legendre(3, beta)[9:] * waves(3, alpha))[:, None]
    complex_values = [complex(special.sph_harm_y(3, abs(m), theta, phi)) for m in range(-3, 4)]
    parts = [
        value.real if m == 0 else (-1) ** m * 2**0.5 * (value.real if m > 0 else value.imag)
        for m, value in zip(range(-3, 4), complex_values, strict=True)
    ]
    torch.testing.assert_close(to_zpolar(ours, "3o").flatten(), torch.tensor(parts), atol=1e-6, rtol=0)


def test_the_check_can_fail():
    """Reading one library's layout as the other's is seen by turning."""
    flat = Irreps("2x1o")
    g = random_orthogonal(generator=torch.Generator().manual_seed(0))
    x = torch.randn(6, dtype=torch.float64)
    turned = transform(rows_of(flat), g, from_cuequivariance(x, flat))
    assert (to_cuequivariance(turned, flat) - flat.matrix(g) @ x).abs().max() > 1e-2


def test_multiplicities_of_all_kinds():
    assert common_channels("16x0e+8x1o+0x2e") == 8
    assert common_channels("") == 1
    assert rows_of("16x0e+8x1o+0x2e") == Irreps("2x0e+1o+0x2e")
    assert from_e3nn(torch.ones(2, 0), "").shape == (2, 0, 1)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="cannot be laid out in 3 channels"):
        rows_of("4x0e", 3)
    with pytest.raises(ValueError, match="has 10 components, got 4"):
        from_e3nn(torch.ones(4), "4x0e+2x1o")
    with pytest.raises(ValueError, match=r"rows of shape \(\.\.\., 5, 2\), got \(4, 2\)"):
        to_e3nn(torch.ones(4, 2), "4x0e+2x1o")
    with pytest.raises(ValueError, match="expects 4 weights, got 5"):
        linear_blocks(torch.ones(5), "2x0e", "2x0e")
