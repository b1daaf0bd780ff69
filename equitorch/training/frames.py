"""Labelled frames of one split: their statistics, their hash, and how files become splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equitorch.graph import AtomGraph
from equitorch.training.config import Data
from equitorch.training.config_reader import ConfigError, Problem
from equitorch.training.loss import LABELS


@dataclass
class Frames:
    """Frames without edges, in float64.

    Attributes:
        graphs: one structure each, with the labels it has.
        names: of the frames, for messages.
        groups: the group of each frame, such as its config_type.
        notes: what reading them brought up.
    """

    graphs: Sequence[AtomGraph]
    names: Sequence[str]
    groups: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def part(self, frames: Sequence[int]) -> "Frames":
        """Some of the frames."""
        graphs = [self.graphs[i] for i in frames]
        names, groups = ([values[i] for i in frames] for values in (self.names, self.groups))
        return Frames(graphs, names, groups, list(self.notes))

    def references(
        self, wanted: str | Mapping[str, float], species: Sequence[int]
    ) -> tuple[dict[int, float], list[str]]:
        """Energy of every element in eV, and how it was found."""
        counts = torch.stack(
            [torch.bincount(g.atomic_numbers, minlength=119)[list(species)] for g in self.graphs]
        )
        energy = torch.stack([g.energy[0].double() for g in self.graphs])
        solution = torch.linalg.lstsq(counts.double(), energy[:, None], driver="gelsd").solution[:, 0]
        return dict(zip(species, solution.tolist(), strict=True)), []

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def species(self) -> list[int]:
        """Atomic numbers, ascending."""
        found = [graph.atomic_numbers for graph in self.graphs]
        return torch.cat(found).unique().tolist() if found else []

    def values(self, name: str) -> Tensor:
        """All values of a label that are there, flat, float64."""
        found = [value.double().reshape(-1) for g in self.graphs if (value := getattr(g, name)) is not None]
        flat = torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
        return flat[~torch.isnan(flat)]

    def label_counts(self) -> dict[str, int]:
        """How many frames have each label."""
        return {
            name: sum(
                (label := getattr(graph, name)) is not None and not bool(torch.isnan(label).all())
                for graph in self.graphs
            )
            for name in LABELS
        }

    def energies_per_atom(self, references: Mapping[int, float]) -> Tensor:
        """(frames with an energy,) energies per atom less the reference energies, eV."""
        table = torch.zeros(119, dtype=torch.float64)
        for number, energy in references.items():
            table[number] = energy
        found = [
            (graph.energy.double() - table[graph.atomic_numbers].sum()) / graph.num_atoms
            for graph in self.graphs
            if graph.energy is not None
        ]
        flat = torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
        return flat[~torch.isnan(flat)]

    def digest(self) -> str:
        """Hash of structures and labels."""
        sha = hashlib.sha256()
        for graph in self.graphs:
            for value in (
                graph.atomic_numbers,
                graph.pos,
                graph.cell,
                graph.pbc,
                graph.charge,
                *self._labels(graph),
            ):
                sha.update(b"-" if value is None else value.contiguous().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()

    @staticmethod
    def _labels(graph: AtomGraph) -> list[Tensor | None]:
        return [graph.energy, graph.forces, graph.stress]


def read_splits(data: Data, *, seed: int) -> dict[str, Frames]:
    """Read the files of a config and deal their frames out to train, valid and test.

    Raises:
        ConfigError: when nothing is left to train on.
    """
    pool = _read(data.train, data)
    splits: dict[str, Frames] = {}
    for name in ("valid", "test"):
        wanted = getattr(data, name)
        if isinstance(wanted, str) and not wanted.endswith("%"):
            splits[name] = _read(wanted, data)
            continue
        count = round(len(pool) * float(wanted[:-1]) / 100) if isinstance(wanted, str) else int(wanted or 0)
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()
        splits[name] = pool.part(sorted(order[:count]))
        pool = pool.part(sorted(order[count:]))
    if not len(pool):
        raise ConfigError(
            [Problem("data.train", "no frame is left to train on; ask for less in data.valid and data.test")]
        )
    return {"train": pool, **splits}


def _read(files: str | list[str], data: Data) -> Frames:
    from ase.io import read

    graphs, names = [], []
    for file in [files] if isinstance(files, str) else files:
        for index, atoms in enumerate(read(file, ":")):
            graphs.append(AtomGraph.from_ase(atoms, dtype=torch.float64))
            names.append(f"{file}#{index}")
    return Frames(graphs, names, ["all"] * len(names))
