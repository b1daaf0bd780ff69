"""Loader: batches of atom graphs in an order that depends on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from equitorch.datasets.dataset import AtomDataset
from equitorch.graph import AtomGraph


class Loader:
    """Batches of a data set, an epoch at a time; the same seed and epoch give the same batches, always.

    Neighbour lists are made when a frame is first used and kept.

    Args:
        dataset: what is loaded.
        cutoff: of the edges, Angstrom.
        batch_size: graphs per batch; the last batch may be smaller.
        max_atoms: atoms per batch, in place of ``batch_size``; a larger frame is a batch of its own.
        shuffle: whether each epoch has its own order.
        seed: of that order.
        dtype: of positions and edges; default: torch's default dtype.
        keep: whether graphs stay in memory once they are made.
        rank: which part of each epoch this process loads, of ``world_size``; all load equally many batches.
        world_size: how many processes there are.

    >>> import ase
    >>> loader = Loader(AtomDataset.from_ase([ase.Atoms("H")] * 5), cutoff=5.0, batch_size=2, seed=1)
    >>> [batch.num_graphs for batch in loader], loader.epoch
    ([2, 2, 1], 1)
    """

    def __init__(
        self,
        dataset: AtomDataset,
        *,
        cutoff: float,
        batch_size: int | None = None,
        max_atoms: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        keep: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        size = batch_size if max_atoms is None else max_atoms
        if size is None or (batch_size is not None and max_atoms is not None):
            got = "neither" if size is None else "both"
            raise ValueError(f"Loader expects either batch_size or max_atoms, got {got}")
        if size < 1:
            raise ValueError(f"Loader expects at least 1 in a batch, got {size}")
        if len(dataset) == 0:
            raise ValueError("Loader expects at least one frame, got an empty data set")
        self.dataset, self.cutoff, self.dtype = dataset, cutoff, dtype
        self.batch_size, self.max_atoms = batch_size, max_atoms
        self.shuffle, self.seed, self.keep = shuffle, seed, keep
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._graphs: dict[int, AtomGraph] = {}

    def __len__(self) -> int:
        return len(self.batches())

    def __iter__(self) -> Iterator[AtomGraph]:
        """The batches of this epoch; the epoch is over, and counted, when the last one has been used."""
        for members in self.batches():
            yield AtomGraph.batch([self.graph(index) for index in members])
        self.epoch += 1

    def graph(self, index: int) -> AtomGraph:
        """One frame with its edges."""
        if index in self._graphs:
            return self._graphs[index]
        graph = self.dataset.graph(index, cutoff=self.cutoff, dtype=self.dtype)
        if self.keep:
            self._graphs[index] = graph
        return graph

    def batches(self) -> list[list[int]]:
        """The frames of each batch of this epoch, for this process."""
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        every = self._by_count(order) if self.batch_size is not None else self._by_atoms(order)
        surplus = -len(every) % self.world_size
        every += [every[k % len(every)] for k in range(surplus)]
        return every[self.rank :: self.world_size]

    def state_dict(self) -> dict[str, int]:
        """What continues the run at the beginning of this epoch."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to the epoch, and the seed, that ``state_dict`` gave."""
        self.seed, self.epoch = state["seed"], state["epoch"]

    def _by_count(self, order: np.ndarray) -> list[list[int]]:
        assert self.batch_size is not None, "checked at construction"
        starts = range(0, len(order), self.batch_size)
        return [order[start : start + self.batch_size].tolist() for start in starts]

    def _by_atoms(self, order: np.ndarray) -> list[list[int]]:
        assert self.max_atoms is not None, "checked at construction"
        every: list[list[int]] = [[]]
        filled = 0
        for index in order.tolist():
            atoms = int(self.dataset.sizes[index])
            if every[-1] and filled + atoms > self.max_atoms:
                every.append([])
                filled = 0
            every[-1].append(index)
            filled += atoms
        return every
