"""A neighbour list that is kept while atoms move little: what molecular dynamics and relaxations need."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from equitorch.graph.atom_graph import AtomGraph
from equitorch.graph.labels import read_charge
from equitorch.graph.neighbors import Edges


class NeighborList:
    r"""The edges of a structure that moves, exact at every step, searched for anew only now and then.

    Candidates within ``cutoff + skin`` are kept until an atom has moved by more than skin / 2, or the cell,
    the periodicity or the atoms themselves have changed. Each update measures the candidates and drops those
    beyond the cutoff, so that the graph is the one a fresh search would give, up to the order of edges.

    Args:
        cutoff: Angstrom.
        skin: Angstrom; 0 searches at every update.
        dtype: of the graphs; default: torch's default dtype.
        device: of the graphs and of the search.

    >>> import ase
    >>> neighbors = NeighborList(3.0)
    >>> atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]])
    >>> for _ in range(5):
    ...     atoms.rattle(0.01)
    ...     graph = neighbors.update(atoms)
    >>> graph.num_edges, neighbors.searches
    (2, 1)
    """

    def __init__(
        self,
        cutoff: float,
        skin: float = 0.5,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not skin >= 0:
            raise ValueError(f"NeighborList expects a skin of at least 0 Angstrom, got {skin!r}")
        self.cutoff, self.skin, self.dtype, self.device = (
            float(cutoff),
            float(skin),
            dtype,
            torch.device(device),
        )
        self.searches = self.updates = 0
        self._kept: AtomGraph | None = None
        self._signature: tuple[bytes, ...] = ()
        self._searched_at = np.empty((0, 3))

    def update(self, atoms: Any) -> AtomGraph:
        """The graph of the atoms as they are now, without labels.

        Args:
            atoms: an ``ase.Atoms``.

        Raises:
            ValueError: as ``AtomGraph.from_ase``.
        """
        self.updates += 1
        if not self._still_valid(atoms):
            self._search(atoms)
        assert self._kept is not None, "a search sets it"
        pos = torch.from_numpy(np.array(atoms.positions)).to(self.device)
        charge = read_charge(atoms)
        graph = self._kept.replace(
            pos=pos, charge=None if charge is None else pos.new_tensor([charge]), cutoff=self.cutoff
        )
        edges = within(graph, self.cutoff)
        graph = graph.replace(**edges._asdict())
        return graph.to(dtype=self.dtype or torch.get_default_dtype())

    def _still_valid(self, atoms: Any) -> bool:
        """Whether every pair now within the cutoff is among the candidates."""
        if self._kept is None or self._signature != _signature(atoms):
            return False
        moved = atoms.positions - self._searched_at
        return bool(np.einsum("ij,ij->i", moved, moved).max() <= (self.skin / 2) ** 2)

    def _search(self, atoms: Any) -> None:
        """Find the candidates within cutoff + skin."""
        self._kept = None
        graph = AtomGraph.from_ase(
            atoms, self.cutoff + self.skin, dtype=torch.float64, device=self.device, labels=False
        )
        self._kept, self._signature = graph, _signature(atoms)
        self._searched_at = np.array(atoms.positions)
        self.searches += 1


def within(graph: AtomGraph, cutoff: float) -> Edges:
    """The edges of a graph that are shorter than a cutoff, in their order, reverses still paired.

    >>> line = AtomGraph.build([1, 1, 1], [[0, 0, 0], [1, 0, 0], [3, 0, 0]], cutoff=5.0)
    >>> within(line, 1.5).edge_index.tolist()
    [[1, 0], [0, 1]]
    """
    vectors = graph.edge_vectors().detach()
    near = torch.linalg.vector_norm(vectors, dim=1) < cutoff  # the same for both directions: signs are exact
    kept = near.nonzero().squeeze(1)
    reverse: Tensor | None = graph.edge_reverse
    assert reverse is not None, "a neighbour list pairs its edges"
    place = torch.cumsum(near, 0) - 1
    return Edges(graph.edge_index[:, kept], graph.edge_shift[kept], place[reverse[kept]])


def _signature(atoms: Any) -> tuple[bytes, ...]:
    """Everything but the positions that a search depends on."""
    return atoms.numbers.tobytes(), atoms.cell.array.tobytes(), atoms.pbc.tobytes()
