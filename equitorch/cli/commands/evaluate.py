"""`equitorch evaluate`: a model against labels."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equitorch.cli import failure, screen
from equitorch.cli.commands.train import error_table
from equitorch.cli.data import (
    check_group_key,
    graphs_of,
    groups_of,
    read_labelled,
    stem_of,
    structures_of,
    summary_parts,
)
from equitorch.cli.failure import UserError
from equitorch.cli.files import RunPath
from equitorch.cli.predictions import Predictions, predict
from equitorch.cli.screen import count, field, listing, number, table

if TYPE_CHECKING:
    from ase import Atoms

    from equitorch.datasets.dataset import AtomDataset


def write_structures(p: Predictions, frames: Sequence[Atoms], path: Path) -> None:
    """Write the frames as they were read, with predictions and reference labels, as extended XYZ."""
    from ase.io import write

    kept = []
    for i, read in enumerate(frames):
        atoms, inside = read.copy(), slice(int(p.ptr[i]), int(p.ptr[i + 1]))
        per_frame = {"energy_equitorch": p.energy_predicted[i], "energy_reference": p.energy[i]}
        per_atom = {
            "forces_equitorch": p.forces_predicted[inside],
            "forces_reference": p.forces[inside],
        }
        stresses = {"stress_equitorch": p.stress_predicted[i], "stress_reference": p.stress[i]}
        atoms.info |= {k: float(v) for k, v in per_frame.items() if np.isfinite(v)}
        atoms.info |= {k: v for k, v in stresses.items() if np.isfinite(v).all()}
        atoms.arrays |= {k: v for k, v in per_atom.items() if np.isfinite(v).all()}
        atoms.calc = read.calc
        kept.append(atoms)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, kept, format="extxyz")


def trained_reading(folder: Path) -> dict[str, Any]:
    """Return how the run's config reads its files: keys of labels that it names, units that are not ours."""
    from equitorch.training import config_reader

    config = folder / "config.yaml"
    data = config_reader.read(config).values.get("data", {}) if config.is_file() else {}
    keys = {label: str(key) for label, key in data.get("keys", {}).items() if key != "auto"}
    units = {"energy_unit": data.get("energy_unit", "eV"), "length_unit": data.get("length_unit", "Angstrom")}
    foreign = {name: unit for name, unit in units.items() if unit not in ("eV", "Angstrom")}
    return ({"keys": keys} if keys else {}) | foreign


def _labelled(data: Path, group: str, reading: dict[str, Any]) -> AtomDataset:
    """Read the data as the training did, or by the usual keys where the file has none of its."""
    if "keys" in reading:
        with suppress(ValueError):
            return read_labelled(data, group=group, **reading)
    return read_labelled(data, group=group, **{name: x for name, x in reading.items() if name != "keys"})


def show_parts(p: Predictions, by: str) -> None:
    """Print the errors of every group or element."""
    rows = []
    for name, frames, atoms in p.select("element" if by == "element" else "group"):
        e, f = p.energy_errors(frames), p.force_errors(atoms)
        energy = number(e.mae * 1e3) if by != "element" else ""
        sizes = [count(int(frames.sum())), count(int(atoms.sum()))]
        rows.append([name, *sizes, energy, number(f.mae * 1e3), number(f.rmse * 1e3)])
    screen.say()
    table([by, "frames", "atoms", "E MAE meV/atom", "F MAE meV/Å", "F RMSE"], rows)


def run(path: Path, data: Path, by: str | None, write: Path | None) -> int:
    """Evaluate, print the tables, keep the arrays for the report.

    Raises:
        UserError: if the data have no labels, or the group key no values.
    """
    found = RunPath.of(path)
    failure.logs_to(found.folder)
    potential = found.load()
    key = by if by not in (None, "element", "group") else None
    frames = structures_of(data) if key or write else None
    if key is not None:
        check_group_key(key, frames)
    reading = trained_reading(found.folder)
    labelled = _labelled(data, key or "auto", reading)
    counts = labelled.labels
    if not any(counts.values()):
        raise UserError(
            f"'{data}' has no energies, forces or stresses to compare with under the usual names; "
            "rename its keys, e.g. to REF_energy and REF_forces"
        )
    screen.banner()
    listing("Data", [data.name, *summary_parts(labelled.statistics())])
    listing("", [f"{name} {n}/{len(labelled)}" for name, n in counts.items()])
    units = [unit for name, unit in reading.items() if name != "keys"]
    if units:
        listing("", [f"read in {' and '.join(units)}, as in training"])
    groups = groups_of(labelled) if key is None else [name or f"no {key}" for name in labelled.groups]
    p = predict(potential, graphs_of(labelled), groups)
    error_table({stem_of(data): p})
    if by is not None:
        show_parts(p, by)
    kept = p.save(found.folder / "predictions" / f"{stem_of(data)}.npz")
    if write is not None:
        if frames is None:
            frames = [labelled.to_ase(i) for i in range(len(labelled))]
        write_structures(p, frames, write)
    field("Wrote", ", ".join(str(x) for x in (kept, write) if x is not None))
    field("Next", f"equitorch report {shlex.quote(str(path))}")
    return failure.OK
