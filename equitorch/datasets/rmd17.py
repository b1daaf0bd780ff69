"""rMD17: ten small molecules, PBE/def2-SVP (Christensen and von Lilienfeld 2020, arXiv:2007.09593; CC0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.frames import COLUMNS, Frames
from equitorch.datasets.units import ENERGY


def read_rmd17(root: str | Path, molecule: str, *, split: str | None = None, fold: int = 1) -> AtomDataset:
    """Read one molecule, energies and forces converted from kcal/mol to eV.

    Under ``root`` are the published ``rmd17_<molecule>.npz`` with ``index_<split>_0<fold>.csv`` (in folders
    ``npz_data`` and ``splits`` or not), or files cut already, ``rmd17_<molecule>_<split>_0<fold>.npz``. Train
    and test frames of a fold are disjoint; the authors ask never to train on more than 1000 frames.

    Args:
        root: the folder with the files; nothing is downloaded.
        molecule: such as "aspirin".
        split: "train" or "test"; default: every frame of the whole file.
        fold: 1 to 5.

    Raises:
        ValueError: if a file is missing or is not of this format.
    """
    root = Path(root)
    if split not in (None, "train", "test"):
        raise ValueError(f"read_rmd17 expects split 'train', 'test' or None, got {split!r}")
    whole = _find(root, f"rmd17_{molecule}.npz")
    cut = _find(root, f"rmd17_{molecule}_{split}_{fold:02d}.npz") if split else None
    if cut is not None:
        return AtomDataset(read_npz(cut))
    index = _find(root, f"index_{split}_{fold:02d}.csv") if split else None
    if whole is None or (split and index is None):
        wanted = f"rmd17_{molecule}.npz" if whole is None else f"index_{split}_{fold:02d}.csv"
        have = sorted(path.name for path in root.glob("rmd17_*.npz"))
        raise ValueError(f"{root}: rMD17 expects {wanted} here, found {have or 'no rmd17_*.npz'}")
    chosen = None if index is None else np.loadtxt(index, dtype=np.int64, ndmin=1)
    return AtomDataset(read_npz(whole), chosen)


def read_npz(path: Path) -> Frames:
    """One file in rMD17's format: nuclear_charges, coords, energies, forces; kcal/mol and Angstrom.

    Raises:
        ValueError: naming the file and the array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("nuclear_charges", "coords", "energies", "forces")}
    except Exception as error:  # a cut file fails in many ways
        raise ValueError(f"{path}: not a file of rMD17: {str(error).splitlines()[0]}") from None
    numbers, coords = arrays["nuclear_charges"].reshape(-1), arrays["coords"]
    frames = len(coords)
    for name in ("coords", "forces"):
        if arrays[name].shape != (frames, len(numbers), 3):
            expected = (frames, len(numbers), 3)
            raise ValueError(f"{path}: {name} expects shape {expected}, got {arrays[name].shape}")
    unit = ENERGY["kcal/mol"]
    return from_arrays(
        numbers,
        coords,
        source=str(path),
        keys={"energy": {"energies": frames}, "forces": {"forces": frames}},
        energy=arrays["energies"].reshape(-1) * unit,
        forces=(arrays["forces"] * unit).reshape(-1, 3),
    )


def from_arrays(numbers: np.ndarray, pos: np.ndarray, *, source: str, keys: Any, **known: Any) -> Frames:
    """Frames of one molecule from its atomic numbers and its positions in Angstrom.

    Args:
        numbers: (atoms,).
        pos: (frames, atoms, 3).
        source: where they come from.
        keys: for each label, the name it was read from and how often.
        known: other columns and fields of ``Frames``.

    Raises:
        ValueError: if a position is not finite.
    """
    frames, atoms = pos.shape[:2]
    if not np.isfinite(pos).all():
        wrong = int(np.argwhere(~np.isfinite(pos))[0, 0])
        raise ValueError(f"{source}, frame {wrong}: expected finite positions, got NaN or infinity")
    columns: dict[str, np.ndarray] = {}
    for name, (per_atom, shape, dtype, missing) in COLUMNS.items():
        rows = frames * atoms if per_atom else frames
        value = known.pop(name, None)
        columns[name] = (
            np.full((rows, *shape), missing, dtype=dtype) if value is None else np.asarray(value, dtype)
        )
    columns["atomic_numbers"] = np.tile(numbers.astype(np.uint8), frames)
    columns["pos"] = pos.reshape(-1, 3).astype(np.float64)
    columns["size"] = np.full(frames, atoms, dtype=np.int64)
    return Frames(columns, source=source, keys=keys, **known)


def _find(root: Path, name: str) -> Path | None:
    """The file of this name in the folder or in those of the published archive."""
    places = (
        root,
        root / "npz_data",
        root / "splits",
        root / "rmd17" / "npz_data",
        root / "rmd17" / "splits",
    )
    return next((place / name for place in places if (place / name).is_file()), None)
