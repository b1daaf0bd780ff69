"""Frames: many structures in a few flat arrays, in memory or mapped from disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equitorch.graph import check_structure, complete_cell, neighbor_edges

# name -> (per atom?, shape of one row, dtype, what a frame that lacks it gets)
COLUMNS: dict[str, tuple[bool, tuple[int, ...], str, float]] = {
    "atomic_numbers": (True, (), "uint8", 0),
    "pos": (True, (3,), "float64", 0),
    "forces": (True, (3,), "float64", np.nan),
    "size": (False, (), "int64", 0),
    "cell": (False, (3, 3), "float64", 0),
    "pbc": (False, (3,), "bool", 0),
    "charge": (False, (), "float64", np.nan),
    "energy": (False, (), "float64", np.nan),
    "stress": (False, (3, 3), "float64", np.nan),
    "group": (False, (), "int32", 0),
}
_FLUSH = 512  # frames
_NEAR = 1.5  # Angstrom; far more than it takes to find atoms on one another, but a finer cell list is slow


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """Structures and labels as flat arrays; a label that a frame lacks is NaN.

    Args:
        columns: the arrays named in ``COLUMNS``, per atom or per frame.
        group_names: what ``columns["group"]`` counts: trajectories, or kinds of configuration.
        keys: for each label, the keys it was read from and how often.
        notes: remarks for the reader, one sentence each.
        source: where the frames come from.

    Shape:
        atomic_numbers (atoms,), pos and forces (atoms, 3); size, charge, energy, group (frames,);
        cell and stress (frames, 3, 3); pbc (frames, 3); ptr (frames + 1,)
    """

    columns: dict[str, np.ndarray]
    group_names: tuple[str, ...] = ("",)
    keys: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ptr", np.concatenate([[0], np.cumsum(self.columns["size"])]))

    ptr: np.ndarray = dataclasses.field(init=False)

    def description(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON can hold it."""
        return {
            "group_names": list(self.group_names),
            "keys": self.keys,
            "notes": list(self.notes),
            "source": self.source,
        }


