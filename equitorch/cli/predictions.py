"""Labels beside predictions for every frame of a data set: what tables and parity plots are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

    from equitorch.graph import AtomGraph
    from equitorch.models import Potential

Array = NDArray[np.float64]
GPA = 160.21766208  # eV/Å^3


@dataclass(frozen=True)
class Errors:
    """Error statistics of one kind of label over one selection.

    Shape:
        mae, rmse, largest: in the unit of the label; r2 without unit; count: labels compared
    """

    mae: float
    rmse: float
    largest: float
    r2: float
    count: int

    @classmethod
    def of(cls, label: Array, prediction: Array) -> Errors:
        """Compare, leaving out every label that is missing (NaN).

        >>> Errors.of(np.array([1.0, 2.0, np.nan]), np.array([1.0, 4.0, 9.0])).mae
        1.0
        """
        known = np.isfinite(label)
        label, error = label[known], (prediction - label)[known]
        if not len(error):
            return cls(np.nan, np.nan, np.nan, np.nan, 0)
        spread = float(((label - label.mean()) ** 2).sum())
        r2 = 1 - float((error**2).sum()) / spread if spread > 0 else np.nan
        size = np.abs(error)
        return cls(float(size.mean()), float(np.sqrt((error**2).mean())), float(size.max()), r2, len(error))


@dataclass(frozen=True)
class Predictions:
    """The flat arrays of one evaluated data set; NaN marks a missing label.

    Args:
        numbers: (atoms,) atomic numbers.
        pos: (atoms, 3) positions in Å.
        ptr: (frames + 1,) where each frame begins.
        cell, pbc: (frames, 3, 3) in Å and (frames, 3).
        energy, energy_predicted: (frames,) in eV.
        forces, forces_predicted: (atoms, 3) in eV/Å.
        stress, stress_predicted: (frames, 3, 3) in eV/Å^3.
        group: (frames,) the name of each frame's group.
    """

    numbers: NDArray[np.int64]
    pos: Array
    ptr: NDArray[np.int64]
    cell: Array
    pbc: NDArray[np.bool_]
    energy: Array
    energy_predicted: Array
    forces: Array
    forces_predicted: Array
    stress: Array
    stress_predicted: Array
    group: NDArray[np.str_]

    @property
    def frames(self) -> int:
        """The number of structures."""
        return len(self.ptr) - 1

    @property
    def frame(self) -> NDArray[np.int64]:
        """The frame of each atom, (atoms,)."""
        return np.repeat(np.arange(self.frames), np.diff(self.ptr))

    def structure(self, frame: int) -> tuple[NDArray[np.int64], Array]:
        """Return the atomic numbers and the positions of one frame."""
        inside = slice(int(self.ptr[frame]), int(self.ptr[frame + 1]))
        return self.numbers[inside], self.pos[inside]

    def atoms(self, frame: int) -> Atoms:
        """Return one frame as ``ase.Atoms``, without labels."""
        from ase import Atoms

        numbers, pos = self.structure(frame)
        return Atoms(numbers, pos, cell=self.cell[frame], pbc=self.pbc[frame])

    def energy_errors(self, frames: NDArray[np.bool_] | None = None) -> Errors:
        """Return the errors of the energy per atom in eV."""
        keep = np.ones(self.frames, bool) if frames is None else frames
        atoms = np.diff(self.ptr)[keep]
        return Errors.of(self.energy[keep] / atoms, self.energy_predicted[keep] / atoms)

    def force_errors(self, atoms: NDArray[np.bool_] | None = None) -> Errors:
        """Return the errors of the force components in eV/Å."""
        keep = slice(None) if atoms is None else atoms
        return Errors.of(self.forces[keep].ravel(), self.forces_predicted[keep].ravel())

    def stress_errors(self, frames: NDArray[np.bool_] | None = None) -> Errors:
        """Return the errors of the stress components in eV/Å^3."""
        keep = slice(None) if frames is None else frames
        return Errors.of(self.stress[keep].ravel(), self.stress_predicted[keep].ravel())

    def select(self, by: str) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Yield name, frame mask and atom mask for every group, element or composition.

        Raises:
            ValueError: if ``by`` is none of these.
        """
        if by == "element":
            from ase.data import chemical_symbols

            for z in np.unique(self.numbers):
                atoms = self.numbers == z
                frames = np.zeros(self.frames, bool)
                frames[self.frame[atoms]] = True
                yield chemical_symbols[z], frames, atoms
            return
        if by != "group":
            raise ValueError(f"errors can be listed by 'group' or 'element', got '{by}'")
        for name in np.unique(self.group):
            frames = self.group == name
            yield str(name), frames, frames[self.frame]

    def save(self, path: Path) -> Path:
        """Write all arrays to one ``.npz`` file, without pickle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **{f.name: getattr(self, f.name) for f in fields(self)})
        return path

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{f.name: file[f.name] for f in fields(cls)})


def _packs(graphs: Sequence[AtomGraph], most: int) -> Iterator[list[AtomGraph]]:
    pack: list[AtomGraph] = []
    for graph in graphs:
        if pack and sum(g.num_atoms for g in pack) + graph.num_atoms > most:
            yield pack
            pack = []
        pack.append(graph)
    if pack:
        yield pack


def predict(
    potential: Potential,
    graphs: Sequence[AtomGraph],
    groups: Sequence[str] | None = None,
    *,
    most_atoms: int = 1000,
) -> Predictions:
    """Evaluate a potential on labelled structures.

    Args:
        potential: what is evaluated, in the mode it is in.
        graphs: one structure each, with or without labels.
        groups: a name for each structure.
        most_atoms: atoms evaluated at once.

    Raises:
        ValueError: if there is nothing to evaluate.
    """
    from equitorch.graph import AtomGraph

    if not len(graphs):
        raise ValueError("there is nothing to evaluate: the data set is empty")
    columns: dict[str, list[Array]] = {f.name: [] for f in fields(Predictions)}
    stress = any(graph.stress is not None for graph in graphs)
    for pack in _packs(graphs, most_atoms):
        edged = [
            g if g.cutoff is not None and g.cutoff >= potential.cutoff else g.with_edges(potential.cutoff)
            for g in pack
        ]
        batch = AtomGraph.batch(edged)
        out = potential(batch, forces=True, stress=stress)
        ours = {
            key: out[key].detach().cpu().double().numpy()
            for key in ("energy", "forces", "stress")
            if out.get(key) is not None
        }
        frames, atoms = batch.num_graphs, batch.num_atoms
        shapes = {"energy": (frames,), "forces": (atoms, 3), "stress": (frames, 3, 3)}
        for key, shape in shapes.items():
            label = getattr(batch, key)
            columns[key].append(
                np.full(shape, np.nan)
                if label is None
                else label.detach().cpu().double().numpy().reshape(shape)
            )
            columns[f"{key}_predicted"].append(
                ours[key].reshape(shape) if key in ours else np.full(shape, np.nan)
            )
    numbers = np.concatenate([g.atomic_numbers.cpu().numpy() for g in graphs])
    sizes = [g.num_atoms for g in graphs]
    stacked = {key: np.concatenate(values) for key, values in columns.items() if values}
    return Predictions(
        numbers=numbers,
        pos=np.concatenate([g.pos.detach().cpu().double().numpy() for g in graphs]),
        cell=np.concatenate([g.cell.detach().cpu().double().numpy() for g in graphs]),
        pbc=np.concatenate([g.pbc.cpu().numpy() for g in graphs]),
        ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        group=np.asarray(list(groups) if groups is not None else ["all"] * len(graphs), dtype=np.str_),
        **stacked,
    )
