"""equitorch/reps/automorphism.py"""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Automorphism

matrices = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.integers(0, 1), min_size=n * n, max_size=n * n).map(
        lambda entries: np.array(entries).reshape(n, n)
    )
)

TABLE = {  # orbits of m-tuples, m = 0..4; published counts, or Burnside's by hand
    "path_graph(3)": (2, "1 2 5 14 41"),
    "path_graph(4)": (2, "1 2 8 32 128"),
    "cycle_graph(4)": (8, "1 1 3 10 36"),
    "cycle_graph(5)": (10, "1 1 3 13 63"),
    "cycle_graph(6)": (12, "1 1 4 20 112"),
    "star_graph(4)": (24, "1 2 5 15 52"),
    "complete_bipartite_graph(2, 3)": (12, "1 2 6 21 82"),
    "circular_ladder_graph(3)": (12, "1 1 4 20 112"),
    "hypercube_graph(3)": (48, "1 1 4 20 120"),
    "petersen_graph()": (120, "1 1 3 15 107"),
}


@pytest.mark.parametrize("name", TABLE)
def test_knows_the_symmetries_of_graphs(name):
    nx = pytest.importorskip("networkx")
    graph = eval(f"nx.{name}", {"nx": nx})
    group = Automorphism(graph)
    size, counts = TABLE[name]
    fixed = [sum(g[i] == i for i in range(group.n)) for g in group.elements()]
    assert group.size == len(fixed) == size
    for m, count in enumerate(map(int, counts.split())):
        assert int(group.orbits(m).max()) + 1 == count
        assert sum(f**m for f in fixed) == count * size  # Burnside
    assert Automorphism(nx.to_numpy_array(graph)) == group
    vf2 = nx.algorithms.isomorphism.GraphMatcher(graph, graph)
    assert sum(1 for _ in vf2.isomorphisms_iter()) == size


@given(matrices)
def test_finds_all_of_them(matrix):
    """Every permutation tried, on random directed graphs with loops."""
    n = len(matrix)
    every = {p for p in itertools.permutations(range(n)) if (matrix[np.ix_(p, p)] == matrix).all()}
    group = Automorphism(torch.tensor(matrix))
    assert set(group.elements()) == every
    assert group.size == len(every)
    assert Automorphism.of_symbol(group.symbol) == group


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.permutations(range(n)), min_size=1, max_size=3)))
def test_a_group_is_what_its_generators_make(generators):
    every = new = {tuple(range(len(generators[0])))}
    while new:
        new = {tuple(g[i] for i in h) for g in generators for h in new} - every
        every = every | new
    group = Automorphism(generators)
    assert set(group.elements()) == every
    assert {group} == {Automorphism(list(every))}
    assert len(group.generators) < max(group.n, 2)


def test_draws_uniformly():
    group = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
    rng = np.random.default_rng(0)
    drawn = [group.random(rng.uniform(size=4)) for _ in range(4000)]
    counts = [drawn.count(g) for g in group.elements()]
    assert len(counts) == 8
    assert min(counts) > 400


def test_respects_directions_weights_and_loops():
    nx = pytest.importorskip("networkx")
    assert Automorphism(nx.cycle_graph(5, create_using=nx.DiGraph)).size == 5
    weighted = nx.cycle_graph(4)
    weighted[0][1]["weight"] = 2.0
    assert Automorphism(weighted).generators == ((1, 0, 3, 2),)
    assert Automorphism(np.diag([1, 1, 0])).size == 2


def test_large_groups():
    nx = pytest.importorskip("networkx")
    assert Automorphism(nx.empty_graph(20)).size == 2432902008176640000
    assert Automorphism(nx.line_graph(nx.complete_bipartite_graph(4, 4))).size == 1152


def test_networkx_is_not_imported():
    code = "import sys, equitorch; assert 'networkx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"expects permutations of 0\.\.n-1 as lists of images, got \[\[0, 0\]\]"
    ):
        Automorphism([[0, 0]])
    with pytest.raises(ValueError, match=r"expects a networkx graph, .* got ndarray of shape \(2, 3\)"):
        Automorphism(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"written e\.g\. 'Aut\(4; \(0 1\)\(2 3\)\)', got 'Aut'"):
        Automorphism.of_symbol("Aut")
    with pytest.raises(ValueError, match="tuples, too many to list"):
        Automorphism([list(range(100))]).orbits(5)
