"""Frames kept in memory with their edges, in batches whose order is a function of seed and epoch alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from equitorch.datasets.kept import KeptGraphs
from equitorch.graph import AtomGraph
from equitorch.training.parallel import Processes
from equitorch.training.trainer import Batch


def automatic_size(frames: int, atoms: float) -> int:
    """Frames per step that suit a set: at least 100 steps an epoch where possible, 4 to 64, about 2000 atoms.

    >>> automatic_size(950, 21.0), automatic_size(50, 9.0), automatic_size(100_000, 500.0)
    (8, 4, 4)
    """
    wanted = min(64, max(4, frames // 100))
    size = 1 << (wanted.bit_length() - 1)
    while size > 1 and size * atoms > 2048:
        size //= 2
    return size


@dataclass
class GraphBatches:
    """A split in memory.

    A global batch of ``size`` frames times the number of processes is dealt out like cards: a step of W
    processes sees the frames that a step of one process with W times the size sees.

    Args:
        graphs: with edges, in the dtype of the model.
        size: frames per step and process.
        shuffle: draw a new order every epoch.
        seed: of the order.
        processes: those that share the frames.
        device: where batches go.
        names: of the frames, for messages.
        frame_groups: the group of each frame.
    """

    graphs: Sequence[AtomGraph]
    size: int
    shuffle: bool = False
    seed: int = 0
    processes: Processes = field(default_factory=Processes)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    names: Sequence[str] | None = None
    frame_groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        found = list(self.frame_groups or ["all"] * len(self.graphs))
        self._groups = sorted(set(found))
        index = {name: i for i, name in enumerate(self._groups)}
        self._group = [index[name] for name in found]
        self._kept: list[Batch] | None = None
        self._keeps = not self.shuffle and (not isinstance(self.graphs, KeptGraphs) or self.graphs.keeps)

    def __len__(self) -> int:
        step = self.size * self.processes.world
        return -(-len(self.graphs) // step)

    def shuffled(self, seed: int) -> "GraphBatches":
        """The same frames in a new order every epoch."""
        return replace(self, shuffle=True, seed=seed)

    def neighbours(self) -> float:
        """Edges per atom, of up to a hundred frames."""
        some = self.graphs[:: -(-len(self.graphs) // 100)]
        return sum(graph.num_edges for graph in some) / sum(graph.num_atoms for graph in some)

    @property
    def groups(self) -> Sequence[str]:
        """Names of the groups."""
        return self._groups

    def group(self, frame: int) -> int:
        """The group of a frame."""
        return self._group[frame]

    def name(self, frame: int) -> str:
        """What messages call a frame."""
        return self.names[frame] if self.names else f"#{frame}"

    def order(self, epoch: int) -> list[int]:
        """The frames in the order of an epoch, the same in every process."""
        if not self.shuffle:
            return list(range(len(self.graphs)))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.graphs), generator=generator).tolist()

    def epoch(self, number: int) -> Iterator[Batch]:
        """This process's share of every batch."""
        if self._kept is not None:
            yield from self._kept
            return
        kept, order = [], self.order(number)
        step = self.size * self.processes.world
        for start in range(0, len(order), step):
            frames = order[start : start + step][self.processes.rank :: self.processes.world]
            graph = None
            if frames:
                graph = AtomGraph.batch([self.graphs[i] for i in frames]).to(self.device, non_blocking=True)
            batch = Batch(graph, frames)
            if self._keeps:
                kept.append(batch)
            yield batch
        self._kept = kept if self._keeps else None
