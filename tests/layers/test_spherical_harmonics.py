"""equitorch/layers/spherical_harmonics.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import SphericalHarmonics, SphericalHarmonicsAlphaBeta
from equitorch.reps import Irreps
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


def test_has_e3nns_defaults():
    x = torch.tensor([0.0, 0.0, 2.0])
    assert SphericalHarmonics(0, True)(x).item() == pytest.approx(math.sqrt(0.25 / math.pi))
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
    with pytest.raises(ValueError, match=r"irreps_in of 1o \(polar\) or 1e \(axial\), got 1x2e"):
        SphericalHarmonics(1, True, irreps_in="2e")
    with pytest.raises(ValueError, match=r"one of integral, component, norm, got 'unit'"):
        SphericalHarmonics(1, True, "unit")
    with pytest.raises(ValueError, match=r"at least one degree >= 0, got \[\]"):
        SphericalHarmonics([], True)
