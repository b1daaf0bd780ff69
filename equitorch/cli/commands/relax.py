"""`equitorch relax`: geometry (and cell) optimisation in float64."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equitorch.cli import failure, screen
from equitorch.cli.failure import UserError
from equitorch.cli.files import RunPath, free_name, output_folder, read_structures
from equitorch.cli.screen import field, number, plural, table

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


def relax(
    atoms: Atoms, calculator: Calculator, *, cell: bool, fmax: float, steps: int
) -> tuple[Atoms, bool, int]:
    """Relax one structure.

    Returns:
        The structure with its energy and forces, whether it converged, and the steps taken.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    if cell and not atoms.pbc.all():
        raise UserError(
            f"--cell: {atoms.get_chemical_formula()} is not periodic in three directions; leave --cell out"
        )
    atoms.calc = calculator
    mover = BFGS(FrechetCellFilter(atoms) if cell else atoms, logfile=None, maxstep=0.1)
    done = bool(mover.run(fmax=fmax, steps=steps))
    kept = atoms.copy()
    kept.calc = SinglePointCalculator(
        kept, energy=float(atoms.get_potential_energy()), forces=atoms.get_forces()
    )
    return kept, done, int(mover.nsteps)


def run(path: Path, start: Path, cell: bool, fmax: float, steps: int) -> int:
    """Relax every structure of a file and write them to ``RUN/relax``."""
    from ase.io import write

    from equitorch.calculator import EquitorchCalculator

    if not fmax > 0:
        raise UserError(f"--fmax: expected a force above 0 in eV/Å, got {fmax:g}")
    if steps < 1:
        raise UserError(f"--steps: expected a number from 1 up, got {steps}")
    found = RunPath.of(path)
    failure.logs_to(found.folder)
    frames = read_structures(start)
    screen.banner()
    calculator = EquitorchCalculator(found.load("float64"))
    rows, relaxed, failed = [], [], 0
    for i, atoms in enumerate(frames):
        kept, done, taken = relax(atoms, calculator, cell=cell, fmax=fmax, steps=steps)
        if not np.isfinite(kept.get_potential_energy()):
            raise failure.Diverged(
                f"frame {i} of '{start}': the energy is not a number after {plural(taken, 'step')}"
            )
        relaxed.append(kept)
        failed += not done
        force = float(np.linalg.norm(kept.get_forces(), axis=-1).max())
        rows.append(
            [
                f"{i} {kept.get_chemical_formula()}",
                str(taken),
                f"{kept.get_potential_energy():.6f}",
                number(force),
                "yes" if done else "NO",
            ]
        )
    table(["structure", "steps", "energy eV", "max |F| eV/Å", "converged"], rows)
    folder = output_folder(found, "relax")
    target = folder / f"{free_name(folder, start.stem, '.extxyz')}.extxyz"
    write(target, relaxed, format="extxyz")
    field("Wrote", str(target))
    if failed:
        screen.warn(
            f"{failed} of {len(frames)} did not reach {fmax:g} eV/Å in {plural(steps, 'step')}; "
            "raise --steps or --fmax"
        )
    field("Next", f"equitorch md {shlex.quote(str(path))} {shlex.quote(str(target))}")
    return failure.OK
