"""equitorch/reps/automorphism.py"""

import itertools
import math
import subprocess
import sys
import time

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


def test_respects_colours_and_parallel_edges():
    """Water with its elements told apart; edges of weight zero; two edges are not one of twice the weight."""
    nx = pytest.importorskip("networkx")
    water = nx.star_graph(2)
    assert Automorphism(water, colours=["O", "H", "H"]).size == 2
    assert Automorphism(water, colours=["O", "H", "D"]).size == 1
    assert Automorphism(nx.to_numpy_array(nx.empty_graph(4)), colours=[0, 1, 1, 0]).size == 4
    graph = nx.Graph([(0, 1, {"weight": 0.0}), (2, 3, {"weight": 1.0})])
    assert Automorphism(graph).size == 4
    graph.add_node(4)
    assert Automorphism(graph).size == 4
    assert Automorphism(nx.Graph([(0, 1, {"weight": 0.0}), (2, 3, {"weight": 0.0})])).size == 8
    parallel = nx.MultiGraph([(0, 1), (0, 1), (2, 3, {"weight": 2})])
    assert Automorphism(parallel).size == 4
    assert Automorphism(nx.MultiDiGraph([(0, 1), (0, 1), (2, 3)])).size == 1
    assert (
        Automorphism(nx.Graph([("a", "b", {"weight": "single"}), ("b", "c", {"weight": "double"})])).size == 1
    )


def shrikhande(nx):
    steps = [(1, 0), (0, 1), (1, 1)]
    edges = [((i, j), ((i + a) % 4, (j + b) % 4)) for i in range(4) for j in range(4) for a, b in steps]
    return nx.Graph(edges)


def test_graphs_of_64_points_take_no_time():
    """Sizes known from outside: regular, asymmetric, directed, disconnected graphs and trees."""
    nx = pytest.importorskip("networkx")
    rook = nx.line_graph(nx.complete_bipartite_graph(8, 8))
    petersens = nx.disjoint_union_all([nx.petersen_graph()] * 6)
    graphs = {
        192: shrikhande(nx),
        2**6 * 720: nx.hypercube_graph(6),
        2 * 40320**2: rook,
        128: nx.cycle_graph(64),
        64: nx.cycle_graph(64, create_using=nx.DiGraph),
        61 * 30: nx.paley_graph(61),
        1: nx.gnp_random_graph(64, 0.5, seed=1),
        120**6 * 720: petersens,
        2**31: nx.balanced_tree(2, 5),
        252000: nx.hoffman_singleton_graph(),
        math.factorial(64): nx.complete_graph(64),
    }
    start = time.process_time()
    for size, graph in graphs.items():
        assert Automorphism(graph).size == size
    assert time.process_time() - start < 6
    cube = Automorphism(nx.hypercube_graph(6))
    assert [cube.count_orbits((1,) * m) for m in range(5)] == [1, 1, 7, 84, 1716]
    assert int(cube.orbits(3).max()) + 1 == 84


def test_strongly_regular_graphs_differ_in_their_orbits():
    """Equal parameters, (16, 6, 2, 2), and neither has the symmetries of the other."""
    nx = pytest.importorskip("networkx")
    one, two = Automorphism(shrikhande(nx)), Automorphism(nx.line_graph(nx.complete_bipartite_graph(4, 4)))
    assert (one.size, two.size) == (192, 1152)
    assert [int(group.orbits(2).max()) + 1 for group in (one, two)] == [4, 3]


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
    with pytest.raises(ValueError, match="expects a colour for each of 2 points, got 3"):
        Automorphism(np.ones((2, 2)), colours="abc")
    with pytest.raises(ValueError, match="expects colours beside a graph or a matrix, not permutations"):
        Automorphism([(1, 0)], colours="ab")
    with pytest.raises(ValueError, match=r"expects a networkx graph, .* got ndarray of shape \(2, 3\)"):
        Automorphism(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"written e\.g\. 'Aut\(4; \(0 1\)\(2 3\)\)', got 'Aut'"):
        Automorphism.of_symbol("Aut")
    with pytest.raises(ValueError, match="tuples, too many to list"):
        Automorphism([list(range(100))]).orbits(5)
