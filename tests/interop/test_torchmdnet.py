"""equitorch/interop/torchmdnet.py"""

import pathlib
import sys
import types

import pytest
import torch

from equitorch.interop import torchmdnet
from equitorch.layers.tensornet import TensorEmbedding, TensorInteraction
from equitorch.layers.tensornet2 import ChargedInteraction
from equitorch.models import Potential
from equitorch.reps import CartesianTensor
from tests.torchmdnet_reference import CHARGE, FILES, HYPER, graph_of, molecule, reference, state_dict

ATOMREF = [{"Atomref": {"max_z": 10}}]
# Options, then energy and force on the first atom from torchmd-net 3.1.0 (PyTorch path, float64).
ANCHORS = {
    "o3": ({}, 14.374694396083727, (-0.05664557151139462, -0.05040369073803047, 0.03521257862824814)),
    "so3, window": (
        {"equivariance_invariance_group": "SO(3)", "cutoff_lower": 0.8, "activation": "tanh"},
        13.950899349329674,
        (-1.0950825526178982, -1.7371087307703559, -0.5033576545330283),
    ),
    "gauss, window": (
        {"rbf_type": "gauss", "cutoff_lower": 0.8, "trainable_rbf": True, "activation": "ssp"},
        14.47516321874449,
        (0.04206850402553052, 0.10159847937875437, 0.0505545304086307),
    ),
    "mean, atomref": (
        {"reduce_op": "mean", "prior_model": ATOMREF, "activation": "sigmoid"},
        3.4826164004112026,
        (0.002947866460369425, 0.0028517002353949947, 0.004419070992931201),
    ),
    "tensornet2, so3": (
        {"model": "tensornet2", "q_dim": 3, "equivariance_invariance_group": "SO(3)"},
        -8.97780959645,
        (-0.008144408418036219, -0.001438738789267792, 0.04626903341874486),
    ),
    "tensornet2, mean": (
        {
            "model": "tensornet2",
            "q_dim": 3,
            "activation": "tanh",
            "reduce_op": "mean",
            "prior_model": ATOMREF,
        },
        -0.7674770212659758,
        (-0.044745983097463554, -0.0071812126792978855, -0.009598939244006965),
    ),
}


def close(ours, theirs, tolerance):
    return (ours - theirs).abs().max() <= tolerance * max(1.0, theirs.abs().max())


def energy(potential, **options):
    return potential(molecule(potential.cutoff, **options), forces=False)["energy"]


