"""equitorch/reps/hom.py"""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from equitorch.reps import (
    Automorphism,
    CartesianTensor,
    ChangedBasis,
    DirectSum,
    Dual,
    Irrep,
    Irreps,
    KroneckerProduct,
    Outer,
    TensorPower,
    hom_basis,
    hom_dim,
    intertwiners,
)
from equitorch.testing import random_elements
from tests.strategies import random

SQUARE = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
GROUPS = [
    *itertools.product(["S", "A", "B", "O", "SO"], range(1, 7)),
    *itertools.product(["Sp"], (2, 4, 6)),
    *[("O(1,1)", 2), ("O(1,2)", 3), ("O(2,2)", 4), ("O(1,3)", 4)],
    *[("SO(1,1)", 2), ("SO(1,2)", 3), ("SO(2,2)", 4), ("SO(1,3)", 4)],
    (SQUARE, 4),
]
SMALL = [(group, n) for group, n in GROUPS if n <= 4]


def monomial_traces(group, n):
    """Traces of all elements of a finite group."""
    if isinstance(group, Automorphism):
        return [sum(g[i] == i for i in range(n)) for g in group.elements()]
    traces = []
    for g in itertools.permutations(range(n)):
        odd = sum(a > b for a, b in itertools.combinations(g, 2)) % 2
        fixed = sum(g[i] == i for i in range(n))
        if group == "B":
            traces += [sum(signs) for signs in itertools.product((1, -1), repeat=fixed)] * 2 ** (n - fixed)
        elif group == "S" or not odd:
            traces.append(fixed)
    return traces


def mean_over_angles(angles, trace, density, m):
    """The average of trace^m over a torus with Weyl's density; a sum over 32 points an angle is exact."""
    theta = 2 * math.pi * (np.arange(32) + 0.5) / 32
    grid = np.meshgrid(*[theta] * angles, indexing="ij") if angles else []
    cosines = [np.cos(t) for t in grid]
    weight = math.prod([(a - b) ** 2 for a, b in itertools.combinations(cosines, 2)], start=np.float64(1))
    weight = weight * math.prod([density(t) for t in grid], start=np.float64(1))
    value = trace + 2 * sum(cosines, start=np.float64(0))
    weight = np.broadcast_to(weight, value.shape)
    return (weight * value**m).sum() / weight.sum()


def character_average(group, n, m):
    """The mean of trace^m: over all elements, or by Weyl's formula for the compact form of the group."""
    if group in ("S", "A", "B") or isinstance(group, Automorphism):
        traces = monomial_traces(group, n)
        return sum(trace**m for trace in traces) / len(traces)
    name, r = str(group).split("(")[0], n // 2
    one = lambda t: 1.0  # noqa: E731
    if name == "Sp":
        return mean_over_angles(r, 0, lambda t: np.sin(t) ** 2, m)
    if n % 2:
        proper = mean_over_angles(r, 1, lambda t: 1 - np.cos(t), m)
        improper = mean_over_angles(r, -1, lambda t: 1 + np.cos(t), m)
    else:
        proper = mean_over_angles(r, 0, one, m)
        improper = mean_over_angles(r - 1, 0, lambda t: np.sin(t) ** 2, m)
    return proper if name == "SO" else (proper + improper) / 2


def commutes(maps, x, y, atol=1e-10):
    for a, b in zip(x.discrete_generators(), y.discrete_generators(), strict=True):
        torch.testing.assert_close(b @ maps, maps @ a, atol=atol, rtol=0)
    for a, b in zip(x.lie_generators(), y.lie_generators(), strict=True):
        torch.testing.assert_close(b @ maps, maps @ a, atol=atol, rtol=0)


def same_span(a, b):
    """Whether each of two sets of matrices is a combination of the other's."""
    a, b = a.flatten(1), b.flatten(1)
    for x, y in ((a, b), (b, a)):
        if len(x) and not len(y):
            return False
        if len(x):
            back = torch.linalg.lstsq(y.T, x.T, driver="gelsd").solution
            if (y.T @ back - x.T).abs().max() > 1e-8:
                return False
    return True


