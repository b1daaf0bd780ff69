"""equitorch/reps/pairings.py"""

import itertools
import math

import numpy as np
import pytest

from equitorch.reps.diagrams import Diagram, diagram_tensor
from equitorch.reps.pairings import (
    count_orthogonal,
    count_pseudoscalar,
    count_symplectic,
    free_gram,
    longest_increasing,
    most_crossing,
    orthogonal_gram,
    pairings,
    symplectic_gram,
    symplectic_sign,
)
from equitorch.reps.partitions import compose
from equitorch.testing import symplectic_form


def dense(kind, p, n, top=None, form=None):
    return diagram_tensor(Diagram(kind, p), n, len(p) if top is None else top, form)


def test_counts():
    """Odd factorials, and C(m, n) (m - n - 1)!! with n free vertices; lexicographic order."""
    assert [len(pairings(m)) for m in range(9)] == [1, 0, 1, 0, 3, 0, 15, 0, 105]
    for m, free in itertools.product(range(8), range(8)):
        rest = m - free
        count = math.comb(m, free) * math.prod(range(rest - 1, 0, -2)) * (rest >= 0 and rest % 2 == 0)
        found = pairings(m, free)
        assert len(found) == count
        assert list(found) == sorted(set(found))
    assert [count_symplectic(2, 2 * m) for m in range(6)] == [1, 1, 2, 5, 14, 42]  # Catalan
    assert [count_orthogonal(6, m) for m in (2, 4, 6, 8)] == [1, 3, 15, 105]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("m", [0, 2, 4, 5, 6])
def test_inner_products(n, m):
    if n**m > 1000:
        pytest.skip("too large")
    rules = [("pairing", pairings(m), orthogonal_gram, None)]
    rules += [("free", pairings(m, n), free_gram, None)]
    rules += [("pairing", pairings(m), symplectic_gram, symplectic_form(n).numpy())] if n % 2 == 0 else []
    for kind, found, gram, form in rules:
        tensors = [dense(kind, p, n, form=form) for p in found]
        for (p, a), (q, b) in itertools.product(zip(found, tensors, strict=True), repeat=2):
            assert np.vdot(a, b) == gram(p, q, n)


@pytest.mark.parametrize(("l", "s", "k"), [(2, 2, 2), (1, 3, 1), (0, 4, 2), (3, 1, 1), (2, 4, 0), (0, 4, 0)])
def test_products_of_matrices(l, s, k):
    n, form = 2, symplectic_form(2).numpy()
    for p, q in itertools.product(pairings(l + s), pairings(s + k)):
        r, loops = compose(p, q, s)
        for form_or_not, sign in ((None, 1), (form, symplectic_sign(p, q, s))):
            left = dense("pairing", p, n, l, form_or_not).reshape(n**l, n**s)
            right = dense("pairing", q, n, s, form_or_not).reshape(n**s, n**k)
            whole = dense("pairing", r, n, l, form_or_not).reshape(n**l, n**k)
            np.testing.assert_array_equal(left @ right, sign * n**loops * whole)


@pytest.mark.parametrize("n", range(1, 5))
@pytest.mark.parametrize("m", range(9))
def test_rules_keep_as_many_as_there_are_dimensions(n, m):
    assert sum(longest_increasing(p) <= n for p in pairings(m)) == count_orthogonal(n, m)
    assert sum(longest_increasing(p) <= n for p in pairings(m, n)) == count_pseudoscalar(n, m)
    if n % 2 == 0:
        assert sum(most_crossing(p) <= n // 2 for p in pairings(m)) == count_symplectic(n, m)


def test_the_check_can_fail():
    """Omega is antisymmetric: without the sign the product of a cup and a cap is wrong."""
    form = symplectic_form(2).numpy()
    p, q = (0, 1, 1, 0), (0, 0, 1, 1)
    signs = {symplectic_sign(a, b, 2) for a in pairings(4) for b in pairings(4)}
    assert signs == {1, -1}
    assert np.vdot(dense("pairing", p, 2, form=form), dense("pairing", q, 2, form=form)) == -2
