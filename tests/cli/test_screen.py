"""Numbers, tables and streams of the screens."""

from __future__ import annotations

import io
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.cli import screen


@given(st.floats(1e-12, 1e12), st.integers(2, 5))
def test_keeps_the_significant_digits(value: float, digits: int) -> None:
    assert math.isclose(float(screen.number(value, digits)), value, rel_tol=0.51 * 10.0 ** (1 - digits))


@given(st.lists(st.floats(1e-6, 1e6), max_size=20))
def test_a_sparkline_has_one_block_a_value(values: list[float]) -> None:
    assert len(screen.sparkline(values)) == min(len(values), 8)


def test_a_terminal_without_unicode_gets_plain_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    screen.say("41 meV/Å · R² ★ ▇▆")
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii").startswith("41 meV/A - R2 * ##")


def test_no_escape_codes_reach_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    screen.field("Model", "x")
    screen.warn("y [z]")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "y [z]" in out


def test_no_color_is_obeyed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    screen._console.cache_clear()
    monkeypatch.setattr(sys, "stdout", Terminal())
    screen.say("error", style="red")
    plain = sys.stdout.getvalue()  # type: ignore[attr-defined]
    monkeypatch.delenv("NO_COLOR")
    screen._console.cache_clear()
    monkeypatch.setattr(sys, "stdout", Terminal())
    screen.say("error", style="red")
    colored = sys.stdout.getvalue()  # type: ignore[attr-defined]
    screen._console.cache_clear()
    assert "\x1b[31m" not in plain
    assert "\x1b[31m" in colored


def test_lists_fold_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    screen.listing("Name", [f"value {i}" for i in range(30)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= screen.WIDTH
