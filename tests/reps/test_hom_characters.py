"""equitorch/reps/multiplicity.py: dimensions of equivariant maps against means of characters."""

import itertools
import math
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from equitorch.reps import (
    Automorphism,
    Dual,
    KroneckerProduct,
    TensorPower,
    hom_dim,
)
from equitorch.reps.multiplicity import count_symmetric

# A class of a finite group is its share of the group and its traces of powers; a component of a compact group
# is Weyl's formula and its eigenvalues: signs, and exponents of the phases of the maximal torus.


def cycle_types(n, largest=None):
    if n == 0:
        yield ()
    for first in range(min(n, largest or n), 0, -1):
        for rest in cycle_types(n - first, first):
            yield (first, *rest)


def share_of(cycles):
    """One over the size of the centraliser."""
    repeats = math.prod(math.factorial(times) for times in Counter(cycles).values())
    return Fraction(1, math.prod(cycles) * repeats)


def finite_classes(group, n):
    """Shares of the group, and traces of powers, of every class of S, A or B."""
    for cycles in cycle_types(n):
        odd = sum(c - 1 for c in cycles) % 2
        if group == "A" and n > 1 and odd:
            continue
        share = share_of(cycles) * (2 if group == "A" and n > 1 else 1)
        if group == "B":
            for signs in itertools.product((1, -1), repeat=len(cycles)):
                yield share / 2 ** len(cycles), signed_traces(cycles, signs)
        else:
            yield share, signed_traces(cycles, (1,) * len(cycles))


