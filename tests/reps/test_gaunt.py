"""equitorch/reps/gaunt.py"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import wigner_3j
from equitorch.reps.gaunt import bracket_factor, gaunt_coupling, gaunt_factor, path_powers
from equitorch.reps.sphere import harmonics_at

LMAX = 6
TRIPLES = [(a, b, c) for a in range(LMAX + 1) for b in range(LMAX + 1) for c in range(LMAX + 1)]


def sphere(degree):
    """Points and weights of a quadrature that does not come from this library."""
    node, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    around = np.arange(degree + 1) * 2 * math.pi / (degree + 1)
    s = np.sqrt(1 - node**2)[:, None]
    points = np.stack([s * np.sin(around), node[:, None] + 0 * around, s * np.cos(around)], axis=-1)
    weights = np.repeat(weight * 2 * math.pi / (degree + 1), degree + 1)
    return torch.tensor(points).flatten(0, 1), torch.tensor(weights)


@pytest.fixture(scope="module", params=["ours", "e3nn"])
def integrals(request):
    """Of Y Y Y and of Y {Y, Y} up to LMAX by quadrature, and the 3j symbols of the same convention."""
    points, weight = sphere(3 * LMAX)
    if request.param == "ours":
        harmonics, symbol = lambda v: harmonics_at(LMAX, v), wigner_3j
    else:
        o3 = request.getfixturevalue("o3")
        harmonics = lambda v: o3.spherical_harmonics(list(range(LMAX + 1)), v, False, "integral")  # noqa: E731
        symbol = lambda *ls: o3.wigner_3j(*ls, dtype=torch.float64)  # noqa: E731
    values = harmonics(points)
    axes = torch.eye(3, dtype=torch.float64)[:, None].expand(-1, *points.shape)
    slopes = torch.stack([torch.autograd.functional.jvp(harmonics, points, axis)[1] for axis in axes], dim=-1)
    turned = torch.linalg.cross(points[:, None].expand_as(slopes), slopes)  # r x grad, to be met by a grad
    brackets = torch.einsum("pix,pjx->pij", turned, slopes)  # (r x grad Y_i) . grad Y_j
    even = torch.einsum("p,pi,pj,pk->ijk", weight, values, values, values)
    odd = torch.einsum("p,pij,pk->ijk", weight, brackets, values)
    return even, odd, symbol


def block(tensor, ls):
    return tensor[tuple(slice(l * l, (l + 1) ** 2) for l in ls)]


def test_every_triple_is_the_integral_of_three_harmonics(integrals):
    """Signs included: every factor is positive in this basis."""
    even, odd, symbol = integrals
    counts = [0, 0]
    for ls in TRIPLES:
        k, h = gaunt_factor(*ls), bracket_factor(*ls)
        broken = not abs(ls[0] - ls[1]) <= ls[2] <= ls[0] + ls[1]
        assert not (broken and (k or h))
        joined = torch.zeros(1, dtype=torch.float64) if broken else symbol(*ls).to(torch.float64)
        assert k >= 0
        assert h >= 0
        torch.testing.assert_close(
            block(even, ls), (k * joined).expand_as(block(even, ls)), atol=1e-12, rtol=0
        )
        torch.testing.assert_close(block(odd, ls), (h * joined).expand_as(block(odd, ls)), atol=1e-11, rtol=0)
        counts[0] += k > 0
        counts[1] += h > 0
    assert counts == [106, 69]


def test_the_check_can_fail(integrals):
    even, _, symbol = integrals
    wrong = -gaunt_factor(2, 3, 5) * symbol(2, 3, 5).to(torch.float64)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(block(even, (2, 3, 5)), wrong, atol=1e-12, rtol=0)


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_couplings_hold_all_triples(integrals, parity):
    """Slots of different sizes, so that none is mistaken for another."""
    expected = integrals[parity == "odd"][:16, :36, :25]
    ours = gaunt_coupling(3, 5, 4, parity).dense()
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, expected, atol=1e-11, rtol=0)


def test_known_numbers():
    cross = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, j, k in [(0, 1, 2), (1, 2, 0), (2, 0, 1)]:
        cross[i, j, k], cross[j, i, k] = 1, -1
    whole = gaunt_coupling(1, 1, 1, "odd").dense()
    torch.testing.assert_close(whole[1:, 1:, 1:], math.sqrt(3 / (4 * math.pi)) * cross)  # 0.4886
    assert whole.abs().sum() == whole[1:, 1:, 1:].abs().sum()
    assert gaunt_factor(0, 4, 4) == pytest.approx(3 / math.sqrt(4 * math.pi), rel=1e-14)


@pytest.mark.parametrize(("lmax", "even", "odd"), [(2, 11, 4), (3, 23, 11), (4, 42, 23), (6, 106, 69)])
def test_numbers_of_paths(lmax, even, odd):
    triples = [ls for ls in TRIPLES if max(ls) <= lmax]
    assert sum(gaunt_factor(*ls) > 0 for ls in triples) == even
    assert sum(bracket_factor(*ls) > 0 for ls in triples) == odd
    scaled = [
        bracket_factor(*ls) / math.sqrt(ls[0] * (ls[0] + 1) * ls[1] * (ls[1] + 1))
        for ls in triples
        if bracket_factor(*ls)
    ]
    for factors in ([gaunt_factor(*ls) for ls in triples if gaunt_factor(*ls)], scaled):
        assert 0.2 < min(factors) < max(factors) < 1.31


def test_knows_the_published_deviations():
    for lmax, even, odd in (
        (2, [0.716, 0.477, 0.368], [0, 0.186, 0.239]),
        (4, [1.989, 1.592, 1.399, 1.109, 0.909], [0, 0.268, 0.517, 0.691, 0.655]),
    ):
        for kind, expected in (("even", even), ("odd", odd)):
            found = path_powers(lmax, lmax, lmax, kind).sum((0, 1))
            torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=6e-4)


@given(st.permutations([0, 1, 2]))
def test_even_is_symmetric_and_odd_antisymmetric(order):
    sign = np.linalg.det(np.eye(3)[list(order)])
    even, odd = (gaunt_coupling(4, 4, 4, parity).dense() for parity in ("even", "odd"))
    torch.testing.assert_close(even.permute(order), even, atol=1e-13, rtol=0)
    torch.testing.assert_close(odd.permute(order), sign * odd, atol=1e-12, rtol=0)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.permutations([0, 1, 2]))
def test_factors_are_symmetric_as_far_as_they_are(l1, l2, l3, order):
    ls = (l1, l2, l3)
    assert gaunt_factor(*ls) == pytest.approx(gaunt_factor(*(ls[i] for i in order)), rel=1e-12)
    assert bracket_factor(*ls) == pytest.approx(bracket_factor(l2, l1, l3), rel=1e-12)


def test_holds_at_high_degrees():
    """Sums of exact integers: alternating floats would lose all digits here. Against scipy."""
    special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
    node, weight = np.polynomial.legendre.leggauss(80)
    for ls in [(20, 24, 30), (40, 30, 50), (33, 33, 66)]:
        three = math.prod(math.sqrt((2 * l + 1) / (4 * math.pi)) * special.eval_legendre(l, node) for l in ls)
        symbol = 2 * math.pi * (weight * three).sum()  # of orders 0, 0, 0: density times the square
        density = math.prod(2 * l + 1 for l in ls) / (4 * math.pi)
        assert gaunt_factor(*ls) == pytest.approx(math.sqrt(symbol * math.sqrt(density)), rel=1e-9)


@pytest.mark.parametrize("arguments", [(1, 1, -1), (-1, 1, 1), (1, 1, 1, "both"), (1, 1, 1, None)])
def test_says_what_it_expected(arguments):
    with pytest.raises(
        ValueError, match="gaunt_coupling expects degrees >= 0 and parity 'even' or 'odd', got"
    ):
        gaunt_coupling(*arguments)
