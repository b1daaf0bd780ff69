"""The sections of a report that show structures: the heading, the molecules, the dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equitorch.cli.predictions import Predictions
from equitorch.cli.report import figures
from equitorch.cli.report.html import grid, missing, section
from equitorch.cli.report.record import Missing, Record, Trace
from equitorch.cli.report.structure import picture, superpose, view
from equitorch.cli.screen import number, plural

Array = NDArray[np.float64]
_TITLES = {
    "tensornet": "TensorNet",
    "tensornet2": "TensorNet2",
    "nequip": "NequIP",
    "equiformer_v2": "EquiformerV2",
    "escn": "eSCN",
    "esen": "eSEN",
}
_MOST = 400  # atoms in a picture


def formula(numbers: Sequence[int]) -> str:
    """Return the composition in Hill's order.

    >>> formula([8, 1, 1]), formula([6, 1, 1, 1, 8, 1])
    ('H2O', 'CH4O')
    """
    from ase.formula import Formula
    from ase.symbols import Symbols

    return str(Formula(str(Symbols(np.asarray(numbers)))).format("hill"))


def molecules(p: Predictions, most: int = 8) -> list[tuple[str, int, int]]:
    """Return formula, first frame and number of frames of each kind of structure, the commonest first."""
    found: dict[bytes, tuple[str, int, int]] = {}
    for i in range(p.frames):
        z, _ = p.structure(i)
        key = z.tobytes()
        name, first, n = found[key] if key in found else (formula(z.tolist()), i, 0)
        found[key] = (name, first, n + 1)
    return sorted(found.values(), key=lambda item: -item[2])[:most]


def frames_like(p: Predictions, numbers: NDArray[np.int64]) -> list[int]:
    """Return the frames with exactly these atoms in this order."""
    return [i for i in range(p.frames) if np.array_equal(p.structure(i)[0], numbers)]


def heading(record: Record, settings: dict[str, Any]) -> str:
    """Return the card at the top: what was trained, on what, and how it looks."""
    drawing, subject = "", record.folder.name
    if record.shown is not None:
        p = record.shown[1]
        kinds = molecules(p)
        subject = ", ".join(name for name, _, _ in kinds[:4]) + (" and others" if len(kinds) > 4 else "")
        z, pos = max((p.structure(first) for _, first, _ in kinds), key=lambda item: len(item[0]))
        drawing = picture(z.tolist(), pos, name="h") if len(z) <= _MOST else ""
    model = "Model" if isinstance(record.header, Missing) else str(record.header.get("model", "Model"))
    title = _TITLES.get(model, model)
    line = f"{record.folder.name} · written {settings.get('written', '')}"
    text = f'<p class="eyebrow">equitorch run report</p><h1>{escape(title)} on {escape(subject)}</h1>'
    return f"<header><div>{text}<p>{escape(line)}</p></div>{drawing}</header>"


def _heat(share: float) -> str:
    """Return a colour from calm to hot for a share of the largest error."""
    stops = [(59, 111, 182), (240, 226, 196), (205, 60, 47)]
    low, t = (0, share * 2) if share < 0.5 else (1, share * 2 - 1)
    mixed = [round(a + (b - a) * t) for a, b in zip(stops[low], stops[low + 1], strict=True)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def _error_picture(numbers: NDArray[np.int64], pos: Array, error: Array, name: str) -> str:
    """Return the molecule with every atom in the colour of its mean force error."""
    from ase.data import chemical_symbols

    low, high = float(error.min()), float(error.max())
    hints = [
        f"{chemical_symbols[z]} {i}: {number(e)} meV/Å"
        for i, (z, e) in enumerate(zip(numbers, error, strict=True))
    ]
    tints = [_heat((float(e) - low) / ((high - low) or 1.0)) for e in error]
    bar = f"linear-gradient(90deg,{_heat(0)},{_heat(0.5)},{_heat(1)})"
    scale = f'<div class="scale" style="background:{bar}"></div>'
    caption = f"<figcaption>mean |ΔF| of each atom, {number(low)} to {number(high)} meV/Å</figcaption>"
    return picture(numbers.tolist(), pos, tints=tints, hints=hints, name=name) + scale + caption


def structures(record: Record) -> str:
    """Return pictures of the molecules, by element and by force error."""
    if isinstance(record.predictions, Missing) or record.shown is None:
        reason = (
            record.predictions.reason if isinstance(record.predictions, Missing) else "nothing was evaluated"
        )
        return section("Structures", "", missing("Pictures", reason))
    split, p = record.shown
    length = np.linalg.norm(p.forces_predicted - p.forces, axis=-1) * 1e3
    cells = []
    for k, (name, first, n) in enumerate(molecules(p, 4)):
        z, pos = p.structure(first)
        if len(z) > _MOST:
            cells.append(missing(name, f"it has more than {_MOST} atoms"))
            continue
        caption = f"<figcaption>{escape(name)} · {plural(n, 'frame')} in {escape(split)}</figcaption>"
        cells.append(picture(z.tolist(), pos, name=f"e{k}") + caption)
        error = np.mean([length[p.ptr[i] : p.ptr[i + 1]] for i in frames_like(p, z)], axis=0)
        if np.isfinite(error).all():
            cells.append(_error_picture(z, pos, error, f"f{k}"))
        else:
            cells.append(missing("Force error of each atom", "some atoms have no force labels"))
    return section(
        "Structures", "The molecules, and where in them the force errors are.", grid(cells, "four")
    )


def dynamics(record: Record) -> str:
    """Return every molecular dynamics run: temperature, energy, distances, snapshots."""
    title = "Molecular dynamics"
    damaged = "".join(
        section(f"{title} · {name}", "", missing(name, what.reason)) for name, what in record.damaged.items()
    )
    if isinstance(record.traces, Missing):
        return damaged or section(title, "", missing(title, record.traces.reason))
    return "".join(_one(record, trace, k) for k, trace in enumerate(record.traces)) + damaged


def _distances(record: Record, trace: Trace) -> str:
    """Return the distances that the dynamics visits beside those of the data."""
    title, n = "Interatomic distances", len(trace.numbers)
    if trace.periodic:
        return missing(title, "drawn for isolated molecules only")
    if record.shown is None:
        return missing(title, "no data set was evaluated")
    split, p = record.shown
    like = frames_like(p, trace.numbers)
    if not like or n > _MOST:
        return missing(title, f"no frame of {split} has this molecule to compare with")
    data = np.concatenate([p.structure(i)[1] for i in like])
    moving = np.concatenate([pos for _, pos in trace.every])
    rows = [figures.distances(pos, np.arange(0, len(pos) + 1, n)) for pos in (data, moving)]
    return figures.distance_distribution(*rows)


def _snapshots(trace: Trace, k: int) -> str:
    if len(trace.numbers) > _MOST:
        return missing("Snapshots", f"there are more than {_MOST} atoms")
    first = trace.snapshots[0][1]
    frames = [(time, pos if trace.periodic else superpose(pos, first)) for time, pos in trace.snapshots]
    turn, cells = view(first), []
    reach = max(float(np.abs((pos - pos.mean(0)) @ turn.T)[:, :2].max()) for _, pos in frames) + 0.6
    for i, (time, pos) in enumerate(frames):
        drawing = picture(trace.numbers.tolist(), pos, size=150, turn=turn, reach=reach, name=f"t{k}{i}x")
        cells.append(f"{drawing}<figcaption>{number(time / 1e3)} ps</figcaption>")
    return grid(cells, "six")


def _one(record: Record, trace: Trace, k: int) -> str:
    s = trace.settings
    ensemble, done = str(s.get("ensemble", "")).upper(), s.get("steps_done", s.get("steps", 0))
    what = f"{ensemble}, {formula(trace.numbers.tolist())}"
    text = f"{what}, {plural(done, 'step')} of {s.get('dt_fs', 0):g} fs, {s.get('temperature_K', 0):g} K."
    if s.get("stopped"):
        text += f" Stopped early: {s['stopped']}."
    energy = figures.conserved_trace if ensemble == "NVE" else figures.energy_trace
    cells = [figures.temperature_trace(trace), energy(trace), _distances(record, trace)]
    return section(f"Molecular dynamics · {trace.name}", text, grid(cells, "three") + _snapshots(trace, k))
