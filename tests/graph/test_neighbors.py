import re

import ase
import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from hypothesis import example, given
from hypothesis import strategies as st

from equitorch.graph import AtomGraph, neighbor_edges
from equitorch.graph import neighbors as module


def random_atoms(seed: int, atoms: int, size: float, pbc: tuple[bool, bool, bool]) -> ase.Atoms:
    """Atoms in and around a skewed cell, none on another."""
    random = np.random.default_rng(seed)
    cell = size * (np.eye(3) + random.uniform(-0.35, 0.35, (3, 3)))
    where = random.uniform(-0.7, 1.7, (atoms, 3)) @ cell
    return ase.Atoms("H" * atoms, where, cell=cell, pbc=pbc)


def as_set(centre, neighbour, shift) -> set[tuple[int, ...]]:
    return {
        (int(i), int(j), *map(round, map(float, s))) for i, j, s in zip(centre, neighbour, shift, strict=True)
    }


def edges_of(graph: AtomGraph) -> set[tuple[int, ...]]:
    found = as_set(graph.edge_index[1], graph.edge_index[0], graph.edge_shift)
    assert len(found) == graph.num_edges, "an edge appears twice"
    return found


periodicity = st.tuples(st.booleans(), st.booleans(), st.booleans())


@example(0, 1, 1.7, (True, True, True))  # a primitive cell: every neighbour is an image of the atom itself
@example(1, 2, 2.0, (True, False, True))
@example(2, 40, 9.0, (False, False, False))
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(1.5, 9.0), periodicity)
def test_finds_what_ase_finds(seed, atoms, size, pbc):
    structure = random_atoms(seed, atoms, size, pbc)
    i, j, shift = neighbor_list("ijS", structure, 3.3)
    assert edges_of(AtomGraph.from_ase(structure, 3.3, dtype=torch.float64)) == as_set(i, j, shift)


@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(1.5, 9.0), periodicity)
def test_pairs_each_edge_with_its_reverse(seed, atoms, size, pbc):
    graph = AtomGraph.from_ase(random_atoms(seed, atoms, size, pbc), 3.3, dtype=torch.float64)
    reverse = graph.edge_reverse
    torch.testing.assert_close(reverse[reverse], torch.arange(graph.num_edges), rtol=0, atol=0)
    torch.testing.assert_close(graph.edge_vectors()[reverse], -graph.edge_vectors(), rtol=0, atol=0)
    torch.testing.assert_close(graph.edge_index[:, reverse], graph.edge_index.flip(0), rtol=0, atol=0)
    assert bool((graph.edge_index[1].diff() >= 0).all())


def test_counts_the_shells_of_copper():
    primitive = ase.Atoms("Cu", cell=[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True)
    for cutoff, shells in ((2.6, 12), (3.65, 12 + 6), (4.45, 12 + 6 + 24), (5.1, 12 + 6 + 24 + 12)):
        assert AtomGraph.from_ase(primitive, cutoff).num_edges == shells


def test_excludes_the_cutoff_itself():
    pair = ase.Atoms("H2", [[0, 0, 0], [0, 0, 2.0]])
    assert AtomGraph.from_ase(pair, 2.0).num_edges == 0
    assert AtomGraph.from_ase(pair, 2.0000001).num_edges == 2
    pair.cell, pair.pbc = np.eye(3) * 40, True
    assert AtomGraph.from_ase(pair, 2.0).num_edges == 0


def test_never_truncates():
    cell = ase.Atoms("He", cell=np.eye(3) * 0.5, pbc=True)
    assert AtomGraph.from_ase(cell, 6.0).num_edges == len(neighbor_list("i", cell, 6.0)) > 7000


@given(st.integers(0, 10_000), periodicity)
def test_ignores_whole_lattice_vectors(seed, pbc):
    structure = random_atoms(seed, 8, 4.0, pbc)
    wrapped = structure.copy()
    wrapped.wrap()
    lengths = [
        AtomGraph.from_ase(atoms, 4.0, dtype=torch.float64).edge_vectors().norm(dim=1).sort().values
        for atoms in (structure, wrapped)
    ]
    torch.testing.assert_close(*lengths, rtol=0, atol=1e-12)


@given(st.integers(0, 10_000), periodicity)
def test_follows_a_permutation(seed, pbc):
    structure = random_atoms(seed, 7, 4.0, pbc)
    order = np.random.default_rng(seed).permutation(7)
    ours = edges_of(AtomGraph.from_ase(structure[order], 3.0))
    theirs = edges_of(AtomGraph.from_ase(structure, 3.0))
    assert {(order[i], order[j], *s) for i, j, *s in ours} == theirs


def test_uses_no_lattice_vector_without_periodicity():
    slab = random_atoms(0, 20, 6.0, (True, True, False))
    flat = slab.copy()
    flat.cell[2] = 0
    assert edges_of(AtomGraph.from_ase(slab, 4.0)) == edges_of(AtomGraph.from_ase(flat, 4.0))


@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (False, True, False)])
@pytest.mark.parametrize("atoms", [3, 200])
def test_crosses_empty_space(pbc, atoms):
    near = random_atoms(3, atoms, 12.0, pbc)
    far = near.copy()
    far.positions += 1e6 * np.where(pbc, 0, np.array([1.0, 1.0, 1.0]))
    both = near + far
    alone = AtomGraph.from_ase(near, 3.0).num_edges
    assert AtomGraph.from_ase(both, 3.0).num_edges == 2 * alone