@pytest.mark.parametrize("name", ANCHORS)
def test_reproduces_energies_of_weights_by_a_formula(name):
    options, value, force = ANCHORS[name]
    potential = torchmdnet.load(state_dict(HYPER | options), HYPER | options)
    out = potential(molecule(potential.cutoff))
    assert out["energy"].item() == pytest.approx(value, rel=1e-13)
    torch.testing.assert_close(out["forces"][0].tolist(), list(force), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", FILES)
def test_reproduces_every_case_of_a_file(name):
    data = reference(name)
    potential = torchmdnet.load(data["state_dict"], data["hparams"])
    assert len(data["cases"]) == 15
    for case in data["cases"].values():
        out = potential(graph_of(case, potential.cutoff))
        torch.testing.assert_close(out["energy"], case["energy"][:, 0], rtol=1e-12, atol=0)
        assert (out["forces"] - case["forces"]).abs().max() < 1e-12
        assert (out["node_invariants"] - case["x"]).abs().max() < 1e-12


@pytest.mark.parametrize("name", FILES)
def test_has_the_matrices_of_every_layer(name):
    data = reference(name)
    potential = torchmdnet.load(data["state_dict"], data["hparams"])
    seen = []
    for module in potential.modules():
        if isinstance(module, TensorEmbedding | TensorInteraction | ChargedInteraction):
            module.register_forward_hook(lambda _module, _args, x: seen.append(x))
    flip = torch.tensor([1, -1, -1, -1, 1, 1, 1, 1, 1]).double()[:, None]  # e3nn's antisymmetric matrices
    for case in data["cases"].values():
        if "X" in case:
            seen.clear()
            potential(graph_of(case, potential.cutoff), forces=False)
            matrices = CartesianTensor("ij", group="SO(3)").from_irreps(
                flip * torch.stack(seen), channels=True
            )
            assert close(matrices, case["X"], 1e-12)


@pytest.mark.parametrize("name", FILES)
def test_has_the_gradients_of_a_force_loss(name):
    data = reference(name)
    train, hyper = data["train"], data["hparams"]
    potential = torchmdnet.load(data["state_dict"], hyper).train()
    out = potential(graph_of(data["cases"][train["case"]], potential.cutoff))
    loss = train["w_e"] * (out["energy"] - train["e_ref"][:, 0]).square().mean()
    loss = loss + train["w_f"] * (out["forces"] - train["f_ref"]).square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(train["loss"].item(), rel=1e-12)
    nothing = {key: torch.zeros_like(value) for key, value in data["state_dict"].items()}  # the last charges
    theirs = torchmdnet.translate(torchmdnet.canonical(nothing | train["grads"]), hyper)
    ours = {
        key: p.new_zeros(p.shape) if p.grad is None else p.grad
        for key, p in potential.model.named_parameters()
    }
    largest = max(g.abs().max() for g in theirs.values())
    for key, gradient in ours.items():
        assert (gradient - theirs[key]).abs().max() < 1e-11 * largest, key


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float32(name):
    data = reference(name)
    potential = torchmdnet.load(data["state_dict"], data["hparams"]).to(torch.float32)
    for key in ("aspirin", "batch5_charged", "two_boxes"):
        case = data["cases"][key]
        out = potential(graph_of(case, potential.cutoff, torch.float32))
        assert close(out["energy"], case["energy"][:, 0], 2e-6)
        assert close(out["forces"], case["forces"], 2e-6 * float(data["state_dict"]["std"]))


def test_tells_hands_apart_in_so3_only_and_the_right_way_round():
    def pair(name):
        data = reference(name)
        potential = torchmdnet.load(data["state_dict"], data["hparams"])
        cases = (data["cases"][case] for case in ("chiral", "chiral_mirror"))
        return [potential(graph_of(case, potential.cutoff), forces=False)["energy"].item() for case in cases]

    assert pair("o3_small") == pytest.approx([-0.6935960903] * 2, abs=1e-10)
    assert pair("so3_small") == pytest.approx([-0.6935597893, -0.6936317927], abs=1e-10)


@pytest.mark.parametrize("model", ["tensornet", "tensornet2"])
def test_reorders_the_layout_before_3_0(model):
    hyper = HYPER | {"model": model, "q_dim": 3}
    new = state_dict(hyper)
    old = dict(new)
    layers = [f"layers.{l}.linears_scalar.2" for l in range(2) if model == "tensornet"]
    for name in ["tensor_embedding.linears_scalar.1", *layers]:
        for end in ("weight", "bias"):
            key = f"representation_model.{name}.{end}"
            old[key] = new[key].unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
    del old["representation_model.distance.box"]
    expected = energy(torchmdnet.load(new, hyper))
    assert torch.equal(energy(torchmdnet.load(old, hyper | {"check_errors": True})), expected)
    assert not torch.equal(energy(torchmdnet.load(old, hyper)), expected)


def test_knows_older_names():
    hyper = HYPER | {"model": "tensornet2", "q_dim": 3, "prior_model": ATOMREF}
    new = state_dict(hyper)
    old = {
        "model."
        + key.replace("output_network.layers.", "output_network.").replace(
            "prior_model.0.", "prior_model."
        ): value
        for key, value in new.items()
    }
    expected = energy(torchmdnet.load(new, hyper))
    for name in ("tensornetv2_alt", "tensornet-nqe"):
        assert torch.equal(energy(torchmdnet.load(old, hyper | {"model": name})), expected)


@pytest.mark.parametrize(
    "prior", ["Atomref", ["Atomref"], {"Atomref": {"max_z": 10}}, [{"LearnableAtomref": {}}]]
)
def test_reads_the_prior_in_every_spelling(prior):
    hyper = HYPER | {"prior_model": prior}
    potential = torchmdnet.load(state_dict(hyper), hyper)
    alone = torchmdnet.load({k: v for k, v in state_dict(hyper).items() if "prior" not in k}, HYPER)
    difference = torch.sin(torch.tensor([6.0, 8.0, 7.0, 1.0, 9.0]).double()).sum()
    assert (energy(potential) - energy(alone) - difference).abs() < 1e-13
    off = HYPER | {"prior_model": [{"Atomref": {"enable": False}}]}
    assert torch.equal(energy(torchmdnet.load(state_dict(off), off)), energy(alone))


def test_converts_units_and_restricts_the_elements():
    sd = state_dict(HYPER | {"prior_model": ATOMREF})
    hyper = HYPER | {"prior_model": ATOMREF}
    plain, kcal = (
        torchmdnet.load(sd, hyper),
        torchmdnet.load(sd, hyper, energy_unit=0.0433641, species=[1, 6, 7, 8, 9]),
    )
    assert (energy(kcal) - 0.0433641 * energy(plain)).abs() < 1e-13
    assert plain.species == tuple(range(1, 10))
    assert kcal.species == (1, 6, 7, 8, 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_dtype_and_survives_our_own_file(tmp_path, dtype):
    sd = {key: value.to(dtype) for key, value in state_dict(HYPER).items()}
    potential = torchmdnet.load(sd, HYPER)
    assert potential.dtype == dtype
    assert not potential.training
    potential.save(tmp_path / "model.eqt")
    assert torch.equal(energy(Potential.load(tmp_path / "model.eqt")), energy(potential))


def test_leaves_the_callers_tensors_alone():
    sd = state_dict(HYPER)
    before = {key: value.clone() for key, value in sd.items()}
    potential = torchmdnet.load(sd, HYPER)
    with torch.no_grad():
        for p in potential.parameters():
            p.zero_()
    assert all(torch.equal(before[key], sd[key]) for key in sd)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"model": "equivariant-transformer"},
            "can be read for model tensornet.*got 'equivariant-transformer'",
        ),
        (
            {"output_model": "ScalarPlusWeightedCoulomb"},
            "output_model='ScalarPlusWeightedCoulomb' has no counterpart",
        ),
        ({"repulsion": True}, "repulsion=True has no counterpart"),
        ({"atom_filter": 1}, "atom_filter=1 has no counterpart"),
        ({"prior_model": ["ZBL"]}, r"prior_model=\['ZBL'\] has no counterpart"),
        ({"prior_model": ["Atomref", "D2"]}, "has no counterpart here, only one Atomref has"),
        ({"activation": "mish"}, "activation is one of silu.*got 'mish'"),
        ({"reduce_op": "max"}, "reduce_op is one of add.*got 'max'"),
        ({"rbf_type": "bessel"}, "TensorNet expects basis to be one of expnorm, gauss, got 'bessel'"),
        ({"equivariance_invariance_group": "E(3)"}, r"group to be one of O\(3\), SO\(3\), got 'E\(3\)'"),
        ({"model": "tensornet2"}, "tensornet2 lack 'q_dim'"),
    ],
)
def test_names_the_option_it_cannot_read(options, words):
    sd = state_dict(HYPER | ({"q_dim": 2} | options if options.get("model") == "tensornet2" else {}))
    with pytest.raises(ValueError, match=words):
        torchmdnet.load(sd, HYPER | options)


