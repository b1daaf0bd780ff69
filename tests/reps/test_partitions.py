"""equitorch/reps/partitions.py"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps.partitions import (
    bell,
    blocks_of,
    coarsenings,
    compose,
    from_blocks,
    join,
    moebius,
    normal_form,
    num_blocks,
    orbit_tensor,
    partition_gram,
    partition_tensor,
    permutation_sign,
    set_partitions,
    sign_tensor,
    stirling2,
    tensor_product,
)

labels = st.lists(st.integers(0, 3), max_size=5)


def test_counts():
    """Bell's numbers and Stirling's, from the literature; each partition once, in lexicographic order."""
    assert [bell(m) for m in range(9)] == [1, 1, 2, 5, 15, 52, 203, 877, 4140]
    assert [stirling2(6, t) for t in range(7)] == [0, 1, 31, 90, 65, 15, 1]
    for m, largest in itertools.product(range(7), range(7)):
        found = set_partitions(m, largest)
        assert len(found) == sum(stirling2(m, t) for t in range(min(m, largest) + 1))
        assert list(found) == sorted(set(found))
        assert all(p == normal_form(p) == from_blocks(blocks_of(p)) for p in found)


@pytest.mark.parametrize(("k", "n"), [(1, 3), (2, 2), (2, 3)])
def test_knows_the_maps_of_deep_sets_and_invariant_graph_networks(k, n):
    """Two maps for k = 1, fifteen for k = 2, known from outside: identity, ones, transpose, trace, ..."""
    found = [partition_tensor(p, n).reshape(n**k, n**k) for p in set_partitions(2 * k)]
    x = np.random.default_rng(0).normal(size=(n,) * k)
    one = np.ones(n)
    if k == 1:
        expected = [x, one * x.sum()]
    else:
        vectors = [x.sum(1), x.sum(0), x.diagonal()]
        spread = [lambda v: np.outer(v, one), lambda v: np.outer(one, v), np.diag]
        expected = [x, x.T] + [f(v) for v in vectors for f in spread]
        expected += [f(s * one) for s in (x.sum(), x.trace()) for f in spread[1:]]
    seen = [tuple((matrix @ x.ravel()).round(9)) for matrix in found]
    assert sorted(seen) == sorted(tuple(np.ravel(y).round(9)) for y in expected)


@given(labels, labels, st.integers(0, 4), st.integers(1, 3))
def test_products_of_matrices(a, b, middle, n):
    p, q = normal_form(a), normal_form(b)
    middle = min(middle, len(p), len(q))
    left = partition_tensor(p, n).reshape(-1, n**middle)
    right = partition_tensor(q, n).reshape(n**middle, -1)
    r, loops = compose(p, q, middle)
    np.testing.assert_array_equal(left @ right, n**loops * partition_tensor(r, n).reshape(len(left), -1))


@given(labels, labels, st.integers(0, 5), st.integers(0, 5), st.integers(1, 2))
def test_kronecker_products(a, b, top, other, n):
    p, q = normal_form(a), normal_form(b)
    top, other = min(top, len(p)), min(other, len(q))
    left, right = (partition_tensor(r, n).reshape(n**t, -1) for r, t in ((p, top), (q, other)))
    whole = partition_tensor(tensor_product(p, q, (top, other)), n)
    np.testing.assert_array_equal(np.kron(left, right), whole.reshape(n ** (top + other), -1))


@pytest.mark.parametrize(("m", "n"), [(0, 2), (3, 2), (4, 2), (4, 4)])
def test_inner_products_and_inversion(m, n):
    """<D, D'> = n^blocks of the join; D = sum of X, X = sum of mu D, zero if there are too many blocks."""
    found = set_partitions(m)
    D, X = ({p: make(p, n) for p in found} for make in (partition_tensor, orbit_tensor))
    for p, q in itertools.product(found, found):
        assert (D[p] * D[q]).sum() == partition_gram(p, q, n)
        assert (X[p] * X[q]).sum() == (p == q) * math.perm(n, num_blocks(p))
        assert join(p, q) in set(coarsenings(p)) & set(coarsenings(q))
    for p in found:
        np.testing.assert_array_equal(D[p], sum(X[q] for q in coarsenings(p)))
        np.testing.assert_array_equal(X[p], sum(moebius(p, q) * D[q] for q in coarsenings(p)))
        assert (num_blocks(p) <= n) == X[p].any()


def test_sign_diagrams():
    """The example of three points, and disjoint supports."""
    np.testing.assert_array_equal(sign_tensor((0, 1), 3), [[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    for n in (2, 3, 4):
        found = [sign_tensor(p, n) for p in set_partitions(4) if num_blocks(p) in (n, n - 1)]
        inner = np.array([[np.vdot(a, b) for a in found] for b in found])
        np.testing.assert_array_equal(inner, math.factorial(n) * np.eye(len(found)))
    assert permutation_sign((2, 0, 1)) == 1 == -permutation_sign((2, 1, 0))


def test_the_check_can_fail():
    """Forgetting what lies in the middle alone gives another number."""
    ones = partition_tensor((0, 1), 3)
    assert (ones @ ones != partition_tensor(compose((0, 1), (0, 1), 1)[0], 3)).all()


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="for n = 4 expects 3 or 4 blocks, got 2"):
        sign_tensor((0, 1), 4)
    with pytest.raises(ValueError, match="compose expects 3 vertices to meet, got diagrams of 2 and 4"):
        compose((0, 1), (0, 0, 1, 1), 3)
