"""equitorch/interop/fairchem.py, fairchem_file.py, fairchem_keys.py and fairchem_equiformer_v2.py"""

import collections
import os
import pathlib
import warnings

import numpy as np
import pytest
import torch
import yaml

from equitorch.graph import AtomGraph
from equitorch.interop import fairchem
from equitorch.interop.fairchem_file import read
from equitorch.models import EquiformerV2
from tests.equiformer_reference import MODELS, assert_same, reference

pytestmark = pytest.mark.filterwarnings("ignore:.*is not exact")

CONFIG = {
    "num_layers": 2,
    "sphere_channels": 4,
    "attn_hidden_channels": 3,
    "num_heads": 2,
    "attn_alpha_channels": 4,
    "attn_value_channels": 2,
    "ffn_hidden_channels": 5,
    "norm_type": "layer_norm_sh",
    "lmax_list": [2],
    "mmax_list": [1],
    "grid_resolution": 8,
    "edge_channels": 6,
    "max_radius": 4.0,
    "max_num_elements": 20,
    "use_grid_mlp": True,
    "regress_forces": True,
}
VARIANTS = {
    "published": {},
    "gate": {"use_gate_act": True, "use_grid_mlp": False, "norm_type": "rms_norm_sh"},
    "separable": {"use_grid_mlp": False, "grid_resolution": None, "norm_type": "layer_norm"},
    "not separable": {"use_sep_s2_act": False, "use_grid_mlp": False},
    "grid, not separable": {"use_sep_s2_act": False},
    "shared": {"share_atom_edge_embedding": True, "use_m_share_rad": True, "use_attn_renorm": False},
    "no elements": {"use_atom_edge_embedding": False, "mmax_list": [2], "lmax_list": [3]},
}
SCALE, MEAN = 2.887317180633545, -0.7554450631141663


def made(seed=0, **changes):
    """A model as a config describes it, its weights under fairchem's names, and the config."""
    from equitorch.interop.fairchem_equiformer_v2 import options

    config = CONFIG | changes
    torch.manual_seed(seed)
    found = options(config, {"force_block.proj.bias": torch.zeros(1)} if config["regress_forces"] else {})
    model = EquiformerV2(**found).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model, fairchem.parameters(model), config


def molecule(count=6):
    generator = torch.Generator().manual_seed(0)
    pos = 1.3 * torch.cartesian_prod(*[torch.arange(2.0).double()] * 3)[:count]
    pos = pos + 0.2 * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return AtomGraph.build(torch.arange(count) % 7 + 1, pos, cutoff=4.0, dtype=torch.float64)


def answer(model):
    graph = molecule()
    out = model(graph.atomic_numbers, graph.edge_index, graph.edge_vectors(), graph.batch, 1)
    return out["energy"].detach(), out["forces"].detach()


def same(model, other):
    """Equal to rounding: the square roots of channels go in and out."""
    return all(
        (a - b).abs().max() <= 1e-13 * b.abs().max()
        for a, b in zip(answer(model), answer(other), strict=True)
    )


@pytest.mark.parametrize("name", MODELS)
def test_reads_every_tensor_and_gives_it_back(name):
    data = reference(name)
    model = fairchem.load(data)
    back = fairchem.parameters(model)
    assert back.keys() == data["params"].keys()
    for key, value in data["params"].items():
        assert_same(back[key], value, 1e-15)
    assert not model.training


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_reads_every_variant(changes):
    model, tensors, config = made(**changes)
    again = fairchem.load({"params": tensors, "config": config})
    for ours, theirs in zip(answer(again), answer(model), strict=True):
        assert_same(ours, theirs, 1e-13)


