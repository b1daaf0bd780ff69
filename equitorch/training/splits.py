"""From the section ``data`` of a config to three data sets: train, valid and test."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.open import open_dataset
from equitorch.datasets.reference_energies import isolated_atoms, reference_energies
from equitorch.datasets.splits import split
from equitorch.training.config import Data
from equitorch.training.config_reader import ConfigError, Problem


def read_splits(data: Data, *, seed: int) -> tuple[dict[str, AtomDataset], list[str]]:
    """Read the files of a config and deal their frames out to train, valid and test.

    Isolated atoms always train: a share means the other frames.

    Returns:
        the splits, and notes on what reading and dealing brought up.

    Raises:
        ConfigError: when a file cannot be used, or nothing is left to train on.
    """
    pool = _read("train", data.train, data)
    notes, splits, shares = list(pool.frames.notes), {"train": pool}, {"valid": 0.0, "test": 0.0}
    for name in shares:
        wanted = getattr(data, name)
        if isinstance(wanted, str) and not wanted.endswith("%"):
            splits[name] = _read(name, wanted, data)
            notes += splits[name].frames.notes
        elif isinstance(wanted, str):
            shares[name] = float(wanted[:-1]) / 100
        else:
            shares[name] = wanted or 0
    if any(shares.values()):
        by = {"auto": "auto", "none": "frame"}.get(data.group, "group")
        single = isolated_atoms(pool)
        kept, dealt = np.flatnonzero(single), np.flatnonzero(~single)
        try:
            parts = split(pool.subset(dealt), valid=shares["valid"], test=shares["test"], seed=seed, by=by)
        except ValueError as error:
            raise ConfigError([Problem("data.valid", str(error))]) from error
        notes.append(f"split: {parts.note}")
        chosen = {"valid": parts.valid, "test": parts.test}
        splits = {name: pool.subset(dealt[part]) for name, part in chosen.items()} | splits
        splits["train"] = pool.subset(np.sort(np.concatenate([kept, dealt[parts.train]])))
    if count := int(isolated_atoms(splits["train"]).sum()):
        notes.append(f"{count} training frames are isolated atoms: never held out, errors told apart")
    nothing = pool.subset([])
    return {name: splits.get(name, nothing) for name in ("train", "valid", "test")}, notes


def _read(name: str, files: str | list[str], data: Data) -> AtomDataset:
    """Open one file, or several as one data set; labels that the config calls none are taken out."""
    given = data.keys.model_dump()
    keys = {label: key for label, key in given.items() if key not in ("auto", "none")}
    group = "auto" if data.group == "none" else data.group
    try:
        parts = [
            open_dataset(
                file,
                keys=keys or None,
                group=group,
                energy_unit=data.energy_unit,
                length_unit=data.length_unit,
                cache=data.cache,
            )
            for file in ([files] if isinstance(files, str) else files)
        ]
    except ValueError as error:
        raise ConfigError([Problem(f"data.{name}", str(error))]) from error
    whole = parts[0] if len(parts) == 1 else AtomDataset.concatenate(parts)
    unwanted = [label for label, key in given.items() if key == "none"]
    if not unwanted:
        return whole
    columns = whole.frames.columns
    empty = {label: np.full_like(columns[label], np.nan) for label in unwanted}
    return AtomDataset(dataclasses.replace(whole.frames, columns={**columns, **empty}), whole.indices)


def frame_names(data: AtomDataset) -> list[str]:
    """What messages call each frame."""
    return [f"{data.frames.source} #{index}" for index in data.indices.tolist()]


def label_values(data: AtomDataset, name: str) -> NDArray[np.float64]:
    """All components of forces or stress that are there, flat."""
    values = np.asarray(data.materialised().columns[name], dtype=np.float64).reshape(-1)
    return values[~np.isnan(values)]


def energies_per_atom(data: AtomDataset, references: Mapping[int, float]) -> NDArray[np.float64]:
    """Energies per atom less the reference energies, eV, of the frames that have one.

    Isolated atoms are left out: nothing binds them.
    """
    data = data.subset(np.flatnonzero(~isolated_atoms(data)))
    base = data.composition() @ np.array([references.get(z, 0.0) for z in data.species])
    values = (data.energies - base) / data.sizes
    return np.asarray(values[~np.isnan(values)], dtype=np.float64)


def find_references(
    data: AtomDataset, wanted: str | Mapping[str, float], species: Sequence[int]
) -> tuple[dict[int, float], str, bool]:
    """The energy of every element in eV, how it was found, and whether it is that of an isolated atom.

    An element that no training frame has gets the mean of the others.

    Raises:
        ConfigError: when energies are given but not for every element.
    """
    if isinstance(wanted, Mapping):
        from ase.data import atomic_numbers, chemical_symbols

        given = {atomic_numbers.get(name, 0) or int(name): energy for name, energy in wanted.items()}
        missing = [chemical_symbols[z] for z in species if z not in given]
        if missing:
            message = f"has no energy for {', '.join(missing)}; give one for every element, or write auto"
            raise ConfigError([Problem("model.reference_energies", message)])
        return {z: given[z] for z in species}, "reference energies: as given", True
    if wanted == "none" or not data.labels["energy"]:
        return dict.fromkeys(species, 0.0), "reference energies: none", False
    found = reference_energies(data)
    mean = float(np.mean(list(found.energies.values())))
    energies = {z: found.energies.get(z, mean) for z in species}
    note = f"reference energies: {found.note}; {1e3 * found.residual:.3g} meV/atom remain"
    return energies, note, found.isolated