@pytest.mark.parametrize("size", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("thin", [True, False])
def test_takes_a_cell_that_is_almost_empty(size, thin):
    cell = np.array([[8.0, 0, 0], [3.0, 8.0, 0], [0.4 * size, 0.3 * size, size]])
    cell = cell if thin else cell * np.array([[size / 8], [size / 8], [1]])
    near = random_atoms(0, 40, 4.0, (False, False, False))
    near.positions -= near.positions.mean(0)  # across the boundary
    near.cell, near.pbc = cell, True
    shorter = near.copy()
    shorter.cell = cell * np.array(
        [[1.0 if thin else 200 / size], [1.0 if thin else 200 / size], [100 / size]]
    )
    assert edges_of(AtomGraph.from_ase(near, 3.0)) == edges_of(AtomGraph.from_ase(shorter, 3.0))
    assert AtomGraph.from_ase(near, 3.0).num_edges > 50
    vectors = AtomGraph.from_ase(near, 3.0, dtype=torch.float64).edge_vectors()
    assert float(vectors.norm(dim=1).max()) < 3.0 + 1e-6


def test_takes_a_batch_of_everything():
    structures = [random_atoms(0, 5, 3.0, (True, True, True)), random_atoms(1, 1, 3.0, (False,) * 3)]
    structures += [random_atoms(2, 9, 4.0, (False,) * 3), random_atoms(3, 140, 12.0, (False,) * 3)]
    structures += [random_atoms(4, 3, 3.0, (True, False, False))]
    singles = [AtomGraph.from_ase(atoms, 3.0, dtype=torch.float64) for atoms in structures]
    batch = AtomGraph.batch([AtomGraph.from_ase(atoms, dtype=torch.float64) for atoms in structures])
    together = batch.with_edges(3.0)
    for name in ("edge_index", "edge_shift", "edge_reverse"):
        expected = getattr(AtomGraph.batch(singles), name)
        torch.testing.assert_close(getattr(together, name), expected, rtol=0, atol=0)


def test_dense_and_cell_lists_agree(monkeypatch):
    graph = AtomGraph.from_ase(random_atoms(5, 60, 9.0, (False,) * 3), 4.0)
    monkeypatch.setattr(module, "_DENSE_ATOMS", 0)
    other = graph.with_edges(4.0)
    for name in ("edge_index", "edge_shift", "edge_reverse"):
        torch.testing.assert_close(getattr(graph, name), getattr(other, name), rtol=0, atol=0)


def test_takes_no_atom_and_one():
    for atoms in (0, 1):
        edges = neighbor_edges(
            torch.zeros(atoms, 3), torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool), 5.0
        )
        assert edges.edge_index.shape == (2, 0)
        assert edges.edge_shift.shape == (0, 3)


def test_the_comparison_can_fail():
    structure = random_atoms(0, 8, 3.0, (True, True, True))
    assert edges_of(AtomGraph.from_ase(structure, 3.3)) != edges_of(AtomGraph.from_ase(structure, 3.2))


def check(pos, cell=None, pbc=(True, True, True), cutoff=3.0):
    cell = torch.eye(3) * 5 if cell is None else torch.tensor(cell)
    return neighbor_edges(torch.tensor(pos), cell, torch.tensor(pbc), cutoff)


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=re.escape("atoms 1 and 2 are 0 Angstrom apart; remove the duplicate")
    ):
        check([[0.0, 0, 0], [1.0, 1, 1], [1.0, 1, 1]])
    with pytest.raises(ValueError, match=r"atoms 0 and 1 are 0\.0005 Angstrom apart"):
        check([[0.0, 0, 0], [5.0005, 0, 0]])
    with pytest.raises(ValueError, match="finite positions, got NaN or infinity"):
        check([[0.0, 0, float("nan")]])
    with pytest.raises(ValueError, match="a lattice vector along each periodic direction"):
        check([[0.0, 0, 0]], cell=[[5.0, 0, 0], [0, 5, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="independent lattice vectors, got the singular cell"):
        check([[0.0, 0, 0]], cell=[[5.0, 0, 0], [0, 5, 0], [5, 5, 0]])
    with pytest.raises(ValueError, match="a positive cutoff in Angstrom, got 0"):
        check([[0.0, 0, 0]], cutoff=0)
    with pytest.raises(ValueError, match="a positive cutoff in Angstrom, got nan"):
        check([[0.0, 0, 0]], cutoff=float("nan"))
