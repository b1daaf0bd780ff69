"""One door to every source: a name, a file or a folder becomes an AtomDataset."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equitorch.datasets.ase_files import read_ase
from equitorch.datasets.cache import cached
from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.mlearn import read_mlearn
from equitorch.datasets.rmd17 import read_npz
from equitorch.datasets.shipped import load_shipped


def open_dataset(
    source: str | Path,
    *,
    keys: Mapping[str, str] | None = None,
    group: str = "auto",
    energy_unit: str = "eV",
    length_unit: str = "Angstrom",
    cache: str | Path | None = None,
) -> AtomDataset:
    """Open ``shipped:<name>``, an rMD17 ``.npz``, mlearn's ``.json``, or any file or folder that ASE reads.

    Args:
        source: the name or the path.
        keys: which key holds a label; see ``read_ase``.
        group: which key names trajectories; see ``read_ase``.
        energy_unit: of files that ASE reads.
        length_unit: of files that ASE reads.
        cache: a folder for a flat copy, mapped from disk when the file is opened again.

    Raises:
        ValueError: if there is no such file (with the nearest name), or it cannot be read.
    """
    text = str(source)
    if text.startswith("shipped:"):
        return load_shipped(text.removeprefix("shipped:"))
    path = Path(source)
    if not path.exists():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        guess = difflib.get_close_matches(path.name, near, n=1)
        raise ValueError(
            f"file '{path}' not found" + (f"; did you mean '{path.with_name(guess[0])}'?" if guess else "")
        )
    if path.suffix == ".npz":
        return AtomDataset(read_npz(path))
    if path.suffix == ".json" and path.read_text(errors="replace")[:1] == "[":
        return read_mlearn(path)
    options: dict[str, Any] = {
        "keys": None if keys is None else dict(keys),
        "group": group,
        "energy_unit": energy_unit,
        "length_unit": length_unit,
    }
    if cache is not None and path.is_file():
        return cached(path, read_ase, cache, **options)
    return read_ase(path, **options)
