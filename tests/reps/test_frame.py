"""equitorch/reps/frame.py: maps of every kind of representation against null spaces of generators."""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from equitorch.reps import (
    Automorphism,
    CartesianTensor,
    ChangedBasis,
    DirectSum,
    Dual,
    Irreps,
    KroneckerProduct,
    Outer,
    TensorPower,
    hom_basis,
    hom_dim,
)
from equitorch.reps.frame import frame_of

# Groups are written down again here, with more generators than they need.


def permutation_matrix(p):
    return np.eye(len(p))[:, list(p)]


def elements_of(group, n, form="block", rng=None):
    """Elements that generate the group, densely where it is continuous."""
    rng = np.random.default_rng(0) if rng is None else rng
    if isinstance(group, Automorphism):
        return [permutation_matrix(p) for p in group.generators]
    if group in ("S", "B"):
        found = [permutation_matrix([*range(i), i + 1, i, *range(i + 2, n)]) for i in range(n - 1)]
        return found + [np.diag([1.0] * (n - 1) + [-1.0])] * (group == "B")
    if group == "A":
        triples = itertools.combinations(range(n), 3)
        return [permutation_matrix([{a: b, b: c, c: a}.get(i, i) for i in range(n)]) for a, b, c in triples]
    if group == "Sp":
        cell, half = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.eye(n // 2)
        omega = np.kron(cell, half) if form == "block" else np.kron(half, cell)
        symmetric = [a + a.T for a in 0.3 * rng.normal(size=(3, n, n))]
        return [expm(np.linalg.solve(omega, a)) for a in symmetric]
    name, _, signature = group.partition("(")
    p = int(signature.split(",")[0]) if signature else n
    eta = np.diag([1.0] * p + [-1.0] * (n - p))
    mirrors = [np.diag(1.0 - 2 * np.eye(n)[i]) for i in range(n)]
    flips = mirrors if name == "O" else [a @ b for a, b in itertools.combinations(mirrors, 2)]
    return [expm(eta @ (a - a.T)) for a in 0.3 * rng.normal(size=(3, n, n))] + flips


def commuting_maps(x, y, elements):
    """All maps with y(g) T == T x(g), solved for without any knowledge of them. Shape (count, entries)."""
    square = np.zeros((x.dim * y.dim,) * 2)
    for g in elements:
        a, b = (rep.matrix(torch.tensor(g)).numpy() for rep in (x, y))
        condition = np.kron(b, np.eye(x.dim)) - np.kron(np.eye(y.dim), a.T)
        square += condition.T @ condition / max(1.0, np.abs(condition).max()) ** 2
    values, vectors = np.linalg.eigh(square)
    return vectors[:, values < 1e-9].T


def assert_all_maps(x, y, elements):
    null = commuting_maps(x, y, elements)
    assert hom_dim(x, y) == len(null)
    for basis in ("minimal", "spanning"):
        maps = hom_basis(x, y, basis=basis)
        assert maps.dtype == torch.float64
        assert maps.shape[1:] == (y.dim, x.dim)
        assert len(maps) == len(null) or basis == "spanning"
        flat = maps.flatten(1).numpy()
        scale = max(1.0, np.abs(flat).max(initial=0))
        assert np.abs(flat - flat @ null.T @ null).max(initial=0) < 1e-7 * scale  # no map too many
        rank = np.linalg.matrix_rank(flat, tol=1e-8) if len(flat) else 0
        assert rank == len(null)  # none too few
        for g in elements:
            a, b = (rep.matrix(torch.tensor(g)) for rep in (x, y))
            after, before = b @ maps, maps @ a
            scale = max(1.0, float(after.abs().max())) if len(maps) else 1.0
            torch.testing.assert_close(after, before, atol=1e-11 * scale, rtol=0)


PENTAGON = Automorphism([(1, 2, 3, 4, 0), (0, 4, 3, 2, 1)])
CYCLE = Automorphism([(1, 2, 3, 0)])
ALONE = Automorphism([(0, 1, 2)])
FAMILIES = [
    *((g, n) for g in ("S", "A", "B", "O", "SO") for n in (1, 2, 3, 4)),
    *[("S", 5), ("A", 5), ("SO", 5), ("Sp", 2), ("Sp", 4), ("O(1,1)", 2), ("SO(1,1)", 2), ("O(1,2)", 3)],
    *[("SO(2,1)", 3), ("O(2,2)", 4), ("SO(2,2)", 4), ("SO(1,3)", 4), ("O(3,1)", 4), ("O(1,4)", 5)],
    *[(PENTAGON, 5), (CYCLE, 4), (ALONE, 3)],
]


@pytest.mark.parametrize(("group", "n"), FAMILIES)
def test_powers_have_all_the_maps(group, n):
    for form in ("block", "interleaved") if group == "Sp" else ("block",):
        elements = elements_of(group, n, form)
        for k, l in itertools.product(range(5), range(5)):
            if n ** (k + l) <= (260 if n > 1 else 1) and (k, l) != (4, 4):
                x, y = (TensorPower(group, n, order, form=form) for order in (k, l))
                assert_all_maps(x, y, elements)


@pytest.mark.parametrize(("group", "n"), [("S", 6), ("O(1,2)", 3), ("Sp", 2)])
def test_large_powers_have_all_the_maps(group, n):
    """Of more than a thousand entries."""
    orders = {6: (2, 2), 3: (4, 2), 2: (5, 5)}[n]
    x, y = (TensorPower(group, n, order) for order in orders)
    elements = elements_of(group, n)[:5]
    null = commuting_maps(x, y, elements)
    flat = hom_basis(x, y).flatten(1).numpy()
    assert len(flat) == len(null) == np.linalg.matrix_rank(flat)
    np.testing.assert_allclose(flat @ null.T @ null, flat, atol=1e-8)


def turned(rep, rng):
    noise = torch.tensor(rng.normal(size=(rep.dim, rep.dim)))
    return ChangedBasis(rep, torch.eye(rep.dim, dtype=torch.float64) + 0.2 * noise)


def mixtures(group, n, rng):
    v, w, one = (TensorPower(group, n, order) for order in (1, 2, 0))
    rows = np.linalg.qr(rng.normal(size=(n, n)))[0]
    part = ChangedBasis(DirectSum((v, one)), torch.tensor(np.hstack([rows, np.zeros((n, 1))])))
    return [
        v,
        TensorPower(group, n, 3, symmetric=True),
        DirectSum((one, DirectSum((v, w)))),
        KroneckerProduct((v, DirectSum((one, Dual(v))), v)),
        Dual(KroneckerProduct((Dual(v), TensorPower(group, n, 2, symmetric=True)))),
        turned(DirectSum((v, one)), rng),
        Dual(turned(w, rng)),
        part,
        KroneckerProduct((part, v)),
    ]


@pytest.mark.parametrize(
    ("group", "n"),
    [("S", 3), ("A", 3), ("B", 2), ("O", 2), ("SO", 3), ("Sp", 2), ("O(1,1)", 2), ("SO(1,2)", 3), (CYCLE, 4)],
)
def test_mixtures_have_all_the_maps(group, n):
    reps = mixtures(group, n, np.random.default_rng(1))
    elements = elements_of(group, n)
    for x, y in itertools.product(reps, reps):
        if x.dim * y.dim <= 180:
            assert_all_maps(x, y, elements)


def test_irreps_and_powers_have_all_the_maps():
    for group, names in (("O", ("0e+1o", "2x1o+2e", "1e")), ("SO", ("0+1", "2", "3+2x1"))):
        irreps = list(map(Irreps, names))
        elements = elements_of(group, 3)
        v = TensorPower(group, 3, 1)
        others = [
            v,
            TensorPower(group, 3, 2),
            TensorPower(group, 3, 2, symmetric=True),
            DirectSum((irreps[0], v)),
        ]
        others += [KroneckerProduct((irreps[0], v)), KroneckerProduct((irreps[1], irreps[0]))]
        others += [CartesianTensor("ij=-ji", group=f"{group}(3)"), Dual(irreps[1])]
        for x, y in itertools.product(irreps, others):
            if x.dim * y.dim <= 150:
                assert_all_maps(x, y, elements)
                assert_all_maps(y, x, elements)


def test_products_of_groups_have_all_the_maps():
    """Nested ones, sums, products and duals of them; under elements of one factor after the other."""
    for (g, n), (h, p) in [(("S", 3), ("O", 2)), (("SO", 2), ("Sp", 2)), ((CYCLE, 4), ("O(1,1)", 2))]:
        a, b, one = TensorPower(g, n, 1), TensorPower(h, p, 1), TensorPower(h, p, 0)
        elements = [
            np.block([[x, np.zeros((n, p))], [np.zeros((p, n)), np.eye(p)]]) for x in elements_of(g, n)
        ]
        elements += [
            np.block([[np.eye(n), np.zeros((n, p))], [np.zeros((p, n)), y]]) for y in elements_of(h, p)
        ]
        ab, a1 = Outer(a, b), Outer(a, one)
        reps = [
            ab,
            a1,
            DirectSum((ab, a1)),
            Dual(ab),
            KroneckerProduct((ab, a1)),
            Outer(a, DirectSum((b, one))),
        ]
        for x, y in itertools.product(reps, reps):
            if x.dim * y.dim <= 150:
                assert_all_maps(x, y, elements)
    s, o, c = TensorPower("S", 3, 1), TensorPower("O", 2, 2), TensorPower("B", 2, 1)
    assert hom_dim(Outer(s, Outer(o, c)), Outer(Outer(s, o), c)) == 2 * 3 * 1
    assert len(hom_basis(Outer(s, Outer(o, c)), Outer(Outer(s, o), c))) == 6


def test_frames_are_changes_of_basis():
    v, ir = TensorPower("O", 3, 1), Irreps("0e+1o")
    reps = [KroneckerProduct((v, DirectSum((ir, v)), Irreps("2e"))), Dual(KroneckerProduct((ir, ir)))]
    reps += [KroneckerProduct((Outer(v, TensorPower("S", 3, 1)), Outer(ir, TensorPower("S", 3, 2))))]
    for rep in reps:
        frame = frame_of(rep)
        down, up = frame.matrices()
        for here, there in [
            (rep.lie_generators(), frame.rep.lie_generators()),
            (rep.discrete_generators(), frame.rep.discrete_generators()),
        ]:
            torch.testing.assert_close(down @ there @ up, here, atol=1e-10, rtol=0)
        torch.testing.assert_close(up @ down, torch.eye(rep.dim, dtype=torch.float64), atol=1e-10, rtol=0)


def test_large_products_need_no_null_space():
    four = KroneckerProduct((Irreps("4e"), Irreps("4e")))
    assert hom_dim(four, four) == len(hom_basis(four, four)) == 9
    v = TensorPower("S", 6, 1)
    x = KroneckerProduct((v, DirectSum((v, TensorPower("S", 6, 2)))))
    assert hom_dim(x, x) == len(hom_basis(x, x)) == 15 + 2 * 52 + 203


def test_small_parts_of_large_powers():
    """8256 maps of 64 x 256 entries are too many, their parts of 20 x 35 are not."""
    group = Automorphism([(1, 0, 2, 3)])
    x, y = (TensorPower(group, 4, k, symmetric=True) for k in (4, 3))
    assert len(hom_basis(x, y)) == hom_dim(x, y) == (35 * 20 + 9 * 6) // 2  # the exchange has traces 9, 6


def test_symmetric_maps_that_vanish_are_exactly_zero():
    """Their places are those of the diagrams."""
    x, y = (TensorPower("SO", 3, k, symmetric=True) for k in (2, 3))
    maps = hom_basis(x, y, basis="spanning")
    assert len(maps) == 10
    assert not maps.any()


def test_the_check_can_fail():
    x = TensorPower("SO", 3, 2)
    assert len(commuting_maps(x, x, elements_of("SO", 3))) == 3
    assert len(commuting_maps(x, x, elements_of("O", 3)[-1:])) > 3  # one mirror alone
    with pytest.raises(AssertionError):
        assert_all_maps(x, TensorPower("SO", 3, 1), elements_of("O", 3))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"from Tensor.* would hold 1 maps of .* entries, too many"):
        frame_of(TensorPower("O", 50, 4, symmetric=True))
