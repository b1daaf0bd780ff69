"""Frames with their edges, each made when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch

from equitorch.datasets.dataset import AtomDataset
from equitorch.graph import AtomGraph

_KEPT_ATOMS = 500_000  # a set with more atoms makes its edges anew each time


class KeptGraphs(Sequence[AtomGraph]):
    """The frames of a data set with edges, each made when it is first used; small sets stay in memory.

    PyTorch's own loader takes it as it is.

    Args:
        data: the frames.
        cutoff: of the edges, Å.
        dtype: of positions and edges; default: torch's default dtype.

    >>> import ase
    >>> from torch.utils.data import DataLoader
    >>> graphs = KeptGraphs(AtomDataset.from_ase([ase.Atoms("H")] * 5), cutoff=5.0)
    >>> [batch.num_graphs for batch in DataLoader(graphs, batch_size=2, collate_fn=AtomGraph.batch)]
    [2, 2, 1]
    """

    def __init__(self, data: AtomDataset, cutoff: float, dtype: torch.dtype | None = None) -> None:
        self.data, self.cutoff, self.dtype = data, cutoff, dtype
        self.keeps = int(data.sizes.sum()) <= _KEPT_ATOMS
        self._made: dict[int, AtomGraph] = {}

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, index: int) -> AtomGraph: ...
    @overload
    def __getitem__(self, index: slice) -> list[AtomGraph]: ...
    def __getitem__(self, index: int | slice) -> AtomGraph | list[AtomGraph]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index in self._made:
            return self._made[index]
        graph = self.data.graph(index, cutoff=self.cutoff, dtype=self.dtype)
        if self.keeps:
            self._made[index] = graph
        return graph
