"""What every potential of messages along edges must show, whatever the model in it."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from equitorch.graph import AtomGraph
from tests.models.test_tensornet import crystal, rattled


def graph(atoms, made):
    return AtomGraph.from_ase(atoms, made.cutoff, dtype=torch.float64)


def slope(energy, step=1e-3):
    """The derivative at zero, by four values."""
    a, b, c, d = (energy(k * step) for k in (-2, -1, 1, 2))
    return (a - 8 * b + 8 * c - d) / (12 * step)


def check_order_and_origin(made):
    atoms = rattled(molecule("CH3OH"))
    out, order = made(graph(atoms, made)), [3, 0, 5, 1, 4, 2]
    moved = atoms[order]
    moved.positions += [7.0, -3.0, 2.0]
    other = made(graph(moved, made))
    assert other["energy"].item() == pytest.approx(out["energy"].item(), rel=1e-12)
    torch.testing.assert_close(other["forces"], out["forces"][order], rtol=0, atol=1e-12)


def check_additive(made):
    """Over molecules far from one another, and over graphs of a batch."""
    one, two = rattled(molecule("H2O")), rattled(molecule("CH3OH"))
    far = two.copy()
    far.positions += [40.0, 0.0, 0.0]
    alone = [made(graph(atoms, made)) for atoms in (one, two)]
    total = sum(out["energy"].item() for out in alone)
    assert made(graph(one + far, made))["energy"].item() == pytest.approx(total, rel=1e-12)
    both = made(AtomGraph.batch([graph(one, made), graph(two, made)]))
    assert both["energy"].tolist() == pytest.approx([out["energy"].item() for out in alone], rel=1e-12)
    torch.testing.assert_close(
        both["forces"], torch.cat([out["forces"] for out in alone]), rtol=0, atol=1e-12
    )


def check_forces(made, atoms, **tolerance):
    forces = made(graph(atoms, made))["forces"]
    for atom, axis in ((0, 0), (len(atoms) - 1, 1)):

        def energy(shift, atom=atom, axis=axis):
            moved = atoms.copy()
            moved.positions[atom, axis] += shift
            return made(graph(moved, made), forces=False)["energy"].item()

        assert forces[atom, axis].item() == pytest.approx(-slope(energy), **tolerance)


def check_stress(made, **tolerance):
    atoms = crystal()
    out = made(graph(atoms, made), stress=True)
    assert out["forces"].sum(0).abs().max() < 1e-11

    def energy(shear):
        strain = np.eye(3)
        strain[1, 2] = strain[2, 1] = shear / 2
        strained = atoms.copy()
        strained.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
        return made(graph(strained, made), forces=False)["energy"].item()

    assert out["stress"][0, 1, 2].item() == pytest.approx(slope(energy) / atoms.get_volume(), **tolerance)


def check_cutoff(made):
    """A pair ends like the fourth power of the distance that is left, its force like the third."""

    def at(distance):
        out = made(graph(Atoms("OHF", [[0, 0, 0], [0.97, 0, 0], [0, distance, 0]]), made))
        return out["energy"].item(), out["forces"]

    far, none = at(made.cutoff + 1e-3)
    assert not none[2].any()
    (here, pull), (nearer, stronger) = at(made.cutoff - 1e-2), at(made.cutoff - 2e-2)
    assert (nearer - far) / (here - far) == pytest.approx(2**4, rel=0.1)
    assert stronger[2].norm() / pull[2].norm() == pytest.approx(2**3, rel=0.1)


def check_atom_alone(made):
    """No energy, no force; and a graph of no atoms has neither."""
    apart = made(graph(Atoms("OH", [[0, 0, 0], [0, 0, made.cutoff + 0.1]]), made))
    assert made(graph(Atoms("O"), made))["energy"].item() == 0
    assert apart["energy"].item() == 0
    assert not apart["forces"].any()
    assert made(graph(Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]), made))["energy"].abs() > 1e-6
    nobody, nowhere = torch.zeros(0, dtype=torch.long), torch.zeros(0, 3).double()
    assert made.model(nobody, nobody.view(1, 0).expand(2, 0), nowhere, nobody, 0)["energy"].shape == (0,)


def check_compiles(model, sizes, **tolerance):
    """Into one graph, with the same answer at any size."""
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend="aot_eager")
    for atoms in sizes:
        pos = 1.6 * torch.cartesian_prod(*[torch.arange(6).double()] * 3)[:atoms]
        pos = pos + 0.3 * torch.rand(atoms, 3, generator=torch.Generator().manual_seed(0)).double()
        given = AtomGraph.build(torch.arange(atoms) % 7 + 1, pos, cutoff=3.0, dtype=torch.float64)
        answers = []
        for call in (model, compiled):
            vectors = given.edge_vectors().detach().requires_grad_()
            out = call(given.atomic_numbers, given.edge_index, vectors, given.batch, 1)
            gradient = torch.autograd.grad(out["energy"].sum(), vectors, materialize_grads=True)[0]
            answers.append((out["energy"].detach(), gradient))
        torch.testing.assert_close(*answers, **tolerance)
