"""Data sets of PyTorch Geometric; the package is imported only when one of them is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.frames import FrameBuilder
from equitorch.datasets.units import factors

_QM9_U0 = 7  # internal energy at 0 K, which PyG converts to eV


def read_qm9(root: str | Path, *, target: int = _QM9_U0, download: bool = False) -> AtomDataset:
    """QM9 through ``torch_geometric.datasets.QM9``: one property of each molecule as its energy.

    Args:
        root: PyG's folder.
        target: the column of ``y``; the default is U0 in eV.
        download: whether PyG may fetch the set when ``root`` has none.

    Raises:
        ValueError: if ``root`` holds nothing and nothing may be downloaded.
    """
    _require(root, download)
    from torch_geometric.datasets import QM9

    return from_pyg(QM9(str(root)), source=f"{root} (QM9)", target=target)


def read_md17(root: str | Path, name: str, *, download: bool = False) -> AtomDataset:
    """MD17 through ``torch_geometric.datasets.MD17``, from kcal/mol to eV.

    Args:
        root: PyG's folder.
        name: PyG's name of the set, such as "revised aspirin".
        download: whether PyG may fetch the set when ``root`` has none.

    Raises:
        ValueError: if ``root`` holds nothing and nothing may be downloaded.
    """
    _require(root, download)
    from torch_geometric.datasets import MD17

    train = MD17(str(root), name)
    return from_pyg(train, source=f"{root} ({name})", energy_unit="kcal/mol")


def from_pyg(
    data: Iterable[Any],
    *,
    source: str = "a PyG data set",
    target: int | None = None,
    energy_unit: str = "eV",
    length_unit: str = "Angstrom",
) -> AtomDataset:
    """Flatten PyG ``Data`` objects; their own edges are left out.

    Args:
        data: objects with ``pos`` and ``z`` or ``atomic_numbers``, and ``energy``, ``force``, ... if known.
        source: what errors begin with.
        target: the column of ``y`` that is the energy; default: there is an attribute ``energy``.
        energy_unit: of the data; see ``equitorch.datasets.units``.
        length_unit: of the data.

    Raises:
        ValueError: naming the frame and the field.
    """
    import torch

    from equitorch.graph.pyg import read_pyg

    energy, length = factors(energy_unit, length_unit)
    scale = {"pos": length, "cell": length, "energy": energy}
    scale |= {"forces": energy / length, "stress": energy / length**3}
    builder = FrameBuilder(source)
    for index, item in enumerate(data):
        try:
            fields = read_pyg(item, dtype=torch.float64)
        except ValueError as error:
            raise ValueError(f"{source}, frame {index}: {error}") from None
        if target is not None:
            fields["energy"] = item.y.reshape(-1)[target]
        frame = {}
        for name in ("atomic_numbers", "pos", "cell", "pbc", "charge", "energy", "forces", "stress"):
            value = fields[name]
            frame[name] = None if value is None else np.asarray(value.cpu()) * scale.get(name, 1)
        builder.add(frame)
    return AtomDataset(builder.finish())


def _require(root: str | Path, download: bool) -> None:
    """Nothing is downloaded unless the user says so."""
    if not download and not any(Path(root).glob("**/*.*")):
        raise ValueError(f"{root}: no data here; pass download=True to let PyG fetch the set")
