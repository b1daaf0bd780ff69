"""`equitorch demo`: everything once, on the shipped molecules, in a few minutes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from equitorch.cli import failure, screen
from equitorch.cli.commands import report
from equitorch.cli.commands.md import simulate, summarize
from equitorch.cli.commands.train import after_training, train_with_screen
from equitorch.cli.dynamics import Settings
from equitorch.cli.failure import UserError
from equitorch.cli.files import RunPath
from equitorch.cli.screen import duration, field, listing

_MARK = ".equitorch-demo"  # a folder with this file may be replaced by the next demo


def prepare_folder(output: Path) -> None:
    """Make room for the run: an earlier demo is replaced, anything else is left alone.

    Raises:
        UserError: if the folder holds something that no demo wrote.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output: '{output}' is a file; name a folder")
    if output.is_dir() and any(output.iterdir()):
        if not (output / _MARK).exists():
            raise UserError(f"'{output}' is not empty and no demo wrote it; choose another --output")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / _MARK).touch()


def settings(data: Path, output: Path, minutes: float) -> dict[str, Any]:
    """Return the config of the demo: a small TensorNet."""
    return {
        "data": {"train": str(data), "valid": "10%", "test": "10%"},
        "model": {"name": "tensornet", "channels": 32, "layers": 1, "radial": 16, "cutoff": 4.5},
        "train": {
            "epochs": 40,
            "batch": 8,
            "lr": 3e-3,
            "warmup": 50,
            "ema": 0.99,
            "max_minutes": minutes,
            "seed": 1,
        },
        "output": str(output),
    }


def _dynamics(output: Path) -> None:
    """Run NVT, then NVE, with the largest molecule of the test set, through ASE."""
    from ase import Atoms

    from equitorch.cli.predictions import Predictions

    p = Predictions.load(output / "predictions" / "test.npz")
    numbers, pos = p.structure(int((p.ptr[1:] - p.ptr[:-1]).argmax()))
    for ensemble, steps in (("nvt", 1500), ("nve", 1500)):
        plan = Settings(ensemble=ensemble, temperature_K=300.0, steps=steps, dt_fs=0.5)
        atoms = Atoms(numbers, pos)
        outcome, seconds = simulate(RunPath.of(output), atoms, plan, quiet=True)
        summarize(outcome, plan, len(numbers), seconds)
        if outcome.stopped:
            screen.warn(f"the dynamics stopped after {outcome.steps} steps: {outcome.stopped}")
        pos = atoms.positions


def run(output: Path, minutes: float) -> int:
    """Train, evaluate, simulate, report."""
    from equitorch.datasets.shipped import shipped_path
    from equitorch.training import Config

    started = time.perf_counter()
    data = shipped_path()
    prepare_folder(output)
    failure.logs_to(output)
    screen.banner()
    listing(
        "Demo", ["GFN2-xTB energies and forces of ethanol and aspirin", "a small TensorNet", f"into {output}"]
    )
    config = Config.from_dict(settings(data, output, minutes))
    result = train_with_screen(
        config, resume=False, quiet=False, again=f"equitorch train {output}/config.yaml"
    )
    if result.interrupted:
        screen.say("Stopped and saved; start again with: equitorch demo")
        return failure.INTERRUPTED
    after_training(result, config)
    _dynamics(output)
    written = report.write(output)
    field("Time", duration(time.perf_counter() - started))
    field("Wrote", f"{output}/{{model.eqt, metrics.csv, config.yaml, train.log, md/}}")
    if written is not None:
        field("Report", f"{written.resolve()}  (one file: open it in a browser)")
    field("Next", "equitorch train YOUR_DATA.xyz")
    return failure.OK
