"""The sections of a report that hold numbers: summary, errors, parity, curves, health, provenance."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from equitorch.cli.predictions import GPA, Errors, Predictions
from equitorch.cli.report import figures
from equitorch.cli.report.html import definitions, grid, missing, section, table, tile
from equitorch.cli.report.record import Missing, Record
from equitorch.cli.screen import count, duration, number


def tiles(record: Record) -> str:
    """Return the few numbers that everybody looks for first."""
    cells: list[tuple[str, str, str]] = []
    if record.shown is not None:
        name, p = record.shown
        energy, force = p.energy_errors(), p.force_errors()
        cells.append((number(energy.mae * 1e3), "meV/atom", f"energy MAE, {name}"))
        cells.append((number(force.mae * 1e3), "meV/Å", f"force MAE, {name}"))
        cells += [(f"{force.r2:.4f}", "", f"R² of forces, {name}")] if math.isfinite(force.r2) else []
    if not isinstance(record.header, Missing) and record.header.get("parameters"):
        cells.append((count(int(record.header["parameters"])), "", "parameters"))
    if not isinstance(record.summary, Missing):
        cells.append(
            (str(record.summary.get("epochs", "-")), "", f"epochs, best {record.summary.get('best_epoch')}")
        )
        if record.summary.get("seconds"):
            cells.append((duration(float(record.summary["seconds"])), "", "training time"))
    if not isinstance(record.traces, Missing):
        trace = record.traces[-1]
        time, ensemble = (
            float(trace.columns["time_fs"][-1]) / 1e3,
            str(trace.settings.get("ensemble", "")).upper(),
        )
        cells.append((number(time), "ps", f"dynamics, {ensemble}"))
    return '<div class="tiles">' + "".join(tile(*cell) for cell in cells) + "</div>"


def learning(record: Record) -> str:
    """Return the learning curves."""
    if isinstance(record.curves, Missing):
        return section("Learning curves", "", missing("Learning curves", record.curves.reason))
    text = "Loss and validation errors of every epoch, logarithmic; the open circle marks the best epoch."
    return section("Learning curves", text, grid(figures.curves(record.curves), "two"))


def _pair(errors: Errors, factor: float) -> list[str]:
    return [number(errors.mae * factor), number(errors.rmse * factor)]


def _split_table(sets: dict[str, Predictions]) -> str:
    header = ["split", "frames", "E MAE meV/atom", "E RMSE", "F MAE meV/Å", "F RMSE", "F R²", "F largest"]
    stress = any(p.stress_errors().count for p in sets.values())
    rows = []
    for name, p in sets.items():
        energy, force = p.energy_errors(), p.force_errors()
        row = [escape(name), count(p.frames), *_pair(energy, 1e3), *_pair(force, 1e3)]
        row += [f"{force.r2:.4f}" if math.isfinite(force.r2) else "-", number(force.largest * 1e3)]
        rows.append(row + ([number(p.stress_errors().mae * GPA)] if stress else []))
    if stress:
        return table([*header, "stress MAE GPa"], rows)
    return table(header, rows) + missing("Stress errors", "the data have no stress labels")


def _part_table(p: Predictions, by: str) -> str:
    """Return the errors by group or by element; a bar shows where the forces are worst."""
    parts = list(p.select(by))
    worst = max((e.mae for _, _, atoms in parts if (e := p.force_errors(atoms)).count), default=0.0) or 1.0
    rows = []
    for name, frames, atoms in parts:
        force = p.force_errors(atoms)
        width = force.mae / worst * 90 if force.count else 0
        meter = f'<span class="meter" style="width:{width:.0f}px"></span>{number(force.mae * 1e3)}'
        energy = _pair(p.energy_errors(frames), 1e3) if by == "group" else []
        sizes = [count(int(frames.sum())), count(int(atoms.sum()))]
        rows.append(
            [escape(name), *sizes, *energy, meter, number(force.rmse * 1e3), number(force.largest * 1e3)]
        )
    energies = ["E MAE meV/atom", "E RMSE"] if by == "group" else []
    return table([by, "frames", "atoms", *energies, "F MAE meV/Å", "F RMSE", "F largest"], rows)


def accuracy(record: Record) -> str:
    """Return the error tables: per split, per group, per element."""
    if isinstance(record.predictions, Missing):
        return section("Errors", "", missing("Error tables", record.predictions.reason))
    body = _split_table(record.predictions)
    assert record.shown is not None, "predictions are there"
    name, p = record.shown
    body += f"<h3>By group, {escape(name)}</h3>{_part_table(p, 'group')}"
    body += f"<h3>By element, {escape(name)}</h3>{_part_table(p, 'element')}"
    text = "Energies per atom, force components. Missing labels are left out of every average."
    return section("Errors", text, body)


_PLOTS: list[tuple[str, str, Callable[[Predictions, str], str]]] = [
    ("energy", "Energy", figures.energy_parity),
    ("forces", "Force components", figures.force_parity),
    ("forces", "Force errors", figures.force_histogram),
]


def _plots(name: str, p: Predictions) -> str:
    cells = []
    for label, what, draw in _PLOTS:
        title = f"{what}, {name}"
        known = bool(np.isfinite(getattr(p, label)).any())
        cells.append(draw(p, title) if known else missing(title, "no labels of this kind"))
    return grid(cells, "three")


def parity(record: Record) -> str:
    """Return the parity plots and error histograms; those of the other splits can be unfolded."""
    title, text = (
        "Predicted against reference",
        "Darker squares hold more values; the dashed line is perfect agreement.",
    )
    if isinstance(record.predictions, Missing) or record.shown is None:
        reason = (
            record.predictions.reason if isinstance(record.predictions, Missing) else "nothing was evaluated"
        )
        return section(title, "", missing("Parity plots", reason))
    body = _plots(*record.shown)
    others = "".join(_plots(name, p) for name, p in record.predictions.items() if name != record.shown[0])
    if others:
        body += f"<details><summary>The other splits</summary>{others}</details>"
    return section(title, text, body)


def health(record: Record) -> str:
    """Return the health card."""
    if isinstance(record.health, Missing):
        return section("Health card", "", missing("Health card", record.health.reason))
    marks = {True: '<span class="ok">✓</span>', False: '<span class="bad">✗</span>', None: "<span>–</span>"}
    items = [
        f"<li>{marks[check['passed']]}<span>{escape(check['name'])}</span><em>{escape(check['text'])}</em></li>"
        for check in record.health["checks"]
    ]
    return section(
        "Health card",
        "Measured on the trained model, in float64.",
        f'<ul class="checks">{"".join(items)}</ul>',
    )


def provenance(record: Record, settings: dict[str, Any]) -> str:
    """Return what the model is, where it came from and how to make it again."""
    header = record.header
    if isinstance(header, Missing):
        body = missing("Model header", header.reason)
    else:
        body = "<h3>Model</h3>" + definitions([(k, v) for k, v in header.items() if k != "metadata"])
    if isinstance(record.summary, Missing):
        body += missing("Data", record.summary.reason)
    else:
        keys = (
            "frames",
            "atoms",
            "labels",
            "neighbours",
            "batch",
            "device",
            "threads",
            "processes",
            "data_hash",
        )
        body += "<h3>Data and run</h3>" + definitions(
            [(k, record.summary[k]) for k in keys if k in record.summary]
        )
    body += "<h3>Report made with</h3>" + definitions(list(settings.get("versions", {}).items()))
    if isinstance(record.config_text, Missing):
        body += missing("Config", record.config_text.reason)
    else:
        command = f"equitorch train {settings.get('config_name', 'config.yaml')} output=runs/again"
        body += f"<h3>Make it again</h3><pre>{escape(command)}</pre>"
        text = escape(record.config_text)
        body += f"<details><summary>config.yaml of this run</summary><pre>{text}</pre></details>"
    return section("Provenance", "Everything that this model was made from. Units: eV, Å, fs, e.", body)
