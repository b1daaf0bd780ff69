"""equitorch/reps/order.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps.order import order_index, order_rows, order_sizes
from tests.escn_primitives import primitives

degrees = st.integers(0, 8).flatmap(lambda l: st.tuples(st.just(l), st.integers(0, l)))


def test_is_the_published_order():
    """Positions among the rows |m| <= 2 of degrees 0..4, as published weights have them."""
    kept = order_index(4, 2).sort().values
    place = torch.searchsorted(kept, order_index(4, 2))
    assert place.tolist() == [0, 2, 6, 11, 16, 3, 7, 12, 17, 1, 5, 10, 15, 8, 13, 18, 4, 9, 14]


def test_agrees_with_the_original_code():
    file = primitives()
    kept = order_index(4, 2).sort().values
    ours = (order_index(4, 2)[:, None] == kept).to(file["to_m_L4M2"])
    assert torch.equal(file["to_m_L4M2"], ours)
    degree = kept.double().sqrt().floor().long()
    assert torch.equal(file["l_harmonic_L4M2"].long(), degree)
    assert torch.equal(file["m_complex_L4M2"].long().abs(), (kept - degree * (degree + 1)).abs())


@given(degrees)
def test_is_a_permutation_of_the_kept_rows(pair):
    lmax, mmax = pair
    rows, index = order_rows(lmax, mmax), order_index(lmax, mmax).tolist()
    assert sorted(index) == [
        l * l + l + m for l in range(lmax + 1) for m in range(-l, l + 1) if abs(m) <= mmax
    ]
    assert index == [l * l + l + m for l, m in rows]
    assert len(rows) == sum(min(2 * l, 2 * mmax) + 1 for l in range(lmax + 1))


@given(degrees)
def test_orders_follow_one_another_in_runs_of_the_stated_size(pair):
    signed = [0, *(sign * m for m in range(1, pair[1] + 1) for sign in (1, -1))]
    expected = [m for m in signed for _ in range(order_sizes(*pair)[abs(m)])]
    assert [m for _, m in order_rows(*pair)] == expected


@pytest.mark.parametrize(
    ("pair", "rows"), [((2, 2), 9), ((4, 2), 19), ((6, 2), 29), ((6, 3), 37), ((4, 4), 25)]
)
def test_has_the_published_number_of_rows(pair, rows):
    assert len(order_rows(*pair)) == rows


def test_the_check_can_fail():
    assert order_index(2, 2).tolist() != list(range(9))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects 0 <= mmax <= lmax, got mmax=3 and lmax=2"):
        order_rows(2, 3)
