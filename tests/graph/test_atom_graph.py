import copy
import dataclasses
import pickle
import re

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from equitorch.graph import AtomGraph


def water(**info) -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def copper(size: float = 3.6) -> ase.Atoms:
    atoms = bulk("Cu", "fcc", a=size, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def test_has_the_distances_of_ase():
    atoms = copper()
    graph = AtomGraph.from_ase(atoms, 2.9, dtype=torch.float64)
    i, j = graph.edge_index[1], graph.edge_index[0]
    every = graph.edge_vectors().norm(dim=1)
    nearest = torch.stack(
        [every[(graph.edge_index[1] == 0) & (graph.edge_index[0] == k)].min() for k in (1, 2, 3)]
    )
    torch.testing.assert_close(nearest, torch.from_numpy(atoms.get_distances(0, [1, 2, 3], mic=True)))
    plain = graph.pos[j] - graph.pos[i] + graph.edge_shift @ graph.cell[0]
    torch.testing.assert_close(graph.edge_vectors(), plain)


def test_edge_vectors_have_right_gradients():
    graphs = [AtomGraph.from_ase(atoms, 3.0, dtype=torch.float64) for atoms in (copper(), water())]
    for graph in (graphs[0], AtomGraph.batch(graphs)):
        weight = torch.randn(graph.num_edges, 3, dtype=torch.float64)

        def energy(pos, cell, strain, graph=graph, weight=weight):
            return (weight * graph.replace(pos=pos, cell=cell).edge_vectors(strain).sin()).sum()

        operands = (graph.pos.clone(), graph.cell.clone(), 0.1 * torch.randn_like(graph.cell))
        assert torch.autograd.gradcheck(energy, [x.requires_grad_() for x in operands])


def test_strain_deforms_positions_and_cell_alike():
    graph = AtomGraph.batch([AtomGraph.from_ase(copper(a), 3.5, dtype=torch.float64) for a in (3.6, 3.8)])
    strain = 0.01 * torch.randn(2, 3, 3, dtype=torch.float64)
    deform = torch.eye(3, dtype=torch.float64) + strain
    pos = torch.einsum("nab,nb->na", deform[graph.batch], graph.pos)
    moved = graph.replace(pos=pos, cell=torch.einsum("gab,gib->gia", deform, graph.cell))
    torch.testing.assert_close(graph.edge_vectors(strain), moved.edge_vectors())
    single = graph.unbatch()[1]
    torch.testing.assert_close(single.edge_vectors(strain[1:]), moved.unbatch()[1].edge_vectors())


def test_batches_and_unbatches():
    frames = [copper(), water(charge=0), ase.Atoms("He")]
    graphs = [AtomGraph.from_ase(atoms, 3.0) for atoms in frames]
    graphs = [g.replace(charge=torch.zeros(1)) for g in graphs]
    batch = AtomGraph.batch(graphs)
    assert (batch.num_graphs, batch.num_atoms, batch.ptr.tolist()) == (3, 8, [0, 4, 7, 8])
    for one, again in zip(graphs, batch.unbatch(), strict=True):
        for name, value in one.fields().items():
            torch.testing.assert_close(again.fields()[name], value, rtol=0, atol=0) if torch.is_tensor(
                value
            ) else None
        torch.testing.assert_close(one.edge_vectors(), again.edge_vectors())
    torch.testing.assert_close(batch.edge_vectors(), torch.cat([g.edge_vectors() for g in graphs]))
    twice = AtomGraph.batch([batch, batch])
    torch.testing.assert_close(twice.edge_index, AtomGraph.batch([*graphs, *graphs]).edge_index)
    assert twice.batch.tolist() == [*batch.batch.tolist(), *(batch.batch + 3).tolist()]


def test_row_ptr_bounds_the_edges_of_each_atom():
    graph = AtomGraph.batch([AtomGraph.from_ase(atoms, 3.0) for atoms in (water(), copper())])
    assert graph.row_ptr.diff().tolist() == torch.bincount(graph.edge_index[1], minlength=7).tolist()


def test_fills_missing_labels_with_nan():
    labelled = AtomGraph.from_ase(water(energy=-1.5), 2.0)
    batch = AtomGraph.batch([AtomGraph.from_ase(water(), 2.0), labelled])
    assert torch.isnan(batch.energy[0])
    assert batch.energy[1] == -1.5
    assert batch.forces is None
    assert [graph.energy is None for graph in batch.unbatch()] == [True, False]


def test_keeps_the_energy_in_double():
    graph = AtomGraph.from_ase(water(energy=-40_000.123456789), 2.0, dtype=torch.float32)
    assert graph.pos.dtype == graph.edge_shift.dtype == torch.float32
    assert graph.to(dtype=torch.float32).energy.item() == -40_000.123456789
    assert AtomGraph.from_ase(water()).pos.dtype == torch.get_default_dtype()


def test_is_frozen_and_survives_copies():
    graph = AtomGraph.from_ase(copper(), 3.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.pos = graph.pos
    for twin in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        torch.testing.assert_close(twin.edge_vectors(), graph.edge_vectors())
    assert repr(graph).startswith("AtomGraph(1 graphs, 4 atoms, ")


def test_says_what_it_expected():
    def build(numbers=(1, 1), pos=((0.0, 0, 0), (1.0, 0, 0))):
        return AtomGraph.build(list(numbers), torch.tensor(pos))

    with pytest.raises(ValueError, match="at least one atom, got an empty structure"):
        AtomGraph.from_ase(ase.Atoms(), 3.0)
    with pytest.raises(ValueError, match="atomic numbers from 1 to 118, but atom 1 has 0"):
        AtomGraph.from_ase(ase.Atoms("HX", [[0, 0, 0], [0, 0, 1.0]]), 3.0)
    with pytest.raises(ValueError, match="atomic numbers from 1 to 118, but atom 0 has 119"):
        build(numbers=(119, 1))
    with pytest.raises(
        ValueError, match=re.escape("finite positions, but atom 1 is at [0.0, nan, 0.0] Angstrom")
    ):
        build(pos=((0.0, 0, 0), (0.0, np.nan, 0)))
    with pytest.raises(ValueError, match=re.escape("pos of shape (2, 3) for 2 atomic numbers, got (3, 3)")):
        build(pos=((0.0, 0, 0), (0.0, 1.0, 0), (0.0, 2.0, 0.0)))
    with pytest.raises(ValueError, match="at least one graph, got none"):
        AtomGraph.batch([])
    with pytest.raises(ValueError, match=re.escape("graphs of one cutoff, got [2.0, 3.0]")):
        AtomGraph.batch([AtomGraph.from_ase(water(), 2.0), AtomGraph.from_ase(water(), 3.0)])
    with pytest.raises(ValueError, match="a charge on every graph or on none, but graph 1 of 2 has none"):
        AtomGraph.batch([AtomGraph.from_ase(water(charge=1)), AtomGraph.from_ase(water())])
