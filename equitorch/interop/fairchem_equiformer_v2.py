"""EquiformerV2 as fairchem and its authors publish it: its config's options and its tensors' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from equitorch.interop.fairchem_keys import Key, convolution, degree_linear, modules, radial

# Their option, our keyword, their default.
_OPTIONS: Final = (
    ("num_layers", "layers", 12),
    ("sphere_channels", "channels", 128),
    ("attn_hidden_channels", "hidden", 128),
    ("num_heads", "heads", 8),
    ("attn_alpha_channels", "score_channels", 32),
    ("attn_value_channels", "value_channels", 16),
    ("ffn_hidden_channels", "ffn_hidden", 512),
    ("edge_channels", "edge_channels", 128),
    ("norm_type", "norm", "rms_norm_sh"),
    ("grid_resolution", "grid_resolution", None),
    ("max_radius", "cutoff", 5.0),
    ("max_neighbors", "max_neighbors", 500),
    ("max_num_elements", "max_z", 90),
    ("use_atom_edge_embedding", "element_scalars", True),
    ("share_atom_edge_embedding", "share_element_scalars", False),
    ("use_m_share_rad", "share_radial", False),
    ("use_attn_renorm", "attention_norm", True),
    ("avg_degree", "average_neighbors", 23.395238876342773),
    ("avg_num_nodes", "average_atoms", 77.81317),
    ("alpha_drop", "attention_drop", 0.1),
    ("drop_path_rate", "path_drop", 0.05),
    ("proj_drop", "feature_drop", 0.0),
)
_FALSE_ONLY: Final = ("use_s2_act_attn", "use_grid_cg", "use_denoising_pos", "use_force_encoding")


def options(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keywords of our constructor that a published config stands for.

    Args:
        config: the published options.
        tensors: of the checkpoint, by canonical name: they tell whether there is a head for forces.

    Raises:
        ValueError: if an option has no counterpart here.
    """
    for name in _FALSE_ONLY:
        if config.get(name):
            raise ValueError(
                f"EquiformerV2's {name}={config[name]!r} has no counterpart here, only False has"
            )
    if config.get("distance_function", "gaussian") != "gaussian":
        raise ValueError(
            f"EquiformerV2's distance_function is 'gaussian', got {config['distance_function']!r}"
        )
    found = {ours: config.get(theirs, default) for theirs, ours, default in _OPTIONS}
    found |= {ours: default for _, ours, default in _OPTIONS if found[ours] is None and default is not None}
    gate, separable = config.get("use_gate_act", False), config.get("use_sep_s2_act", True)
    prefix = "separable_" if separable else ""
    found["activation"] = "gate" if gate else f"{prefix}s2"
    found["feed_forward"] = f"{prefix}grid" if config.get("use_grid_mlp", False) else found["activation"]
    found["lmax"], found["mmax"] = _single(config, "lmax_list", 6), _single(config, "mmax_list", 2)
    found["direct_forces"] = any(name.startswith("force_block.") for name in tensors)
    return {"mode": "compat", **found}


def keys(options: Mapping[str, Any]) -> list[Key]:
    """Every tensor of the published model that our constructor's options describe."""
    own = options["element_scalars"] and not options["share_element_scalars"]
    found = [Key("sphere_embedding.weight", ("embed.weight",))]
    if options["element_scalars"] and options["share_element_scalars"]:
        found += _elements("", "scalars")
    if own:
        found += _elements("edge_degree_embedding.", "degree_scalars")
    found += radial("edge_degree_embedding.rad_func", "degree.radial")
    for k in range(options["layers"]):
        theirs, ours = f"blocks.{k}", f"blocks.{k}"
        found += _norm(f"{theirs}.norm_1", f"{ours}.norm1", options["norm"])
        found += _attention(f"{theirs}.ga", f"{ours}.attention", options, own)
        found += _norm(f"{theirs}.norm_2", f"{ours}.norm2", options["norm"])
        found += _feed_forward(f"{theirs}.ffn", f"{ours}.ffn", options["feed_forward"])
    found += _norm("norm", "norm", options["norm"])
    found += _feed_forward("energy_block", "energy", options["feed_forward"])
    if options["direct_forces"]:
        found += _attention("force_block", "forces", options, own)
    return found


def _elements(theirs: str, ours: str) -> list[Key]:
    return [Key(f"{theirs}{end}_embedding.weight", (f"{ours}.{end}.weight",)) for end in ("source", "target")]


def _norm(theirs: str, ours: str, kind: str) -> list[Key]:
    weight = [Key(f"{theirs}.affine_weight", (f"{ours}.weight",))]
    if kind == "layer_norm_sh":
        return weight + modules([(f"{theirs}.norm_l0", f"{ours}.scalar")])
    return [*weight, Key(f"{theirs}.affine_bias", (f"{ours}.bias",), "row")]


def _attention(theirs: str, ours: str, options: Mapping[str, Any], own_elements: bool) -> list[Key]:
    found = _elements(f"{theirs}.", f"{ours}.scalars") if own_elements else []
    where = "rad_func" if options["share_radial"] else "so2_conv_1.rad_func"
    found += radial(f"{theirs}.{where}", f"{ours}.graph.radial")
    for k in (1, 2):
        found += convolution(f"{theirs}.so2_conv_{k}", f"{ours}.graph.conv{k}", options["mmax"])
    if options["attention_norm"]:
        found += modules([(f"{theirs}.alpha_norm", f"{ours}.graph.score_norm")])
    return [
        *found,
        Key(f"{theirs}.alpha_dot", (f"{ours}.graph.score",)),
        *degree_linear(f"{theirs}.proj", f"{ours}.graph.proj"),
    ]


def _feed_forward(theirs: str, ours: str, kind: str) -> list[Key]:
    found = degree_linear(f"{theirs}.so3_linear_1", f"{ours}.linear1")
    found += degree_linear(f"{theirs}.so3_linear_2", f"{ours}.linear2")
    if kind in ("gate", "separable_s2"):
        found += modules([(f"{theirs}.gating_linear", f"{ours}.gate")])
    if kind == "separable_grid":
        found += modules([(f"{theirs}.scalar_mlp.0", f"{ours}.scalar")])
    if kind in ("grid", "separable_grid"):
        found += modules([(f"{theirs}.grid_mlp.{k}", f"{ours}.act.grid.{k}") for k in (0, 2, 4)], ["weight"])
    return found


def _single(config: Mapping[str, Any], name: str, default: int) -> int:
    given = config.get(name)
    values = [default] if given is None else [given] if isinstance(given, int) else list(given)
    if len(values) != 1:
        raise ValueError(f"EquiformerV2's {name}={given!r} has no counterpart here, only one number has")
    return int(values[0])
