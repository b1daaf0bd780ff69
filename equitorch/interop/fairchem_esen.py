"""eSEN and UMA as fairchem publishes them: configs' options, tensors' names, and experts merged into one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from equitorch.interop.fairchem_keys import Key, convolution, degree_linear, modules, radial
from equitorch.layers.esen import SystemEmbedding

# Their option (and what else it is called), our keyword, their default.
_OPTIONS: Final = (
    (("num_layers",), "layers", 2),
    (("sphere_channels", "channels"), "channels", 128),
    (("hidden_channels", "hidden"), "hidden", 128),
    (("edge_channels",), "edge_channels", 128),
    (("lmax",), "lmax", 2),
    (("mmax",), "mmax", 2),
    (("cutoff",), "cutoff", 5.0),
    (("num_distance_basis",), "radial", 512),
    (("norm_type", "norm"), "norm", "rms_norm_sh"),
    (("grid_resolution", "grid"), "grid_resolution", None),
)
_DATASET: Final = re.compile(r"dataset_embedding\.dataset_emb_dict\.(.+)\.weight")


def options(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keywords of our constructor that a published config stands for.

    Args:
        config: the published options.
        tensors: of the checkpoint, by canonical name; they tell which parts the model has.

    Raises:
        ValueError: if an option has no counterpart here, or there are experts that were not merged.
    """
    experts = [name for name in tensors if name.endswith(".weights") or name.startswith("routing_mlp.")]
    if experts:
        raise ValueError(
            f"the fairchem checkpoint holds experts ({', '.join(experts[:3])}, ...), one network for each "
            "composition; merge them first: equitorch.interop.fairchem_esen.merge_experts"
        )
    if config.get("distance_function", "gaussian") != "gaussian":
        raise ValueError(f"eSEN's distance_function is 'gaussian' here, got {config['distance_function']!r}")
    found = {
        ours: next((config[name] for name in theirs if name in config), default)
        for theirs, ours, default in _OPTIONS
    }
    first_edition = (
        str(config.get("model", config.get("name", ""))).startswith("esen") or "mlp_type" in config
    )
    found["envelope"] = config.get("use_envelope", not first_edition)
    found["activation"] = _activation(config, found, tensors)
    spectral = "blocks.0.atom_wise.scalar_mlp.0.weight" in tensors
    found["feed_forward"] = "spectral" if spectral else "grid"
    table = tensors.get("sphere_embedding.weight")
    found["max_z"] = config.get("max_num_elements", 100) if table is None else table.shape[0]
    found["average_neighbors"] = float(config.get("edge_degree_rescale", 5.0)) ** 2
    found["system"] = "mix_csd.weight" in tensors
    found["datasets"] = [m[1] for m in map(_DATASET.fullmatch, tensors) if m]
    found["system_kind"] = "rand_emb" if "charge_embedding.rand_emb.weight" in tensors else "pos_emb"
    return {"mode": "compat", **found}


def keys(options: Mapping[str, Any]) -> list[Key]:
    """Every tensor of the published model that our constructor's options describe."""
    found = modules(
        [
            ("sphere_embedding", "sphere_embedding"),
            ("source_embedding", "scalars.source"),
            ("target_embedding", "scalars.target"),
        ],
        ["weight"],
    )
    found += radial("edge_degree_embedding.rad_func", "degree.radial")
    if options["system"]:
        found += _system(options)
    for k in range(options["layers"]):
        found += _block(f"blocks.{k}", options)
    found += _norm("norm", "norm", options["norm"])
    return found + modules([(f"energy_block.{2 * i}", f"energy.layers.{i}") for i in range(3)])


def merge_experts(
    tensors: Mapping[str, Tensor],
    atomic_numbers: Tensor,
    *,
    dataset: str,
    charge: float = 0.0,
    spin: float = 0.0,
) -> dict[str, Tensor]:
    r"""The tensors of UMA for systems of one composition, charge and spin: its experts merged into one.

    .. math:: W = \sum_e a_e W_e, \qquad a = \text{softmax}(\text{router}) + 0.005

    Args:
        tensors: of the checkpoint, by canonical name (see :func:`equitorch.interop.fairchem.canonical`).
        atomic_numbers: of all atoms of the system. Shape (atoms,), int64.
        dataset: whose method of calculation is wanted, e.g. "omol".
        charge: e.
        spin: multiplicity, 0 where it is not given.

    Raises:
        ValueError: if there are no experts, or no such data set.

    Source:
        Wood et al. 2025, arXiv:2506.23971 (UMA).
    """
    if "routing_mlp.0.weight" not in tensors:
        raise ValueError("merge_experts expects the tensors of a model with experts, got none of a router")
    names = [m[1] for m in map(_DATASET.fullmatch, tensors) if m]
    if names and dataset not in names:
        raise ValueError(f"merge_experts expects a data set among {', '.join(names)}, got {dataset!r}")
    share = torch.softmax(_route(tensors, _context(tensors, names, dataset, charge, spin), atomic_numbers), 0)
    merged: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(".weights"):
            mixed = torch.einsum("e,eoi->oi", share.to(value) + 0.005, value)
            merged[f"{name.removesuffix('s')}"] = mixed
        elif not name.startswith(("routing_mlp.", "composition_embedding.")):
            merged[name] = value
    return merged