class FrameBuilder:
    """Collects frames one by one, checking each; with a folder, they go to disk and never fill the memory.

    Args:
        source: where the frames come from; errors begin with it.
        folder: where the columns are written; default: they stay in memory.
    """

    def __init__(self, source: str, folder: Path | None = None) -> None:
        self.source, self.folder = source, folder
        self.notes: list[str] = []
        self.keys: dict[str, dict[str, int]] = {}
        self._groups: dict[str, int] = {}
        self._pending: list[dict[str, np.ndarray]] = []
        self._chunks: list[dict[str, np.ndarray]] = []
        self._count = 0

    def add(self, frame: dict[str, Any], *, group: str = "", keys: dict[str, str] | None = None) -> None:
        """Take one frame: atomic_numbers, pos, and what else of ``COLUMNS`` is known.

        Raises:
            ValueError: naming the file and the frame, if the structure cannot be right.
        """
        row: dict[str, np.ndarray] = {}
        atoms = len(frame["atomic_numbers"])
        frame = {**frame, "size": atoms, "group": self._groups.setdefault(group, len(self._groups))}
        try:
            check_structure(*_tensors(frame["atomic_numbers"], frame["pos"]))
            if frame.get("pbc") is not None and np.any(frame["pbc"]):
                complete_cell(*_tensors(frame["cell"], np.asarray(frame["pbc"], dtype=bool)))
        except ValueError as error:
            raise ValueError(f"{self._where(self._count)}: {error}") from None
        for name, (per_atom, shape, dtype, missing) in COLUMNS.items():
            whole = (atoms, *shape) if per_atom else (1, *shape)
            value = frame.get(name)
            row[name] = np.full(whole, missing if value is None else 0, dtype=dtype)
            if value is not None:
                row[name][...] = value
        for label, key in (keys or {}).items():
            counts = self.keys.setdefault(label, {})
            counts[key] = counts.get(key, 0) + 1
        self._pending.append(row)
        self._count += 1
        if len(self._pending) >= _FLUSH:
            self._flush()

    def finish(self) -> Frames:
        """All frames taken so far.

        Raises:
            ValueError: if there are none.
        """
        if self._count == 0:
            raise ValueError(f"{self.source}: expected at least one frame, found none")
        self._flush()
        description: dict[str, Any] = {
            "group_names": tuple(self._groups),
            "keys": self.keys,
            "notes": tuple(self.notes),
            "source": self.source,
        }
        if self.folder is None:
            return Frames(columns=_concatenate(self._chunks), **description)
        (self.folder / "frames.json").write_text(json.dumps(description))
        return open_frames(self.folder)

    def _flush(self) -> None:
        """Check the pending frames for atoms on one another, and pass them on."""
        if not self._pending:
            return
        chunk, self._pending = _concatenate(self._pending), []
        self._check_overlap(chunk)
        if self.folder is None:
            self._chunks.append(chunk)
            return
        for name, array in chunk.items():
            with (self.folder / f"{name}.bin").open("ab") as file:
                file.write(array.tobytes())

    def _check_overlap(self, chunk: dict[str, np.ndarray]) -> None:
        """Find the frame in which two atoms lie on one another."""
        sizes = chunk["size"]
        batch = np.repeat(np.arange(len(sizes)), sizes)
        pos, cell, pbc, graph = _tensors(chunk["pos"], chunk["cell"], chunk["pbc"], batch)
        try:
            neighbor_edges(pos, cell, pbc, _NEAR, batch=graph)
        except ValueError:
            for index, atoms in enumerate(torch.split(pos, sizes.tolist())):
                try:
                    neighbor_edges(atoms, cell[index], pbc[index], _NEAR)
                except ValueError as error:
                    frame = self._count - len(sizes) + index
                    raise ValueError(f"{self._where(frame)}: {error}") from None

    def _where(self, frame: int) -> str:
        return f"{self.source}, frame {frame}"


def open_frames(folder: Path) -> Frames:
    """Map frames that a ``FrameBuilder`` wrote; nothing is read before it is used."""
    description = json.loads((folder / "frames.json").read_text())
    columns = {}
    for name, (_, shape, dtype, _) in COLUMNS.items():
        flat = np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r")
        columns[name] = flat.reshape(-1, *shape)
    description["group_names"], description["notes"] = (
        tuple(description[name]) for name in ("group_names", "notes")
    )
    return Frames(columns=columns, **description)


def concatenate(parts: Sequence[Frames]) -> Frames:
    """The frames of several sources, one after the other; groups of different sources stay apart.

    Raises:
        ValueError: if there are none.
    """
    if not parts:
        raise ValueError("concatenate expects at least one set of frames, got none")
    if len(parts) == 1:
        return parts[0]
    columns, names, keys, notes = [], [], {}, []  # type: ignore[var-annotated]
    for part in parts:
        columns.append({**part.columns, "group": part.columns["group"] + len(names)})
        names += [f"{part.source}:{name}" for name in part.group_names]
        notes += [f"{part.source}: {note}" for note in part.notes]
        for label, counts in part.keys.items():
            for key, count in counts.items():
                keys.setdefault(label, {})[key] = keys.get(label, {}).get(key, 0) + count
    source = ", ".join(part.source for part in parts)
    return Frames(_concatenate(columns), tuple(names), keys, tuple(notes), source)


def _concatenate(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def _tensors(*arrays: Any) -> list[torch.Tensor]:
    """Arrays as tensors, integers as int64 and floats as float64."""
    kinds = {"f": "float64", "u": "int64", "i": "int64", "b": "bool"}
    return [torch.from_numpy(np.array(x, dtype=kinds[np.asarray(x).dtype.kind])) for x in arrays]
