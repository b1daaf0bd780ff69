"""equitorch/reps/permutations.py"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import permutations as module
from equitorch.reps.permutations import (
    chain_of,
    count_orbits,
    count_symmetric_orbits,
    count_table,
    elements,
    inverse,
    levels,
    orbit_table,
    stabiliser,
    strong_generators,
    times,
)

generators = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.permutations(range(n)).map(tuple), min_size=1, max_size=2)
)


def closure(found):
    """All products."""
    every = new = {tuple(range(len(found[0])))}
    while new:
        new = {tuple(g[i] for i in h) for g in found for h in new} - every
        every = every | new
    return every


@given(generators)
def test_knows_the_group_and_its_subgroups(found):
    n = len(found[0])
    every = closure(found)
    strong = tuple(strong_generators(chain_of(found, n), n))
    assert set(map(tuple, elements(levels(strong, n)).tolist())) == every
    for point in range(n):
        fixing = stabiliser(strong, n, point)
        assert set(map(tuple, elements(levels(fixing, n)).tolist())) == {
            g for g in every if g[point] == point
        }
    for g in every:
        assert times(g, inverse(g)) == tuple(range(n))


@given(generators, st.integers(0, 4))
def test_orbits_are_what_every_element_moves(found, m):
    """Numbered by their first tuples; counted by fixed points and by stabilisers."""
    n = len(found[0])
    strong = tuple(strong_generators(chain_of(found, n), n))
    number, table = {}, np.empty((n,) * m, dtype=int)
    for t in itertools.product(range(n), repeat=m):
        least = min(tuple(g[i] for i in t) for g in closure(found))
        table[t] = number.setdefault(least, len(number))
    np.testing.assert_array_equal(orbit_table(strong, n, m), table)
    assert count_orbits(strong, n, m) == len(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", 1)
        count_orbits.cache_clear()
        assert count_orbits(strong, n, m) == len(number)
    count_orbits.cache_clear()


@given(generators, st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple))
def test_orbits_of_multisets(found, orders):
    n = len(found[0])
    strong = tuple(strong_generators(chain_of(found, n), n))
    least = {
        min(tuple(tuple(sorted(g[i] for i in s)) for s in several) for g in closure(found))
        for several in itertools.product(
            *(itertools.combinations_with_replacement(range(n), order) for order in orders)
        )
    }
    assert count_symmetric_orbits(strong, n, orders) == len(least)
    assert count_table(orbit_table(strong, n, sum(orders)), orders) == len(least)


def test_large_symmetric_groups():
    """Set partitions of m tuples into at most 40 blocks: Bell numbers; of multisets, vector partitions."""
    strong = tuple((*range(i), i + 1, i, *range(i + 2, 40)) for i in reversed(range(39)))
    assert math.prod(map(len, levels(strong, 40))) == math.factorial(40)
    assert [count_orbits(strong, 40, m) for m in range(7)] == [1, 1, 2, 5, 15, 52, 203]
    assert count_table(orbit_table(strong, 40, 3), (2, 1)) == 4


def test_the_check_can_fail():
    """Generators that are not strong are seen by the size."""
    turn = (1, 2, 3, 0)
    assert math.prod(map(len, levels([turn, (1, 0, 2, 3)], 4))) < math.factorial(4)
    assert math.prod(map(len, chain_of([turn, (1, 0, 2, 3)], 4))) == math.factorial(4)