def test_names_tensors_that_are_missing_unknown_or_misshapen():
    sd = state_dict(HYPER)
    with pytest.raises(ValueError, match="hyper-parameters lack 'num_rbf'"):
        torchmdnet.load(sd, {k: v for k, v in HYPER.items() if k != "num_rbf"})
    without = {k: v for k, v in sd.items() if "out_norm.bias" not in k}
    with pytest.raises(ValueError, match=r"has no tensor 'out_norm\.bias'"):
        torchmdnet.load(without, HYPER)
    with pytest.raises(ValueError, match=r"unknown to its hyper-parameters: layers\.2\.gate"):
        torchmdnet.load(sd | {"representation_model.layers.2.gate": torch.zeros(1)}, HYPER)
    with pytest.raises(ValueError, match=r"embedding.element.weight of shape \(10, 8\).*ask for \(12, 8\)"):
        torchmdnet.load(sd, HYPER | {"max_z": 12})
    with pytest.raises(ValueError, match=r"disagree about basis\.betas, basis\.coeff"):
        torchmdnet.load(sd, HYPER | {"rbf_type": "gauss"})


@pytest.fixture
def lightning(monkeypatch):
    """Classes as a Lightning checkpoint holds them, from a module that is gone when the file is read."""
    module = types.ModuleType("gone")
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": "gone"})

    class Bomb:
        def __reduce__(self):
            return module.explode, ()

    def explode():
        raise AssertionError("code of the checkpoint ran")

    explode.__module__, explode.__qualname__ = "gone", "explode"
    module.explode, module.Bomb = explode, Bomb
    monkeypatch.setitem(sys.modules, "gone", module)
    return module


