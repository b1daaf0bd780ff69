"""equitorch/models/nequip.py"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st

import equitorch
from equitorch.calculator import EquitorchCalculator
from equitorch.datasets import load_shipped
from equitorch.graph import AtomGraph
from equitorch.layers.radial import tables
from equitorch.models import NequIP, Potential
from equitorch.models.nequip import reachable_irreps
from equitorch.ops.backend import use_reference
from equitorch.reps import CartesianTensor, Irreps
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
from tests.models.test_tensornet import crystal, rattled, run, slab
from tests.torchmdnet_reference import NUMBERS, POSITIONS

CUTOFF = 4.5
SMALL = {
    "channels": 4, "layers": 3, "lmax": 2, "radial": 4, "hidden": [8], "cutoff": CUTOFF,
    "average_neighbors": 3.0, "max_z": 20,
}  # fmt: skip


def model(seed=0, **options):
    torch.manual_seed(seed)
    return exact(NequIP(**SMALL | options))


def exact(made):
    """The model in float64, frequencies included: those of its Bessel functions are rounded like weights."""
    basis = made.double().layers[0].radial.basis.bessel
    basis.frequency.copy_(torch.pi * torch.arange(1, basis.count + 1, dtype=torch.float64))
    return made


def potential(seed=0, **options):
    return Potential(model(seed, **options), scale=3.0).double().eval()


def graph(atoms):
    return AtomGraph.from_ase(atoms, CUTOFF, dtype=torch.float64)


@pytest.mark.parametrize(
    ("parity", "layers", "lmax"), [(True, 4, 1), (True, 3, 2), (False, 3, 2), (True, 1, 0)]
)
def test_is_what_e3nn_makes_of_the_paper(parity, layers, lmax):
    pytest.importorskip("e3nn")
    from tests.models.nequip_oracle import nequip

    made = model(parity=parity, layers=layers, lmax=lmax)
    pos = POSITIONS.clone().requires_grad_()
    expected, out = nequip(made, NUMBERS, pos), run(made, pos)
    torch.testing.assert_close(out["node_energy"], expected, rtol=1e-11, atol=1e-13)
    (ours,) = torch.autograd.grad(out["energy"].sum(), pos)
    (theirs,) = torch.autograd.grad(expected.sum(), pos)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    assert theirs.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("parity", "energies", "last_force"),
    [
        (
            True,
            [-0.3210584738187029, -0.8541574559871263, -0.6795446636913838, -0.36003436729167765],
            [-1.0733109204387268, -0.6054892506495475, 1.9127032127236063],
        ),
        (
            False,
            [-0.3401144925005318, -0.8572125691350803, -0.6826758407745671, -0.36622472063914363],
            [-1.1240935674135282, -0.6602964944757899, 2.017224834023849],
        ),
    ],
)
def test_has_the_numbers_of_nequip_with_equal_weights(parity, energies, last_force):
    """Those of nequip 0.19.1 with e3nn 0.6, every weight of a kind set to one number."""
    options = {"channels": 4, "layers": 4, "lmax": 2, "radial": 3, "hidden": [6], "cutoff": 4.0}
    made = exact(NequIP(parity=parity, average_neighbors=3.0, **options))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.fill_(0.6)
            if "radial" in name:  # nequip multiplies by the gain and the fan-in when it is called
                weight.fill_(
                    0.9 * ((2 if "layers.1" in name.split("network.")[1] else 1) / weight.shape[1]) ** 0.5
                )
        made.embedding.weight[1], made.embedding.weight[8] = 0.5, -0.8
        made.energy.layers[0].weight.fill_(0.5)
    places = [[0.9, -0.3, 0.4], [0.1, 0.2, 0.0], [-0.2, 1.6, 0.1], [0.3, 1.9, -0.8]]
    given = AtomGraph.from_ase(Atoms("HOOH", places), 4.0, dtype=torch.float64)
    out = Potential(made).eval()(given)
    assert out["node_energy"].tolist() == pytest.approx(energies, rel=1e-12)
    assert out["forces"][3].tolist() == pytest.approx(last_force, rel=1e-11)


def test_has_as_many_parameters_as_nequip():
    """489568 of nequip 0.19.1 for two elements; with parity, some of its weights never reach the energy."""
    with torch.device("meta"):
        plain, both = (NequIP(lmax=2, parity=parity, max_z=2) for parity in (False, True))
    assert sum(p.numel() for p in plain.parameters()) == 489_568
    assert sum(p.numel() for p in both.parameters()) < 765_024


@given(st.integers(1, 5), st.integers(0, 3), st.booleans())
@settings(max_examples=15)
def test_every_weight_matters_to_the_energy(layers, lmax, parity):
    made = model(layers=layers, lmax=lmax, parity=parity, channels=1, hidden=[3])
    with torch.no_grad():
        for weight in made.parameters():
            weight.uniform_(0.5, 1.0)
    made.zero_grad()
    run(made, 0.7 * POSITIONS)["energy"].square().sum().backward()
    for name, weight in made.named_parameters():
        found = weight.grad[[1, 6, 7, 8]] if "embedding" in name else weight.grad
        assert bool((found != 0).all()), name


def test_leaves_out_what_cannot_be_made_or_leads_nowhere():
    def after(layers, lmax, outputs=("energy",)):
        found = reachable_irreps(layers, lmax, parity=True, outputs=outputs)
        assert found[0] == Irreps("0e")
        return found[1:]

    assert after(1, 3) == [Irreps("0e")]
    assert after(3, 1) == [Irreps("0e+1o"), Irreps("0e+1o"), Irreps("0e")]
    assert after(6, 1)[2] == Irreps("0o+0e+1o+1e")
    assert after(2, 2, ["shielding"]) == [Irreps("0e+1o+2e"), Irreps("0e+1e+2e")]


@pytest.mark.parametrize("parity", [True, False])
def test_energies_are_invariant_under_turns_and_mirrors(parity):
    made = model(parity=parity, layers=4)

    def energy(pos):
        return run(made, pos.squeeze(-1))["node_energy"][:, None, None]

    assert_equivariant(energy, ["1o"], "0e", channels=1, batch=(5,))


def test_the_check_can_fail():
    made = model()
    made.layers[0].register_forward_hook(lambda _module, _inputs, x: x + 0.1)  # rows of vectors too
    options = {"channels": 1, "batch": (5,)}
    error = equivariance_error(
        lambda pos: run(made, pos.squeeze(-1))["node_energy"][:, None, None], ["1o"], "0e", **options
    )
    assert error > 1e-6


@pytest.mark.parametrize(
    ("name", "output"),
    [("dipole", "1o"), ("polarizability", CartesianTensor("ij")), ("shielding", CartesianTensor("ij"))],
)
def test_properties_are_equivariant(name, output):
    made = model(outputs=["energy", name])

    def function(pos):
        return run(made, pos.squeeze(-1))[name].flatten(1)[:, :, None]

    assert_equivariant(function, ["1o"], output, channels=1, batch=(5,))
    out = run(made, POSITIONS)[name]
    assert out.abs().max() > 1e-6
    if name == "shielding":
        assert out.shape == (5, 3, 3)
        assert (out - out.mT).abs().max() > 1e-6
    only = model(outputs=name)
    assert set(run(only, POSITIONS)) == {"node_features", name}


def test_knows_neither_order_nor_origin_of_atoms():
    check_order_and_origin(potential())


def test_energies_add_up_over_molecules_and_graphs():
    check_additive(potential())


@pytest.mark.parametrize(
    "system", [crystal, slab, lambda: rattled(molecule("CH3OH"))], ids=["crystal", "slab", "molecule"]
)
def test_forces_are_the_gradient(system):
    check_forces(potential(), system(), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("knots", [None, 16])
def test_stress_is_the_gradient_and_tables_have_exact_forces(knots):
    made = potential()
    with tables(made, knots):
        check_stress(made, rel=1e-6, abs=1e-9)


def test_reverse_edges_change_nothing_but_the_work():
    made = potential()
    for atoms in (slab(), crystal()):
        given = graph(atoms)
        bare = dataclasses.replace(given, edge_reverse=None)
        torch.testing.assert_close(made(given), made(bare), rtol=0, atol=1e-11)


def test_the_reference_and_float32_say_the_same():
    made, given = potential(), graph(rattled(molecule("CH3OH")))
    exact = made(given, stress=False)
    with use_reference():
        torch.testing.assert_close(made(given), exact, rtol=1e-11, atol=1e-12)
    single = Potential(model().float(), scale=3.0).eval()(given.to(dtype=torch.float32))
    assert single["energy"].item() == pytest.approx(exact["energy"].item(), rel=1e-5)
    torch.testing.assert_close(single["forces"].double(), exact["forces"], rtol=0, atol=1e-4)


def test_is_smooth_through_the_cutoff():
    check_cutoff(potential())


def test_an_atom_alone_has_no_energy_and_no_force():
    check_atom_alone(potential())


def test_options_rebuild_it_and_a_file_keeps_it(tmp_path):
    made = Potential(model(outputs=("energy", "dipole"), hidden=(8,)), species=[1, 8]).double().eval()
    assert json.loads(json.dumps(made.model.options)) == made.model.options
    made.save(tmp_path / "a.eqt")
    water = graph(rattled(molecule("H2O")))
    ours, theirs = made(water), Potential.load(tmp_path / "a.eqt")(water)
    for key in ("energy", "forces", "dipole"):
        assert torch.equal(ours[key], theirs[key])


def test_drives_ase():
    made, atoms = potential(), rattled(molecule("CH3OH"))
    atoms.calc = EquitorchCalculator(made)
    out = made(graph(atoms))
    assert atoms.get_potential_energy() == pytest.approx(out["energy"].item(), abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), out["forces"].numpy(), atol=1e-10)


def test_learns_and_takes_the_number_of_neighbours_from_the_data(tmp_path):
    frames = [load_shipped("ethanol").to_ase(k) for k in range(0, 1200, 40)]
    write(tmp_path / "few.xyz", frames, format="extxyz")
    run = equitorch.train(
        {
            "data": {"train": str(tmp_path / "few.xyz"), "valid": 6},
            "model": {"name": "nequip", "channels": 8, "layers": 2, "hidden": [16], "cutoff": 3.0},
            "train": {"epochs": 8, "batch": 4, "lr": 0.02, "warmup": 0, "ema": 0.0, "device": "cpu"},
            "output": str(tmp_path / "run"),
        }
    )
    first, last = run.history[0], run.history[-1]
    assert last["train_loss"] < 0.7 * first["train_loss"]
    kept = equitorch.load(run.path).model.options
    assert 4 < kept["average_neighbors"] < 8


def config(folder, *overrides):
    frames = [load_shipped("ethanol").to_ase(k) for k in range(0, 1200, 100)]
    for frame in frames[:3]:
        frame.info["charge"] = 1.0
    write(folder / "few.xyz", frames, format="extxyz")
    values = {
        "data": {"train": str(folder / "few.xyz"), "valid": 2},
        "model": {"name": "nequip", "channels": 2},
    }
    return Config.from_dict(values, overrides)


def test_training_says_what_it_measured_and_that_charges_are_not_seen(tmp_path):
    made = prepare(config(tmp_path, "model.layers=1", "model.cutoff=3.0"), torch.device("cpu"))
    mean = made.potential.model.options["average_neighbors"]
    assert mean == pytest.approx(made.summary["neighbours"], rel=1e-3)
    assert f"average_neighbors: {mean:g} in the training frames" in made.notes
    assert any("makes no difference between charges; tensornet does" in note for note in made.notes)
    chosen = prepare(config(tmp_path, "model.layers=1", "model.average_neighbors=5.0"), torch.device("cpu"))
    assert chosen.potential.model.options["average_neighbors"] == 5.0
    chosen.potential.save(tmp_path / "a.eqt")
    goes_on = [f"model.from={tmp_path / 'a.eqt'}", "model.layers=1", "model.average_neighbors=null"]
    again = prepare(config(tmp_path, *goes_on), torch.device("cpu"))
    assert again.potential.model.options["average_neighbors"] == 5.0


def test_a_config_names_the_option_that_makes_no_model(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model\.lmax: NequIP expects lmax to be a whole number >= 0, got -1"
    ):
        config(tmp_path, "model.lmax=-1")
    with pytest.raises(ConfigError, match=r"model\.l_max: unknown setting; did you mean 'lmax'"):
        config(tmp_path, "model.l_max=2")


def test_compiles_into_one_graph_with_the_same_answer_at_any_size():
    made = model(layers=2, lmax=1, max_z=9).requires_grad_(False)
    check_compiles(made, (21, 65, 3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels to be a whole number >= 1, got 0"),
        ({"layers": 0}, "layers to be a whole number >= 1, got 0"),
        ({"lmax": -1}, "lmax to be a whole number >= 0, got -1"),
        ({"lmax": True}, "lmax to be a whole number >= 0, got True"),
        ({"radial": 2.5}, "radial to be a whole number >= 1, got 2.5"),
        ({"hidden": [64, 0]}, r"hidden to be whole numbers >= 1, got \[64, 0\]"),
        ({"cutoff": float("nan")}, "cutoff to be a distance > 0 in Å, got nan"),
        ({"average_neighbors": 0.0}, "average_neighbors to be a number > 0, or None, got 0.0"),
        ({"outputs": ["charge"]}, "outputs from energy, dipole, polarizability, shielding, got charge"),
        ({"outputs": []}, "outputs from .*, got none"),
    ],
)
def test_says_what_it_expected(options, words):
    with pytest.raises(ValueError, match=f"^NequIP expects {words}$"):
        NequIP(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"lmax": 0, "outputs": ["dipole"]},
            "has no dipole: it is made of 1o, which .*; set lmax to 1 or more",
        ),
        ({"outputs": ["polarizability"]}, "it is made of 2e, which .*; set lmax to 2 or more"),
        (
            {"lmax": 2, "parity": False, "outputs": ["shielding"]},
            "made of 1e, .*set parity to true, and layers to 2",
        ),
    ],
)
def test_says_how_to_get_an_output(options, words):
    with pytest.raises(ValueError, match=words):
        NequIP(**options)
    with pytest.raises(ValueError, match="an activation is one of silu"):
        NequIP(activation="step")
