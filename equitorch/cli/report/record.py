"""Everything a run folder holds, read from its plain files; what is not there says why."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from equitorch.cli.predictions import Predictions

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """A part of the report that cannot be shown, and the reason."""

    reason: str


@dataclass(frozen=True)
class Trace:
    """A dynamics run: settings, columns over time, all structures as (fs, positions), and some to show."""

    name: str
    settings: dict[str, Any]
    columns: dict[str, Array]
    numbers: NDArray[np.int64]
    snapshots: list[tuple[float, Array]]
    every: list[tuple[float, Array]]
    periodic: bool


@dataclass(frozen=True)
class Record:
    """A run as its files tell it."""

    folder: Path
    config_text: str | Missing
    header: dict[str, Any] | Missing
    curves: dict[str, Array] | Missing
    predictions: dict[str, Predictions] | Missing
    summary: dict[str, Any] | Missing
    health: dict[str, Any] | Missing
    traces: list[Trace] | Missing
    damaged: dict[str, Missing] = field(default_factory=dict)  # dynamics runs that cannot be shown

    @property
    def shown(self) -> tuple[str, Predictions] | None:
        """The evaluated set that the pictures show: test before validation before any other."""
        if isinstance(self.predictions, Missing):
            return None
        name = next(n for n in ("test", "valid", *self.predictions) if n in self.predictions)
        return name, self.predictions[name]


def _try(read: Callable[[], T], otherwise: str) -> T | Missing:
    """Read, or turn the failure into its reason: a damaged file costs its own section only."""
    try:
        return read()
    except FileNotFoundError:
        return Missing(otherwise)
    except Exception as error:
        return Missing(f"could not be read: {type(error).__name__}: {error}")


def read_columns(path: Path) -> dict[str, Array]:
    """Read a CSV file into one array per column; an empty or foreign cell is NaN.

    Raises:
        ValueError: if it has no rows.
    """

    def value(text: str | None) -> float:
        try:
            return float(text) if text else np.nan
        except ValueError:
            return np.nan

    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    if not rows:
        raise ValueError(f"'{path.name}' has no rows")
    return {name: np.array([value(row[name]) for row in rows]) for name in rows[0] if name}


def _predictions(folder: Path) -> dict[str, Predictions]:
    files = sorted((folder / "predictions").glob("*.npz"), key=lambda f: f.stat().st_mtime)
    if not files:
        raise FileNotFoundError(folder)
    order = {"train": 0, "valid": 1, "test": 2}
    return {f.stem: Predictions.load(f) for f in sorted(files, key=lambda f: order.get(f.stem, 3))}


def _trace(path: Path, shown: int = 6) -> Trace:
    from ase.io import read

    settings = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    columns = read_columns(path)
    frames = read(path.with_suffix(".extxyz"), index=":")
    every = [(float(f.info.get("time_fs", np.nan)), f.get_positions()) for f in frames]
    snapshots = [every[i] for i in np.unique(np.linspace(0, len(frames) - 1, shown).round().astype(int))]
    return Trace(
        path.stem,
        settings,
        columns,
        frames[0].numbers.astype(np.int64),
        snapshots,
        every,
        bool(frames[0].pbc.any()),
    )


def _traces(folder: Path) -> tuple[list[Trace] | Missing, dict[str, Missing]]:
    """Read every dynamics run; each that is damaged is named by itself."""
    files = sorted((folder / "md").glob("*.csv"), key=lambda f: f.stat().st_mtime)
    found: list[Trace] = []
    damaged: dict[str, Missing] = {}
    for path in files:
        absent = [s for s in (".json", ".extxyz") if not path.with_suffix(s).exists()]
        read = _try(partial(_trace, path), f"there is no {path.stem}{' and no '.join(absent)}")
        if isinstance(read, Missing):
            damaged[path.stem] = read
        else:
            found.append(read)
    if not found:
        reason = "no run of it could be read" if files else "none was run yet; run: equitorch md RUN START"
        return Missing(reason), damaged
    return found, damaged


def read_record(folder: Path) -> Record:
    """Read a run folder; nothing that is missing or damaged stops the rest."""

    def header() -> dict[str, Any]:
        from equitorch.models.checkpoint import read_header

        return dict(read_header(folder / "model.eqt"))

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    traces, damaged = _traces(folder)
    return Record(
        folder=folder,
        config_text=_try(lambda: text("config.yaml"), "the run folder has no config.yaml"),
        header=_try(header, "the run folder has no model.eqt; did its training finish an epoch?"),
        curves=_try(lambda: read_columns(folder / "metrics.csv"), "the run folder has no metrics.csv"),
        predictions=_try(
            lambda: _predictions(folder), "nothing was evaluated yet; run: equitorch evaluate RUN DATA"
        ),
        summary=_try(lambda: json.loads(text("run.json")), "the run folder has no run.json"),
        health=_try(lambda: json.loads(text("health.json")), "the health check was not run"),
        traces=traces,
        damaged=damaged,
    )
