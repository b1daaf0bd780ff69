"""What a run leaves behind: its folder, its log, its curves, its model."""

import csv
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from equitorch.models.container import write_atomically
from equitorch.models.potential import Potential

Status = Literal["finished", "early", "time", "interrupted", "diverged", "running"]

UNITS = {
    "loss": "",
    "energy": "eV/atom",
    "energy_total": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å^3",
    "lr": "",
}
"""Units of the numbers in metrics.csv, run.json and the metrics given to observers."""


class DivergedError(FloatingPointError):
    """The loss was no number too often; the message names the frames."""


class Observer:
    """What a screen or a logger may want to hear of a run; every method may be left out."""

    def on_start(self, summary: Mapping[str, Any]) -> None:
        """Before the first epoch: what is trained on what."""

    def on_batch(self, done: int, batches: int, loss: float) -> None:
        """After every training step."""

    def on_epoch(self, metrics: Mapping[str, Any]) -> None:
        """After every epoch: a row of metrics.csv, with ``seconds`` and ``best`` beside it."""

    def on_message(self, text: str) -> None:
        """Something worth a line."""

    def on_end(self, run: "Run") -> None:
        """After the last epoch."""


@dataclass
class Run:
    """A run on disk.

    Attributes:
        path: folder of the run.
        status: finished, early (no more progress), time (max_minutes), interrupted or diverged.
        history: one dict an epoch, as in metrics.csv; units in :data:`UNITS`.
        summary: what run.json holds.
    """

    path: Path
    status: Status = "running"
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run's folder.

        Raises:
            ValueError: when it holds no run.
        """
        path = Path(path)
        try:
            summary = json.loads((path / "run.json").read_text(encoding="utf-8"))
            history = read_metrics(path / "metrics.csv")
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"'{path}' is not the folder of a run ({error})") from error
        return cls(path, summary.get("status", "running"), history, summary)

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it; it can be resumed."""
        return self.status == "interrupted"

    @property
    def model_file(self) -> Path:
        """The best model."""
        return self.path / "model.eqt"

    @property
    def model(self) -> Potential:
        """The best potential, with averaged weights."""
        return Potential.load(self.model_file)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best epoch."""
        return min(
            self.history, key=lambda row: math.inf if math.isnan(row["valid_loss"]) else row["valid_loss"]
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """The final table: ``{split: {quantity: {count, mae, rmse, r2}}}`` of the best model, in eV and Å."""
        return dict(self.summary.get("metrics", {}))


def metrics_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """The history as CSV; no times, so that equal runs write equal files."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in history for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read what :func:`metrics_csv` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdigit() else float(text or "nan")


@dataclass
class RunFolder:
    """The files of a run while it is written; in other processes than the first, nothing is."""

    path: Path
    writes: bool = True

    @property
    def states(self) -> Path:
        """Where the states to resume from are."""
        return self.path / "state"

    def create(self) -> None:
        """Make the folder."""
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, text: str) -> None:
        """Replace a text file atomically."""
        if self.writes:
            write_atomically(self.path / name, text.encode())

    def log(self, text: str) -> None:
        """Add a line, with the time, to train.log."""
        if self.writes:
            with open(self.path / "train.log", "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def append_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Add the last row to metrics.csv."""
        if not self.writes:
            return
        if len(history) == 1:
            self.write("metrics.csv", metrics_csv(history))
            return
        with open(self.path / "metrics.csv", "a", encoding="utf-8", newline="") as file:
            file.write(metrics_csv(history).rsplit("\n", 2)[-2] + "\n")
