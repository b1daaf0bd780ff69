"""equitorch/models/esen.py"""

import warnings

import pytest
import torch
from ase.build import molecule as build

from equitorch.graph import AtomGraph
from equitorch.interop import fairchem
from equitorch.interop.fairchem_esen import merge_experts
from equitorch.models import ESEN, Potential
from tests.models import edge_frame_checks as checks

SMALL = {
    "channels": 4, "layers": 2, "lmax": 2, "mmax": 2, "hidden": 6, "edge_channels": 6,
    "cutoff": checks.CUTOFF, "max_z": 20,
}  # fmt: skip
CONFIG = {
    "num_layers": 2, "sphere_channels": 4, "hidden_channels": 6, "edge_channels": 6, "lmax": 3, "mmax": 2,
    "cutoff": 4.0, "num_distance_basis": 64,
}  # fmt: skip
PAIR = {"parity": "both", "channels": [4, 3], "hidden": [6, 3]}


def model(seed=0, **options):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return ESEN(**SMALL | options).double()


@pytest.mark.parametrize("frames", [True, False])
def test_gives_the_numbers_of_the_published_code(frames):
    given = checks.reference("esen_L2M2_gate_grid14")
    made, inputs, theirs = checks.published(given), given["inputs"], given["outputs"]
    pos, index = inputs["pos"].clone().requires_grad_(), inputs["edge_index"]
    vectors = pos[index[0]] - pos[index[1]]
    frame = given["frame"]["rot"] if frames else None
    out = made(inputs["atomic_numbers"], index, vectors, inputs["batch"], 2, edge_frames=frame)
    (gradient,) = torch.autograd.grad(out["energy"].sum(), pos, create_graph=True)
    assert checks.relative(out["node_features"], theirs["node_embedding"]) < 1e-13
    assert checks.relative(out["energy"], theirs["energy"]) < 1e-13
    assert checks.relative(-gradient, theirs["forces"]) < 1e-13
    loss = (inputs["w_e"] * out["energy"]).sum() - (inputs["w_f"] * gradient).sum()
    loss.backward()
    assert checks.gradients(made, given["grads"]) < 1e-11


@pytest.mark.parametrize(
    "options",
    [
        {"feed_forward": "grid", "grid_resolution": 14, "norm": "layer_norm_sh"},
        {"activation": "s2", "norm": "layer_norm"},
        {"system": True, "datasets": ["omol", "omat"]},
        {"system": True, "system_kind": "rand_emb", "envelope": False},
    ],
)
def test_weights_go_to_the_published_code_and_back(options):
    made = model(mode="compat", lmax=3, **options)
    config = CONFIG | {"norm_type": made.options["norm"], "use_envelope": made.options["envelope"]}
    config["grid_resolution"] = made.options["grid_resolution"]
    tensors = {f"module.backbone.{k}": v for k, v in fairchem.parameters(made).items()}
    again = checks.published(
        {"ema_state_dict": tensors, "model_config": {"backbone": config}, "config": config}
    )
    z, pos = checks.molecule()
    context = {"charge": torch.tensor([1.0]), "spin": torch.tensor([2.0])}
    ours, theirs = (checks.energy(m, z, pos, **context)["energy"] for m in (made, again))
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("name", "count"), [("uma_s", 6_310_529), ("uma_m", 50_648_705), ("base_30M", 30_161_153)]
)
def test_has_as_many_parameters_as_published(name, count):
    with torch.device("meta"), pytest.warns(UserWarning, match="parity='so3'"):
        made = getattr(ESEN, name)()
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(("lmax", "mmax"), checks.SHAPES)
def test_follows_rotations_and_reflections(lmax, mmax):
    checks.check_symmetry(model(lmax=lmax, mmax=mmax))


@pytest.mark.parametrize(
    "options",
    [
        {"lmax": 4, "activation": "product", "feed_forward": "product"},
        {"lmax": 3, **PAIR},
        {"lmax": 3, **PAIR, "activation": "product", "feed_forward": "gate", "norm": "layer_norm_sh"},
        {"norm": "layer_norm", "system": True, "datasets": ["omol"]},
    ],
)
def test_every_other_choice_follows_them_too(options):
    made = model(**options)
    checks.check_symmetry(made)
    checks.check_features_turn(made)