def _context(
    tensors: Mapping[str, Tensor], names: list[str], dataset: str, charge: float, spin: float
) -> Tensor:
    """What the router knows of charge, spin and data set. Shape (channels,)."""
    random = "charge_embedding.rand_emb.weight" in tensors
    channels = tensors["mix_csd.weight"].shape[0]
    embedding = SystemEmbedding(channels, names, kind="rand_emb" if random else "pos_emb")
    embedding.to(tensors["mix_csd.weight"].dtype)
    with torch.no_grad():
        for key in _system({"datasets": names, "system_kind": embedding.kind}):
            embedding.get_parameter(key.ours[0].removeprefix("system.")).copy_(tensors[key.theirs])
        index = torch.tensor([names.index(dataset) if names else 0])
        found: Tensor = embedding(torch.tensor([charge]), torch.tensor([spin]), index)[0]
    return found


def _route(tensors: Mapping[str, Tensor], context: Tensor, atomic_numbers: Tensor) -> Tensor:
    x = [context]
    if "composition_embedding.weight" in tensors:  # fairchem's mean counts one empty atom more
        rows = tensors["composition_embedding.weight"][atomic_numbers]
        x.insert(0, rows.sum(0) / (len(atomic_numbers) + 1))
    y = torch.cat(x)
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("routing_mlp."))
    for k in range(0, last + 1, 2):
        y = nn.functional.linear(y, tensors[f"routing_mlp.{k}.weight"], tensors[f"routing_mlp.{k}.bias"])
        y = nn.functional.silu(y) if k < last else y
    return y


def _activation(config: Mapping[str, Any], found: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A gate has a scalar for each degree above zero and channel, separable S2 one for each channel."""
    weight = tensors.get("blocks.0.edge_wise.so2_conv_1.fc_m0.weight")
    if weight is not None and found["lmax"] > 1:
        extra = weight.shape[0] - (found["lmax"] + 1) * found["hidden"]
        return "s2" if extra == found["hidden"] else "gate"
    return str(config.get("act_type", "gate"))


def _system(options: Mapping[str, Any]) -> list[Key]:
    end = "W" if options["system_kind"] == "pos_emb" else "rand_emb.weight"
    found = [Key(f"{name}_embedding.{end}", (f"system.{name}",)) for name in ("charge", "spin")]
    found += [
        Key(f"dataset_embedding.dataset_emb_dict.{name}.weight", (f"system.dataset.{k}",))
        for k, name in enumerate(options["datasets"])
    ]
    return found + modules([("mix_csd", "system.mix")])


def _block(name: str, options: Mapping[str, Any]) -> list[Key]:
    found = _norm(f"{name}.norm_1", f"{name}.norm1", options["norm"])
    for k in (1, 2):
        found += convolution(f"{name}.edge_wise.so2_conv_{k}", f"{name}.message.conv{k}", options["mmax"])
    found += radial(f"{name}.edge_wise.so2_conv_1.rad_func", f"{name}.message.radial")
    found += _norm(f"{name}.norm_2", f"{name}.norm2", options["norm"])
    theirs, ours = f"{name}.atom_wise", f"{name}.ffn"
    if options["feed_forward"] == "grid":
        return found + modules(
            [(f"{theirs}.grid_mlp.{k}", f"{ours}.grid.{k}") for k in (0, 2, 4)], ["weight"]
        )
    found += modules([(f"{theirs}.scalar_mlp.0", f"{ours}.scalar")])
    found += degree_linear(f"{theirs}.so3_linear_1", f"{ours}.linear1")
    return found + degree_linear(f"{theirs}.so3_linear_2", f"{ours}.linear2")


def _norm(theirs: str, ours: str, kind: str) -> list[Key]:
    weight = [Key(f"{theirs}.affine_weight", (f"{ours}.weight",))]
    if kind == "layer_norm_sh":
        return weight + modules([(f"{theirs}.norm_l0", f"{ours}.scalar")])
    return [*weight, Key(f"{theirs}.affine_bias", (f"{ours}.bias",), "row")]
