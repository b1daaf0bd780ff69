"""Files that ASE reads: extxyz first of all, and anything else, folders and ASE databases too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.frames import FrameBuilder, Frames, concatenate
from equitorch.datasets.units import factors
from equitorch.graph import read_charge, read_labels

_GROUPS = ("config_type", "group", "trajectory")
_HIDDEN = (".", "_")


def read_ase(
    path: str | Path,
    *,
    keys: Mapping[str, str] | None = None,
    group: str = "auto",
    energy_unit: str = "eV",
    length_unit: str = "Angstrom",
    folder: Path | None = None,
) -> AtomDataset:
    """Read every frame of a file that ASE can read, or of all files of a folder.

    The files of 3BPA, mlearn, MPtrj and their like are plain extxyz and are read by this function. Forces are
    raw, as they were before constraints. Labels are found as ``equitorch.graph.read_labels`` describes.

    Args:
        path: a file, a database (.db) or a folder.
        keys: which key holds a label, e.g. ``{"energy": "dft_energy"}``.
        group: the key in ``atoms.info`` that names the trajectory or kind of a frame; "auto" tries
            config_type, group and trajectory.
        energy_unit: of the file; see ``equitorch.datasets.units``.
        length_unit: of the file.
        folder: where the flat arrays are written; default: they stay in memory.

    Raises:
        ValueError: naming the file, the frame and the field, if something cannot be read or cannot be right.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    options: dict[str, Any] = {
        "keys": keys,
        "group": group,
        "energy_unit": energy_unit,
        "length_unit": length_unit,
    }
    if not path.is_dir():
        return AtomDataset(collect(_frames(path), source=str(path), folder=folder, **options))
    files = sorted(p for p in path.rglob("*") if p.is_file() and _is_readable(p))
    if not files:
        raise ValueError(f"{path}: the folder holds no file that ASE can read")
    return AtomDataset(concatenate([collect(_frames(p), source=str(p), **options) for p in files]))


def collect(
    structures: Iterable[Any],
    *,
    source: str = "a list of atoms",
    keys: Mapping[str, str] | None = None,
    group: str = "auto",
    energy_unit: str = "eV",
    length_unit: str = "Angstrom",
    folder: Path | None = None,
) -> Frames:
    """Flatten ``ase.Atoms``, one after the other; arguments as for ``read_ase``.

    Raises:
        ValueError: naming the source, the frame and the field.
    """
    scale = factors(energy_unit, length_unit)
    builder = FrameBuilder(source, folder)
    fixed = 0
    for index, atoms in enumerate(structures):
        try:
            frame, used = _flatten(atoms, keys, scale)
        except ValueError as error:
            raise ValueError(f"{source}, frame {index}: {error}") from None
        builder.add(frame, group=_group(atoms, group), keys=used)
        fixed += bool(atoms.constraints)
    if fixed:
        builder.notes.append(f"constraints in {fixed} frames: the raw forces are used")
    return builder.finish()


def _frames(path: Path) -> Iterable[Any]:
    """The frames of one file; what goes wrong is said in one line."""
    import ase.io

    index = 0
    try:
        for atoms in ase.io.iread(path, index=":", **_format(path)):
            yield atoms
            index += 1
    except Exception as error:  # each of ASE's readers fails in its own way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}, frame {index}: ASE cannot read it: {reason}") from None


def _is_readable(path: Path) -> bool:
    """Whether ASE knows this kind of file; licences and notes beside the data are passed over."""
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        return not path.name.startswith(_HIDDEN) and bool(_format(path) or filetype(str(path), guess=False))
    except UnknownFileTypeError:
        return False


def _format(path: Path) -> dict[str, str]:
    """An xyz file is read as extended xyz, of which it is a special case."""
    name = path.name.removesuffix(".gz")
    return {"format": "extxyz"} if name.endswith((".xyz", ".extxyz")) else {}


def _flatten(
    atoms: Any, keys: Mapping[str, str] | None, scale: tuple[float, float]
) -> tuple[dict[str, Any], dict[str, str]]:
    """One frame in eV and Angstrom, and the keys of its labels."""
    energy, length = scale
    labels, charge = read_labels(atoms, keys=keys), read_charge(atoms)
    frame = {
        "atomic_numbers": atoms.numbers,
        "pos": atoms.positions * length,
        "cell": atoms.cell.array * length,
        "pbc": atoms.pbc,
        "charge": charge,
        "energy": None if labels.energy is None else labels.energy * energy,
        "forces": None if labels.forces is None else labels.forces * (energy / length),
        "stress": None if labels.stress is None else labels.stress * (energy / length**3),
    }
    for name in ("energy", "forces", "stress"):
        if frame[name] is not None and np.isinf(frame[name]).any():
            raise ValueError(f"the {name} label {labels.keys[name]} is infinite")
    return frame, labels.keys


def _group(atoms: Any, group: str) -> str:
    """What the frame says about where it comes from."""
    names = _GROUPS if group == "auto" else (group,)
    return next((str(atoms.info[name]) for name in names if name in atoms.info), "")
