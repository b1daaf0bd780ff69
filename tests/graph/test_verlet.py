import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st

from equitorch.graph import AtomGraph, NeighborList


def edges_of(graph: AtomGraph) -> set[tuple[float, ...]]:
    rows = torch.cat([graph.edge_index.T, graph.edge_shift], 1)
    return {tuple(row) for row in rows.tolist()}


def argon() -> ase.Atoms:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.2, seed=0)
    return atoms


@given(st.integers(0, 1000), st.floats(0.0, 1.0), st.sampled_from([(True,) * 3, (True, False, True)]))
def test_equals_a_fresh_search_at_every_step(seed, skin, pbc):
    random, atoms, neighbors = (
        np.random.default_rng(seed),
        argon(),
        NeighborList(5.0, skin, dtype=torch.float64),
    )
    atoms.pbc = pbc
    for _ in range(8):
        atoms.positions += 0.1 * random.standard_normal((4, 3))
        graph, fresh = neighbors.update(atoms), AtomGraph.from_ase(atoms, 5.0, dtype=torch.float64)
        assert edges_of(graph) == edges_of(fresh)
        reverse = graph.edge_reverse
        torch.testing.assert_close(graph.edge_vectors()[reverse], -graph.edge_vectors(), rtol=0, atol=0)
        assert graph.cutoff == 5.0


def test_searches_only_when_it_must():
    atoms, neighbors = argon(), NeighborList(5.0, 0.5)
    for _ in range(2):
        neighbors.update(atoms)
    atoms.positions[0, 0] += 0.2499
    neighbors.update(atoms)
    assert neighbors.searches == 1
    atoms.positions[0, 0] += 0.01
    neighbors.update(atoms)
    assert neighbors.searches == 2
    for change in (
        lambda: atoms.set_cell(atoms.cell * 1.0001),
        lambda: atoms.set_pbc((True, True, False)),
        lambda: atoms.set_atomic_numbers([18, 18, 18, 10]),
        lambda: atoms.pop(),
        lambda: atoms.translate([0, 0, 5.3]),
    ):
        before = neighbors.searches
        change()
        assert edges_of(neighbors.update(atoms)) == edges_of(AtomGraph.from_ase(atoms, 5.0))
        assert neighbors.searches == before + 1


def test_without_a_skin_it_searches_every_time():
    atoms, neighbors = molecule("H2O"), NeighborList(5.0, 0.0)
    for _ in range(3):
        atoms.rattle(1e-3)
        neighbors.update(atoms)
    assert neighbors.searches == 3


def test_owns_its_positions():
    atoms, neighbors = molecule("H2O"), NeighborList(5.0, dtype=torch.float64)
    graph = neighbors.update(atoms)
    before = graph.pos.clone()
    atoms.positions += 0.1
    torch.testing.assert_close(graph.pos, before, rtol=0, atol=0)


def test_recovers_after_an_error():
    atoms, neighbors = molecule("H2O"), NeighborList(5.0)
    neighbors.update(atoms)
    atoms.positions[0] = np.nan
    with pytest.raises(ValueError, match="finite positions, but atom 0 is at"):
        neighbors.update(atoms)
    assert neighbors.update(molecule("H2O")).num_edges == 6


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="a skin of at least 0 Angstrom, got -1"):
        NeighborList(5.0, -1)
