"""`equitorch demo`: everything once, on the shipped molecules, in a few minutes."""

from __future__ import annotations

import os
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
from equitorch.cli.screen import duration, field, listing, plural

MOLECULES, EPOCHS, STEPS = ("ethanol", "aspirin"), 20, 1500
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


def write_data(folder: Path) -> dict[str, Path]:
    """Write three plain files of molecules: no trajectory has frames in two of them."""
    from ase.io import write

    from equitorch.datasets import load_shipped

    parts: dict[str, list[Any]] = {"train": [], "valid": [], "test": []}
    for name in MOLECULES:
        data = load_shipped(name)
        for i, group in enumerate(data.groups):
            temperature, trajectory = group.split("/")
            part = {"2": "valid", "3": "test"}.get(trajectory, "train")
            if part == "valid" and i % 5:
                continue
            atoms = data.to_ase(i)
            atoms.info["config_type"] = f"{name} {temperature.removesuffix('K')} K"
            parts[part].append(atoms)
    files = {part: folder / f"{part}.xyz" for part in parts}
    for part, frames in parts.items():
        write(files[part], frames, format="extxyz")
    return files


def settings(files: dict[str, Path], output: Path, minutes: float) -> dict[str, Any]:
    """Return the config of the demo: a small TensorNet."""
    return {
        "data": {part: str(path) for part, path in files.items()},
        "model": {"name": "tensornet", "channels": 32, "layers": 1, "radial": 16, "cutoff": 4.5},
        "train": {
            "epochs": EPOCHS,
            "batch": 8,
            "lr": 3e-3,
            "warmup": 50,
            "ema": 0.99,
            "max_minutes": minutes,
        },
        "output": str(output),
    }


def _dynamics(output: Path) -> None:
    """Run NVT, then NVE, with the largest molecule of the test set, through ASE."""
    from equitorch.cli.predictions import Predictions

    p = Predictions.load(output / "predictions" / "test.npz")
    start = p.atoms(int((p.ptr[1:] - p.ptr[:-1]).argmax()))
    for ensemble in ("nvt", "nve"):  # at most 15 s each
        plan = Settings(ensemble=ensemble, temperature_K=300.0, steps=STEPS, dt_fs=0.5)
        atoms = start.copy()
        outcome, seconds = simulate(RunPath.of(output), atoms, plan, quiet=True, longest=15.0)
        summarize(outcome, plan, len(atoms), seconds)
        if outcome.stopped:
            screen.warn(f"the dynamics stopped after {plural(outcome.steps, 'step')}: {outcome.stopped}")
        start.positions = atoms.positions


def _calm_threads() -> None:
    """Use one thread where other programs keep the cores busy: threads that wait for each other are slow."""
    import torch

    cores = os.cpu_count() or 1
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * cores:
        torch.set_num_threads(1)


def run(output: Path, minutes: float) -> int:
    """Train, evaluate, simulate, report."""
    from equitorch.training import Config

    started = time.perf_counter()
    prepare_folder(output)
    failure.logs_to(output)
    screen.banner()
    listing(
        "Demo",
        [f"GFN2-xTB energies and forces of {' and '.join(MOLECULES)}", "a small TensorNet", f"into {output}"],
    )
    _calm_threads()
    config = Config.from_dict(settings(write_data(output), output, minutes))
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
    field("Wrote", f"{output}/{{model.eqt, train.xyz, config.yaml, metrics.csv, md/}}")
    if written is not None:
        field("Report", f"{written.resolve()}  (one file: open it in a browser)")
    field("Next", f"equitorch train YOUR_DATA.xyz   ·   equitorch md {output} START")
    return failure.OK
