"""`equitorch md`: dynamics with a trained model."""

from __future__ import annotations

import math
import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli import failure, screen
from equitorch.cli.dynamics import Outcome, Settings, run_dynamics
from equitorch.cli.files import RunPath, output_folder, read_structures
from equitorch.cli.screen import duration, field, listing, number, plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms


def _progress(stack: ExitStack, steps: int, *, quiet: bool) -> Callable[[int, float], None] | None:
    """Return what shows the progress: a bar on a terminal, ten lines elsewhere."""
    if quiet:
        return None
    if not screen.is_live():

        def line(step: int, temperature: float) -> None:
            if step % max(1, steps // 10) == 0:
                screen.say(f"step {step:7d} of {steps}   T {temperature:7.1f} K")

        return line
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("T {task.fields[kelvin]:.0f} K"),
        TimeRemainingColumn(),
    )
    bar = stack.enter_context(Progress(*columns, console=screen.console(), transient=True))
    task = bar.add_task("md", total=steps, kelvin=0.0)
    return lambda step, kelvin: bar.update(task, completed=step, kelvin=kelvin)


def simulate(
    run: RunPath,
    atoms: Atoms,
    settings: Settings,
    *,
    dtype: str | None = None,
    quiet: bool = False,
    longest: float = math.inf,
) -> tuple[Outcome, float]:
    """Run dynamics from a structure, for at most so many seconds, and write it into ``RUN/md``.

    Returns:
        What was written, and the seconds it took.
    """
    from equitorch.calculator import EquitorchCalculator

    atoms.calc = EquitorchCalculator(run.load(dtype))
    folder, started = output_folder(run, "md"), time.perf_counter()
    name = f"{settings.ensemble}_{settings.temperature_K:g}K"
    with ExitStack() as stack:
        show = _progress(stack, settings.steps, quiet=quiet)
        outcome = run_dynamics(atoms, settings, folder, name, progress=show, longest=longest)
    return outcome, time.perf_counter() - started


def summarize(outcome: Outcome, settings: Settings, atoms: int, seconds: float) -> None:
    """Print how a run went."""
    nve = settings.ensemble == "nve"
    parts = [settings.ensemble.upper(), plural(atoms, "atom")]
    parts.append(f"{number(outcome.steps * settings.dt_fs / 1e3)} ps in {duration(seconds)}")
    parts.append(f"{1e3 * seconds / max(outcome.steps, 1):.2f} ms/step")
    parts.append(
        f"mean T {outcome.temperature_K:.0f} K" + ("" if nve else f" (target {settings.temperature_K:g} K)")
    )
    listing("MD", parts + ([f"drift {number(outcome.drift, 2)} meV/atom/ps"] if nve else []))


def continuation(path: Path, outcome: Outcome, settings: Settings, dtype: str | None) -> str:
    """Return the command line that makes the remaining steps from the last frame, with new noise.

    >>> done = Outcome(Path("a.csv"), Path("a.extxyz"), 40, 300.0, 0.0)
    >>> continuation(Path("runs/a"), done, Settings("nve", steps=100, dt_fs=1.0), None)
    'equitorch md runs/a a.extxyz --ensemble nve --temperature 300 --steps 60 --dt 1 --seed 1'
    """
    words = ["equitorch", "md", shlex.quote(str(path)), shlex.quote(str(outcome.trajectory))]
    words += ["--ensemble", settings.ensemble, "--temperature", f"{settings.temperature_K:.12g}"]
    words += ["--steps", str(max(settings.steps - outcome.steps, 1)), "--dt", f"{settings.dt_fs:.12g}"]
    if settings.ensemble == "nvt":
        words += ["--friction", f"{settings.friction_per_fs:.12g}"]
    if settings.ensemble == "npt":
        words += ["--pressure", f"{settings.pressure_GPa:.12g}"]
    words += ["--seed", str(settings.seed + 1)]
    return " ".join(words + (["--dtype", dtype] if dtype else []))


def run(path: Path, start: Path, settings: Settings, dtype: str | None, quiet: bool) -> int:
    """Run dynamics and say what was written."""
    found = RunPath.of(path)
    failure.logs_to(found.folder)
    atoms = read_structures(start, "-1")[0]
    if not quiet:
        screen.banner()
    outcome, seconds = simulate(found, atoms, settings, dtype=dtype, quiet=quiet)
    summarize(outcome, settings, len(atoms), seconds)
    field("Wrote", f"{outcome.trajectory}, {outcome.csv}")
    if outcome.stopped == "interrupted":
        field("Stopped", f"interrupted after {plural(outcome.steps, 'step')}; go on from its last frame:")
        field("Next", continuation(path, outcome, settings, dtype))
        return failure.INTERRUPTED
    if outcome.stopped:
        where = f"its last structure is in {outcome.last}"
        raise failure.Diverged(
            f"the dynamics was stopped after {plural(outcome.steps, 'step')}: {outcome.stopped}; {where}. "
            "Try a smaller --dt, relax the start first, or train on structures like this one"
        )
    field("Next", f"equitorch report {shlex.quote(str(path))}")
    return failure.OK
