"""From the section ``data`` of a config to three data sets: train, valid and test."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equitorch.datasets.dataset import AtomDataset
from equitorch.training.config import Data
from equitorch.training.config_reader import ConfigError, Problem


def read_splits(data: Data, *, seed: int) -> dict[str, AtomDataset]:
    """Read the files of a config and deal their frames out to train, valid and test.

    Raises:
        ConfigError: when a file cannot be used, or nothing is left to train on.
    """
    pool = _read("train", data.train, data)
    splits: dict[str, AtomDataset] = {}
    for name in ("valid", "test"):
        wanted = getattr(data, name)
        if isinstance(wanted, str) and not wanted.endswith("%"):
            splits[name] = _read(name, wanted, data)
            continue
        share = float(wanted[:-1]) / 100 if isinstance(wanted, str) else int(wanted or 0) / max(1, len(pool))
        chosen, rest = deal(pool.groups, share, seed)
        splits[name], pool = pool.subset(chosen), pool.subset(rest)
    if not len(pool):
        message = "no frame is left to train on; ask for less in data.valid and data.test"
        raise ConfigError([Problem("data.train", message)])
    return {"train": pool, **splits}


def deal(groups: Sequence[str], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a share of the frames at random; returns their indices and the others', ascending."""
    order = np.random.default_rng(seed).permutation(len(groups))
    count = min(len(order), round(share * len(order)))
    return np.sort(order[:count]), np.sort(order[count:])


def _read(name: str, files: str | list[str], data: Data) -> AtomDataset:
    from equitorch.datasets.ase_files import read_ase

    keys = {label: key for label, key in data.keys.model_dump().items() if key != "auto"}
    units = {"energy_unit": data.energy_unit, "length_unit": data.length_unit}
    try:
        parts = [
            read_ase(
                file,
                keys=keys or None,
                group=data.group,
                energy_unit=data.energy_unit,
                length_unit=data.length_unit,
            )
            for file in ([files] if isinstance(files, str) else files)
        ]
    except ValueError as error:
        raise ConfigError([Problem(f"data.{name}", str(error))]) from error
    return AtomDataset.concatenate(parts)


def frame_names(data: AtomDataset) -> list[str]:
    """What messages call each frame."""
    return [f"{data.frames.source} #{index}" for index in data.indices.tolist()]


def label_values(data: AtomDataset, name: str) -> NDArray[np.float64]:
    """All components of forces or stress that are there, flat."""
    values = np.asarray(data.materialised().columns[name], dtype=np.float64).reshape(-1)
    return values[~np.isnan(values)]


def energies_per_atom(data: AtomDataset, references: Mapping[int, float]) -> NDArray[np.float64]:
    """Energies per atom less the reference energies, eV, of the frames that have one."""
    base = data.composition() @ np.array([references.get(z, 0.0) for z in data.species])
    values = (data.energies - base) / data.sizes
    return np.asarray(values[~np.isnan(values)], dtype=np.float64)


def find_references(
    data: AtomDataset, wanted: str | Mapping[str, float], species: Sequence[int]
) -> tuple[dict[int, float], str]:
    """The energy of every element in eV, and how it was found."""
    counts, energies = data.composition(), data.energies
    known = ~np.isnan(energies)
    solution = np.linalg.lstsq(counts[known].astype(float), energies[known], rcond=None)[0]
    return {
        **dict.fromkeys(species, 0.0),
        **dict(zip(data.species, solution.tolist(), strict=True)),
    }, "least squares"
