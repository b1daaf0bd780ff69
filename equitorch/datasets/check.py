"""The data doctor: what looks wrong with a data set, in sentences, before anything is trained on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from equitorch.datasets.dataset import AtomDataset, Statistics
from equitorch.datasets.splits import duplicates
from equitorch.graph import AtomGraph

_SAMPLE = 200  # frames whose distances are looked at
_CLOSE = 0.5  # Angstrom
_STRONG = 50.0  # eV/Angstrom
_NET = 0.1  # eV/Angstrom


class Finding(NamedTuple):
    """One thing that was checked: "ok", "note", "warning" or "error", its name, and what was found."""

    level: str
    name: str
    text: str = ""


def check_dataset(dataset: AtomDataset) -> list[Finding]:
    """Check labels, duplicates, distances, units and signs; an error makes training pointless.

    A check that cannot be made, for want of labels or of frames to compare, is left out.

    Units and signs are judged by what must hold between neighbouring frames: energies change by minus force
    times displacement, and stress grows with the volume.

    >>> import ase
    >>> check_dataset(AtomDataset.from_ase([ase.Atoms("H")]))[0].text
    'no frame has an energy or forces; name their keys, as in keys={"energy": ...}'
    """
    statistics = dataset.statistics()
    findings = [_labels(statistics), *_duplicates(dataset)]
    found = [_distances(dataset), _forces(statistics), _slope(dataset), _stress_sign(dataset)]
    findings += [finding for finding in found if finding is not None]
    findings += [Finding("note", "source", note) for note in dataset.frames.notes]
    return findings


def _labels(found: Statistics) -> Finding:
    """Whether there is anything to learn."""
    energy, forces = found.labels["energy"], found.labels["forces"]
    if energy == forces == 0:
        keys = 'keys={"energy": ...}'
        text = f"no frame has an energy or forces; name their keys, as in {keys}"
        return Finding("error", "labels", text)
    partial = [
        f"{name} {count}/{found.frames}" for name, count in found.labels.items() if 0 < count < found.frames
    ]
    if partial:
        return Finding("note", "labels", f"some frames lack labels, and are masked: {', '.join(partial)}")
    return Finding("ok", "labels")


def _duplicates(dataset: AtomDataset) -> list[Finding]:
    """Whether structures occur twice, and with one energy."""
    owner = duplicates(dataset)
    twins = np.flatnonzero(owner != np.arange(len(owner)))
    if not twins.size:
        return [Finding("ok", "duplicates")]
    findings = [
        Finding("note", "duplicates", f"{twins.size} frames occur earlier; splits keep them together")
    ]
    gap = np.abs(dataset.energies[twins] - dataset.energies[owner[twins]]) / dataset.sizes[twins]
    if np.any(gap > 1e-3):
        worst = int(np.nanargmax(gap))
        text = (
            f"frames {owner[twins[worst]]} and {twins[worst]} are one structure with energies "
            f"{1000 * gap[worst]:.1f} meV/atom apart"
        )
        findings.append(Finding("warning", "duplicates", text))
    return findings


def _distances(dataset: AtomDataset) -> Finding | None:
    """Whether distances are those of atoms, measured in Angstrom."""
    shortest, nearest = (np.inf, -1), []
    for frame in np.unique(np.linspace(0, len(dataset) - 1, _SAMPLE).astype(int)).tolist():
        graph = dataset.graph(frame, cutoff=4.0, dtype=torch.float64)
        length = graph.edge_vectors().norm(dim=1)
        if length.numel():
            shortest = min(shortest, (float(length.min()), frame))
        nearest.append(_nearest(graph, length))
    typical = float(np.median(np.concatenate(nearest))) if nearest else np.inf
    if int(dataset.sizes.max()) > 1 and not 0.6 < typical < 3.8:
        got = f"is {typical:.2g}" if np.isfinite(typical) else "exceeds 4"
        text = f"the typical distance to the nearest atom {got} Angstrom: is length_unit right?"
        return Finding("warning", "distances", text)
    if shortest[0] < _CLOSE:
        text = f"two atoms of frame {shortest[1]} are {shortest[0]:.2g} Angstrom apart"
        return Finding("warning", "distances", text)
    return Finding("ok", "distances") if np.isfinite(shortest[0]) else None


def _nearest(graph: AtomGraph, length: torch.Tensor) -> np.ndarray:
    """(atoms,) the distance of each atom to the nearest other, infinity if that is beyond the cutoff."""
    shortest = length.new_full((graph.num_atoms,), torch.inf)
    return shortest.scatter_reduce(0, graph.edge_index[1], length, "amin").numpy()


def _forces(found: Statistics) -> Finding | None:
    """Whether forces are of ordinary strength and balance."""
    if not found.labels["forces"]:
        return None
    if found.force_max > _STRONG:
        text = f"frame {found.force_max_frame} has a force of {found.force_max:.0f} eV/Angstrom"
        return Finding("warning", "forces", text)
    if found.net_force_max > _NET:
        text = f"forces of a frame add up to {found.net_force_max:.2g} eV/Angstrom instead of zero"
        return Finding("note", "forces", text)
    return Finding("ok", "forces")


def _slope(dataset: AtomDataset) -> Finding | None:
    """Whether energies change as the forces say: the slope is 1 in right units, -1 for gradients."""
    work, change = [], []
    for k in range(len(dataset) - 1):
        a, b = dataset[k], dataset[k + 1]
        if a.forces is None or b.forces is None or a.energy is None or b.energy is None:
            continue
        if not torch.equal(a.atomic_numbers, b.atomic_numbers) or not torch.equal(a.cell, b.cell):
            continue
        step = b.pos - a.pos
        if a.pbc.any() and float(step.abs().max()) > 1:  # wrapped
            continue
        work.append(-float((0.5 * (a.forces + b.forces) * step).sum()))
        change.append(float(b.energy - a.energy))
        if len(work) >= _SAMPLE:
            break
    x, y = np.array(work), np.array(change)
    if len(x) < 5 or not np.isfinite(x).all() or x.std() == 0 or y.std() == 0:
        return None
    likeness, slope = float(np.corrcoef(x, y)[0, 1]), float((x * y).sum() / (x * x).sum())
    if abs(likeness) <= 0.8:
        return None
    if not 0.6 < slope < 1.6:
        text = (
            f"energies change {slope:.3g} times as much as the forces say: are the units and the sign right?"
        )
        return Finding("warning", "units", text)
    return Finding("ok", "units")


def _stress_sign(dataset: AtomDataset) -> Finding | None:
    """Whether larger volumes are under tension, which is positive."""
    pressure, volume = [], []
    for k in range(len(dataset)):
        graph = dataset[k]
        if graph.stress is not None and bool(graph.pbc.all()):
            pressure.append(float(graph.stress[0].trace()))
            volume.append(float(torch.linalg.det(graph.cell[0]).abs()) / graph.num_atoms)
    if len(volume) >= 5 and np.std(volume) > 0.003 * np.mean(volume) and np.std(pressure) > 0:
        likeness = float(np.corrcoef(volume, pressure)[0, 1])
        if len(dataset.species) > 1 or abs(likeness) <= 0.7:
            return None
        if likeness < 0:
            text = "stress falls as the volume grows: tension is positive here, as in ASE; change the sign"
            return Finding("warning", "stress sign", text)
        return Finding("ok", "stress sign")
    return None
