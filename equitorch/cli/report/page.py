"""The report's page: all sections in reading order; one that fails costs only itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

from equitorch.cli.report import molecules, sections
from equitorch.cli.report.html import missing, section
from equitorch.cli.report.record import Record
from equitorch.cli.report.style import CSS

_FOOT = "<footer>One file, no external parts: it may be mailed and archived.</footer>"


def builders(record: Record, settings: dict[str, Any]) -> list[tuple[str, Callable[[], str]]]:
    """Return the names of the sections and what makes them."""
    return [
        ("Heading", partial(molecules.heading, record, settings)),
        ("Summary", partial(sections.tiles, record)),
        ("Errors", partial(sections.accuracy, record)),
        ("Predicted against reference", partial(sections.parity, record)),
        ("Structures", partial(molecules.structures, record)),
        ("Molecular dynamics", partial(molecules.dynamics, record)),
        ("Health card", partial(sections.health, record)),
        ("Learning curves", partial(sections.learning, record)),
        ("Provenance", partial(sections.provenance, record, settings)),
    ]


def page(record: Record, settings: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the whole page, and the problems of the sections that could not be drawn.

    A section that fails is replaced by its reason: the others still appear.
    """
    problems, parts = [], []
    for name, build in builders(record, settings):
        try:
            parts.append(build())
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
            parts.append(
                section(name, "", missing(name, f"drawing it failed ({type(error).__name__}: {error})"))
            )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record.folder.name)} · equitorch report</title><style>{CSS}</style>"
    )
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><main>{body}{_FOOT}</main></body></html>\n',
        problems,
    )
