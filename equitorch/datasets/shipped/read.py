"""Reads the shipped data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.rmd17 import from_arrays


def shipped_names() -> tuple[str, ...]:
    """The molecules that come with the library.

    >>> "ethanol" in shipped_names()
    True
    """
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.npz")))


def load_shipped(name: str = "aspirin") -> AtomDataset:
    """One molecule in vacuum at 300 K and 500 K, energies and forces by GFN2-xTB.

    Each group is one trajectory, such as "500K/2". How it was made is in ``metadata``, in the file.

    Args:
        name: one of ``shipped_names()``.

    Raises:
        ValueError: if there is no such molecule.

    >>> load_shipped("ethanol").species
    (1, 6, 8)
    """
    path = Path(__file__).parent / f"{name}.npz"
    if name not in shipped_names():
        raise ValueError(f"load_shipped expects one of {', '.join(shipped_names())}, got {name!r}")
    with np.load(path, allow_pickle=False) as file:
        resolution = json.loads(str(file["metadata"]))["resolution"]
        temperature, trajectory = file["temperature"], file["trajectory"]
        titles = [f"{t}K/{k}" for t, k in zip(temperature, trajectory, strict=True)]
        names = tuple(dict.fromkeys(titles))
        frames = from_arrays(
            file["atomic_numbers"],
            file["positions"] / resolution,
            source=f"shipped:{name}",
            keys={"energy": {"GFN2-xTB": len(titles)}, "forces": {"GFN2-xTB": len(titles)}},
            energy=file["energy"],
            forces=(file["forces"] / resolution).reshape(-1, 3),
            charge=np.zeros(len(titles)),
            group=[names.index(title) for title in titles],
            group_names=names,
        )
    return AtomDataset(frames)