def write(path, hyper, lightning, **extra):
    sd = {f"model.{key}": value for key, value in state_dict(HYPER).items()}
    content = {"state_dict": sd, "epoch": 3, **extra}
    torch.save(
        content if hyper is None else content | {"hyper_parameters": lightning.AttributeDict(hyper)}, path
    )
    return path


def test_reads_a_checkpoint_without_running_its_code(tmp_path, lightning):
    hyper = HYPER | {"log_dir": pathlib.Path("logs")}
    path = write(tmp_path / "a.ckpt", hyper, lightning, callbacks={"stop": lightning.Bomb()})
    expected = energy(torchmdnet.load(state_dict(HYPER), HYPER))
    assert torch.equal(energy(torchmdnet.load_file(path)), expected)


def test_takes_hyper_parameters_from_a_yaml_file(tmp_path, lightning):
    import yaml

    path = write(tmp_path / "b.ckpt", None, lightning)
    with pytest.raises(ValueError, match="comes without hyper-parameters; pass the run's"):
        torchmdnet.load_file(path)
    sidecar = tmp_path / "input.yaml"
    sidecar.write_text(yaml.safe_dump(HYPER))
    expected = energy(torchmdnet.load(state_dict(HYPER), HYPER))
    for given in (sidecar, str(sidecar), HYPER):
        assert torch.equal(energy(torchmdnet.load_file(path, given)), expected)


def test_refuses_files_that_are_something_else(tmp_path, lightning):
    with pytest.raises(ValueError, match="holds model as foreign objects"):
        torchmdnet.load_file(write(tmp_path / "c.ckpt", HYPER | {"model": lightning.Bomb()}, lightning))

    class Shell:
        def __reduce__(self):
            import os

            return os.system, ("false",)

    with pytest.raises(ValueError, match="cannot be read without running code from it"):
        torchmdnet.load_file(write(tmp_path / "d.ckpt", HYPER, lightning, bad=Shell()))
    torch.save({"weights": torch.zeros(1)}, tmp_path / "e.ckpt")
    with pytest.raises(ValueError, match="holds no 'state_dict'"):
        torchmdnet.load_file(tmp_path / "e.ckpt")
    (tmp_path / "f.ckpt").write_text("no archive")
    with pytest.raises(ValueError, match="cannot be read"):
        torchmdnet.load_file(tmp_path / "f.ckpt")
    with pytest.raises(FileNotFoundError):
        torchmdnet.load_file(tmp_path / "none.ckpt")


def test_a_wrong_charge_is_seen():
    potential = torchmdnet.load(state_dict(HYPER), HYPER)
    assert (energy(potential, charge=CHARGE) - energy(potential, charge=0.0)).abs() > 1e-6