def test_gradients_are_by_the_published_tensors():
    """Along a random direction of these tensors, they give the slope of the energy."""
    model, tensors, config = made()
    answer_of = molecule()
    args = (answer_of.atomic_numbers, answer_of.edge_index, answer_of.edge_vectors(), answer_of.batch, 1)
    model(*args)["energy"].sum().backward()
    gradients, h = fairchem.parameters(model, gradients=True), 1e-5
    torch.manual_seed(1)
    direction = {name: torch.randn_like(value) for name, value in tensors.items()}
    slope = sum((gradients[name] * direction[name]).sum() for name in tensors)
    energies = [
        fairchem.load({"params": {n: v + s * direction[n] for n, v in tensors.items()}, "config": config})(
            *args
        )
        for s in (h, -h)
    ]
    difference = (energies[0]["energy"] - energies[1]["energy"]) / (2 * h)
    assert float(slope) == pytest.approx(float(difference.detach()), rel=1e-6)


def hydra(tensors):
    """The same tensors as fairchem's `hydra` models name them."""
    heads = {
        "energy_block": "output_heads.energy.energy_block",
        "force_block": "output_heads.forces.force_block",
    }
    out = {}
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        out[f"module.{heads[first]}.{rest}" if first in heads else f"module.backbone.{name}"] = value
    return out


def test_reads_every_layout(tmp_path):
    model, tensors, config = made()
    constants = {
        "SO3_rotation.0.mapping.to_m": torch.ones(2), "SO3_grid.1.1.to_grid_mat": torch.ones(2),
        "mappingReduced.l_harmonic": torch.ones(2), "blocks.0.norm_1.balance_degree_weight": torch.ones(2),
        "blocks.0.ga.proj.expand_index": torch.ones(2), "distance_expansion.offset": torch.ones(600),
    }  # fmt: skip
    plain = {f"module.module.{name}": value for name, value in (tensors | constants).items()}
    backbone = {
        "name": "hydra",
        "backbone": {**config, "model": "equiformer_v2_backbone"},
        "heads": {"energy": {}},
    }
    layouts = [
        ({"state_dict": plain, "config": {"model": "equiformer_v2", "model_attributes": config}}, None),
        ({"state_dict": plain, "config": {"model": {"name": "equiformer_v2", **config}}}, None),
        ({"state_dict": hydra(tensors), "config": {"model": backbone}}, None),
        (tensors, config),
    ]
    for content, given in layouts:
        assert same(fairchem.load(content, given), model)
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"model": config}))
    torch.save({"state_dict": plain}, tmp_path / "a.pt")
    assert same(fairchem.load(tmp_path / "a.pt", tmp_path / "config.yml"), model)


def checkpoint(**more):
    """A file's contents as fairchem's trainer saves them."""
    model, tensors, config = made()
    metrics = {"energy_mae": {"metric": np.float64(0.25), "total": np.int64(3), "numel": 12}}
    content = {
        "state_dict": {f"module.{name}": value for name, value in tensors.items()},
        "config": {"model": config, "optim": {"lr": 4e-4}, "cmd": {"dir": pathlib.PurePosixPath("runs")}},
        "normalizers": {
            "target": {"mean": torch.tensor(MEAN), "std": torch.tensor(SCALE)},
            "grad_target": {"mean": torch.tensor(0.0), "std": torch.tensor(0.5)},
        },
        "val_metrics": collections.defaultdict(dict, metrics),
        "epoch": 3.5,
        "amp": None,
    }
    return model, content | more


def test_reads_files_with_numbers_of_numpy_and_containers(tmp_path):
    model, content = checkpoint()
    torch.save(content | {"array": np.arange(3), "path": pathlib.Path("a")}, tmp_path / "a.pt")
    found = read(tmp_path / "a.pt")
    assert found["val_metrics"]["energy_mae"]["metric"] == 0.25
    assert found["array"].tolist() == [0, 1, 2]
    assert same(fairchem.load(tmp_path / "a.pt"), model)


def test_reads_them_whatever_other_packages_allow(tmp_path):
    """PyTorch Geometric allows ``defaultdict`` as itself, which PyTorch's reader then cannot fill."""
    torch.save(checkpoint()[1], tmp_path / "a.pt")
    with torch.serialization.safe_globals([collections.defaultdict]):
        before = set(torch.serialization.get_safe_globals())
        assert read(tmp_path / "a.pt")["val_metrics"]["energy_mae"]["metric"] == 0.25
        assert set(torch.serialization.get_safe_globals()) == before


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("harm-was-done",)


