"""`equitorch report`: the HTML file of a run, and the warning when it fails."""

from __future__ import annotations

from pathlib import Path

from equitorch.cli import failure, screen
from equitorch.cli.files import RunPath


def write(folder: Path) -> Path | None:
    """Write the report; whatever goes wrong is a warning on the screen, and never ends a run.

    Returns:
        The file, or None where there is none.
    """
    try:
        from equitorch.cli.report import write_report

        path, problems = write_report(folder)
    except Exception as error:
        failure.write_log(error, folder)
        screen.warn(f"the report could not be written: {type(error).__name__}: {error}")
        return None
    for problem in problems:
        screen.warn(f"the report lacks a section: {problem}")
    return path


def run(path: Path) -> int:
    """Write the report of a run folder and say where it is."""
    folder = RunPath.of(path).folder
    written = write(folder)
    if written is None:
        return failure.INTERNAL
    screen.field(
        "Wrote", f"{written}  ({written.stat().st_size / 1e3:.0f} kB, one file, opens in any browser)"
    )
    return failure.OK
