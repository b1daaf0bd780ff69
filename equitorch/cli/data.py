"""Labelled structures from a file, and what a careful person would look at before training on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equitorch.cli.predictions import GPA
from equitorch.cli.screen import count, number

if TYPE_CHECKING:
    from equitorch.datasets.dataset import AtomDataset, Statistics
    from equitorch.graph import AtomGraph

NEAREST, STRONGEST, NET = 0.5, 50.0, 0.1  # Å between atoms; eV/Å rms: beyond, a unit is wrong; eV/Å net force


def read_labelled(path: Path, *, group: str = "auto") -> AtomDataset:
    """Read a data file as a training would.

    Raises:
        ValueError: naming the file and the frame that cannot be used.
    """
    from equitorch.cli.failure import existing
    from equitorch.training.config import Data
    from equitorch.training.splits import read_splits

    existing(path, "data file")
    return read_splits(Data(train=str(path), valid=0, test=None, group=group), seed=0)["train"]


def graphs_of(data: AtomDataset) -> list[AtomGraph]:
    """Return every frame in float64, without edges."""
    import torch

    return [data.graph(i, dtype=torch.float64) for i in range(len(data))]


def groups_of(data: AtomDataset) -> list[str]:
    """Return the group of every frame; frames without one are 'all'."""
    return [name or "all" for name in data.groups]


def summary_parts(s: Statistics) -> list[str]:
    """Say what a data set holds: frames, atoms, elements, periodicity, charges."""
    from ase.data import chemical_symbols

    sizes = f"{s.smallest}" if s.smallest == s.largest else f"{s.smallest}-{s.largest}"
    parts = [f"{count(s.frames)} frames", f"{count(s.atoms)} atoms ({sizes} each)"]
    parts.append(" ".join(chemical_symbols[z] for z in s.species))
    kinds = {name.replace("0D", "molecules"): n for name, n in s.periodic.items()}
    parts.append(next(iter(kinds)) if len(kinds) == 1 else " + ".join(f"{n} {k}" for k, n in kinds.items()))
    if any(s.charges):
        parts.append("charges " + ", ".join(f"{q:+g}" for q in s.charges))
    return parts


def label_parts(s: Statistics) -> list[str]:
    """Say how large the labels are."""
    parts = []
    if s.labels["energy"]:
        parts.append(f"E/atom {number(s.energy_mean, 6)} ± {number(s.energy_std)} eV")
    if s.labels["forces"]:
        parts.append(f"F rms {number(s.force_rms)} eV/Å, |F| max {number(s.force_max)}")
    if s.labels["stress"]:
        parts.append(f"|σ| max {number(s.stress_max * GPA)} GPa")
    return parts


def duplicates(data: AtomDataset) -> list[str]:
    """Name the pairs of frames with the same atoms in the same places."""
    flat, seen, found = data.materialised(), {}, []
    for i, (a, b) in enumerate(zip(flat.ptr[:-1], flat.ptr[1:], strict=True)):
        parts = (
            flat.columns["atomic_numbers"][a:b],
            flat.columns["pos"][a:b].round(6),
            flat.columns["cell"][i].round(6),
        )
        key = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        if key in seen:
            found.append(f"#{i} = #{seen[key]}")
        seen.setdefault(key, i)
    return found


def close_pairs(data: AtomDataset, limit: float = NEAREST) -> list[str]:
    """Name the frames in which two atoms nearly touch."""
    return [f"#{i}" for i, graph in enumerate(graphs_of(data)) if graph.with_edges(limit).num_edges]


def _told(what: str, names: Sequence[str]) -> str:
    return f"{len(names)} {what}: " + ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def checks(data: AtomDataset, s: Statistics) -> tuple[list[str], list[str]]:
    """Make the checks.

    Returns:
        The names of those that passed, and a sentence for each that did not.
    """
    close, twice = close_pairs(data), duplicates(data)
    close_note = _told(f"frames have atoms nearer than {NEAREST} Å", close)
    unit = f"the forces have an rms of {number(s.force_rms)} eV/Å: another unit? see data.energy_unit"
    net = f"the forces of a frame sum to {number(s.net_force_max)} eV/Å: are they constrained or noisy?"
    known = s.labels["energy"] > 1
    verdicts = [
        ("overlaps", not close, close_note),
        ("duplicates", not twice, _told("frames are repeated", twice)),
        ("units", not s.force_rms > STRONGEST, unit),
        ("net forces", not s.net_force_max > NET, net),
        ("energies differ", not (known and s.energy_std == 0), "all energies are equal: are they labels?"),
    ]
    return [name for name, ok, _ in verdicts if ok], [text for _, ok, text in verdicts if not ok]