def test_refuses_files_that_would_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(checkpoint()[1] | {"scheduler": Hostile()}, "a.pt")
    with pytest.raises(
        ValueError, match=r"a\.pt cannot be read without running code.*mkdir.*--unsafe-pickle a\.pt"
    ):
        fairchem.load("a.pt")
    assert not (tmp_path / "harm-was-done").exists()
    (tmp_path / "b.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"^b\.pt is no PyTorch checkpoint$"):
        fairchem.load("b.pt")
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint c\.pt"):
        fairchem.load("c.pt")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"x",
        b"{}",
        b"abc",
        b"\x80\x02.",
        b"t.",
        b"jx",
        b"(1.",
        b"energy: 1\n",
        b"PK\x03\x04",
        b"\xff" * 99,
    ],
)
def test_junk_is_no_checkpoint(tmp_path, junk):
    (tmp_path / "a.pt").write_bytes(junk)
    with pytest.raises(ValueError, match=r"a\.pt is no PyTorch checkpoint$"):
        read(tmp_path / "a.pt")


def test_knows_files_of_this_library(tmp_path):
    fairchem.load_potential(checkpoint()[1], species=[1, 6]).save(tmp_path / "a.eqt")
    with pytest.raises(ValueError, match=r"already a file of this library; load it with equitorch\.load$"):
        fairchem.load(tmp_path / "a.eqt")


def test_takes_averaged_weights_where_there_are_some():
    model, content = checkpoint()
    other, tensors, _ = made(seed=1)
    content["state_dict"]["module.energy_lin_ref"] = torch.zeros(20)
    shadow = [
        tensors[name.removeprefix("module.")] for name in content["state_dict"] if "lin_ref" not in name
    ]
    content["ema"] = {"decay": 0.999, "num_updates": 5, "shadow_params": shadow, "collected_params": []}
    assert same(fairchem.load(content), other)
    assert same(fairchem.load(content, ema=False), model)
    content["ema"]["shadow_params"] = shadow[1:]
    with pytest.raises(ValueError, match="averaged weights that do not match"):
        fairchem.load(content)
    with pytest.raises(ValueError, match="no averaged weights"):
        fairchem.load(checkpoint()[1], ema=True)


def test_a_potential_undoes_what_training_took_away():
    model, content = checkpoint()
    references = torch.linspace(-3, 3, 21, dtype=torch.float64)
    content["elementrefs"] = {"energy": {"element_references": references}}
    potential = fairchem.load_potential(content)
    graph, (energy, forces) = molecule(), answer(model)
    out = potential(graph)
    expected = (
        float(np.float32(SCALE)) * energy + float(np.float32(MEAN)) + references[graph.atomic_numbers].sum()
    )
    assert_same(out["energy"], expected, 1e-13)
    assert_same(out["direct_forces"], 0.5 * forces, 1e-13)
    assert potential.model.options["force_scale"] != 1
    assert potential.cutoff == 4.0


def test_a_potential_reads_older_and_newer_habits():
    _, content = checkpoint()
    del content["normalizers"]
    assert float(fairchem.load_potential(content).scale[1]) == 1
    old = [{"normalize_labels": True, "target_mean": -1.0, "target_std": 2.0, "grad_target_std": 2.0}]
    content["config"]["dataset"] = old
    potential = fairchem.load_potential(content, species=[1, 6])
    assert (float(potential.scale[6]), float(potential.offset), potential.species) == (2.0, -1.0, (1, 6))
    new = {"train": {"transforms": {"normalizer": {"energy": {"mean": 0.5, "stdev": 3.0}}}}}
    content["config"]["dataset"] = new
    assert float(fairchem.load_potential(content).scale[6]) == 3.0
    content["normalizers"] = {"energy": {"mean": torch.tensor(0.0), "rmsd": torch.tensor(4.0)}}
    assert float(fairchem.load_potential(content).scale[6]) == 4.0
    content["state_dict"]["module.energy_lin_ref"] = torch.full((20,), 0.25)
    assert float(fairchem.load_potential(content).reference_energies[6]) == 0.0
    content["config"]["model"]["use_energy_lin_ref"] = True
    assert float(fairchem.load_potential(content).reference_energies[6]) == 1.0