def test_the_check_can_fail():
    so3 = model(parity="so3")
    assert max(checks.errors(so3)) < 1e-12
    assert checks.errors(so3, mirror=True)[1] > 1e-4
    assert checks.errors(model(mode="compat", feed_forward="grid"))[1] > 1e-8


@pytest.mark.parametrize("made", [model(lmax=4), model(lmax=3, **PAIR)], ids=["natural", "both"])
def test_is_smooth_and_conserves_energy(made):
    checks.check_frames_make_no_difference(made)
    checks.check_smooth_over_poles(made)
    checks.check_smooth_at_cutoff(made)
    checks.check_forces_are_differences(made)
    checks.check_sums(made)


def test_sees_charge_spin_and_data_set_if_it_is_told_to():
    made, (z, pos) = model(system=True, datasets=["a", "b"]), checks.molecule()
    assert made.sees_charge
    assert not model().sees_charge
    plain = checks.energy(made, z, pos)["energy"]
    zero = checks.energy(made, z, pos, charge=torch.zeros(1), spin=torch.zeros(1), dataset=torch.tensor([0]))
    assert torch.equal(plain, zero["energy"])
    for name, value in (
        ("charge", torch.tensor([1.0])),
        ("spin", torch.tensor([2.0])),
        ("dataset", torch.tensor([1])),
    ):
        assert (checks.energy(made, z, pos, **{name: value})["energy"] - plain).abs() > 1e-6


def test_merges_experts_for_one_composition():
    """One expert of weight one, softmax of one number, is itself times 1.005; two alike are themselves."""
    made, (z, pos) = model(mode="compat", lmax=3, system=True, datasets=["omol"]), checks.molecule()
    tensors, experts = fairchem.parameters(made), {}
    for name, value in tensors.items():
        if ".edge_wise.so2_conv" in name and "rad_func" not in name and name.endswith(".weight"):
            experts[f"{name}s"] = torch.stack([value, value])
        else:
            experts[name] = value
    router = {
        "composition_embedding.weight": torch.randn(20, 4).double(),
        "routing_mlp.0.weight": torch.randn(3, 8).double(), "routing_mlp.0.bias": torch.randn(3).double(),
        "routing_mlp.2.weight": torch.randn(2, 3).double(), "routing_mlp.2.bias": torch.randn(2).double(),
    }  # fmt: skip
    with pytest.raises(ValueError, match="merge them first"):
        checks.published({"params": experts | router, "config": CONFIG})
    merged = merge_experts(experts | router, z, dataset="omol", charge=1.0)
    for name, value in tensors.items():
        torch.testing.assert_close(merged[name] / (1.01 if f"{name}s" in experts else 1), value)
    again = checks.published({"params": merged, "config": CONFIG})
    assert torch.isfinite(checks.energy(again, z, pos)["energy"]).all()
    with pytest.raises(ValueError, match="expects a data set among omol, got 'water'"):
        merge_experts(experts | router, z, dataset="water")


@pytest.mark.parametrize("options", [{}, PAIR, {"system": True, "datasets": ("omol",)}, {"mode": "compat"}])
def test_is_saved_and_read_again(tmp_path, options):
    potential, graph = Potential(model(**options)), AtomGraph.from_ase(build("CH3OH"), checks.CUTOFF)
    potential.save(tmp_path / "model.eqt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        again = Potential.load(tmp_path / "model.eqt")
    ours, theirs = (p.eval()(graph, stress=False) for p in (potential, again))
    assert torch.equal(ours["energy"], theirs["energy"])
    assert torch.equal(ours["forces"], theirs["forces"])


def test_compiles_into_one_graph():
    checks.check_compiles(model(layers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "ESEN expects mode to be one of exact, compat, got 'fast'"),
        (
            {"feed_forward": "grid"},
            "ESEN in mode exact expects feed_forward to be one of spectral, gate, product",
        ),
        ({"envelope": False}, "ESEN without an envelope has energies that jump"),
        (
            {"norm": "batch"},
            "ESEN expects norm to be one of rms_norm_sh, layer_norm_sh, layer_norm, got 'batch'",
        ),
        ({"system": True, "channels": 5}, "an even number of channels"),
    ],
)
def test_says_what_it_expected(options, message):
    with pytest.raises(ValueError, match=message):
        ESEN(**SMALL | options)
