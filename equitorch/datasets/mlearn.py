"""mlearn: Li, Mo, Cu, Ni, Si, Ge by DFT (Zuo et al. 2020), in the JSON form it was published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.frames import FrameBuilder


def read_mlearn(path: str | Path, *, folder: Path | None = None) -> AtomDataset:
    """Read a JSON list of ``structure``, ``outputs`` and ``group``; energies in eV, forces in eV/Angstrom.

    ``virial_stress`` is left out: its unit and the order of its numbers are not documented. A set converted
    to extxyz is read by ``read_ase``.

    Args:
        path: the JSON file.
        folder: where the flat arrays are written; default: they stay in memory.

    Raises:
        ValueError: naming the file, the frame and the field.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: mlearn expects a list of structures, got a {type(entries).__name__}")
    builder = FrameBuilder(str(path), folder)
    for index, entry in enumerate(entries):
        try:
            frame = _flatten(entry)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, frame {index}: mlearn expects a structure, lacks {error}") from None
        keys = {"energy": "outputs.energy", "forces": "outputs.forces"}
        builder.add(frame, group=str(entry.get("group", "")), keys=keys)
    if any("virial_stress" in entry["outputs"] for entry in entries):
        builder.notes.append("virial_stress is not read: its unit and order are undocumented")
    return AtomDataset(builder.finish())


def _flatten(entry: dict[str, Any]) -> dict[str, Any]:
    """One entry in the columns of ``Frames``."""
    from ase.data import atomic_numbers

    structure, outputs = entry["structure"], entry["outputs"]
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
    sites = structure["sites"]
    return {
        "atomic_numbers": [atomic_numbers[site["species"][0]["element"]] for site in sites],
        "pos": np.array([site["abc"] for site in sites], dtype=np.float64) @ cell,
        "cell": cell,
        "pbc": [True, True, True],
        "energy": float(outputs["energy"]),
        "forces": np.array(outputs["forces"], dtype=np.float64).reshape(len(sites), 3),
    }
