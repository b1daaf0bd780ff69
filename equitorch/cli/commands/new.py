"""`equitorch new`: a commented config fitted to the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equitorch.cli import failure
from equitorch.cli.data import SHIPPED
from equitorch.cli.failure import UserError, existing, nearest
from equitorch.cli.screen import field

SIZES: dict[str, dict[str, Any]] = {
    "small": {"channels": 32, "layers": 1, "radial": 16},
    "medium": {"channels": 64, "layers": 2, "radial": 32},
    "large": {"channels": 128, "layers": 2, "radial": 32},
}
_OF_NEQUIP: dict[str, dict[str, Any]] = {
    "small": {"channels": 16, "layers": 3, "lmax": 1},
    "medium": {"channels": 32, "layers": 4, "lmax": 1},
    "large": {"channels": 64, "layers": 4, "lmax": 2},
}
_OF_MACE: dict[str, dict[str, Any]] = {
    "small": {"channels": 32, "lmax": 1, "max_ell": 2},
    "medium": {"channels": 64, "lmax": 1, "max_ell": 3},
    "large": {"channels": 128, "lmax": 2, "max_ell": 3},
}
_OF_EQUIFORMER: dict[str, dict[str, Any]] = {
    "small": {"channels": 32, "layers": 2, "lmax": 2},
    "medium": {"channels": 64, "layers": 3, "lmax": 3},
    "large": {"channels": 128, "layers": 4, "lmax": 4},
}
_OF_FRAMES: dict[str, dict[str, Any]] = {
    "small": {"layers": 2, "lmax": 2, "mmax": 2, "cutoff": 5.0},
    "medium": {"layers": 3, "lmax": 3, "mmax": 2, "cutoff": 5.0},
    "large": {"layers": 4, "lmax": 4, "mmax": 2, "cutoff": 6.0},
}
_OF_ESEN: dict[str, dict[str, Any]] = {
    "small": {"channels": 32, "hidden": 32, "edge_channels": 32, **_OF_FRAMES["small"]},
    "medium": {"channels": 64, "hidden": 64, "edge_channels": 64, **_OF_FRAMES["medium"]},
    "large": {"channels": 128, "hidden": 128, "edge_channels": 128, **_OF_FRAMES["large"]},
}
_OF_ESCN = {size: {**of, "hidden": 2 * of["channels"]} for size, of in _OF_ESEN.items()}
_SIZES = {
    "nequip": _OF_NEQUIP,
    "mace": _OF_MACE,
    "equiformer_v2": _OF_EQUIFORMER,
    "escn": _OF_ESCN,
    "esen": _OF_ESEN,
}
_PARITY = {"nequip": "features of both parities; false is faster"} | dict.fromkeys(
    ("equiformer_v2", "escn", "esen"), "natural, both, or so3 (no reflections); null: as the mode has it"
)
_PLAIN = {  # what a short config shows; everything else keeps its default
    "data": ("train", "valid", "test", "keys"),
    "model": ("name", "cutoff", "channels", "layers", "lmax", "parity", "radial", "reference_energies"),
    "train": ("epochs", "batch", "lr", "schedule", "ema", "loss", "precision", "seed"),
}
_NOTES = {
    "data.train": "any file that ASE reads",
    "data.valid": "a share, a number of frames, or a file; trajectories stay together",
    "data.test": "null, or as for valid",
    "data.keys": "names of the labels; auto finds REF_*, dft_*, energy, forces, ...",
    "model.cutoff": "Å",
    "model.channels": "channels of an atom's features",
    "model.lmax": "highest degree of the features; higher is more accurate and slower",
    "model.max_ell": "highest degree of the harmonics that are multiplied",
    "model.mmax": "highest order that messages mix; at most lmax",
    "model.average_neighbors": "null: as many as in the training frames",
    "model.layers": "rounds of messages; each sees one cutoff further",
    "model.reference_energies": "auto, none, or eV per element: {C: -1029.5, H: -13.6}",
    "train.batch": "frames per step; auto fits it to the data",
    "train.loss": "weights; an absent label needs none",
    "train.schedule": "plateau, cosine or constant",
    "train.ema": "decay of the averaged weights, which are the ones that are kept",
}


def _descriptions(section: Any, prefix: str = "") -> dict[str, str]:
    found = {}
    for name, info in section.model_fields.items():
        key = f"{prefix}{info.alias or name}"
        if info.description:
            found[key] = info.description
        if hasattr(info.annotation, "model_fields"):
            found |= _descriptions(info.annotation, f"{key}.")
    return found


def _scalar(value: Any) -> str:
    import yaml

    if isinstance(value, float):
        return repr(value)
    return (
        str(yaml.safe_dump(value, default_flow_style=True, width=10_000))
        .removesuffix("\n")
        .removesuffix("\n...")
    )


def commented(
    values: Mapping[str, Any], notes: Mapping[str, str], prefix: str = "", indent: str = ""
) -> list[str]:
    """Return the lines of a YAML file; what is known about a key stands behind it."""
    lines = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        inline = (
            isinstance(value, Mapping)
            and all(not isinstance(v, Mapping | list) for v in value.values())
            and prefix
        )
        text = "{" + ", ".join(f"{k}: {_scalar(v)}" for k, v in value.items()) + "}" if inline else ""
        if isinstance(value, Mapping) and not inline:
            lines += [f"{indent}{key}:", *commented(value, notes, f"{path}.", indent + "  ")]
            continue
        line = f"{indent}{key}: {text or _scalar(value)}"
        lines.append(f"{line:<39} # {notes[path]}" if path in notes else line)
    return lines


def _short(values: dict[str, Any], keys: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        s: {k: values[s][k] for k in names if k in values[s] and (s != "model" or values[s][k] is not None)}
        for s, names in keys.items()
    }
    loss, schedule = kept["train"].get("loss"), kept["train"].get("schedule")
    if isinstance(loss, Mapping):
        kept["train"]["loss"] = {k: loss[k] for k in ("energy", "forces", "stress") if k in loss}
    if isinstance(schedule, Mapping):
        kept["train"]["schedule"] = schedule["name"]
    return kept | {"output": values["output"]}


def _facts(data: Path) -> tuple[str, set[str]]:
    """Say what the data are, and which labels they have."""
    from equitorch.cli.data import read_labelled, summary_parts

    found = read_labelled(data)
    return " · ".join(summary_parts(found.statistics())), {name for name, n in found.labels.items() if n}


def _model_name(given: str) -> str:
    """Return the name of a model as the config has it, however its letters are written."""
    from equitorch.models.checkpoint import MODELS

    plain = given.lower().replace("_", "").replace("-", "")
    return next((name for name in MODELS if name.replace("_", "") == plain), given)


def run(path: Path, data: Path, model: str, size: str, full: bool, force: bool) -> int:
    """Write the config.

    Raises:
        UserError: if it exists, or the size is unknown.
    """
    from equitorch.training import Config
    from equitorch.training.config_check import model_options

    shipped = str(data).startswith(SHIPPED)
    if not shipped:
        existing(data, "data file")
    model = _model_name(model)
    if size not in SIZES:
        raise UserError(f"--size: expected one of {', '.join(SIZES)}, got '{size}'{nearest(size, SIZES)}")
    if path.exists() and not force:
        raise UserError(f"'{path}' exists; choose another name, or replace it with --force")
    base: dict[str, Any] = {
        "data": {"train": str(data) if shipped else os.path.relpath(data)},
        "model": {"name": model},
        "output": f"runs/{path.stem}",
    }
    known = model_options(Config.from_dict(base).model.name)
    sizes = _SIZES.get(model, SIZES)
    base["model"] |= {k: v for k, v in sizes[size].items() if k in known}
    config, (facts, labels) = Config.from_dict(base), _facts(data)
    values = config.to_dict(full=True)
    values["train"]["loss"] = {
        k: v
        for k, v in values["train"]["loss"].items()
        if k not in ("energy", "forces", "stress") or k in labels
    }
    notes = _descriptions(Config) | _NOTES | ({"model.parity": _PARITY[model]} if model in _PARITY else {})
    plain = _PLAIN | {
        "model": tuple(dict.fromkeys((*_PLAIN["model"][:-1], *sizes[size], *_PLAIN["model"][-1:])))
    }
    text = "\n".join(commented(values if full else _short(values, plain), notes))
    head = f"# {path.name}: units eV, Å, fs, e\n# {facts}\n" + (
        "" if full else "# every other setting: equitorch new --full\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{text}\n", encoding="utf-8")
    Config.from_file(path)
    field("Wrote", str(path))
    field("Next", f"equitorch check {path}")
    return failure.OK
