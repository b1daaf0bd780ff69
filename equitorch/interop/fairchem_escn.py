"""eSCN as fairchem publishes it: its config's options and its tensors' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from equitorch.interop.fairchem_keys import Key, modules

# Their option, our keyword, their default.
_OPTIONS: Final = (
    ("num_layers", "layers", 8),
    ("sphere_channels", "channels", 128),
    ("hidden_channels", "hidden", 256),
    ("edge_channels", "edge_channels", 128),
    ("cutoff", "cutoff", 8.0),
    ("basis_width_scalar", "radial_width", 1.0),
    ("resolution", "grid_resolution", None),
)


def options(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keywords of our constructor that a published config stands for.

    Args:
        config: the published options.
        tensors: of the checkpoint, by canonical name.

    Raises:
        ValueError: if an option has no counterpart here.
    """
    if config.get("distance_function", "gaussian") != "gaussian":
        raise ValueError(f"eSCN's distance_function is 'gaussian' here, got {config['distance_function']!r}")
    found = {ours: config.get(theirs, default) for theirs, ours, default in _OPTIONS}
    found["lmax"], found["mmax"] = _single(config, "lmax_list", 6), _single(config, "mmax_list", 2)
    found["radial"] = int(found["cutoff"] / config.get("distance_resolution", 0.02))
    points, table = tensors.get("sphere_points"), tensors.get("sphere_embedding.weight")
    found["points"] = config.get("num_sphere_samples", 128) if points is None else points.shape[0]
    found["max_z"] = config.get("max_num_elements", 90) if table is None else table.shape[0]
    found["direct_forces"] = any(name.startswith("force_block.") for name in tensors)
    return {"mode": "compat", **found}


def keys(options: Mapping[str, Any]) -> list[Key]:
    """Every tensor of the published model that our constructor's options describe."""
    found = [
        Key("sphere_embedding.weight", ("sphere_embedding.weight",)),
        Key("sphere_points", ("sample.sphere_points",)),
        Key("sphharm_weights.0", ("sample.sphharm_weights",)),
    ]
    for k in range(options["layers"]):
        layer = f"layer_blocks.{k}"
        found += _same([f"{layer}.message_block.edge_block.{fc}" for fc in ("fc1_dist", "fc1_edge_attr")])
        tables = [f"{layer}.message_block.edge_block.{end}_embedding" for end in ("source", "target")]
        maps = [f"{layer}.fc{i}_sphere" for i in (1, 2, 3)]
        for end in ("source", "target"):
            block = f"{layer}.message_block.so2_block_{end}"
            orders = [f"{block}.so2_conv.{m}" for m in range(options["mmax"])]
            found += _same([f"{block}.fc1_dist0", *[f"{order}.fc1_dist" for order in orders]])
            maps += [f"{block}.fc1_m0", f"{block}.fc2_m0"]
            maps += [f"{order}.fc{i}_{part}" for order in orders for i in (1, 2) for part in "ri"]
        found += _same([*tables, *maps], bias=False)
    for head in ("energy_block", "force_block") if options["direct_forces"] else ("energy_block",):
        found += _same([f"{head}.fc1", f"{head}.fc2"]) + _same([f"{head}.fc3"], bias=False)
    return found


def _same(names: list[str], *, bias: bool = True) -> list[Key]:
    return modules([(name, name) for name in names], ("weight", "bias") if bias else ("weight",))


def _single(config: Mapping[str, Any], name: str, default: int) -> int:
    given = config.get(name)
    values = [default] if given is None else [given] if isinstance(given, int) else list(given)
    if len(values) != 1:
        raise ValueError(f"eSCN's {name}={given!r} has no counterpart here, only one number has")
    return int(values[0])