@pytest.mark.parametrize(("group", "n"), GROUPS)
def test_dimensions_are_averages_of_characters(group, n):
    for m in range(7):
        expected = character_average(group, n, m)
        assert abs(expected - round(expected)) < 1e-6
        if n**m <= 1 << 16 or not isinstance(group, Automorphism):
            for k in {0, m // 2, m}:
                assert hom_dim(TensorPower(group, n, k), TensorPower(group, n, m - k)) == round(expected)


@pytest.mark.parametrize(("group", "n"), SMALL)
def test_spans_what_commutes_with_the_generators(group, n):
    """Both ways: diagrams are in the null space, and the null space is in their span."""
    for k, l in itertools.product(range(4), range(4)):
        x, y = TensorPower(group, n, k), TensorPower(group, n, l)
        if n ** (k + l) > 256:
            continue
        null = intertwiners(x, y)
        for basis in ("minimal", "spanning"):
            maps = hom_basis(x, y, basis=basis)
            assert maps.shape[1:] == (y.dim, x.dim)
            assert maps.is_contiguous()
            assert same_span(maps, null)
            assert len(maps) >= len(null) == hom_dim(x, y)
        assert len(hom_basis(x, y)) == len(null)


@pytest.mark.parametrize(("group", "n"), GROUPS)
def test_commutes_with_generators_and_elements(group, n):
    for k, l in [(0, 3), (1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (3, 3)]:
        if n ** (k + l) > 800:
            continue
        x, y = TensorPower(group, n, k), TensorPower(group, n, l)
        maps = hom_basis(x, y, basis="spanning")
        commutes(maps, x, y)
        for g in random_elements(x.group, torch.Generator().manual_seed(k)):
            scale = max(1.0, float(torch.linalg.matrix_norm(g, 2))) ** (k + l)
            torch.testing.assert_close(y.matrix(g) @ maps, maps @ x.matrix(g), atol=1e-11 * scale, rtol=0)


def test_interleaved_symplectic_maps():
    x, y = (TensorPower("Sp", 4, k, form="interleaved") for k in (2, 2))
    commutes(hom_basis(x, y, basis="spanning"), x, y)
    assert same_span(hom_basis(x, y), intertwiners(x, y))


def test_symmetric_tensors():
    """Sequences known from outside; the two elastic constants; the null space."""
    for n, expected in zip((2, 3, 4, 5), (5, 8, 9, 9), strict=True):
        x = TensorPower("S", n, 2, symmetric=True)
        assert hom_dim(x, x) == expected
    lame = TensorPower("O", 3, 2, symmetric=True)
    assert hom_dim(lame, lame) == len(hom_basis(lame, lame)) == 2
    elastic = CartesianTensor("ijkl=jikl=klij")
    assert hom_dim(elastic, elastic) == 9
    assert hom_dim(lame, elastic) == hom_dim(elastic, CartesianTensor("ij=ji")) == 4
    for group, n in [("S", 3), ("A", 3), ("B", 2), ("SO", 3), ("Sp", 2), ("O(1,2)", 3), (SQUARE, 4)]:
        x, y = TensorPower(group, n, 3, symmetric=True), TensorPower(group, n, 2, symmetric=True)
        for a, b in ((x, y), (y, y), (y, TensorPower(group, n, 1))):
            maps = hom_basis(a, b)
            commutes(maps, a, b)
            assert len(maps) == hom_dim(a, b)
            assert same_span(maps, intertwiners(a, b))


def test_meets_irreps():
    """3, 15 and 91 maps of tensors in space with k = l = 2, 3, 4; at 4 the 105 diagrams are dependent."""
    for order, expected in ((2, 3), (3, 15), (4, 91)):
        power = TensorPower("O", 3, order)
        assert (
            hom_dim(power, power) == hom_dim(power, power.irreps) == hom_dim(power.irreps, power) == expected
        )
    power = TensorPower("SO", 3, 2)
    for other in (Irreps("1"), Irrep("2"), CartesianTensor("ij=-ji", group="SO(3)"), TensorPower("SO", 3, 3)):
        for x, y in ((power, other), (other, power)):
            commutes(hom_basis(x, y), x, y)
            assert same_span(hom_basis(x, y), intertwiners(x, y))
            assert hom_dim(x, y) == len(intertwiners(x, y))
    mixed = DirectSum((Irreps("0e+2x1o"), TensorPower("O", 3, 2)))
    assert (
        hom_dim(mixed, mixed)
        == len(intertwiners(mixed, mixed))
        == len(hom_basis(mixed, mixed))
        == 1 + 4 + 2 + 3
    )
    assert same_span(hom_basis(mixed, mixed), intertwiners(mixed, mixed))


def test_sums_products_duals_and_other_bases():
    """Every way to make representations, against the null space of the generators."""
    for group, n in (("S", 3), ("SO", 2), ("Sp", 2), ("O(1,2)", 3), (SQUARE, 4)):
        v, w = TensorPower(group, n, 1), TensorPower(group, n, 2)
        turned = ChangedBasis(v, torch.eye(n, dtype=torch.float64) + 0.1 * random(0, n, n))
        scalar = TensorPower(group, n, 0)
        reps = [
            DirectSum((scalar, v)),
            KroneckerProduct((v, v)),
            Dual(v),
            Dual(DirectSum((v, scalar))),
            turned,
        ]
        reps += [Dual(turned), KroneckerProduct((Dual(v), turned)), TensorPower(group, n, 2, symmetric=True)]
        for x, y in itertools.product(reps, [v, w, *reps[:4]]):
            maps = hom_basis(x, y)
            commutes(maps, x, y)
            assert len(maps) == hom_dim(x, y) == len(intertwiners(x, y))
            assert same_span(maps, intertwiners(x, y))


def test_products_of_groups_are_products_of_maps():
    x = Outer(TensorPower("S", 4, 1), TensorPower("O", 3, 1))
    y = Outer(TensorPower("S", 4, 2), TensorPower("O", 3, 1))
    assert hom_dim(x, y) == 5
    maps = hom_basis(x, y)
    commutes(maps, x, y)
    assert same_span(maps, intertwiners(x, y))
    dual = Outer(TensorPower("S", 2, 1), Dual(TensorPower("Sp", 2, 1)))
    assert hom_dim(dual, Outer(TensorPower("S", 2, 2), DirectSum((TensorPower("Sp", 2, 1),)))) == 4


def test_the_check_can_fail():
    """A span with one map less is noticed."""
    x = TensorPower("S", 3, 2)
    maps = hom_basis(x, x)
    assert not same_span(maps[1:], intertwiners(x, x))
    wrong = TensorPower("SO", 3, 2)
    with pytest.raises(AssertionError):
        commutes(hom_basis(x, x), wrong, wrong)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"of one group, got .* of S\(3\), .* of S\(4\)"):
        hom_dim(TensorPower("S", 3, 1), TensorPower("S", 4, 1))
    with pytest.raises(ValueError, match=r"expected representations such as Irreps\('1o'\) .*, got '1o'"):
        hom_dim("1o", "1o")
    with pytest.raises(ValueError, match="expects basis to be minimal or spanning, got 'all'"):
        hom_basis(TensorPower("S", 3, 1), TensorPower("S", 3, 1), basis="all")
    other = SimpleNamespace(group="O(3)", dim=81)  # of some kind that nothing is known of
    with pytest.raises(ValueError, match=r"no diagrams are known .* 81 x 81 entries are too many"):
        hom_dim(other, other)
    with pytest.raises(ValueError, match=r"hold 15 maps of 4096 x 4096 entries, too many .*DiagramLinear"):
        hom_basis(TensorPower("S", 64, 2), TensorPower("S", 64, 2))
    with pytest.raises(ValueError, match=r"hold 4213597 maps of 1 x 1 entries, too many"):
        hom_basis(TensorPower("S", 1, 6), TensorPower("S", 1, 6), basis="spanning")
    with pytest.raises(ValueError, match="too many to write down"):
        hom_basis(Dual(TensorPower("Sp", 50, 4)), TensorPower("Sp", 50, 0))
