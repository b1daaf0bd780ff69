"""The few pieces of HTML that every section of a report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from equitorch.cli.screen import number


def missing(what: str, reason: str) -> str:
    """Say that a part is not available, and why.

    >>> missing("Health card", "it was not made")
    '<div class="missing"><b>Health card: not available.</b> it was not made.</div>'
    """
    return f'<div class="missing"><b>{escape(what)}: not available.</b> {escape(reason)}.</div>'


def section(title: str, text: str, body: str) -> str:
    """Return one section: a title, a sentence, and what is shown."""
    return (
        f"<section><h2>{escape(title)}</h2>"
        + (f"<p>{escape(text)}</p>" if text else "")
        + f"{body}</section>"
    )


def grid(cells: Sequence[str], columns: str) -> str:
    """Lay figures out in a row that folds on narrow screens."""
    return f'<div class="row {columns}">' + "".join(f"<figure>{cell}</figure>" for cell in cells) + "</div>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; its cells are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(pairs: Sequence[tuple[str, Any]]) -> str:
    """Return a list of names and values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(plain(v))}</dd>" for k, v in pairs) + "</dl>"


def tile(value: str, unit: str, text: str) -> str:
    """Return one large number with what it is."""
    return f'<div class="tile"><b>{value} <small>{unit}</small></b><span>{escape(text)}</span></div>'


def plain(value: Any) -> str:
    """Write nested values on one line.

    >>> plain({"channels": 64, "cutoff": 4.5, "species": [1, 6]})
    'channels: 64, cutoff: 4.50000, species: 1, 6'
    """
    if isinstance(value, dict):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value)
    return number(value, 6) if isinstance(value, float) else str(value)
