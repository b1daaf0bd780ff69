"""Write the report of a run folder; whatever cannot be shown is named, never dropped."""

from __future__ import annotations

import os
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from equitorch.cli.report.page import page
from equitorch.cli.report.record import read_record


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on; absent packages are named as such."""
    import platform

    found = {"python": platform.python_version()}
    for name in (
        "equitorch-gdl",
        "torch",
        "numpy",
        "ase",
        "vesin-torch",
        "numba",
        "triton",
        "e3nn",
        "torch-geometric",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_report(folder: Path) -> tuple[Path, list[str]]:
    """Write ``report.html`` into a run folder.

    Args:
        folder: a run folder.

    Returns:
        The file, and the problems met: sections that could not be drawn.
    """
    settings = {
        "written": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "versions": versions(),
        "config_name": str(folder / "config.yaml"),
    }
    html, problems = page(read_record(folder), settings)
    path, partial = folder / "report.html", folder / "report.html.part"
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, path)
    return path, problems
