"""Labelled structures from a file, and what a careful person would look at before training on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equitorch.cli.failure import UserError, existing, nearest
from equitorch.cli.files import read_structures
from equitorch.cli.predictions import GPA
from equitorch.cli.screen import number, plural

if TYPE_CHECKING:
    from ase import Atoms

    from equitorch.datasets.dataset import AtomDataset, Statistics
    from equitorch.graph import AtomGraph

SHIPPED = "shipped:"


def read_labelled(path: Path, *, group: str = "auto", **options: Any) -> AtomDataset:
    """Read a data file as a training would; options (keys, units) as for ``open_dataset``.

    Raises:
        ValueError: naming the file and the frame that cannot be used.
    """
    from equitorch.datasets import open_dataset

    if not str(path).startswith(SHIPPED):
        existing(path, "data file")
    found = open_dataset(str(path), group=group, **options)
    if not len(found):
        raise UserError(f"'{path}' holds no structures")
    return found


def stem_of(path: Path) -> str:
    """Return what files made from these data are called after: their name without its ending or scheme.

    >>> stem_of(Path("shipped:ethanol")), stem_of(Path("data/water.xyz"))
    ('ethanol', 'water')
    """
    return Path(str(path).removeprefix(SHIPPED)).stem.replace(":", "_")


def structures_of(path: Path) -> list[Atoms] | None:
    """Return the structures with all that the file says; None where no single file for ASE is read."""
    if str(path).startswith(SHIPPED) or path.is_dir() or path.suffix in (".npz", ".json"):
        return None
    return read_structures(path)


def info_keys(frames: Sequence[Atoms]) -> list[str]:
    """Return the names of all info keys."""
    return sorted({str(key) for atoms in frames for key in atoms.info})


def check_group_key(key: str, frames: Sequence[Atoms] | None) -> None:
    """Refuse a key that cannot sort frames into groups.

    Raises:
        UserError: if no frame has it, or its values are arrays.
    """
    if frames is None:
        raise UserError(f"--by {key}: this kind of data has no info keys; use 'element' or 'group'")
    known = info_keys(frames)
    if key not in known:
        names = f"info keys are: {', '.join(known)}" if known else "there are no info keys"
        raise UserError(f"--by: no frame has '{key}'; {names}{nearest(key, known)}")
    for i, atoms in enumerate(frames):
        value = np.asarray(atoms.info.get(key, ""))
        if value.ndim or value.dtype == object:
            what = f"an array of shape {value.shape}" if value.ndim else type(atoms.info[key]).__name__
            raise UserError(f"--by {key}: expected a word or a number per frame, frame {i} has {what}")


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
    parts = [plural(s.frames, "frame"), f"{plural(s.atoms, 'atom')} ({sizes} each)"]
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
