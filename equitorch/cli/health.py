"""The health card: four things every potential must do, measured on the trained one in float64."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equitorch.cli.dynamics import drift, thermalize
from equitorch.cli.screen import number

if TYPE_CHECKING:
    from ase import Atoms

    from equitorch.models import Potential

Array = NDArray[np.float64]
_LONGEST, _ENOUGH = 15.0, 200  # seconds of NVE; steps below which it is not judged


@dataclass(frozen=True)
class Check:
    """One line of the card; ``passed`` is None where the check does not apply.

    Args:
        name: what is checked.
        short: for the screen, a few words.
        text: for the report, a sentence.
        value: the measured number.
        limit: what it must not exceed.
        passed: the verdict.
    """

    name: str
    short: str
    text: str
    value: float | None
    limit: float | None
    passed: bool | None


def _evaluate(potential: Potential, atoms: Atoms) -> tuple[float, Array]:
    out = potential.predict([atoms])[0]
    return float(out["energy"]), np.asarray(out["forces"], dtype=float).reshape(-1, 3)


def rotation(potential: Potential, atoms: Atoms, seed: int = 0) -> Check:
    """Turn and mirror the structure: the energy stays, the forces turn along."""
    rng = np.random.default_rng(seed)
    energy, forces = _evaluate(potential, atoms)
    scale = max(float(np.abs(forces).max()), 1e-3)
    worst = 0.0
    for sign in (1, -1):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        turn *= sign * np.sign(np.linalg.det(turn))
        moved = atoms.copy()
        moved.info = dict(atoms.info)
        moved.set_cell(atoms.cell.array @ turn.T)
        moved.positions = atoms.positions @ turn.T
        e, f = _evaluate(potential, moved)
        worst = max(
            worst, abs(e - energy) / max(abs(energy), 1.0), float(np.abs(f - forces @ turn.T).max()) / scale
        )
    text = f"energy and forces follow a rotation and a mirror image to {number(worst, 2)} (relative)"
    return Check("Rotation and mirror", f"rotation error {number(worst, 1)}", text, worst, 1e-8, worst < 1e-8)


def gradient(potential: Potential, atoms: Atoms, seed: int = 0, step: float = 1e-3) -> Check:
    """Compare forces with central differences of the energy (fourth order) along random directions."""
    rng = np.random.default_rng(seed)
    _, forces = _evaluate(potential, atoms)
    scale = max(float(np.sqrt((forces**2).sum())), 1e-3)
    worst = 0.0
    for _ in range(4):
        along = rng.normal(size=forces.shape)
        along /= np.linalg.norm(along)

        def energy(t: float, along: Array = along) -> float:
            moved = atoms.copy()
            moved.info = dict(atoms.info)
            moved.positions = atoms.positions + t * along
            return _evaluate(potential, moved)[0]

        slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
        worst = max(worst, abs(slope + float((forces * along).sum())) / scale)
    text = f"finite differences of the energy give the forces to {number(worst, 2)} (relative)"
    return Check(
        "Forces are -dE/dx", f"force = -dE/dx to {number(worst, 1)}", text, worst, 1e-5, worst < 1e-5
    )


def smoothness(potential: Potential, atoms: Atoms) -> Check:
    """Pull an atom pair through the cutoff: the force fades to zero there and stays zero."""
    from ase import Atoms

    z = sorted(int(s) for s in potential.species)
    pair, cutoff = [z[0], z[-1]], float(potential.cutoff)
    info = {k: v for k, v in atoms.info.items() if k == "charge"}

    def force(r: float) -> float:
        dimer = Atoms(pair, [[0.0, 0.0, 0.0], [0.0, 0.0, r]], info=info)
        return float(np.abs(_evaluate(potential, dimer)[1]).max())

    at, beyond = max(force(cutoff * (1 - 1e-5)), force(cutoff * (1 - 1e-6))), force(cutoff * (1 + 1e-6))
    reference = max(force(0.6 * cutoff), 1e-3)
    worst = max(at, beyond) / reference
    text = f"a pair's force is {number(at, 2)} eV/Å at the cutoff of {cutoff:g} Å, {number(beyond, 2)} beyond"
    return Check(
        "Smooth at the cutoff", "smooth at cutoff", text, worst, 1e-3, worst < 1e-3 and beyond < 1e-10
    )


def conservation(
    potential: Potential, atoms: Atoms, *, steps: int = 600, dt: float = 0.5, temperature: float = 300.0
) -> Check:
    """Run NVE dynamics and fit a line through the total energy."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    from equitorch.calculator import EquitorchCalculator

    moving = atoms.copy()
    moving.info, moving.constraints = dict(atoms.info), []
    moving.calc = EquitorchCalculator(potential)
    thermalize(moving, temperature)
    integrator, total = VelocityVerlet(moving, dt * units.fs), [moving.get_total_energy()]
    ends = time.monotonic() + _LONGEST
    while len(total) <= steps and (time.monotonic() < ends or len(total) < 50):
        integrator.run(1)
        total.append(moving.get_total_energy())
    energy, time_ps = np.array(total) / len(moving) * 1e3, np.arange(len(total)) * dt * 1e-3
    lost = abs(drift(time_ps, energy)) if np.isfinite(energy).all() else np.inf
    span = f"{time_ps[-1]:g} ps in steps of {dt:g} fs at {temperature:g} K"
    text = f"the total energy drifts by {number(lost, 2)} meV/atom/ps over {span}"
    passed = lost < 1.0 if len(total) > _ENOUGH or not np.isfinite(lost) else None
    short = f"NVE drift {number(lost, 2)} meV/atom/ps" + (
        "" if passed is not None else " (too short to judge)"
    )
    return Check("Energy kept (NVE)", short, text, lost, 1.0, passed)


def check_health(potential: Potential, atoms: Atoms) -> list[Check]:
    """Make all four checks on one structure.

    Args:
        potential: left as it is; a float64 copy is measured.
        atoms: a structure like those of the training.
    """
    exact = copy.deepcopy(potential).double().eval()
    tests: list[tuple[str, Callable[[], Check]]] = [
        ("Rotation and mirror", lambda: rotation(exact, atoms)),
        ("Forces are -dE/dx", lambda: gradient(exact, atoms)),
        ("Smooth at the cutoff", lambda: smoothness(exact, atoms)),
        ("Energy kept (NVE)", lambda: conservation(exact, atoms)),
    ]
    card = []
    for name, test in tests:
        try:
            card.append(test())
        except Exception as error:  # a check that cannot be made is told, and spoils no other
            card.append(
                Check(
                    name,
                    f"{name}: not measured",
                    f"not measured: {type(error).__name__}: {error}",
                    None,
                    None,
                    None,
                )
            )
    return card


def save(card: list[Check], folder: Path) -> Path:
    """Write ``health.json`` into a run folder."""
    path = folder / "health.json"
    path.write_text(json.dumps({"checks": [asdict(check) for check in card]}, indent=1), encoding="utf-8")
    return path
