"""Options that all models in the frames of edges have: their checks, and what of a model is not exact."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Final

from equitorch.layers.stacks import Channels

_LEAST: Final = {
    "channels": 1, "layers": 1, "lmax": 1, "mmax": 0, "hidden": 1, "edge_channels": 1, "radial": 2,
    "latitudes": 1, "grid_resolution": 2, "points": 1, "max_z": 2,
}  # fmt: skip
_OPEN: Final = ("radial", "latitudes", "grid_resolution", "points", "average_neighbors")


def pair(value: int | Sequence[int]) -> Channels:
    """A number of channels, or those of the natural and of the pseudo stack.

    >>> pair(8), pair([8, 4])
    (8, (8, 4))
    """
    return value if isinstance(value, int) else (int(value[0]), int(value[1]))


def gaussians(options: Mapping[str, Any]) -> int:
    """How many Gaussians reach to the cutoff; narrower ones would amplify what float32 rounds off.

    >>> gaussians({"cutoff": 5.0})
    32
    """
    return max(8, round(6.4 * options["cutoff"]))


def warn_inexact(model: str, chosen: Mapping[str, Any], found: Sequence[str], *, envelope: bool) -> None:
    """Name once what of a model, as its options describe it, is not exact.

    Args:
        model: its name.
        chosen: its options.
        found: what is not exact of this model alone.
        envelope: whether edges vanish at the cutoff.
    """
    found = list(found)
    if not envelope:
        found.append("without an envelope energies jump where a pair crosses the cutoff")
    if chosen["parity"] == "so3":
        found.append("parity='so3' gives mirror images different energies")
    if chosen["direct_forces"]:
        found.append("direct forces are no gradient of the energy")
    if found and (chosen["mode"] == "compat" or chosen["direct_forces"]):
        warnings.warn(f"{model}(mode={chosen['mode']!r}) is not exact: {'; '.join(found)}", stacklevel=3)


def check_choice(model: str, name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a word that is not an option.

    Raises:
        ValueError: naming the model, the option and what it may be.

    >>> check_choice("ESCN", "mode", "exact", ("exact", "compat"))
    """
    if value not in known:
        raise ValueError(f"{model} expects {name} to be one of {', '.join(known)}, got {value!r}")


def check_sizes(model: str, options: Mapping[str, Any]) -> None:
    """Refuse sizes and distances with which a model of degrees and orders cannot be built.

    Raises:
        ValueError: naming the model, the option, what it may be and what it is.

    >>> check_sizes("ESCN", {"layers": 2, "lmax": 4, "mmax": 2, "cutoff": 5.0})
    """
    for name, least in _LEAST.items():
        values = options.get(name, least)
        several: Sequence[Any] = values if isinstance(values, Sequence) else [values]
        for value in several:
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if value is None and name in _OPEN:
                continue
            if not whole or int(value) < least:
                raise ValueError(f"{model} expects {name} to be a whole number >= {least}, got {value!r}")
    if options["mmax"] > options["lmax"]:
        raise ValueError(
            f"{model} expects mmax <= lmax, got mmax={options['mmax']} and lmax={options['lmax']}"
        )
    for name in ("cutoff", "radial_width", "average_neighbors", "force_scale"):
        number = options.get(name, 1.0)
        if number is None and name in _OPEN:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            raise ValueError(f"{model} expects {name} to be a number > 0, got {number!r}")
