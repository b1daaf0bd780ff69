"""AtomDataset: frames as atom graphs, subsets of them, and what they hold in numbers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch

from equitorch.datasets.frames import Frames, concatenate
from equitorch.graph import AtomGraph

_LABELS = ("energy", "forces", "stress")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """A data set in numbers: eV, Angstrom, eV/Angstrom, eV/Angstrom^3; NaN where there is no label.

    ``energy_mean`` and ``energy_std`` are per atom. ``force_max`` is the longest force, found in frame
    ``force_max_frame``; ``net_force_max`` the longest sum of the forces of a frame.
    """

    frames: int
    atoms: int
    smallest: int
    largest: int
    species: dict[int, int]
    groups: int
    periodic: dict[str, int]
    labels: dict[str, int]
    charges: dict[float, int]
    energy_mean: float
    energy_std: float
    force_rms: float
    force_max: float
    force_max_frame: int
    net_force_max: float
    stress_max: float


class AtomDataset:
    """Structures with labels, each an ``AtomGraph`` without edges until a cutoff is given.

    Args:
        frames: the flat arrays, in memory or mapped from disk.
        indices: (frames,) which of them, in which order; default: all.

    >>> import ase
    >>> data = AtomDataset.from_ase([ase.Atoms("H", info={"energy": -13.6}), ase.Atoms("He")])
    >>> len(data), data.species, data.labels["energy"]
    (2, (1, 2), 1)
    >>> data.graph(0, cutoff=5.0).energy
    tensor([-13.6000], dtype=torch.float64)
    """

    def __init__(self, frames: Frames, indices: Sequence[int] | np.ndarray | None = None) -> None:
        total = len(frames.columns["size"])
        chosen = np.arange(total) if indices is None else np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= total):
            wrong = chosen[(chosen < 0) | (chosen >= total)][0]
            raise ValueError(f"AtomDataset expects indices from 0 to {total - 1}, got {wrong}")
        self.frames, self.indices = frames, chosen

    @classmethod
    def from_ase(cls, structures: Sequence[Any], **options: Any) -> AtomDataset:
        """Take a list of ``ase.Atoms``; options as for ``read_ase``."""
        from equitorch.datasets.ase_files import collect

        return cls(collect(structures, **options))

    @classmethod
    def concatenate(cls, parts: Sequence[AtomDataset]) -> AtomDataset:
        """The frames of several data sets, one after the other, copied into memory."""
        return cls(concatenate([part.materialised() for part in parts]))

    def materialised(self) -> Frames:
        """The chosen frames alone, copied into memory."""
        atoms = self._atom_indices()
        columns = {
            name: array[atoms if name in ("atomic_numbers", "pos", "forces") else self.indices]
            for name, array in self.frames.columns.items()
        }
        return dataclasses.replace(self.frames, columns=columns)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> AtomGraph: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> AtomDataset: ...
    def __getitem__(self, index: Any) -> AtomGraph | AtomDataset:
        if isinstance(index, int | np.integer):
            return self.graph(int(index))
        return self.subset(np.arange(len(self))[index])

    def __iter__(self) -> Iterator[AtomGraph]:
        return (self.graph(index) for index in range(len(self)))

    def graph(
        self, index: int, *, cutoff: float | None = None, dtype: torch.dtype | None = None
    ) -> AtomGraph:
        """One frame with its labels; with edges if a cutoff (Angstrom) is given.

        Raises:
            IndexError: if there is no such frame.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of a data set of {len(self)}")
        columns, frame = self.frames.columns, self.indices[index]
        atoms = slice(self.frames.ptr[frame], self.frames.ptr[frame + 1])
        labels = {}
        for name in ("charge", *_LABELS):
            value = columns[name][atoms] if name == "forces" else columns[name][frame : frame + 1]
            labels[name] = None if np.isnan(value).all() else torch.from_numpy(np.array(value))
        return AtomGraph.build(
            torch.from_numpy(columns["atomic_numbers"][atoms].astype(np.int64)),
            torch.from_numpy(np.array(columns["pos"][atoms])),
            cell=torch.from_numpy(np.array(columns["cell"][frame])),
            pbc=torch.from_numpy(np.array(columns["pbc"][frame])),
            cutoff=cutoff,
            dtype=dtype,
            **labels,
        )

    def to_ase(self, index: int) -> Any:
        """One frame as ``ase.Atoms``, its labels in a ``SinglePointCalculator``."""
        import ase
        from ase.calculators.singlepoint import SinglePointCalculator

        graph = self.graph(index, dtype=torch.float64)
        atoms = ase.Atoms(
            graph.atomic_numbers.numpy(),
            graph.pos.numpy(),
            cell=graph.cell[0].numpy(),
            pbc=graph.pbc[0].numpy(),
        )
        if graph.charge is not None:
            atoms.info["charge"] = float(graph.charge)
        if self.groups[index]:
            atoms.info["config_type"] = self.groups[index]
        results: dict[str, Any] = {}
        if graph.energy is not None:
            results["energy"] = float(graph.energy)
        if graph.forces is not None:
            results["forces"] = graph.forces.numpy()
        if graph.stress is not None:
            results["stress"] = graph.stress[0].numpy().ravel()[[0, 4, 8, 5, 2, 1]]
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    def subset(self, indices: Sequence[int] | np.ndarray) -> AtomDataset:
        """Some of the frames, counted within this data set; the arrays are shared."""
        return AtomDataset(self.frames, self.indices[np.asarray(indices, dtype=np.int64)])

    @cached_property
    def sizes(self) -> np.ndarray:
        """(frames,) how many atoms each frame has."""
        return np.asarray(self.frames.columns["size"])[self.indices]

    @cached_property
    def species(self) -> tuple[int, ...]:
        """The atomic numbers that occur, ascending."""
        return tuple(np.unique(self.frames.columns["atomic_numbers"][self._atom_indices()]).tolist())

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The trajectory or kind of each frame."""
        return tuple(self.frames.group_names[g] for g in self.frames.columns["group"][self.indices])

    @cached_property
    def energies(self) -> np.ndarray:
        """(frames,) eV, NaN where there is none."""
        return np.asarray(self.frames.columns["energy"])[self.indices]

    @cached_property
    def labels(self) -> dict[str, int]:
        """How many frames have each label; forces count where any atom has one."""
        atoms, frame = self._atom_indices(), np.repeat(np.arange(len(self)), self.sizes)
        forced = ~np.isnan(self.frames.columns["forces"][atoms]).any(1)
        return {
            "energy": int((~np.isnan(self.energies)).sum()),
            "forces": len(np.unique(frame[forced])),
            "stress": int((~np.isnan(self.frames.columns["stress"][self.indices]).any((1, 2))).sum()),
        }

    def composition(self) -> np.ndarray:
        """(frames, species) how many atoms of each species each frame has."""
        numbers = self.frames.columns["atomic_numbers"][self._atom_indices()]
        counts = np.zeros((len(self), len(self.species)), dtype=np.int64)
        column = np.searchsorted(self.species, numbers)
        np.add.at(counts, (np.repeat(np.arange(len(self)), self.sizes), column), 1)
        return counts

    def digest(self) -> str:
        """The SHA-256 of structures and labels, the same wherever they are kept."""
        sha, flat = hashlib.sha256(), self.materialised().columns
        for name in sorted(set(flat) - {"group"}):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(flat[name]).tobytes())
        return sha.hexdigest()

    def statistics(self) -> Statistics:
        """The data set in numbers, as ``equitorch check`` prints them."""
        flat = self.materialised().columns
        forces, sizes = flat["forces"], self.sizes
        length = np.sqrt((forces**2).sum(1))
        known = ~np.isnan(length)
        owner = np.repeat(np.arange(len(self)), sizes)
        net = np.zeros((len(self), 3))
        np.add.at(net, owner, forces)
        per_atom = self.energies / sizes
        per_atom = per_atom[~np.isnan(per_atom)]
        count = self.composition().sum(0).tolist()
        dimensions = ["0D", "1D periodic", "2D periodic", "3D periodic"]
        worst = int(np.nanargmax(length)) if known.any() else -1
        return Statistics(
            frames=len(self),
            atoms=int(sizes.sum()),
            smallest=int(sizes.min(initial=10**9)),
            largest=int(sizes.max(initial=0)),
            species=dict(zip(self.species, count, strict=True)),
            groups=len(set(self.groups)),
            periodic=_count([dimensions[k] for k in flat["pbc"].sum(1)]),
            labels=self.labels,
            charges=_count([c for c in flat["charge"].tolist() if c == c]),
            energy_mean=float(per_atom.mean()) if per_atom.size else float("nan"),
            energy_std=float(per_atom.std()) if per_atom.size else float("nan"),
            force_rms=float(np.sqrt((forces[known] ** 2).mean())) if known.any() else float("nan"),
            force_max=float(length[worst]) if known.any() else float("nan"),
            force_max_frame=int(owner[worst]) if known.any() else -1,
            net_force_max=_largest(np.sqrt((net**2).sum(1))),
            stress_max=_largest(np.abs(flat["stress"]).ravel()),
        )

    def __repr__(self) -> str:
        """One line with the sizes that matter."""
        return f"AtomDataset({len(self)} frames, {int(self.sizes.sum())} atoms, from {self.frames.source})"

    def _atom_indices(self) -> np.ndarray:
        """Where the atoms of the chosen frames are in the flat arrays."""
        start = self.frames.ptr[self.indices]
        first = (
            np.concatenate([[0], np.cumsum(self.sizes)[:-1]]) if len(self) else np.zeros(0, dtype=np.int64)
        )
        return np.arange(int(self.sizes.sum())) + np.repeat(start - first, self.sizes)


def _count(values: Sequence[Any]) -> dict[Any, int]:
    """How often each value occurs."""
    return {value: values.count(value) for value in sorted(set(values))}


def _largest(values: np.ndarray) -> float:
    """The largest number, NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")
