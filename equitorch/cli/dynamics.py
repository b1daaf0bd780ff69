"""Molecular dynamics through ASE with a guard: what leaves the physical range stops and is kept."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from equitorch.cli.failure import UserError, nearest
from equitorch.cli.files import free_name

if TYPE_CHECKING:
    from ase import Atoms

ENSEMBLES = ("nve", "nvt", "npt")
COLUMNS = ("step", "time_fs", "temperature_K", "potential_eV", "kinetic_eV", "total_eV", "max_force_eV_per_A")
INTERRUPTED = "interrupted"
HOTTEST, STRONGEST = 10.0, 100.0  # times the target temperature; eV/Å


@dataclass(frozen=True)
class Settings:
    """What is asked of a run; temperature in K, time step in fs, friction in 1/fs, pressure in GPa."""

    ensemble: str = "nvt"
    temperature_K: float = 300.0
    steps: int = 1000
    dt_fs: float = 0.5
    friction_per_fs: float = 0.01
    pressure_GPa: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise UserError(
                f"--ensemble: expected one of {', '.join(ENSEMBLES)}, "
                f"got '{self.ensemble}'{nearest(self.ensemble, ENSEMBLES)}"
            )
        for name, low in (("temperature_K", 0), ("steps", 1), ("dt_fs", 1e-6), ("friction_per_fs", 0)):
            if not getattr(self, name) >= low:
                raise UserError(
                    f"--{name.split('_')[0]}: expected a number from {low:g} up, got {getattr(self, name):g}"
                )


@dataclass
class Outcome:
    """What a run wrote, and why it ended early if it did."""

    csv: Path
    trajectory: Path
    steps: int
    temperature_K: float
    drift: float
    stopped: str = ""
    last: Path | None = None


def integrator(atoms: Atoms, settings: Settings) -> Any:
    """Return ASE's integrator for the ensemble.

    Raises:
        UserError: for constant pressure without a cell.
    """
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.verlet import VelocityVerlet

    dt = settings.dt_fs * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, dt)
    if settings.ensemble == "nvt":
        rng, friction = np.random.RandomState(settings.seed), settings.friction_per_fs / units.fs
        kelvin = settings.temperature_K
        return Langevin(atoms, dt, temperature_K=kelvin, friction=friction, rng=rng, fixcm=False)
    if not atoms.pbc.all():
        raise UserError("--ensemble npt needs a structure that is periodic in three directions; use nvt")
    from ase.md.nose_hoover_chain import IsotropicMTKNPT

    return IsotropicMTKNPT(
        atoms, dt, settings.temperature_K, settings.pressure_GPa * units.GPa, tdamp=100 * dt, pdamp=1000 * dt
    )


def trouble(temperature: float, force: float, energy: float, target: float) -> str:
    """Say what left the physical range, or nothing.

    >>> trouble(320.0, 4.0, -10.0, 300.0)
    ''
    >>> trouble(4000.0, 4.0, -10.0, 300.0)
    'the temperature is 4000 K, more than 10 times the 300 K asked for'
    """
    if not (math.isfinite(energy) and math.isfinite(force) and math.isfinite(temperature)):
        return "the energy or a force is not a number"
    if force > STRONGEST:
        return f"a force of {force:.0f} eV/Å is beyond {STRONGEST:g} eV/Å"
    if target > 0 and temperature > HOTTEST * target:
        return (
            f"the temperature is {temperature:.0f} K, more than {HOTTEST:g} times the {target:g} K asked for"
        )
    return ""


def drift(time: NDArray[np.floating[Any]], energy: NDArray[np.floating[Any]]) -> float:
    """The slope of a line through the energy over time; NaN of fewer than three values.

    >>> round(drift(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.5, 1.0])), 6)
    0.5
    """
    return float(np.polyfit(time, energy, 1)[0]) if len(time) > 2 else math.nan


class _Log:
    """Watches the dynamics and writes the CSV and the trajectory; opens no file before the first row.

    What is written is a copy made between two steps, so that an interruption within one does no harm.
    """

    def __init__(self, atoms: Atoms, settings: Settings, frames: int) -> None:
        self.atoms, self.settings = atoms, settings
        self.rows: list[tuple[float, ...]] = []
        self.every = max(1, settings.steps // 5000)
        self.frames = max(1, settings.steps // frames)
        self.framed = -1
        self.look(0)

    def open(self, stream: TextIO, trajectory: Path) -> None:
        self.trajectory, self.writer = trajectory, csv.writer(stream)
        self.writer.writerow(COLUMNS)

    def look(self, step: int) -> None:
        atoms = self.atoms
        potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
        forces = atoms.get_forces()
        seen = (float(atoms.get_temperature()), potential, kinetic, potential + kinetic)
        row = (step, step * self.settings.dt_fs, *seen, float(np.linalg.norm(forces, axis=-1).max()))
        self.now = (step, row, atoms.copy(), forces)

    @property
    def step(self) -> int:
        return self.now[0]

    @property
    def row(self) -> tuple[float, ...]:
        return self.now[1]

    def trouble(self) -> str:
        return trouble(self.row[2], self.row[6], self.row[3], self.settings.temperature_K)

    def write(self, *, last: bool) -> None:
        step, row = self.step, self.row
        if (step % self.every == 0 or last) and not (self.rows and self.rows[-1][0] == step):
            self.rows.append(row)
            self.writer.writerow([row[0], *(f"{v:.10g}" for v in row[1:])])
        if (step % self.frames == 0 or last) and self.framed != step:
            self.framed = step
            self.frame(self.trajectory)

    def frame(self, path: Path) -> None:
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.io import write

        _, row, atoms, forces = self.now
        kept = atoms.copy()
        kept.calc = SinglePointCalculator(kept, energy=row[3], forces=forces)
        kept.info["time_fs"] = row[1]
        write(path, kept, format="extxyz", append=True)


def _steps(mover: Any, log: _Log, progress: Callable[[int, float], None] | None, ends: float) -> str:
    """Move until the end, trouble or an interruption; return what stopped it.

    Ctrl-C once ends after the current step, twice at once.
    """
    from equitorch.training.interrupt import interrupts

    try:
        with interrupts() as interrupt:
            while True:
                stopped = log.trouble()
                done = log.step == log.settings.steps
                if not stopped and not done and interrupt.requested:
                    stopped = INTERRUPTED
                over = bool(stopped) or done or time.monotonic() > ends
                log.write(last=over)
                if over:
                    return stopped
                mover.run(1)
                log.look(log.step + 1)
                if progress is not None:
                    progress(log.step, log.row[2])
    except KeyboardInterrupt:
        log.write(last=True)
        return INTERRUPTED


def thermalize(atoms: Atoms, temperature: float, seed: int = 0) -> None:
    """Draw Maxwell-Boltzmann momenta, at rest as a whole, at exactly the temperature (K)."""
    from ase.units import kB

    rng, mass = np.random.default_rng(seed), atoms.get_masses()[:, None]
    velocity = rng.normal(size=(len(atoms), 3)) * np.sqrt(kB * temperature / mass)
    if len(atoms) > 1:
        velocity -= (mass * velocity).sum(0) / mass.sum()
    atoms.set_momenta(mass * velocity)
    now = atoms.get_temperature()
    if now > 0:
        atoms.set_momenta(atoms.get_momenta() * math.sqrt(temperature / now))


def run_dynamics(
    atoms: Atoms,
    settings: Settings,
    folder: Path,
    name: str,
    *,
    progress: Callable[[int, float], None] | None = None,
    frames: int = 200,
    longest: float = math.inf,
) -> Outcome:
    """Run dynamics and write ``name.csv``, ``name.extxyz`` and ``name.json`` into a folder.

    Args:
        atoms: with a calculator; moved in place. Momenta that it has are kept.
        settings: ensemble, temperature, length.
        folder: an existing folder.
        name: stem of the files; a number is added where it is taken.
        progress: told the step and the temperature, after every step.
        frames: about how many structures are kept.
        longest: seconds after which the run ends where it is.

    Raises:
        ValueError: if the structure or the settings do not allow a first step; no file is written then.
    """
    if not atoms.has("momenta") or np.abs(atoms.get_momenta()).max() == 0:
        thermalize(atoms, settings.temperature_K, settings.seed)
    mover, log, last = integrator(atoms, settings), _Log(atoms, settings, frames), None
    name = free_name(folder, name, ".csv")
    table, trajectory = folder / f"{name}.csv", folder / f"{name}.extxyz"
    trajectory.unlink(missing_ok=True)
    with table.open("w", newline="", encoding="utf-8") as stream:
        log.open(stream, trajectory)
        stopped = _steps(mover, log, progress, time.monotonic() + longest)
        if stopped and stopped != INTERRUPTED:
            last = folder / f"{name}_last.extxyz"
            last.unlink(missing_ok=True)
            log.frame(last)
    values = np.array(log.rows)
    lost = drift(values[:, 1] / 1e3, values[:, 5] / len(atoms) * 1e3)
    facts = asdict(settings) | {
        "steps_done": log.step,
        "stopped": stopped,
        "formula": atoms.get_chemical_formula(),
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return Outcome(table, trajectory, log.step, float(values[:, 2].mean()), lost, stopped, last)
