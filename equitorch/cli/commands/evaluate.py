"""`equitorch evaluate`: a model against labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from equitorch.cli import failure, screen
from equitorch.cli.commands.train import error_table
from equitorch.cli.data import graphs_of, groups_of, read_labelled, summary_parts
from equitorch.cli.failure import UserError
from equitorch.cli.files import RunPath
from equitorch.cli.predictions import Predictions, predict
from equitorch.cli.screen import count, field, listing, number, table


def write_structures(p: Predictions, path: Path) -> None:
    """Write the frames with reference and predicted labels side by side, as extended XYZ."""
    from ase.io import write

    frames = []
    for i in range(p.frames):
        atoms, inside = p.atoms(i), slice(int(p.ptr[i]), int(p.ptr[i + 1]))
        atoms.info |= {"energy_equitorch": float(p.energy_predicted[i]), "group": str(p.group[i])}
        atoms.arrays["forces_equitorch"] = p.forces_predicted[inside]
        if np.isfinite(p.energy[i]):
            atoms.info["energy_reference"] = float(p.energy[i])
        if np.isfinite(p.forces[inside]).all():
            atoms.arrays["forces_reference"] = p.forces[inside]
        frames.append(atoms)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, frames, format="extxyz")


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
    labelled = read_labelled(data, group=by if by not in (None, "element", "group") else "auto")
    counts = labelled.labels
    if not any(counts.values()):
        raise UserError(
            f"'{data}' has no energies, forces or stresses to compare with; name their keys in a config"
        )
    screen.banner()
    listing("Data", [data.name, *summary_parts(labelled.statistics())])
    listing("", [f"{name} {n}/{len(labelled)}" for name, n in counts.items()])
    p = predict(potential, graphs_of(labelled), groups_of(labelled))
    error_table({data.stem: p})
    if by is not None:
        show_parts(p, by)
    kept = p.save(found.folder / "predictions" / f"{data.stem}.npz")
    if write is not None:
        write_structures(p, write)
    field("Wrote", ", ".join(str(x) for x in (kept, write) if x is not None))
    field("Next", f"equitorch report {path}")
    return failure.OK
