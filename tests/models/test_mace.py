"""equitorch/models/mace.py, equitorch/layers/mace.py"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write

import equitorch
from equitorch.calculator import EquitorchCalculator
from equitorch.datasets import load_shipped
from equitorch.graph import AtomGraph
from equitorch.layers.mace import many_body_product
from equitorch.layers.radial import tables
from equitorch.models import MACE, Potential
from equitorch.ops.backend import use_reference
from equitorch.testing import assert_equivariant, equivariance_error
from equitorch.training.config import Config, ConfigError
from equitorch.training.prepare import prepare
from tests.models.potential_checks import (
    check_additive,
    check_atom_alone,
    check_compiles,
    check_cutoff,
    check_forces,
    check_order_and_origin,
    check_stress,
)
from tests.models.test_nequip import exact
from tests.models.test_tensornet import crystal, rattled, run, slab
from tests.torchmdnet_reference import NUMBERS, POSITIONS

CUTOFF = 4.5
SMALL = {
    "channels": 4, "lmax": 1, "max_ell": 2, "radial": 4, "hidden": [8], "cutoff": CUTOFF,
    "average_neighbors": 3.0, "readout": 5,
}  # fmt: skip
PRODUCTS = pytest.mark.parametrize("product", ["cg", "gaunt"])
SYSTEMS = pytest.mark.parametrize(
    "system", [crystal, slab, lambda: rattled(molecule("CH3OH"))], ids=["crystal", "slab", "molecule"]
)


def model(seed=0, **options):
    torch.manual_seed(seed)
    return exact(MACE(**SMALL | options))


def potential(seed=0, **options):
    return Potential(model(seed, **options), scale=3.0).double().eval()


def graph(atoms):
    return AtomGraph.from_ase(atoms, CUTOFF, dtype=torch.float64)


@PRODUCTS
@pytest.mark.parametrize(("layers", "lmax", "max_ell"), [(1, 0, 2), (2, 2, 2), (3, 1, 1)])
def test_is_what_e3nn_makes_of_the_paper(product, layers, lmax, max_ell):
    pytest.importorskip("e3nn")
    from tests.models.mace_oracle import energies, random_weights

    elements = sorted(set(NUMBERS.tolist()))
    made = model(product=product, layers=layers, lmax=lmax, max_ell=max_ell, elements=elements)
    weights = [random_weights(layer) for layer in made.layers] if product == "cg" else None
    pos = POSITIONS.clone().requires_grad_()
    expected, out = energies(made, NUMBERS, pos, weights), run(made, pos)
    torch.testing.assert_close(out["node_energy"], expected, rtol=1e-8, atol=1e-10)
    (ours,) = torch.autograd.grad(out["energy"].sum(), pos)
    (theirs,) = torch.autograd.grad(expected.sum(), pos)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    assert theirs.abs().max() > 1e-4


@PRODUCTS
def test_energies_are_invariant_under_turns_and_mirrors(product):
    made = model(product=product, layers=3, lmax=2, max_ell=3)

    def energy(pos):
        return run(made, pos.squeeze(-1))["node_energy"][:, None, None]

    assert_equivariant(energy, ["1o"], "0e", channels=1, batch=(5,))


@PRODUCTS
def test_the_check_can_fail(product):
    made = model(product=product)
    made.layers[0].register_forward_hook(lambda _module, _inputs, x: x + 0.1)  # rows of vectors too
    error = equivariance_error(
        lambda pos: run(made, pos.squeeze(-1))["node_energy"][:, None, None],
        ["1o"],
        "0e",
        channels=1,
        batch=(5,),
    )
    assert error > 1e-6


@PRODUCTS
def test_one_layer_sees_as_many_bodies_as_it_multiplies(product):
    """An atom's energy is a sum over sets of at most ``correlation`` neighbours: mixed differences end."""

    def mixed(correlation, neighbours):
        made = model(product=product, layers=1, correlation=correlation)
        made.readouts[-1] = torch.nn.Linear(SMALL["channels"], 1, bias=False).double()
        torch.manual_seed(1)
        places, subsets = torch.randn(neighbours, 3).double(), 1 << neighbours
        held = torch.tensor([[mask >> k & 1 for k in range(neighbours)] for mask in range(subsets)])
        centre, neighbour = held.nonzero().T  # an atom in the middle of each set, and all of them around
        numbers, batch = torch.full((subsets + neighbours,), 6), torch.zeros(subsets + neighbours).long()
        edges = torch.stack([subsets + neighbour, centre])
        energy = made(numbers, edges, places[neighbour], batch, 1)["node_energy"][:subsets]
        return ((-1.0) ** held.sum(1) * energy).sum().abs().item()

    assert mixed(2, 2) > 1e-6
    assert mixed(2, 3) < 1e-12
    assert mixed(3, 3) > 1e-8
    assert mixed(3, 4) < 1e-12


