"""equitorch/reps/diagrams.py"""

import itertools
import math
import time
import warnings

import numpy as np
import pytest

from equitorch.reps import diagrams as module
from equitorch.reps import halves as halves_module
from equitorch.reps.diagram_plan import analysis_plan
from equitorch.reps.diagrams import (
    Diagram,
    count_invariants,
    diagram_tensor,
    diagrams,
    gram,
    independent_rows,
    minimal_diagrams,
    weight_diagrams,
    weight_mask,
)
from equitorch.reps.halves import halves, sector_pairs
from equitorch.reps.partitions import bell, blocks_of, set_partitions
from equitorch.testing import symplectic_form

TABLE = {  # dimensions for m = 0..6 vertices, verified elsewhere by characters and by null spaces
    ("S", 1): "1 1 1 1 1 1 1",
    ("S", 2): "1 1 2 4 8 16 32",
    ("S", 3): "1 1 2 5 14 41 122",
    ("S", 4): "1 1 2 5 15 51 187",
    ("S", 5): "1 1 2 5 15 52 202",
    ("S", 6): "1 1 2 5 15 52 203",
    ("S", 9): "1 1 2 5 15 52 203",
    ("A", 1): "1 1 1 1 1 1 1",
    ("A", 2): "1 2 4 8 16 32 64",
    ("A", 3): "1 1 3 9 27 81 243",
    ("A", 4): "1 1 2 6 22 86 342",
    ("A", 5): "1 1 2 5 16 63 282",
    ("A", 6): "1 1 2 5 15 53 219",
    ("O", 1): "1 0 1 0 1 0 1",
    ("O", 2): "1 0 1 0 3 0 10",
    ("O", 3): "1 0 1 0 3 0 15",
    ("O", 9): "1 0 1 0 3 0 15",
    ("SO", 1): "1 1 1 1 1 1 1",
    ("SO", 2): "1 0 2 0 6 0 20",
    ("SO", 3): "1 0 1 1 3 6 15",
    ("SO", 4): "1 0 1 0 4 0 25",
    ("SO", 5): "1 0 1 0 3 1 15",
    ("SO", 6): "1 0 1 0 3 0 16",
    ("Sp", 2): "1 0 1 0 2 0 5",
    ("Sp", 4): "1 0 1 0 3 0 14",
    ("Sp", 6): "1 0 1 0 3 0 15",
    ("B", 2): "1 0 1 0 4 0 16",
    ("B", 3): "1 0 1 0 4 0 31",
    ("B", 4): "1 0 1 0 4 0 31",
}


def dense(family, n, m, found):
    form = symplectic_form(n).numpy() if family == "Sp" else None
    return np.array([diagram_tensor(d, n, m, form).reshape(-1) for d in found]).reshape(len(found), n**m)


@pytest.mark.parametrize(("family", "n"), TABLE)
def test_bases_have_the_right_number(family, n):
    for m, expected in enumerate(map(int, TABLE[family, n].split())):
        assert count_invariants(family, n, m) == expected
        for l in range(m + 1):
            found = diagrams(family, n, l, m - l, basis="minimal")
            assert len(found) == len(set(found)) == expected
            assert set(found) == minimal_diagrams(family, n, m)
            assert set(found) <= set(diagrams(family, n, l, m - l))


@pytest.mark.parametrize(("family", "n"), [case for case in TABLE if case[1] <= 4])
@pytest.mark.parametrize("m", range(6))
def test_minimal_sets_are_independent_and_span(family, n, m):
    every, kept = diagrams(family, n, m, 0), diagrams(family, n, m, 0, basis="minimal")
    wide = dense(family, n, m, every)
    inner = wide @ wide.T
    table = gram(family, n, every)
    if family != "A":  # products of a sign diagram and a partition vanish, by the next line
        np.testing.assert_array_equal(inner % (2**31 - 1), table)
    assert not any(inner[i, j] for i, j in itertools.product(range(len(every)), repeat=2) if not table[i, j])
    for matrix in (wide, dense(family, n, m, kept)):
        rank = int((np.linalg.eigvalsh(matrix @ matrix.T) > 1e-7).sum()) if len(matrix) else 0
        assert rank == len(kept) == len(independent_rows(gram(family, n, kept)))


