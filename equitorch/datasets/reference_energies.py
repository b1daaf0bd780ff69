"""Energies per element: of isolated atoms where the data has them, else fitted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from equitorch.datasets.dataset import AtomDataset

_LARGE = 500.0  # cubic Angstrom: a single atom in such a cell is alone


class ReferenceEnergies(NamedTuple):
    """An energy for each element, how it was found, and what remains of the energies, per atom.

    ``energies`` {atomic number: eV}; ``note`` one sentence; ``residual`` the standard deviation of
    (E - sum of references) / atoms, eV; ``isolated`` whether they are energies of isolated atoms.
    """

    energies: dict[int, float]
    note: str
    residual: float
    isolated: bool = False


def reference_energies(
    dataset: AtomDataset, *, method: str = "auto", ridge: float = 1e-6
) -> ReferenceEnergies:
    r"""Find the energy that each element contributes.

    .. math:: \min_e \sum_f (E_f - \sum_Z n_{fZ} e_Z)^2 / N_f^2 + \lambda \sum_Z (e_Z - \bar e)^2

    where the mean energy per atom breaks the tie of elements that always occur in one ratio. Frames without
    an energy are left out; neutral single atoms are isolated atoms.

    Args:
        dataset: frames with energies.
        method: "isolated" (an error if an element has none), "fit" or "auto": isolated atoms where every
            element has one, else the fit.
        ridge: \lambda, relative to the number of frames.

    Raises:
        ValueError: if no frame has an energy, or an isolated atom is missing.

    >>> import ase
    >>> frames = [ase.Atoms("H", info={"energy": -13.6}), ase.Atoms("He", info={"energy": -79.0})]
    >>> reference_energies(AtomDataset.from_ase(frames)).energies
    {1: -13.6, 2: -79.0}
    """
    if method not in ("auto", "isolated", "fit"):
        raise ValueError(f"reference_energies expects method 'auto', 'isolated' or 'fit', got {method!r}")
    known = np.flatnonzero(~np.isnan(dataset.energies))
    if known.size == 0:
        raise ValueError(f"reference_energies expects frames with an energy, {dataset!r} has none")
    dataset = dataset.subset(known)
    counts, energies = dataset.composition(), dataset.energies
    isolated = _isolated(dataset)
    missing = [z for z in dataset.species if z not in isolated]
    if method == "isolated" and missing:
        raise ValueError(
            f"reference_energies expects an isolated atom of each element, none for Z = {missing}"
        )
    if method == "fit" or missing:
        found = _fit(counts, energies, ridge)
        values = dict(zip(dataset.species, found.tolist(), strict=True))
        note = f"ridge fit to {len(dataset)} frames" + ("" if isolated else "; no isolated atom in the data")
    else:
        values = {z: isolated[z] for z in dataset.species}
        note = "isolated atoms in the data"
    rest = (energies - counts @ np.array([values[z] for z in dataset.species])) / dataset.sizes
    return ReferenceEnergies(values, note, float(rest.std()), not (method == "fit" or missing))


def _fit(counts: np.ndarray, energies: np.ndarray, ridge: float) -> np.ndarray:
    """(species,) eV: the deviations from the mean energy per atom, by least squares per atom."""
    share = counts / counts.sum(1, keepdims=True)
    per_atom = energies / counts.sum(1)
    mean = per_atom.mean()
    normal = share.T @ share + ridge * len(energies) * np.eye(share.shape[1])
    return mean + np.linalg.solve(normal, share.T @ (per_atom - mean))


def isolated_atoms(dataset: AtomDataset) -> np.ndarray:
    """(frames,) bool: one atom, not periodic or in a cell of more than 500 cubic Angstrom.

    >>> import ase
    >>> isolated_atoms(AtomDataset.from_ase([ase.Atoms("H"), ase.Atoms("Cu", cell=[2] * 3, pbc=True)]))
    array([ True, False])
    """
    columns, frames = dataset.frames.columns, dataset.indices
    periodic = np.asarray(columns["pbc"])[frames].any(axis=-1)
    large = np.abs(np.linalg.det(np.asarray(columns["cell"], dtype=np.float64)[frames])) > _LARGE
    return np.asarray((dataset.sizes == 1) & (large | ~periodic))


def _isolated(dataset: AtomDataset) -> dict[int, float]:
    """The energies of neutral isolated atoms, the lowest where there are several."""
    columns = dataset.frames.columns
    found: dict[int, float] = {}
    for index in np.flatnonzero(isolated_atoms(dataset)):
        frame = dataset.indices[index]
        charge = columns["charge"][frame]
        if charge == 0 or np.isnan(charge):
            z = int(columns["atomic_numbers"][dataset.frames.ptr[frame]])
            found[z] = min(found.get(z, np.inf), float(dataset.energies[index]))
    return found