@PRODUCTS
def test_every_weight_matters_to_the_energy(product):
    made = model(product=product, layers=3, elements=[1, 6, 7, 8])
    numbers = torch.tensor([1, 6, 8, 7, 1])
    run(made, 0.7 * POSITIONS, numbers)["node_energy"].square().sum().backward()
    for name, weight in made.named_parameters():
        assert bool(weight.grad.abs().sum() > 0), name


@PRODUCTS
def test_knows_neither_order_nor_origin_of_atoms(product):
    check_order_and_origin(potential(product=product))


@PRODUCTS
def test_energies_add_up_over_molecules_and_graphs(product):
    check_additive(potential(product=product))


@PRODUCTS
@SYSTEMS
def test_forces_are_the_gradient(product, system):
    check_forces(potential(product=product), system(), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("knots", [None, 16])
def test_stress_is_the_gradient_and_tables_have_exact_forces(knots):
    made = potential()
    with tables(made, knots):
        check_stress(made, rel=1e-6, abs=1e-9)


@PRODUCTS
def test_reverse_edges_the_reference_and_float32_say_the_same(product):
    made, given = potential(product=product), graph(rattled(molecule("CH3OH")))
    expected = made(given)
    bare = dataclasses.replace(given, edge_reverse=None)
    torch.testing.assert_close(made(bare), expected, rtol=0, atol=1e-11)
    with use_reference():
        torch.testing.assert_close(made(given), expected, rtol=1e-10, atol=1e-11)
    single = Potential(model(product=product).float(), scale=3.0).eval()(given.to(dtype=torch.float32))
    size = expected["forces"].abs().max().item()
    assert single["energy"].item() == pytest.approx(expected["energy"].item(), rel=1e-4)
    torch.testing.assert_close(single["forces"].double(), expected["forces"], rtol=0, atol=1e-4 * size)


@PRODUCTS
def test_is_smooth_through_the_cutoff(product):
    check_cutoff(potential(product=product))


@PRODUCTS
def test_an_atom_alone_has_no_energy_and_no_force(product):
    check_atom_alone(potential(product=product))


def test_elements_are_named_or_all_and_their_order_does_not_matter():
    named, swapped = (model(elements=given) for given in (["H", "C", "O"], [8, 1, 6]))
    assert named.options["elements"] == swapped.options["elements"] == [1, 6, 8]
    everything = model(max_z=9)
    state = {
        key: value[[1, 6, 8]]
        if key == "embedding.weight" or key.endswith(("own.weight", "product.weight"))
        else value
        for key, value in everything.state_dict().items()
    }
    named.load_state_dict(state)
    water = graph(rattled(molecule("CH3OH")))
    torch.testing.assert_close(
        Potential(named).eval()(water), Potential(everything).eval()(water), rtol=0, atol=1e-13
    )
    assert Potential(named).species == (1, 6, 8)
    with pytest.raises(ValueError, match="MACE has weights for H, C, O, got F; build it with these elements"):
        run(named, POSITIONS[:1], torch.tensor([9]))


def test_training_steps_on_one_batch_can_be_repeated():
    """More pairs than knots: weights of the radial functions then come from tables, in training too."""
    torch.manual_seed(0)
    made = Potential(MACE(channels=2, max_ell=1, hidden=[4], average_neighbors=10.0)).train()
    given = AtomGraph.from_ase(crystal().repeat((3, 3, 3)), 5.0, dtype=torch.float32)
    assert given.num_edges > 2000
    for _ in range(2):
        made(given)["forces"].square().mean().backward()


@PRODUCTS
def test_options_rebuild_it_and_a_file_keeps_it(tmp_path, product):
    made = Potential(model(hidden=(8,), elements=["O", "H"], product=product)).double().eval()
    assert json.loads(json.dumps(made.model.options)) == made.model.options
    made.save(tmp_path / "a.eqt")
    water = graph(rattled(molecule("H2O")))
    ours, again = made(water), Potential.load(tmp_path / "a.eqt")
    for key in ("energy", "forces"):
        assert torch.equal(ours[key], again(water)[key])
    assert again.species == (1, 8)


def test_drives_ase():
    made, atoms = potential(), rattled(molecule("CH3OH"))
    atoms.calc = EquitorchCalculator(made)
    out = made(graph(atoms))
    assert atoms.get_potential_energy() == pytest.approx(out["energy"].item(), abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), out["forces"].numpy(), atol=1e-10)


