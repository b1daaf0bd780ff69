"""Plots: positions that can be computed by hand, and SVG that a parser reads."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equitorch.cli.report.chart import Axis, Chart

finite = st.floats(-1e6, 1e6)


def test_places_values_where_a_ruler_would() -> None:
    assert np.allclose(Axis(0, 10).place([0, 5, 10]), [0, 0.5, 1])
    assert np.allclose(Axis(0.01, 100, log=True).place([0.01, 1, 100]), [0, 0.5, 1])


@given(st.lists(finite, min_size=1, max_size=20), st.booleans())
def test_every_value_and_every_tick_lies_inside(values: list[float], log: bool) -> None:
    axis = Axis.over(values, log=log)
    shown = [v for v in values if v > 0] if log else values
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in axis.place(shown))
    assert all(-1e-6 <= p <= 1 + 1e-6 for p in axis.place(axis.ticks()))
    assert len(axis.ticks()) <= 12


@pytest.mark.parametrize("log", [False, True])
def test_nothing_to_show_is_no_error(log: bool) -> None:
    axis = Axis.over([np.nan, -np.inf], log=log)
    ElementTree.fromstring(Chart(axis, axis, title="<&>").line([1, 2], [np.nan, np.nan], "s1", "a<b").svg())


def test_is_readable_xml_with_every_kind_of_mark() -> None:
    x = np.linspace(0.1, 1, 50)
    chart = (
        Chart(Axis(0, 1, "x"), Axis(0.0, 2.0, "y"), title="t")
        .diagonal()
        .level(1.0, "one")
        .upright(0.5, "half")
    )
    chart.line(x, x, "s1", "line").points(x, x, "s2", hints=["<"] * 50).cells(x, x).bars(
        x[::7], x[:-7:7], "s1"
    ).note(["n"])
    root = ElementTree.fromstring(chart.svg())
    assert len(root.findall(".//{*}circle") or root.findall(".//circle")) == 50


def test_density_counts_every_pair() -> None:
    chart = Chart(Axis(0, 1), Axis(0, 1)).cells([0.1, 0.1, 0.9], [0.1, 0.1, 0.9], bins=4)
    counts = [int(part.split("<title>")[1].split()[0]) for part in chart.parts]
    assert sorted(counts) == [1, 2]
