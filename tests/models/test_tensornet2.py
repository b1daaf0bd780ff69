"""equitorch/models/tensornet2.py"""

import dataclasses

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from equitorch.graph import AtomGraph
from equitorch.interop import torchmdnet
from equitorch.layers.radial import tables
from equitorch.models import Potential, TensorNet2
from equitorch.testing import assert_equivariant, equivariance_error
from tests.models.tensornet_oracle import tensornet
from tests.models.test_tensornet import crystal, graph, rattled, run, slab
from tests.torchmdnet_reference import CHARGE, HYPER, NUMBERS, POSITIONS, state_dict

SMALL = {"channels": 4, "layers": 2, "radial": 6, "charges": 3, "cutoff": 4.5, "max_z": 20}


def model(seed=0, **options):
    torch.manual_seed(seed)
    return TensorNet2(**SMALL | options).double()


def potential(seed=0, **options):
    return Potential(model(seed, **options), scale=3.0).double().eval()


def charged(atoms, charge):
    atoms.info["charge"] = charge
    return graph(atoms)


@pytest.mark.parametrize("charge", [0.0, CHARGE])
@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_is_the_matrices_of_the_paper(group, charge):
    hyper = HYPER | {"model": "tensornet2", "q_dim": 3, "equivariance_invariance_group": group}
    weights = state_dict(hyper)
    ours = torchmdnet.load(weights, hyper).model
    pos = POSITIONS.clone().requires_grad_()
    expected, matrices = tensornet(weights, hyper, NUMBERS, pos, charge)
    out = run(ours, pos, charge=torch.tensor([charge]).double())
    torch.testing.assert_close(out["node_energy"], expected, rtol=1e-13, atol=0)
    square = out["node_features"].square().sum(1)
    torch.testing.assert_close(square, matrices[-1].square().sum((-2, -1)), rtol=1e-12, atol=1e-14)
    (gradient,) = torch.autograd.grad(out["energy"].sum(), pos, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), pos)[0], rtol=0, atol=1e-13)


def test_energies_are_invariant():
    def energy(group):
        made = model(group=group)
        charge = torch.ones(1).double()
        return lambda pos: run(made, pos.squeeze(-1), charge=charge)["node_energy"][:, None, None]

    options = {"channels": 1, "batch": (5,)}
    assert_equivariant(energy("O(3)"), ["1o"], "0e", **options)
    assert_equivariant(energy("SO(3)"), ["1"], "0", **options)
    assert equivariance_error(energy("SO(3)"), ["1o"], "0e", **options) > 1e-9


@pytest.mark.parametrize(
    "system", [crystal, slab, lambda: rattled(molecule("CH3OH"))], ids=["crystal", "slab", "molecule"]
)
def test_forces_are_the_gradient(system):
    made, atoms = potential(), system()
    forces = made(charged(atoms, 1.0))["forces"]
    step = 1e-4
    for atom, axis in ((0, 0), (len(atoms) - 1, 2)):
        energies = []
        for k in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[atom, axis] += k * step
            energies.append(made(charged(moved, 1.0), forces=False)["energy"].item())
        numeric = -(energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert forces[atom, axis].item() == pytest.approx(numeric, rel=1e-7, abs=1e-10)


def test_charge_reaches_atoms_that_see_nobody():
    made = model()
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [30.0, 0.0, 0.0]]).double()
    given = AtomGraph.build([8, 1, 17], pos, cutoff=4.5, dtype=torch.float64)
    inputs = (given.atomic_numbers, given.edge_index, given.edge_vectors(), given.batch, 1)
    outs = [made(*inputs, charge=q) for q in (None, torch.zeros(1), torch.ones(1))]
    assert torch.equal(outs[0]["energy"], outs[1]["energy"])
    moved = (outs[2]["node_energy"] - outs[1]["node_energy"]).abs()
    assert (moved > 1e-9).all()
    assert outs[2]["node_charges"].shape == (3, 3, 3)


def test_graphs_of_a_batch_do_not_share_charge():
    made = potential()
    graphs = [charged(rattled(molecule(name)), q) for name, q in (("H2O", -1.0), ("CH3OH", 2.0))]
    both = made(AtomGraph.batch(graphs))
    alone = [made(one) for one in graphs]
    torch.testing.assert_close(
        both["energy"], torch.cat([out["energy"] for out in alone]), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(
        both["forces"], torch.cat([out["forces"] for out in alone]), rtol=0, atol=1e-13
    )


def test_reverse_edges_and_tables_change_only_the_work():
    made, given = potential(), graph(crystal())
    bare = made(dataclasses.replace(given, edge_reverse=None))
    torch.testing.assert_close(made(given), bare, rtol=0, atol=1e-12)
    with tables(made, 512):
        torch.testing.assert_close(made(given)["energy"], bare["energy"], rtol=0, atol=1e-9)


def test_atoms_that_see_nobody_have_an_energy_and_no_force():
    made = potential()
    out = made(graph(Atoms("O2", [[0, 0, 0], [0, 0, 4.6]])))
    assert not out["forces"].any()
    alone = made(graph(Atoms("O")))["energy"].item()
    assert out["energy"].item() == pytest.approx(2 * alone, rel=1e-6)  # shares of charge are regularised


def test_a_file_keeps_it(tmp_path):
    made, given = potential(activation="tanh", group="SO(3)"), charged(rattled(molecule("H2O")), 1.0)
    made.save(tmp_path / "a.eqt")
    assert torch.equal(Potential.load(tmp_path / "a.eqt")(given)["energy"], made(given)["energy"])


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="TensorNet2 expects group to be one of"):
        TensorNet2(group="E(3)")
    with pytest.raises(ValueError, match="TensorNet2 expects charges to be a whole number >= 1, got 0"):
        TensorNet2(charges=0)