@pytest.mark.parametrize(
    ("family", "n", "q"), [("A", 3, 0), ("B", 2, 0), ("SO", 3, 0), ("SO", 3, 2), ("Sp", 2, 0)]
)
@pytest.mark.parametrize(("l", "k"), [(0, 0), (0, 3), (1, 2), (3, 0), (2, 2), (1, 3)])
def test_entries_are_what_the_definition_says(family, n, q, l, k):
    """Each entry on its own, from the words of the definition."""
    metric = np.diag([1.0] * (n - q) + [-1.0] * q)
    form = symplectic_form(n).numpy() if family == "Sp" else metric

    def entry(diagram, values):
        blocks = blocks_of(diagram.partition)
        if diagram.kind in ("partition", "sign"):
            if any(len({values[v] for v in block}) > 1 for block in blocks):
                return 0.0
            firsts = [values[block[0]] for block in blocks]
            if diagram.kind == "partition":
                return 1.0
            listed = firsts + [v for v in range(n) if v not in firsts]
            return np.linalg.det(np.eye(n)[listed]) if len(set(firsts)) == len(firsts) else 0.0
        pairs = [block for block in blocks if len(block) == 2]
        free = [block[0] for block in blocks if len(block) == 1]
        across = [a < l <= b for a, b in pairs]
        factors = [
            float(values[a] == values[b]) if cross else form[values[a], values[b]]
            for (a, b), cross in zip(pairs, across, strict=True)
        ]
        raised = [metric[values[v], values[v]] for v in free if v < l]
        symbol = np.linalg.det(np.eye(n)[[values[v] for v in free]]) if free else 1.0
        return math.prod(factors + raised) * symbol

    for diagram in diagrams(family, n, l, k):
        tensor = diagram_tensor(diagram, n, l, form)
        for values in itertools.product(range(n), repeat=l + k):
            assert tensor[values] == pytest.approx(entry(diagram, values), abs=1e-12)


def test_free_vertices_are_a_trap():
    """Ten diagrams of rank six, known from outside."""
    extra = [d for d in diagrams("SO", 3, 5, 0) if d.kind == "free"]
    assert len(extra) == 10
    assert len(independent_rows(gram("SO", 3, extra))) == 6


def test_knows_the_quarter_turn_and_the_axial_vector():
    turn = diagrams("SO", 2, 1, 1)
    matrices = {d.kind: diagram_tensor(d, 2, 1).tolist() for d in turn}
    assert matrices == {"pairing": [[1, 0], [0, 1]], "free": [[0, 1], [-1, 0]]}
    (axial,) = diagrams("SO", 3, 1, 2)
    a, b = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_allclose(
        diagram_tensor(axial, 3, 1).reshape(3, 9) @ np.outer(a, b).ravel(), np.cross(a, b)
    )


@pytest.mark.parametrize("family", ["S", "A", "B", "O", "SO", "Sp"])
def test_weights_have_the_order_of_diagrams(family):
    n, l, k = 4, 2, 2
    pairs = sector_pairs(family, n, l, k)
    listed = [d for pair in pairs for d in weight_diagrams(*pair, l, k)]
    assert tuple(listed) == diagrams(family, n, l, k)
    masks = [weight_mask(family, n, *pair, l, k) for pair in pairs]
    for (upper, lower), mask in zip(pairs, masks, strict=True):
        assert mask.shape == (math.factorial(upper.rank), len(halves(k, lower)), len(halves(l, upper)))
    kept = np.concatenate([mask.reshape(-1) for mask in masks])
    assert tuple(itertools.compress(listed, kept)) == diagrams(family, n, l, k, basis="minimal")


@pytest.mark.parametrize("family", ["S", "O", "Sp"])
def test_planning_is_quick_and_lists_no_diagrams(family, monkeypatch):
    """At n = 1000, every l + k <= 6 within 20 ms of processor time, from nothing cached."""
    monkeypatch.setattr(halves_module, "join_halves", None)
    slowest = 0.0
    for l, k in itertools.product(range(7), range(7)):
        times = []
        for _ in range(4 if l + k <= 6 else 0):
            for cached in (sector_pairs, analysis_plan, halves, set_partitions, halves_module.pairings):
                cached.cache_clear()
            start = time.process_time()
            pairs = sector_pairs(family, 1000, l, k)
            below = analysis_plan(k, tuple(dict.fromkeys(lower for _, lower in pairs)))
            above = analysis_plan(l, tuple(dict.fromkeys(upper for upper, _ in pairs)))
            times.append(time.process_time() - start)
            if family == "S":
                weights = sum(
                    math.factorial(s.rank) * len(a) * len(b)
                    for s, a, b in zip(below.sectors, above.halves, below.halves, strict=True)
                )
                assert weights == bell(l + k)
        slowest = max(slowest, min(times, default=0))
    assert slowest < 0.02


def test_a_failing_rule_is_replaced_and_told(monkeypatch):
    monkeypatch.setattr(module, "longest_increasing", lambda p: 0)
    minimal_diagrams.cache_clear()
    with pytest.warns(UserWarning, match=r"the rule for a basis of O\(2\) fails for 6 vertices"):
        found = minimal_diagrams("O", 2, 6)
    monkeypatch.undo()
    minimal_diagrams.cache_clear()
    assert len(found) == 10 == len(independent_rows(gram("O", 2, sorted(found))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found != minimal_diagrams("O", 3, 6)


def test_the_check_can_fail():
    """Dependent diagrams are seen, by their inner products and by their entries."""
    every = diagrams("O", 2, 3, 3)
    assert len(every) == 15
    assert len(independent_rows(gram("O", 2, every))) == 10
    assert len(independent_rows(gram("Sp", 2, diagrams("Sp", 2, 4, 0)))) == 2


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects basis to be spanning or minimal, got 'orthonormal'"):
        diagrams("S", 3, 1, 1, basis="orthonormal")
    with pytest.raises(ValueError, match="for n = 2 expects 1 or 2 blocks, got 3"):
        diagram_tensor(Diagram("sign", (0, 1, 2)), 2, 1)
