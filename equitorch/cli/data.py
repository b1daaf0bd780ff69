"""Labelled structures from a file, and what a careful person would look at before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli.failure import UserError, existing
from equitorch.cli.predictions import GPA
from equitorch.cli.screen import count, number

if TYPE_CHECKING:
    from equitorch.datasets.dataset import AtomDataset, Statistics
    from equitorch.graph import AtomGraph

SHIPPED = "shipped:"


def read_labelled(path: Path, *, group: str = "auto") -> AtomDataset:
    """Read a data file as a training would.

    Raises:
        ValueError: naming the file and the frame that cannot be used.
    """
    from equitorch.datasets import open_dataset

    if not str(path).startswith(SHIPPED):
        existing(path, "data file")
    found = open_dataset(str(path), group=group)
    if not len(found):
        raise UserError(f"'{path}' holds no structures")
    return found


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