def signed_traces(cycles, signs):
    return lambda j: sum(c * s ** (j // c) for c, s in zip(cycles, signs, strict=True) if j % c == 0)


def homogeneous(traces, k):
    """The trace on symmetric tensors of order k, by Newton: k h_k = sum p_j h_(k-j)."""
    h = [Fraction(1)]
    for size in range(1, k + 1):
        h.append(sum(traces(j) * h[size - j] for j in range(1, size + 1)) / size)
    return h[k]


def multiply(f, g):
    product = Counter()
    for (a, i), (b, j) in itertools.product(f.items(), g.items()):
        product[tuple(x + y for x, y in zip(a, b, strict=True))] += i * j
    return product


def constant_term(rank, kind, f):
    """The mean of a symmetric Laurent polynomial over a compact group, by Weyl's formula.

    The constant term of f times the product of 1 - e^root over positive roots; whole numbers only.
    """
    unit = np.eye(rank, dtype=int)
    roots = [unit[i] + s * unit[j] for i, j in itertools.combinations(range(rank), 2) for s in (1, -1)]
    roots += [{"odd": 1, "even": 0, "Sp": 2}[kind] * e for e in unit if kind != "even"]
    for root in roots:
        f = multiply(f, Counter({(0,) * rank: 1, tuple(root.tolist()): -1}))
    return f[(0,) * rank]


def spectrum(rank, signs=()):
    """Eigenvalues: both phases of each angle, and some signs."""
    unit = np.eye(rank, dtype=int)
    phases = [(1, tuple((s * e).tolist())) for e in unit for s in (1, -1)]
    return phases + [(sign, (0,) * rank) for sign in signs]


def symmetric_character(eigenvalues, k, rank):
    """The trace on symmetric tensors of order k: all monomials in the eigenvalues."""
    table = [Counter({(0,) * rank: 1})] + [Counter() for _ in range(k)]
    for sign, exponent in eigenvalues:
        for size in range(1, k + 1):
            for where, count in list(table[size - 1].items()):
                table[size][tuple(a + b for a, b in zip(where, exponent, strict=True))] += sign * count
    return table[k]


def components(group, n):
    """Rank, kind of Weyl's formula and eigenvalues for each component of the compact group."""
    r = n // 2
    if group == "Sp":
        return [(r, "Sp", spectrum(r))]
    if n % 2:
        found = [(r, "odd", spectrum(r, (1,)))]
        minus = [(-sign, exponent) for sign, exponent in found[0][2]]
        return found + ([(r, "odd", minus)] if group == "O" else [])
    found = [(r, "even", spectrum(r))]
    return found + ([(r - 1, "Sp", spectrum(r - 1, (1, -1)))] if group == "O" else [])


def mean_of_characters(group, n, orders):
    """The dimension of the invariants of a product of symmetric powers."""
    if group in ("S", "A", "B"):
        return sum(
            share * math.prod(homogeneous(traces, k) for k in orders)
            for share, traces in finite_classes(group, n)
        )
    means = []
    for rank, kind, eigenvalues in components(group, n):
        f = Counter({(0,) * rank: 1})
        for k in orders:
            f = multiply(f, symmetric_character(eigenvalues, k, rank))
        means.append(constant_term(rank, kind, f))
    return Fraction(sum(means), len(means))


CLASSICAL = [(g, n) for g in ("S", "A", "B", "O", "SO", "Sp") for n in range(1, 7) if g != "Sp" or n % 2 == 0]


@pytest.mark.parametrize(("group", "n"), CLASSICAL)
def test_dimensions_are_means_of_characters(group, n):
    """Every split l + k <= 6 into outputs and inputs; the non-compact forms have the same numbers."""
    forms = [group] if group not in ("O", "SO") else [group, *(f"{group}({n - q},{q})" for q in range(1, n))]
    for m in range(7):
        expected = mean_of_characters(group, n, (1,) * m)
        assert expected.denominator == 1
        for k, form in itertools.product(range(m + 1), forms):
            assert hom_dim(TensorPower(form, n, k), TensorPower(form, n, m - k)) == expected


@pytest.mark.parametrize(("group", "n"), [case for case in CLASSICAL if case[1] <= 4])
def test_dimensions_of_symmetric_tensors_are_means_of_characters(group, n):
    for orders in [(2,), (3,), (4,), (2, 1), (2, 2), (3, 2), (3, 1, 1), (2, 2, 2), (4, 2), (3, 3)]:
        assert count_symmetric(group, n, orders) == mean_of_characters(group, n, orders)
    for k, l in itertools.product(range(5), range(4)):
        x, y = TensorPower(group, n, k, symmetric=True), TensorPower(group, n, l, symmetric=l != 2)
        orders = (k, *((l,) if l != 2 else (1, 1)))
        assert hom_dim(x, y) == hom_dim(y, x) == mean_of_characters(group, n, orders)


def brute_symmetries(matrix, colours):
    """Every permutation tried."""
    n = len(matrix)
    return [
        p
        for p in itertools.permutations(range(n))
        if all(colours[p[i]] == colours[i] for i in range(n))
        and all(matrix[p[i], p[j]] == matrix[i, j] for i in range(n) for j in range(n))
    ]


def traces_of(permutation):
    power = tuple(range(len(permutation)))

    def traces(j):
        here = power
        for _ in range(j):
            here = tuple(permutation[i] for i in here)
        return sum(a == b for a, b in enumerate(here))

    return traces


@pytest.mark.parametrize("seed", range(12))
def test_dimensions_for_graphs_are_means_of_characters(seed):
    """Directed, undirected, weighted, coloured, disconnected and asymmetric ones."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    matrix = rng.integers(0, 2 + seed % 2, (n, n)) * (rng.uniform(size=(n, n)) < (0.2, 0.5, 0.9)[seed % 3])
    matrix = matrix if seed % 4 == 0 else matrix + matrix.T
    colours = rng.integers(0, 2, n) if seed % 5 == 0 else np.zeros(n)
    every = brute_symmetries(matrix, colours)
    group = Automorphism(matrix, colours=colours.tolist())
    assert group.size == len(every)
    fixed = [sum(a == b for a, b in enumerate(p)) for p in every]
    for m in range(7):
        for k in {0, m // 2, m}:
            x, y = TensorPower(group, n, k), TensorPower(group, n, m - k)
            assert hom_dim(x, y) * len(every) == sum(f**m for f in fixed)
    for k, l in itertools.product(range(4), range(3)):
        x, y = (TensorPower(group, n, order, symmetric=True) for order in (k, l))
        mean = sum(homogeneous(traces_of(p), k) * homogeneous(traces_of(p), l) for p in every) / len(every)
        assert hom_dim(x, y) == mean


def test_dimensions_at_large_n_cost_nothing():
    """Orders that add up to 8 in 50 dimensions, in a few milliseconds of processor time."""
    times = []
    for group, expected in (
        ("S", 4140),
        ("A", 4140),
        ("B", 379),
        ("O", 105),
        ("SO(25,25)", 105),
        ("Sp", 105),
    ):
        x = TensorPower(group, 50, 4)
        square = KroneckerProduct((TensorPower(group, 50, 2),) * 2)
        s = TensorPower(group, 50, 4, symmetric=True)
        start = time.process_time()
        assert hom_dim(x, x) == hom_dim(Dual(x), square) == expected
        assert 0 < hom_dim(s, s) < expected
        times.append(time.process_time() - start)
    assert max(times) < 0.1


def test_the_check_can_fail():
    assert mean_of_characters("SO", 3, (1,) * 5) == 6 != mean_of_characters("O", 3, (1,) * 5)
    assert mean_of_characters("A", 3, (1, 1)) == 3 != mean_of_characters("S", 3, (1, 1))
    vector = symmetric_character(spectrum(1, (1,)), 1, 1)
    square = multiply(vector, vector)
    assert constant_term(1, "odd", square) == 1 != constant_term(1, "Sp", square)  # another group's density
