"""`equitorch check`: a config or a data file, looked at without training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli import data, failure, screen
from equitorch.cli.commands.train import CONFIGS, read_config
from equitorch.cli.screen import count, field, listing, number

if TYPE_CHECKING:
    from equitorch.datasets.dataset import AtomDataset
    from equitorch.training import Config


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


def _show_model(config: Config) -> None:
    """Print the model that the config describes, built for the data."""
    import torch

    from equitorch.training.parallel import Processes
    from equitorch.training.prepare import prepare

    prepared = prepare(config, torch.device("cpu"), Processes())
    summary, cutoff = prepared.summary, prepared.potential.cutoff
    layers = int(
        config.model.options.get("layers", getattr(prepared.potential.model, "options", {}).get("layers", 1))
    )
    from ase.data import chemical_symbols

    energies = [
        f"{chemical_symbols[int(z)]} {number(e, 6)} eV" for z, e in summary["reference_energies"].items()
    ]
    listing("", [f"reference {', '.join(energies)}"])
    facts = [
        f"{count(summary['parameters'])} parameters",
        f"cutoff {cutoff:g} Å",
        f"sees {layers * cutoff + cutoff:g} Å",
    ]
    listing("Model", [config.model.name, *facts, f"~{summary['neighbours']:.0f} neighbours/atom"])
    frames = ", ".join(f"{name} {n}" for name, n in summary["frames"].items())
    listing(
        "Train",
        [
            f"{config.train.epochs} epochs",
            f"batch {summary['batch']}",
            f"frames {frames}",
            f"into {config.output}",
        ],
    )


def run(path: Path, overrides: Sequence[str]) -> int:
    """Read everything that a training would, and say what is there."""
    config = read_config(path, overrides)
    is_config = path.suffix in CONFIGS
    screen.banner()
    files = config.data.train if isinstance(config.data.train, list) else [config.data.train]
    for file in files:
        started = time.perf_counter()
        found = data.read_labelled(Path(file), group=config.data.group)
        show_data(Path(file).name, found, time.perf_counter() - started)
    if is_config:
        _show_model(config)
        field("Next", f"equitorch train {path}")
    else:
        field("Next", f"equitorch new {path.stem}.yaml --data {path}   or at once: equitorch train {path}")
    return failure.OK