def test_a_potential_of_a_checkpoint_can_be_saved(tmp_path):
    potential = fairchem.load_potential(checkpoint()[1], species=[1, 2, 3, 4, 5, 6])
    potential.save(tmp_path / "a.eqt")
    again, graph = type(potential).load(tmp_path / "a.eqt"), molecule()
    before, after = potential(graph), again(graph)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_leaves_out_heads_for_stress_and_says_so():
    model, tensors, config = made()
    content = {"state_dict": hydra(tensors), "config": {"model": {"backbone": config, "heads": {}}}}
    content["state_dict"]["module.output_heads.stress.block.weight"] = torch.ones(2)
    with pytest.warns(UserWarning, match=r"head for stress.*module\.output_heads\.stress\.block\.weight"):
        found = fairchem.load(content)
    assert same(found, model)


def broken(change, **config):
    _, tensors, own = made()
    change(tensors)
    return {"params": tensors, "config": own | config}


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (lambda t: t.pop("norm.affine_weight"), {}, r"has no tensor norm\.affine_weight, which its config"),
        (lambda t: t.update({"odd.weight": ONE}), {}, r"holds tensors odd\.weight, for which"),
        (lambda t: t.update({"module.norm.affine_weight": ONE}), {}, "two tensors 'norm.affine_weight'"),
        (lambda t: None, {"num_layers": 1}, r"holds tensors blocks\.1\..* and \d+ more, for which"),
        (lambda t: None, {"sphere_channels": 5}, r"about shapes: sphere_embedding\.weight \(20, 4\), here"),
        (lambda t: None, {"lmax_list": [2, 4]}, r"lmax_list=\[2, 4\] has no counterpart"),
        (lambda t: None, {"use_s2_act_attn": True}, "use_s2_act_attn=True has no counterpart"),
        (lambda t: None, {"distance_function": "bessel"}, "distance_function is 'gaussian', got 'bessel'"),
    ],
)
def test_names_what_does_not_fit(change, config, words):
    with pytest.raises(ValueError, match=words):
        fairchem.load(broken(change, **config))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"params": {"blocks.0.ga.so2_conv_1.a": ONE}}, "comes without a config; pass the run's"),
        ({"params": {"blocks.0.ga.so2_conv_1.a": ONE}, "config": {"model": "x"}}, "no options of a model"),
        ({"params": {"a.b": ONE}, "config": CONFIG}, r"no family known here .*begin with a\.b"),
        ({"weights": 1}, "holds its tensors under 'state_dict' or 'params', got weights"),
        (
            {"params": {"blocks.0.ga.so2_linear_1.a": ONE}, "config": CONFIG},
            "a model of EquiformerV3, which has",
        ),
        (
            {
                "params": {"blocks.0.ga.so2_conv_1.a": ONE},
                "config": {"model": {"backbone": CONFIG, "heads": {"energy": {"reduce": "mean"}}}},
            },
            "energy head sums over atoms, got reduce='mean'",
        ),
    ],
)
def test_says_what_it_expected(content, words):
    with pytest.raises(ValueError, match=words):
        fairchem.load(content)


def test_has_no_names_for_other_models():
    with pytest.raises(
        ValueError, match=r"^fairchem has no Linear; its weights have names there for equiformer_v2"
    ):
        fairchem.parameters(torch.nn.Linear(1, 1))


def test_warns_of_what_is_not_exact():
    _, tensors, config = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="is not exact"):
            fairchem.load({"params": tensors, "config": config})
