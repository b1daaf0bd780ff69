"""equitorch/models/tensornet.py"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111, molecule

from equitorch.graph import AtomGraph
from equitorch.interop import torchmdnet
from equitorch.layers.radial import tables
from equitorch.models import Potential, TensorNet, TensorNet2
from equitorch.reps import CartesianTensor
from equitorch.testing import assert_equivariant, equivariance_error
from tests.models.tensornet_oracle import tensornet
from tests.torchmdnet_reference import CHARGE, HYPER, NUMBERS, POSITIONS, state_dict

CUTOFF = 4.5
SMALL = {"channels": 4, "layers": 2, "radial": 6, "cutoff": CUTOFF, "max_z": 20}


def model(seed=0, **options):
    torch.manual_seed(seed)
    return TensorNet(**SMALL | options).double()


def potential(seed=0, **options):
    return Potential(model(seed, **options), scale=3.0).double().eval()


def rattled(atoms, seed=0):
    atoms.rattle(0.1, seed=seed)
    return atoms


def slab():
    """Two layers, both kinds of atoms on one side each, periodic in the plane, in a skewed cell."""
    atoms = fcc111("Al", (1, 2, 2), a=4.2, vacuum=4.0, orthogonal=False)
    atoms.numbers[2:] = 8
    atoms.set_cell(atoms.cell[:] + np.array([[0, 0.4, 0], [0, 0, 0], [0.3, 0, 0]]), scale_atoms=True)
    return rattled(atoms)


def crystal():
    """A skewed cell smaller than the cutoff: atoms meet many images of one another, and of themselves."""
    cell = [[2.6, 0.3, 0.0], [-0.7, 2.9, 0.4], [0.2, 0.1, 3.1]]
    return Atoms("NaF", [[0.0, 0.0, 0.0], [1.2, 1.5, 1.7]], cell=cell, pbc=True)


def graph(atoms, cutoff=CUTOFF):
    return AtomGraph.from_ase(atoms, cutoff, dtype=torch.float64)


def run(model, pos, numbers=NUMBERS, **options):
    """The model on atoms at ``pos`` that all see one another, differentiable in ``pos``."""
    n = len(pos)
    target, source = (~torch.eye(n, dtype=torch.bool)).nonzero().T
    vectors = pos[source] - pos[target]
    zeros = torch.zeros(n, dtype=torch.long)
    return model(numbers, torch.stack([source, target]), vectors, zeros, 1, **options)


@pytest.mark.parametrize("charge", [0.0, CHARGE])
@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_is_the_matrices_of_the_paper(group, charge):
    hyper = HYPER | {"equivariance_invariance_group": group}
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


@pytest.mark.parametrize(
    ("channels", "layers", "radial", "max_z", "count"),
    [
        (128, 0, 32, 128, 301_441),
        (128, 1, 32, 128, 535_681),
        (128, 2, 32, 128, 769_921),
        (256, 3, 32, 128, 3_925_249),
        (128, 2, 64, 128, 790_401),
        (128, 2, 32, 100, 766_337),
    ],
)
def test_has_as_many_parameters_as_published(channels, layers, radial, max_z, count):
    with torch.device("meta"):
        made = TensorNet(channels=channels, layers=layers, radial=radial, max_z=max_z)
    assert sum(p.numel() for p in made.parameters()) == count


def test_energies_are_invariant():
    def energy(group):
        made = model(group=group)
        return lambda pos: run(made, pos.squeeze(-1))["node_energy"][:, None, None]

    options = {"channels": 1, "batch": (5,)}
    assert_equivariant(energy("O(3)"), ["1o"], "0e", **options)
    assert_equivariant(energy("SO(3)"), ["1"], "0", **options)
    assert equivariance_error(energy("SO(3)"), ["1o"], "0e", **options) > 1e-9


@pytest.mark.parametrize(
    ("name", "group", "output"),
    [
        ("dipole", "O(3)", "1o"),
        ("polarizability", "O(3)", CartesianTensor("ij")),
        ("shielding", "SO(3)", CartesianTensor("ij", group="SO(3)")),
        ("polarizability", "SO(3)", CartesianTensor("ij", group="SO(3)")),
    ],
)
def test_properties_are_equivariant(name, group, output):
    made = model(outputs=["energy", name], group=group)

    def function(pos):
        return run(made, pos.squeeze(-1))[name].flatten(1)[:, :, None]

    assert_equivariant(function, ["1o" if group == "O(3)" else "1"], output, channels=1, batch=(5,))
    out = run(made, POSITIONS)[name]
    assert out.abs().max() > 1e-6
    if name == "polarizability":
        torch.testing.assert_close(out, out.mT)
    if name == "shielding":
        assert out.shape == (5, 3, 3)
        assert (out - out.mT).abs().max() > 1e-6


def test_properties_add_up_over_graphs_and_leave_energies_alone():
    made, bare = model(outputs=["energy", "dipole"]), model()
    bare.load_state_dict({k: v for k, v in made.state_dict().items() if not k.startswith("properties")})
    graphs = [graph(rattled(molecule(name))) for name in ("H2O", "CH3OH")]
    both = Potential(made).double().eval()(AtomGraph.batch(graphs))
    assert both["dipole"].shape == (2, 3)
    for k, one in enumerate(graphs):
        alone = Potential(made).double().eval()(one)
        torch.testing.assert_close(both["dipole"][k], alone["dipole"][0], rtol=0, atol=1e-13)
        torch.testing.assert_close(alone["energy"], Potential(bare).double().eval()(one)["energy"])
    only = model(outputs="dipole")
    assert set(run(only, POSITIONS)) == {"node_features", "dipole"}


def test_options_rebuild_it_and_a_file_keeps_it(tmp_path):
    made = Potential(model(outputs=("energy", "dipole"), activation="tanh"), species=[1, 8]).double().eval()
    assert json.loads(json.dumps(made.model.options))["outputs"] == ["energy", "dipole"]
    made.save(tmp_path / "a.eqt")
    water = graph(rattled(molecule("H2O")))
    ours, theirs = made(water), Potential.load(tmp_path / "a.eqt")(water)
    for key in ("energy", "forces", "dipole"):
        assert torch.equal(ours[key], theirs[key])


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects outputs from energy, dipole.*got energy, magnetisation"):
        TensorNet(outputs=["energy", "magnetisation"])
    with pytest.raises(ValueError, match=r"O\(3\) has no shielding: .*axial vector.*write group='SO\(3\)'"):
        TensorNet(outputs=["shielding"])
    with pytest.raises(ValueError, match="expects basis to be one of expnorm, gauss, got 'bessel'"):
        TensorNet(basis="bessel")
    with pytest.raises(
        ValueError, match="expects cutoff_function to be one of cosine, polynomial, got 'step'"
    ):
        TensorNet(cutoff_function="step")
    with pytest.raises(ValueError, match="an activation is one of silu"):
        TensorNet(activation="step")


@pytest.mark.parametrize(
    "system", [crystal, slab, lambda: rattled(molecule("CH3OH"))], ids=["crystal", "slab", "molecule"]
)
@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_forces_are_the_gradient(system, group):
    made, atoms = potential(group=group), system()
    forces = made(graph(atoms))["forces"]
    step = 1e-4
    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        energies = []
        for k in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[atom, axis] += k * step
            energies.append(made(graph(moved), forces=False)["energy"].item())
        numeric = -(energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert forces[atom, axis].item() == pytest.approx(numeric, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("knots", [None, 16])
def test_stress_is_the_gradient_and_tables_have_exact_forces(knots):
    made, atoms = potential(), crystal()
    with tables(made, knots):
        out = made(graph(atoms), stress=True)
        assert out["forces"].sum(0).abs().max() < 1e-13
        step = 1e-4
        for a, b in ((0, 0), (1, 2)):
            energies = []
            for k in (-2, -1, 1, 2):
                strain = np.eye(3)
                strain[a, b] += k * step / 2
                strain[b, a] += k * step / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
                energies.append(made(graph(strained), forces=False)["energy"].item())
            numeric = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
            assert out["stress"][0, a, b].item() == pytest.approx(
                numeric / atoms.get_volume(), rel=1e-7, abs=1e-11
            )


def test_reverse_edges_change_nothing_but_the_work():
    made = potential()
    for atoms in (slab(), crystal()):
        given = graph(atoms)
        bare = dataclasses.replace(given, edge_reverse=None)
        torch.testing.assert_close(made(given), made(bare), rtol=0, atol=1e-12)


def test_the_slab_feels_which_way_messages_go():
    given = graph(slab())
    turned = given.replace(edge_index=given.edge_index, edge_shift=-given.edge_shift)
    assert (potential()(given)["energy"] - potential()(turned)["energy"]).abs() > 1e-6


@pytest.mark.parametrize(("function", "power"), [("cosine", 2), ("polynomial", 3)])
def test_is_smooth_through_the_cutoff(function, power):
    made = potential(cutoff_function=function)

    def at(distance):
        atoms = Atoms("OHF", [[0, 0, 0], [0.97, 0, 0], [0, distance, 0]])
        out = made(graph(atoms))
        return out["energy"].item(), out["forces"]

    far, none = at(CUTOFF + 1e-3)
    assert not none[2].any()
    (here, pull), (nearer, stronger) = at(CUTOFF - 1e-2), at(CUTOFF - 2e-2)
    assert (nearer - far) / (here - far) == pytest.approx(2**power, rel=0.05)
    assert stronger[2].norm() / pull[2].norm() == pytest.approx(2 ** (power - 1), rel=0.05)


def test_atoms_that_see_nobody_have_an_energy_and_no_force():
    made = potential()
    alone, apart = made(graph(Atoms("O"))), made(graph(Atoms("O2", [[0, 0, 0], [0, 0, 4.6]])))
    assert apart["energy"].item() == pytest.approx(2 * alone["energy"].item(), rel=1e-14)
    assert not apart["forces"].any()
    assert alone["energy"].abs() > 1e-6


def test_charge_scales_the_product_and_minus_ten_removes_it():
    made = model()
    neutral, none, killed = (
        run(made, POSITIONS, charge=q) for q in (torch.zeros(1), None, torch.full((1,), -10.0).double())
    )
    assert torch.equal(neutral["energy"], none["energy"])
    one = model(layers=1)
    assert not torch.equal(run(one, POSITIONS)["energy"], run(one, POSITIONS, charge=torch.ones(1))["energy"])
    for layer in made.interactions:
        torch.nn.init.zeros_(layer.after.weight)
    torch.testing.assert_close(run(made, POSITIONS)["energy"], killed["energy"], rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("knots", "energy", "force"), [(256, 5e-9, 2e-7), (512, 1e-10, 5e-9), (1024, 1e-12, 1e-10)]
)
def test_tables_have_the_errors_they_should(knots, energy, force):
    torch.manual_seed(0)
    made = Potential(TensorNet(channels=32, max_z=20)).double().eval()
    given = graph(rattled(molecule("isobutane")))
    exact = made(given)
    with tables(made, knots):
        table = made(given)
    assert (table["energy"] - exact["energy"]).abs() < energy
    assert (table["forces"] - exact["forces"]).abs().max() < force


def test_learns_through_tables_as_without():
    given = graph(rattled(molecule("CH3OH")))
    made = potential().train()
    weights, gradients = list(made.parameters()), []
    for knots in (None, 512):
        with tables(made, knots):
            out = made(given)
            loss = out["energy"].square().sum() + out["forces"].square().sum()
            gradients.append(torch.autograd.grad(loss, weights))
    largest = max(g.abs().max() for g in gradients[0])
    assert max((a - b).abs().max() for a, b in zip(*gradients, strict=True)) < 1e-7 * largest
    optimizer = torch.optim.SGD(weights, lr=1e-2)
    made.eval()
    with tables(made, 512):
        before = made(given)["energy"]
        for weight, gradient in zip(weights, gradients[0], strict=True):
            weight.grad = gradient
        optimizer.step()
        after = made(given)["energy"]
    assert (after - before).abs() > 1e-6
    torch.testing.assert_close(after, made(given)["energy"], rtol=0, atol=1e-8)


def test_compiles_into_one_graph_with_the_same_answer_at_any_size():
    made = model(layers=1).requires_grad_(False)
    options = {"fullgraph": True, "backend": "aot_eager"}
    compiled, alone = torch.compile(made, dynamic=True, **options), torch.compile(made, **options)
    for atoms, function in ((21, compiled), (129, compiled), (3, compiled), (1, alone)):
        pos = 1.6 * torch.cartesian_prod(*[torch.arange(6).double()] * 3)[:atoms]
        pos = pos + 0.3 * torch.rand(atoms, 3, generator=torch.Generator().manual_seed(0)).double()
        given = AtomGraph.build(torch.arange(atoms) % 7 + 1, pos, cutoff=3.0, dtype=torch.float64)
        answers = []
        for call in (made, function):
            vectors = given.edge_vectors().detach().requires_grad_()
            out = call(given.atomic_numbers, given.edge_index, vectors, given.batch, 1)
            gradient = torch.autograd.grad(out["energy"].sum(), vectors, materialize_grads=True)[0]
            answers.append((out["energy"].detach(), gradient))
        torch.testing.assert_close(answers[0], answers[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("channels", -3, "channels to be a whole number >= 2, got -3"),
        ("channels", 2.5, "channels to be a whole number >= 2, got 2.5"),
        ("layers", -1, "layers to be a whole number >= 0, got -1"),
        ("radial", 0, "radial to be a whole number >= 1, got 0"),
        ("max_z", 0, "max_z to be a whole number >= 2, got 0"),
        ("cutoff", 0.0, "cutoff to be a distance > 0 in Å, got 0.0"),
        ("cutoff", float("nan"), "cutoff to be a distance > 0 in Å, got nan"),
        ("lower", 4.5, "lower to be a distance from 0 to the cutoff 4.5 Å, got 4.5"),
        ("lower", -1.0, "lower to be a distance from 0 to the cutoff 4.5 Å, got -1.0"),
    ],
)
@pytest.mark.parametrize("kind", [TensorNet, TensorNet2])
def test_refuses_numbers_that_make_no_model(kind, option, value, words):
    with pytest.raises(ValueError, match=f"^{kind.__name__} expects {words}$"):
        kind(**{option: value})
