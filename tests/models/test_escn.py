"""equitorch/models/escn.py"""

import warnings

import pytest
import torch
from ase.io import write

import equitorch
from equitorch.datasets import load_shipped
from equitorch.interop import fairchem
from equitorch.models import ESCN
from equitorch.reps.order import order_index
from tests.models import edge_frame_checks as checks

SMALL = {
    "channels": 4, "layers": 2, "lmax": 2, "mmax": 2, "hidden": 6, "edge_channels": 6,
    "cutoff": checks.CUTOFF, "max_z": 20,
}  # fmt: skip


def model(seed=0, **options):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return ESCN(**SMALL | options).double()


def product(lmax, mmax):
    return model(lmax=lmax, mmax=mmax, activation="product", latitudes=lmax + 1)


@pytest.mark.parametrize("frames", [True, False])
def test_gives_the_numbers_of_the_published_code(frames):
    given = checks.reference("escn_L2M2_default")
    made, inputs, found = checks.published(given), given["inputs"], {}
    for name, module in made.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out))
    out = made(
        inputs["atomic_numbers"],
        inputs["edge_index"],
        inputs["edge_distance_vec"],
        inputs["batch"],
        2,
        edge_frames=given["frame"]["rot"] if frames else None,
    )
    for name, theirs in given["intermediates"].items():
        ours = found[name]
        if isinstance(ours, tuple):  # a message, order-major, and no further scalars
            ours = ours[0][:, order_index(2, 2).argsort()]
        assert checks.relative(ours, theirs) < 1e-13, name
    assert checks.relative(out["energy"], given["outputs"]["energy"]) < 1e-13
    assert checks.relative(out["forces"], given["outputs"]["forces"]) < 1e-11
    loss = (inputs["w_e"] * out["energy"]).sum() + (inputs["w_f"] * out["forces"]).sum()
    loss.backward()
    assert checks.gradients(made, given["grads"]) < 1e-8


def test_weights_go_to_the_published_code_and_back():
    made = model(mode="compat", lmax=4, radial=20, grid_resolution=14, direct_forces=False)
    config = {
        "num_layers": 2, "lmax_list": [4], "mmax_list": [2], "sphere_channels": 4, "hidden_channels": 6,
        "edge_channels": 6, "cutoff": 4.0, "distance_resolution": 0.2, "basis_width_scalar": 2.0,
        "resolution": 14,
    }  # fmt: skip
    tensors = {f"module.backbone.{k}": v for k, v in fairchem.parameters(made).items()}
    again = checks.published({"state_dict": tensors, "config": config})
    z, pos = checks.molecule()
    ours, theirs = (checks.energy(m, z, pos)["energy"] for m in (made, again))
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("name", "count"), [("base_52M", 51_837_952), ("base_200M", 200_227_840)])
def test_has_as_many_parameters_as_published(name, count):
    with torch.device("meta"), pytest.warns(UserWarning, match="is not exact"):
        made = getattr(ESCN, name)()
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(("lmax", "mmax"), checks.SHAPES)
def test_follows_rotations_and_reflections(lmax, mmax):
    checks.check_symmetry(model(lmax=lmax, mmax=mmax))


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (4, 2), (6, 2)])
def test_products_on_exact_grids_follow_them_too(lmax, mmax):
    checks.check_symmetry(product(lmax, mmax), single=1e-5)


def test_features_of_both_parities_follow_them_too():
    both = model(lmax=3, parity="both", channels=[4, 3], layers=3)
    checks.check_symmetry(both)
    z, pos = checks.molecule()
    x, y = (checks.energy(both, z, p)["node_features"][:, 0, 4:].detach() for p in (pos, -pos))
    torch.testing.assert_close(y, -x)  # pseudoscalars
    assert x.abs().max() > 1e-6


def test_the_check_can_fail():
    so3 = model(parity="so3", layers=3)
    assert max(checks.errors(so3)) < 1e-12
    assert checks.errors(so3, mirror=True)[1] > 1e-4
    published = model(mode="compat", direct_forces=False)
    assert max(checks.errors(published)) > 1e-8


@pytest.mark.parametrize("made", [model(lmax=4), product(3, 2)], ids=["gate", "product"])
def test_is_smooth_and_conserves_energy(made):
    checks.check_features_turn(made)
    checks.check_frames_make_no_difference(made)
    checks.check_smooth_over_poles(made)
    checks.check_smooth_at_cutoff(made)
    checks.check_forces_are_differences(made)
    checks.check_sums(made)


def test_direct_forces_are_covariant():
    with pytest.warns(UserWarning, match="no gradient"):
        made = ESCN(**SMALL, direct_forces=True, force_scale=2.0).double()
    (z, pos), q = checks.molecule(), checks.orthogonal(1, mirror=True)
    ours, turned = (checks.energy(made, z, p)["forces"].detach() for p in (pos, pos @ q.T))
    torch.testing.assert_close(turned, ours @ q.T)
    assert ours.abs().max() > 1e-3


def test_compiles_into_one_graph():
    checks.check_compiles(model(layers=1))


def test_learns_energies_and_forces_and_is_saved(tmp_path):
    frames = [load_shipped("ethanol").to_ase(k) for k in range(0, 1200, 60)]
    write(tmp_path / "few.xyz", frames, format="extxyz")
    options = {k: v for k, v in SMALL.items() if k not in ("max_z", "cutoff", "layers")}
    run = equitorch.train(
        {
            "data": {"train": str(tmp_path / "few.xyz"), "valid": 4},
            "model": {"name": "escn", "cutoff": 3.0, "layers": 1, **options},
            "train": {"epochs": 4, "batch": 4, "lr": 0.02, "warmup": 0, "ema": 0.0, "device": "cpu"},
            "output": str(tmp_path / "run"),
        }
    )
    assert run.history[-1]["train_loss"] < 0.9 * run.history[0]["train_loss"]
    assert equitorch.load(run.path).model.options["average_neighbors"] > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "ESCN expects mode to be one of exact, compat, got 'fast'"),
        ({"activation": "s2"}, "ESCN in mode exact expects activation to be one of gate, product, got 's2'"),
        ({"mmax": 3}, "ESCN expects mmax <= lmax, got mmax=3 and lmax=2"),
        ({"channels": 0}, "ESCN expects channels to be a whole number >= 1, got 0"),
        ({"cutoff": -1.0}, "ESCN expects cutoff to be a number > 0, got -1.0"),
        ({"parity": "both"}, "expects channels as a pair of numbers"),
    ],
)
def test_says_what_it_expected(options, message):
    with pytest.raises(ValueError, match=message):
        ESCN(**SMALL | options)