def config(folder, *overrides):
    ethanol = load_shipped("ethanol")
    frames = [ethanol.to_ase(k) for k in range(0, 1200, 80)]
    write(folder / "few.xyz", frames, format="extxyz")
    values = {
        "data": {"train": str(folder / "few.xyz"), "valid": 3},
        "model": {"name": "mace", "channels": 4, "max_ell": 2, "hidden": [16], "cutoff": 3.0},
        "train": {"epochs": 12, "seed": 0, "batch": 3, "lr": 0.03, "warmup": 0, "ema": 0.0, "device": "cpu"},
        "output": str(folder / "run"),
    }
    return Config.from_dict(values, overrides)


@PRODUCTS
def test_learns_and_takes_elements_and_neighbours_from_the_data(tmp_path, product):
    run = equitorch.train(config(tmp_path, f"model.product={product}"))
    first, last = run.history[0], run.history[-1]
    assert last["train_loss"] < 0.7 * first["train_loss"]
    kept = equitorch.load(run.path).model.options
    assert 4 < kept["average_neighbors"] < 8
    assert kept["elements"] == [1, 6, 8]


def test_training_says_which_elements_have_no_weights(tmp_path):
    wide = prepare(config(tmp_path, "model.elements=[H, C, N, O]"), torch.device("cpu"))
    assert wide.potential.model.options["elements"] == [1, 6, 7, 8]
    with pytest.raises(
        ConfigError, match=r"model\.elements: the data have H, C, O, the model has weights for H, C"
    ):
        prepare(config(tmp_path, "model.elements=[1, 6]"), torch.device("cpu"))
    wide.potential.save(tmp_path / "a.eqt")
    goes_on = [f"model.from={tmp_path / 'a.eqt'}", "model.elements=null"]
    again = prepare(config(tmp_path, *goes_on), torch.device("cpu"))
    assert again.potential.model.options["elements"] == [1, 6, 7, 8]


def test_compiles_into_one_graph_with_the_same_answer_at_any_size():
    """With one layer of each product."""
    made = model(product="cg", max_z=9, max_ell=1, correlation=2)
    made.layers[1].product = model(product="gaunt", max_z=9, max_ell=1, correlation=2).layers[1].product
    made.requires_grad_(False)
    check_compiles(made, (21, 40, 3), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels to be a whole number >= 1, got 0"),
        ({"layers": 0}, "layers to be a whole number >= 1, got 0"),
        ({"lmax": -1}, "lmax to be a whole number >= 0, got -1"),
        ({"max_ell": True}, "max_ell to be a whole number >= 0, got True"),
        ({"correlation": 0}, "correlation to be a whole number >= 1, got 0"),
        ({"radial": 2.5}, "radial to be a whole number >= 1, got 2.5"),
        ({"hidden": [64, 0]}, r"hidden to be whole numbers >= 1, got \[64, 0\]"),
        ({"cutoff": float("nan")}, "cutoff to be a distance > 0 in Å, got nan"),
        ({"average_neighbors": 0.0}, "average_neighbors to be a number > 0, or None, got 0.0"),
        ({"product": "cross"}, "product to be cg or gaunt, got 'cross'"),
        (
            {"elements": ["H", "Xy"]},
            r"elements to be distinct atomic numbers or chemical symbols, got \['H', 'Xy'\]",
        ),
        ({"elements": [1, 1]}, r"elements to be distinct .*, got \[1, 1\]"),
        ({"elements": []}, r"elements to be distinct .*, got \[\]"),
    ],
)
def test_says_what_it_expected(options, words):
    with pytest.raises(ValueError, match=f"^MACE expects {words}$"):
        MACE(**options)


def test_a_product_is_known_by_name():
    with pytest.raises(ValueError, match="many_body_product expects one of cg, gaunt, got 'cross'"):
        many_body_product("cross", 1, 0, 4, correlation=2, species=1)
