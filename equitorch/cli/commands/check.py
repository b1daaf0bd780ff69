"""`equitorch check`: a config or a data file, looked at without training."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli import data, failure, screen
from equitorch.cli.commands.train import CONFIGS, command_for, config_of, read_config
from equitorch.cli.failure import UserError
from equitorch.cli.screen import count, field, listing, number, plural

if TYPE_CHECKING:
    from equitorch.datasets.dataset import AtomDataset
    from equitorch.training import Config
    from equitorch.training.prepare import Prepared


def show_data(name: str, found: AtomDataset, seconds: float) -> None:
    """Print what a data set holds, and what looks wrong with it."""
    from equitorch.datasets.check import check_dataset

    s = found.statistics()
    listing("Data", [name, *data.summary_parts(s), f"read in {number(seconds, 2)} s"])
    listing("Labels", [f"{label} {n}/{s.frames}" for label, n in s.labels.items()])
    keys = [f"{label} from {', '.join(k for k in used)}" for label, used in found.frames.keys.items() if used]
    for parts in (keys, data.label_parts(s)):
        if parts:
            listing("", parts)
    groups = sorted(set(data.groups_of(found)))
    if len(groups) > 1:
        listing("Groups", [f"{len(groups)}: {', '.join(groups[:5])}{', ...' if len(groups) > 5 else ''}"])
    findings = check_dataset(found)
    listing("Checks", ["ok: " + ", ".join(f.name for f in findings if f.level == "ok")])
    for finding in findings:
        if finding.level == "note":
            listing("Note", [finding.text])
        elif finding.level != "ok":
            screen.warn(finding.text)


def _prepared(config: Config) -> Prepared:
    """Make everything that a training starts from.

    Raises:
        ConfigError: when the config and the data do not fit.
    """
    import torch

    from equitorch.training.parallel import Processes
    from equitorch.training.prepare import prepare

    return prepare(config, torch.device("cpu"), Processes())


def _show_model(config: Config, prepared: Prepared) -> None:
    """Print the model that the config describes, built for the data."""
    summary, cutoff = prepared.summary, prepared.potential.cutoff
    layers = int(
        config.model.options.get("layers", getattr(prepared.potential.model, "options", {}).get("layers", 1))
    )
    rounds = layers + (config.model.name not in ("nequip", "escn"))  # others see neighbours before a layer
    from ase.data import chemical_symbols

    energies = [
        f"{chemical_symbols[int(z)]} {number(e, 6)} eV" for z, e in summary["reference_energies"].items()
    ]
    listing("", [f"reference {', '.join(energies)}"])
    facts = [
        f"{count(summary['parameters'])} parameters",
        f"cutoff {cutoff:g} Å",
        f"sees {rounds * cutoff:g} Å",
    ]
    listing("Model", [config.model.name, *facts, f"~{summary['neighbours']:.0f} neighbours/atom"])
    frames = ", ".join(f"{name} {n}" for name, n in summary["frames"].items())
    listing(
        "Train",
        [
            plural(config.train.epochs, "epoch"),
            f"batch {summary['batch']}",
            f"frames {frames}",
            f"into {config.output}",
        ],
    )


def _read(file: Path, config: Config) -> AtomDataset:
    """Read one file with the keys, the units and the groups of the config."""
    d = config.data
    options = {"keys": d.keys.model_dump(), "energy_unit": d.energy_unit, "length_unit": d.length_unit}
    return data.read_labelled(file, group="auto" if d.group == "none" else d.group, **options)


def no_labels(file: Path) -> str:
    """Say that a file has nothing to train on, what it has instead, and how to name the labels."""
    frames = data.structures_of(file) or []
    arrays = sorted({k for atoms in frames for k in atoms.arrays} - {"numbers", "positions"})
    held = [("info keys", data.info_keys(frames)), ("arrays", arrays)]
    has = "; ".join(f"its {what} are: {', '.join(names)}" for what, names in held if names)
    return (
        f"'{file}' has no energies, forces or stresses under the usual names{f'; {has}' if has else ''}. "
        "Name them: data.keys.energy=NAME data.keys.forces=NAME"
    )


def run(path: Path, overrides: Sequence[str]) -> int:
    """Read everything that a training would, and say what is there: problems first, then the data.

    Raises:
        UserError: if there are no labels to train on.
    """
    config = read_config(path, overrides)
    is_config = config_of(path).suffix in CONFIGS
    files = config.data.train if isinstance(config.data.train, list) else [config.data.train]
    found, seconds = {}, {}
    for file in files:
        started = time.perf_counter()
        found[file] = _read(Path(file), config)
        seconds[file] = time.perf_counter() - started
    labelled = any(any(part.labels.values()) for part in found.values())
    prepared, problem = None, ""
    if is_config and labelled:
        try:
            prepared = _prepared(config)
        except ValueError as error:
            problem = str(error)
            screen.say(problem, style="red", stderr=True)
    screen.banner()
    for file, part in found.items():
        show_data(Path(file).name, part, seconds[file])
    if not labelled:
        raise UserError(no_labels(Path(files[0])))
    if problem:
        return failure.USER
    if prepared is not None:
        _show_model(config, prepared)
    again = command_for(path, overrides)
    if is_config or overrides:
        field("Next", again)
    else:
        name = shlex.quote(f"{data.stem_of(path)}.yaml")
        field("Next", f"equitorch new {name} --data {shlex.quote(str(path))}   or at once: {again}")
    return failure.OK
