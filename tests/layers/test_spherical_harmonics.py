"""equitorch/layers/spherical_harmonics.py"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import SphericalHarmonics, SphericalHarmonicsAlphaBeta
from equitorch.ops import spherical_harmonics
from equitorch.reps import Irrep, Irreps
from equitorch.testing import assert_equivariant
from tests.strategies import random, seeds

degrees = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@given(
    degrees | st.integers(0, 11),
    st.sampled_from([None, "1o", "1e"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["integral", "component", "norm"]),
    seeds,
)
def test_are_e3nns(ls, irreps_in, named, normalize, normalization, seed):
    """Degrees, or the irreps of these degrees, given in any order."""
    o3 = pytest.importorskip("e3nn.o3")
    if named and isinstance(ls, list):
        p = 1 if irreps_in == "1e" else -1
        ls = repr(Irreps([(1, (l, p**l)) for l in ls]))
    arguments = (ls, normalize, normalization, irreps_in)
    ours, theirs = SphericalHarmonics(*arguments), o3.SphericalHarmonics(*arguments)
    x = random(seed, 2, 3, 3)
    torch.testing.assert_close(ours(x), theirs.double()(x), rtol=1e-9, atol=1e-9)
    assert repr(ours.irreps_out) == repr(theirs.irreps_out)
    assert repr(ours.irreps_in) == repr(theirs.irreps_in)


def test_has_the_defaults_of_the_function():
    """Those of e3nn's module are other: it is smaller by the root of 4 pi."""
    x = torch.randn(4, 3)
    torch.testing.assert_close(SphericalHarmonics([0, 1, 2])(x), spherical_harmonics(2, x))
    assert SphericalHarmonics(0, True, "integral")(x[0]).item() == pytest.approx(math.sqrt(0.25 / math.pi))


def test_know_degrees_and_irreps_by_every_name():
    x = torch.randn(4, 3)
    same = [2, range(2, 3), np.int64(2), (2,), "2e", "1x2e", Irreps("2e"), Irrep("2e"), "2", "0x0e+2e"]
    for spec in same:
        assert SphericalHarmonics(spec)(x).equal(spherical_harmonics(2, x)[..., 4:])
    without = SphericalHarmonics("2+0+1")
    assert (without.irreps_in, without.irreps_out) == (Irreps("1"), Irreps("2+0+1"))
    assert SphericalHarmonics([2, 0, 1], irreps_in="1").irreps_out == without.irreps_out


def test_give_degrees_in_the_order_asked_for():
    x = torch.tensor([0.0, 0.0, 2.0])
    torch.testing.assert_close(SphericalHarmonics(1, False, "norm")(x), x)
    torch.testing.assert_close(SphericalHarmonics("2x1o", True, "norm")(x), torch.cat([x, x]) / 2)


@pytest.mark.parametrize(("irreps", "vector"), [("0e+1o+2e+3o", "1o"), ("3e+1e", "1e")])
def test_commute_with_every_rotation_and_mirror(irreps, vector):
    layer = SphericalHarmonics(irreps, True)
    assert_equivariant(lambda x: layer(x.mT).mT, [vector], irreps)


def test_the_check_can_fail():
    layer = SphericalHarmonics("1o", True)
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(lambda x: layer(x.mT).mT, ["1o"], "1e")


def test_by_angles():
    angles = torch.randn(2, 5, dtype=torch.float64)
    layer = SphericalHarmonicsAlphaBeta([2, 0], normalization="norm")
    assert layer(*angles).shape == (5, 6)
    torch.testing.assert_close(layer(*angles)[:, :5].square().sum(1), torch.ones(5).double())
    assert SphericalHarmonicsAlphaBeta(Irreps("2x1o")).ls == [1, 1]


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"of 1x1o expects 1o in irreps_out, got 1e"):
        SphericalHarmonics("1e", True, irreps_in="1o")
    with pytest.raises(ValueError, match=r"irreps_in of 1o \(polar\), 1e \(axial\) or 1, got 1x2e"):
        SphericalHarmonics(1, True, irreps_in="2e")
    with pytest.raises(ValueError, match=r"one of component, integral, norm, got 'unit'"):
        SphericalHarmonics(1, True, "unit")
    with pytest.raises(ValueError, match=r"at least one degree >= 0, got \[\]"):
        SphericalHarmonics([], True)
    with pytest.raises(ValueError, match="AlphaBeta expects at least one degree >= 0, got -1"):
        SphericalHarmonicsAlphaBeta(-1)
