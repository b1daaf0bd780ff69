"""The figures of a report, each a function from numbers to one SVG element."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from equitorch.cli.dynamics import drift
from equitorch.cli.predictions import Errors, Predictions
from equitorch.cli.report.chart import Axis, Chart
from equitorch.cli.report.record import Trace
from equitorch.cli.screen import number

Array = NDArray[np.float64]


def curves(columns: dict[str, Array]) -> list[str]:
    """Draw loss, errors and learning rate over the epochs."""
    epoch = columns["epoch"]
    x = Axis(float(epoch.min()) - 0.5, float(epoch.max()) + 0.5, "epoch")
    panels = [
        ("Loss", "loss", [("train_loss", "s1", "training"), ("valid_loss", "s2", "validation")], 1.0),
        (
            "Validation error, energy",
            "meV/atom",
            [("valid_energy_mae", "s1", "MAE"), ("valid_energy_rmse", "s2", "RMSE")],
            1e3,
        ),
        (
            "Validation error, forces",
            "meV/Å",
            [("valid_forces_mae", "s1", "MAE"), ("valid_forces_rmse", "s2", "RMSE")],
            1e3,
        ),
        ("Learning rate", "rate", [("lr", "s1", "")], 1.0),
    ]
    out = []
    for title, unit, series, factor in panels:
        present = [
            (columns[key] * factor, style, name)
            for key, style, name in series
            if key in columns and np.isfinite(columns[key]).any()
        ]
        if not present:
            continue
        chart = Chart(
            x, Axis.over(*(values for values, _, _ in present), label=unit, log=True), 460, 250, title
        )
        for values, style, name in present:
            chart.line(epoch, values, style, name, marks=len(epoch) <= 12)
        if title.startswith("Validation") and np.isfinite(present[0][0]).any():
            best = int(np.nanargmin(present[0][0]))
            chart.points([epoch[best]], [present[0][0][best]], "best", hints=[f"best: epoch {epoch[best]:g}"])
        out.append(chart.svg())
    return out


def _statement(errors: Errors, factor: float, unit: str) -> list[str]:
    lines = [f"MAE {number(errors.mae * factor)} {unit}", f"RMSE {number(errors.rmse * factor)} {unit}"]
    return lines + ([f"R² {errors.r2:.4f}"] if np.isfinite(errors.r2) else [])


def compositions(p: Predictions) -> NDArray[np.int64]:
    """Return the number of each frame's composition, (frames,)."""
    found: dict[bytes, int] = {}
    frames = (np.sort(p.numbers[a:b]).tobytes() for a, b in zip(p.ptr[:-1], p.ptr[1:], strict=True))
    return np.array([found.setdefault(key, len(found)) for key in frames], dtype=np.int64)


def energy_parity(p: Predictions, title: str) -> str:
    """Draw predicted against reference energy per atom, relative to the mean of the composition."""
    known = np.isfinite(p.energy)
    atoms = np.diff(p.ptr)[known]
    label, ours = p.energy[known] / atoms, p.energy_predicted[known] / atoms
    kinds = compositions(p)[known]
    origin = (np.bincount(kinds, label) / np.maximum(np.bincount(kinds), 1))[kinds]
    several = len(np.unique(kinds)) > 1
    text = "reference, meV/atom from the mean" + (" of its composition" if several else "")
    x = Axis.over((label - origin) * 1e3, (ours - origin) * 1e3, label=text)
    chart = Chart(x, Axis(x.low, x.high, "predicted"), 300, 290, title).diagonal()
    hints = [
        f"frame {i}: {number(1e3 * (b - a))} meV/atom off"
        for i, a, b in zip(np.flatnonzero(known), label, ours, strict=True)
    ]
    if len(label) <= 1500:
        chart.points((label - origin) * 1e3, (ours - origin) * 1e3, "s1", hints=hints)
    else:
        chart.cells((label - origin) * 1e3, (ours - origin) * 1e3)
    return chart.note(_statement(Errors.of(label - origin, ours - origin), 1e3, "meV/atom")).svg()


def force_parity(p: Predictions, title: str) -> str:
    """Draw the density of predicted against reference force components."""
    known = np.isfinite(p.forces)
    x = Axis.over(p.forces[known], p.forces_predicted[known], label="reference force, eV/Å")
    chart = Chart(x, Axis(x.low, x.high, "predicted"), 300, 290, title)
    chart.cells(p.forces[known], p.forces_predicted[known]).diagonal()
    return chart.note(_statement(p.force_errors(), 1e3, "meV/Å")).svg()


