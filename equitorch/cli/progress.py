"""The training as a user watches it: a live line on a terminal, one line per epoch anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from equitorch.cli import screen
from equitorch.cli.predictions import GPA
from equitorch.cli.screen import duration, number, say, sparkline
from equitorch.training.run import Observer

if TYPE_CHECKING:
    from rich.live import Live

_COLUMNS = (
    ("epoch", 5),
    ("train", 9),
    ("valid E", 14),
    ("valid F", 13),
    ("valid σ", 9),
    ("lr", 9),
    ("time", 8),
)


def epoch_line(row: Mapping[str, Any]) -> str:
    """Return one epoch as a line of at most 80 columns, every number with its unit.

    >>> row = {"epoch": 12, "train_loss": 0.0213, "valid_energy_mae": 0.0021, "lr": 9.9e-4, "best": True}
    >>> epoch_line(row)
    '   12   0.0213   2.10 meV/at                        9.9e-4          ★'
    """

    def quantity(key: str, factor: float, unit: str) -> str:
        value = row.get(key)
        return "" if value is None else f"{number(value * factor)} {unit}"

    cells = [
        str(row.get("epoch", "")),
        number(row.get("train_loss")),
        quantity("valid_energy_mae", 1e3, "meV/at"),
        quantity("valid_forces_mae", 1e3, "meV/Å"),
        quantity("valid_stress_mae", GPA, "GPa"),
        number(row.get("lr"), 2),
        duration(row["seconds"]) if "seconds" in row else "",
    ]
    return _line(cells) + ("  ★" if row.get("best") else "")


def header_line() -> str:
    """Return the names above :func:`epoch_line`."""
    return _line([name for name, _ in _COLUMNS])


def _line(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


class TrainingScreen(Observer):
    """Observer of a run that prints it; see :class:`equitorch.training.Observer`.

    Args:
        epochs: how many there will be at most.
        quiet: print nothing but what needs attention.
        resume: the command that continues the run, shown below the live line.
        opening: prints what comes first, once the config and the data have been found to be usable.
    """

    def __init__(
        self,
        epochs: int,
        *,
        quiet: bool = False,
        resume: str = "",
        opening: Callable[[], None] | None = None,
    ) -> None:
        self.opening = opening
        self.epochs, self.quiet, self.resume = epochs, quiet, resume
        self.losses: list[float] = []
        self.done = 0
        self.first = 0
        self.started = time.monotonic()
        self.shown = 0.0
        self.live: Live | None = None
        self.rows = 0

    def wait(self) -> None:
        """Say on a terminal that the data are being read; the line goes away with the first event."""
        if not self.quiet and screen.is_live():
            self._start_live("reading the data ...")

    def _start_live(self, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        dim = Text(text, style="dim")
        self.live = Live(dim, console=screen.console(), refresh_per_second=8, transient=True)
        self.live.start()

    def _open(self) -> None:
        self.close()
        if self.opening is not None and not self.quiet:
            self.opening()
        self.opening = None

    def on_start(self, summary: Mapping[str, Any]) -> None:
        """Print the header, and on a terminal open the live line."""
        self._open()
        self.done = self.first = int(summary.get("epochs", 0))
        self.started = time.monotonic()
        if self.quiet:
            return
        if self.first >= self.epochs:
            done = screen.plural(self.epochs, "epoch")
            say(f"Nothing is left to train: the run has its {done}; for more, raise train.epochs.")
            return
        say()
        say(header_line(), style="bold")
        if screen.is_live():
            self._start_live("")

    def on_batch(self, done: int, batches: int, loss: float) -> None:
        """Redraw the live line."""
        if self.live is None or (time.monotonic() - self.shown < 0.1 and done < batches):
            return
        self.shown = time.monotonic()
        share = (self.done - self.first + done / max(batches, 1)) / max(self.epochs - self.first, 1)
        elapsed = self.shown - self.started
        eta = f"eta {duration(elapsed * (1 - share) / share)}" if share > 0.002 else "eta -"
        filled = round(24 * done / max(batches, 1))
        bar = "━" * filled + "╸" * (filled < 24) + " " * max(23 - filled, 0)
        percent = 100 * done // max(batches, 1)
        line = f"{self.done + 1:5d}{number(loss):>9}  {sparkline(self.losses):<8}  {percent:3d} % {bar} {eta}"
        from rich.text import Text

        hint = f"Ctrl-C once: finish the epoch and save.  Resume: {self.resume}" if self.resume else ""
        self.live.update(Text(f"{line[:79]}\n{hint[:79]}", style="dim"))

    def on_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Print the epoch; on a long run not every one, but each that became the best within its span."""
        self.done += 1
        loss = metrics.get("train_loss")
        if loss is not None:
            self.losses.append(float(loss))
        if not self.quiet:
            self._print(epoch_line(metrics), bool(metrics.get("best")))

    def _print(self, line: str, best: bool) -> None:
        from rich.text import Text

        screen.console().print(
            Text(line, style="bold" if best and self.live is not None else ""), soft_wrap=True
        )

    def on_message(self, text: str) -> None:
        """Print a remark."""
        self._open()
        if not self.quiet:
            screen.listing("note", [text])

    def on_end(self, run: Any) -> None:
        """Close the live line."""
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was, whatever happened."""
        if self.live is not None:
            self.live.stop()
            self.live = None
