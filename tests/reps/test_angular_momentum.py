"""equitorch/reps/angular_momentum.py"""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import so3_generators, su2_generators, wigner_3j
from equitorch.reps.angular_momentum import clebsch_gordan


def triples(lmax):
    degrees = range(lmax + 1)
    return [(a, b, c) for a, b, c in itertools.product(degrees, repeat=3) if abs(a - b) <= c <= a + b]


@pytest.mark.parametrize("l", range(9))
def test_equals_e3nn(o3, l):
    for degrees in triples(8):
        if degrees[0] == l:
            theirs = o3.wigner_3j(*degrees, dtype=torch.float64)
            torch.testing.assert_close(wigner_3j(*degrees), theirs, atol=1e-12, rtol=0)


def test_equals_the_numbers_that_e3nn_had():
    """Stored, signs included: scalar and cross product, and some entries of (1, 1, 2) and (2, 2, 2)."""
    dot = wigner_3j(1, 1, 0)[..., 0]
    torch.testing.assert_close(dot, torch.eye(3, dtype=torch.float64) / 3**0.5)
    cross = wigner_3j(1, 1, 1)
    assert cross[0, 1, 2].item() == pytest.approx(6**-0.5)
    assert cross[1, 0, 2].item() == pytest.approx(-(6**-0.5))
    assert wigner_3j(1, 1, 2)[0, 2, 0].item() == pytest.approx(10**-0.5)
    assert wigner_3j(1, 1, 2)[1, 1, 2].item() == pytest.approx(math.sqrt(2 / 15))
    assert wigner_3j(2, 2, 2)[2, 2, 2].item() == pytest.approx(0.23904572186687872)


def test_exact_coefficients_of_a_textbook():
    """<1 0 1 0 | 2 0> = sqrt(2/3), <1 1 1 -1 | 0 0> = sqrt(1/3), <2 1 1 -1 | 1 0> = sqrt(3/10)."""
    assert clebsch_gordan(1, 1, 2)[1, 1, 2] == pytest.approx(math.sqrt(2 / 3), abs=1e-16)
    assert clebsch_gordan(1, 1, 0)[2, 0, 0] == pytest.approx(math.sqrt(1 / 3), abs=1e-16)
    assert clebsch_gordan(2, 1, 1)[3, 0, 1] == pytest.approx(math.sqrt(3 / 10), abs=1e-16)


@pytest.mark.parametrize("degrees", [(2, 3, 4), (5, 5, 5), (1, 7, 8), (12, 9, 6), (16, 1, 15)])
def test_is_invariant_of_unit_norm(degrees):
    form = wigner_3j(*degrees)
    a, b, c = (so3_generators(l) for l in degrees)
    change = (
        torch.einsum("ijk,ail->aljk", form, a)
        + torch.einsum("ijk,ajl->ailk", form, b)
        + torch.einsum("ijk,akl->aijl", form, c)
    )
    assert change.abs().max() < 1e-12
    torch.testing.assert_close(form.norm(), torch.tensor(1.0, dtype=torch.float64))


@given(st.sampled_from(triples(4)))
def test_exchanging_two_slots_gives_a_sign(degrees):
    l1, l2, l3 = degrees
    swapped = wigner_3j(l2, l1, l3).transpose(0, 1) * (-1) ** (l1 + l2 + l3)
    torch.testing.assert_close(wigner_3j(l1, l2, l3), swapped, atol=1e-15, rtol=0)


@pytest.mark.parametrize("l", range(5))
def test_generators_have_the_commutators_of_rotations(l):
    for x, y, z in (so3_generators(l), su2_generators(l)):
        torch.testing.assert_close(x @ y - y @ x, z)
        torch.testing.assert_close(y @ z - z @ y, x)


def test_hands_out_copies():
    wigner_3j(1, 1, 1).zero_()
    with torch.inference_mode():
        wigner_3j(3, 3, 3)
    assert wigner_3j(1, 1, 1).norm() > 0.9
    assert not wigner_3j(3, 3, 3).is_inference()


def test_is_quick():
    assert wigner_3j(10, 10, 10).count_nonzero() / 21**3 == pytest.approx(0.065, abs=0.005)


@pytest.mark.parametrize("degrees", [(1, 1, 3), (2, 0, 1), (-1, 1, 1)])
def test_says_what_it_expected(degrees):
    with pytest.raises(ValueError, match=r"expects degrees >= 0 with \|l1 - l2\| <= l3 <= l1 \+ l2"):
        wigner_3j(*degrees)
