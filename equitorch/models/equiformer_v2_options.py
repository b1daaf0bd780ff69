"""Options of EquiformerV2: what a mode chooses, the published sizes, and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Final

from equitorch.layers.equiformer_v2 import NORMS
from equitorch.layers.feed_forward import KINDS
from equitorch.layers.so2_activation import PUBLISHED
from equitorch.layers.stacks import PARITIES
from equitorch.models.edge_frame_options import check_choice, gaussians

# What a mode chooses where an option is None.
_MODES: Final[dict[str, dict[str, Any]]] = {
    "exact": {
        "parity": "natural", "activation": "gate", "feed_forward": "gate",
        "envelope": True, "rescale": False, "average_atoms": 1.0,
    },
    "compat": {
        "parity": "so3", "activation": "separable_s2", "feed_forward": "separable_grid", "radial": 600,
        "envelope": False, "rescale": True, "average_atoms": 77.81317,
    },
}  # fmt: skip
_AVERAGE_NEIGHBORS: Final = 23.395238876342773  # of the published models
_PUBLISHED: Final[dict[str, Any]] = {
    "mode": "compat", "layers": 12, "lmax": 6, "mmax": 2, "channels": 128, "hidden": 64, "heads": 8,
    "score_channels": 64, "value_channels": 16, "ffn_hidden": 128, "edge_channels": 128,
    "norm": "layer_norm_sh", "grid_resolution": 18, "cutoff": 12.0, "max_neighbors": 20, "max_z": 90,
    "direct_forces": True, "attention_drop": 0.1, "path_drop": 0.1,
}  # fmt: skip
SIZES: Final[dict[str, dict[str, Any]]] = {
    "31M": _PUBLISHED | {"layers": 8, "lmax": 4},
    "83M": _PUBLISHED | {"path_drop": 0.05},
    "153M": _PUBLISHED | {"layers": 20, "mmax": 3},
}
"""The models published for OC20, by their numbers of parameters."""
_PUBLISHED_ONLY: Final = ("grid_resolution", "max_neighbors", "direct_forces")
_APPROXIMATE: Final = ("s2", "separable_s2", "grid", "separable_grid")
_LEAST: Final = {
    "layers": 1, "lmax": 1, "mmax": 0, "heads": 1, "score_channels": 1, "edge_channels": 1, "radial": 2,
    "max_z": 2, "grid_resolution": 2, "latitudes": 1, "max_neighbors": 1, "edge_chunk": 1,
}  # fmt: skip
_PAIRS: Final = ("channels", "hidden", "value_channels", "ffn_hidden")
_SHARES: Final = ("attention_drop", "path_drop", "feature_drop")


def sized(size: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a published size, under those given; in exact mode only what is exact of it.

    >>> sized("31M", {})["max_neighbors"], "max_neighbors" in sized("31M", {"mode": "exact"})
    (20, False)
    """
    dropped = _PUBLISHED_ONLY if options.get("mode") == "exact" else ()
    return {name: value for name, value in SIZES[size].items() if name not in dropped} | dict(options)


def resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those filled in that the mode chooses.

    Raises:
        ValueError: if they make no sense.
    """
    check_choice("EquiformerV2", "mode", options["mode"], tuple(_MODES))
    chosen = dict(options)
    chosen |= {k: v for k, v in _MODES[options["mode"]].items() if options[k] is None}
    if options["average_neighbors"] is None:
        chosen["average_neighbors"] = _AVERAGE_NEIGHBORS
    for name, known in (
        ("parity", PARITIES), ("norm", NORMS), ("activation", PUBLISHED), ("feed_forward", KINDS),
    ):  # fmt: skip
        check_choice("EquiformerV2", name, chosen[name], known)
    if not isinstance(chosen["selfmix"], bool):
        raise ValueError(f"EquiformerV2 expects selfmix to be True or False, got {chosen['selfmix']!r}")
    _check_numbers(chosen)
    chosen["radial"] = chosen["radial"] or gaussians(chosen)
    if chosen["mode"] == "exact":
        wrong = inexact(chosen)
        if wrong:
            raise ValueError(
                f"EquiformerV2(mode='exact') is exact, but {'; '.join(wrong)}: leave the option out, or use "
                "mode='compat'"
            )
    return chosen


def inexact(chosen: Mapping[str, Any]) -> list[str]:
    """What of these options breaks equivariance under rotations, or smoothness."""
    found = [
        f"{name}={chosen[name]!r} changes under rotations on every grid"
        for name in ("activation", "feed_forward")
        if chosen[name] in _APPROXIMATE
    ]
    if chosen["mode"] == "compat":
        found += [
            f"{name}='product' changes under rotations on published grids"
            for name in ("activation", "feed_forward")
            if chosen[name] == "product"
        ]
    if not chosen["envelope"]:
        found.append("without an envelope energies jump where a pair crosses the cutoff")
    if chosen["max_neighbors"] is not None:
        found.append(f"max_neighbors={chosen['max_neighbors']} makes energies jump where neighbours change")
    return found


def _check_numbers(chosen: Mapping[str, Any]) -> None:
    for name, least in _LEAST.items():
        value = chosen[name]
        if value is None and name in (
            "radial",
            "grid_resolution",
            "latitudes",
            "max_neighbors",
            "edge_chunk",
        ):
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
            raise ValueError(f"EquiformerV2 expects {name} to be a whole number >= {least}, got {value!r}")
    if chosen["mmax"] > chosen["lmax"]:
        raise ValueError(
            f"EquiformerV2 expects mmax <= lmax, got mmax={chosen['mmax']} and lmax={chosen['lmax']}"
        )
    for name in _PAIRS:
        value = [chosen[name]] if isinstance(chosen[name], int) else list(chosen[name])
        wanted = 2 if chosen["parity"] == "both" else 1
        if len(value) != wanted or any(
            isinstance(n, bool) or not isinstance(n, Integral) or n < 1 for n in value
        ):
            what = "a pair of whole numbers" if wanted == 2 else "a whole number"
            raise ValueError(
                f"EquiformerV2 with parity={chosen['parity']!r} expects {name} to be {what} >= 1, "
                f"got {chosen[name]!r}"
            )
    for name in ("cutoff", "average_neighbors", "average_atoms", "force_scale"):
        if isinstance(chosen[name], bool) or not 0 < chosen[name] < math.inf:
            raise ValueError(f"EquiformerV2 expects {name} to be a number > 0, got {chosen[name]!r}")
    for name in _SHARES:
        if not 0 <= chosen[name] < 1:
            raise ValueError(f"EquiformerV2 expects {name} to be a probability < 1, got {chosen[name]!r}")