def force_histogram(p: Predictions, title: str) -> str:
    """Draw the distribution of the force error over the atoms, with its median and 95th percentile."""
    error = np.linalg.norm(p.forces_predicted - p.forces, axis=-1) * 1e3
    error = error[np.isfinite(error)]
    top = float(np.quantile(error, 0.995)) * 1.05 or 1.0
    edges = np.linspace(0, top, 41)
    heights = np.histogram(error, edges)[0] / len(error) * 100
    chart = Chart(
        Axis(0, top, "force error of an atom |ΔF|, meV/Å"),
        Axis(0, heights.max() * 1.12 or 1, "% of atoms"),
        300,
        290,
        title,
    )
    chart.bars(edges, heights, "s1")
    for q, name, row in ((0.5, "median", 0), (0.95, "95 %", 1)):
        value = float(np.quantile(error, q))
        chart.upright(value, f"{name} {number(value)}", row)
    return chart.svg()


def energy_trace(trace: Trace) -> str:
    """Draw the total and the potential energy per atom, from their start, over time."""
    c, atoms = trace.columns, len(trace.numbers)
    time = c["time_fs"] / 1e3
    shift = {key: (c[key] - c[key][0]) / atoms * 1e3 for key in ("total_eV", "potential_eV")}
    chart = Chart(
        Axis(0, float(time[-1]) or 1.0, "time, ps"),
        Axis.over(*shift.values(), label="meV/atom from the start"),
        350,
        250,
        "Energy",
    )
    chart.line(time, shift["potential_eV"], "s2", "potential").line(time, shift["total_eV"], "s1", "total")
    return chart.svg()


def conserved_trace(trace: Trace) -> str:
    """Draw the total energy alone: what NVE must keep."""
    c, atoms = trace.columns, len(trace.numbers)
    time, total = c["time_fs"] / 1e3, (c["total_eV"] - c["total_eV"][0]) / atoms * 1e3
    slope = drift(time, total)
    chart = Chart(
        Axis(0, float(time[-1]) or 1.0, "time, ps"),
        Axis.over(total, label="meV/atom from the start"),
        350,
        250,
        "Total energy (conserved)",
    )
    return chart.line(time, total, "s1").note([f"drift {number(slope)} meV/atom/ps"]).svg()


def temperature_trace(trace: Trace) -> str:
    """Draw the instantaneous temperature, its running mean, and the target."""
    time, value = trace.columns["time_fs"] / 1e3, trace.columns["temperature_K"]
    mean = np.cumsum(value) / np.arange(1, len(value) + 1)
    target = trace.settings.get("temperature_K")
    y = Axis.over(value, [target if target is not None else np.nan], label="temperature, K", zero=True)
    chart = Chart(Axis(0, float(time[-1]) or 1.0, "time, ps"), y, 350, 250, "Temperature")
    chart.line(time, value, "faint s1", "instantaneous").line(time, mean, "s2", "running mean")
    if target is not None and trace.settings.get("ensemble") != "nve":
        chart.level(float(target), f"target {target:g} K")
    return chart.svg()


def distances(pos: Array, ptr: NDArray[np.int64], longest: float = 6.0) -> Array:
    """Return all distances between atoms of one frame, in Å, up to ``longest``."""
    out = []
    for a, b in pairwise(ptr):
        i, j = np.triu_indices(b - a, 1)
        out.append(np.linalg.norm(pos[a:b][i] - pos[a:b][j], axis=-1))
    every = np.concatenate(out) if out else np.zeros(0)
    return np.asarray(every[every < longest])


def distance_distribution(data: Array, dynamics: Array) -> str:
    """Draw the interatomic distances of the data and of the dynamics: do they visit the same shapes?"""
    edges = np.linspace(0.7, 6.0, 107)
    middle = (edges[1:] + edges[:-1]) / 2
    ours = [
        np.histogram(d, edges, density=True)[0] if len(d) else np.zeros(len(middle)) for d in (data, dynamics)
    ]
    chart = Chart(
        Axis(0.7, 6.0, "distance between two atoms, Å"),
        Axis.over(*ours, label="density, 1/Å", zero=True),
        350,
        250,
        "Interatomic distances",
    )
    return chart.line(middle, ours[0], "s2", "data").line(middle, ours[1], "s1", "dynamics").svg()
