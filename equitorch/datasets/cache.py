"""A flat copy of a data set on disk: read once, mapped ever after, renewed when file or reader change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.frames import open_frames

READER_VERSION = 1  # raise it when the columns or what the readers make of a file change


def cached(
    path: str | Path, reader: Callable[..., AtomDataset], folder: str | Path, **options: Any
) -> AtomDataset:
    """Read a file through its flat copy in ``folder``, making the copy if there is none.

    The copy is named after the content of the file, the reader, its options and version; it appears at once
    and whole, also when several processes make it together.

    Args:
        path: one file.
        reader: such as ``read_ase``: called with the path, the options and ``folder=``.
        folder: where flat copies live; made if it does not exist.
        options: JSON-able keywords of the reader.

    Raises:
        ValueError: as the reader does.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    place = folder / _key(path, reader.__name__, options)
    if not (place / "complete").exists():
        _make(place, path, reader, options)
    return AtomDataset(open_frames(place))


def _make(place: Path, path: Path, reader: Callable[..., AtomDataset], options: dict[str, Any]) -> None:
    """Write the copy beside its place, then rename it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        reader(path, folder=draft, **options)
        for file in draft.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        (draft / "complete").touch()
        try:
            draft.rename(place)
        except OSError:
            if not (place / "complete").exists():
                shutil.rmtree(place)  # the remains of an older, interrupted copy
                draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _key(path: Path, reader: str, options: dict[str, Any]) -> str:
    """The name of the copy: what was read, and how."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    sha.update(json.dumps([str(path), READER_VERSION, reader, options], sort_keys=True).encode())
    return f"{path.stem}-{sha.hexdigest()[:24]}"
