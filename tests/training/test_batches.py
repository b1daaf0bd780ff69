import pytest
import torch

from equitorch.training.batches import GraphBatches, automatic_size
from equitorch.training.parallel import Processes
from tests.training.toy import CUTOFF, frames


def batches(count=10, size=4, **options):
    return GraphBatches([graph.with_edges(CUTOFF) for graph in frames(count)], size, **options)


def test_every_frame_comes_once():
    for size in (1, 3, 10, 99):
        data = batches(size=size, shuffle=True)
        steps = list(data.epoch(4))
        assert len(steps) == len(data)
        assert sorted(frame for step in steps for frame in step.frames) == list(range(10))
        assert sum(step.graph.num_graphs for step in steps) == 10


def test_processes_share_what_one_would_take_alone():
    alone = list(batches(11, 6, shuffle=True, seed=5).epoch(3))
    shares = [
        list(batches(11, 2, shuffle=True, seed=5, processes=Processes(r, 3)).epoch(3)) for r in range(3)
    ]
    for step, *parts in zip(alone, *shares, strict=True):
        assert sorted(step.frames) == sorted(frame for part in parts for frame in part.frames)
    empty = list(batches(7, 2, processes=Processes(2, 3)).epoch(0))[-1]
    assert (empty.graph, list(empty.frames)) == (None, [])


def test_a_batch_holds_the_frames_it_names():
    graphs = frames(6)
    for batch in batches(6, 4, shuffle=True).epoch(1):
        expected = torch.cat([graphs[i].energy for i in batch.frames])
        assert torch.equal(batch.graph.energy, expected)


def test_evaluation_batches_are_made_once():
    data = batches()
    assert all(a is b for a, b in zip(list(data.epoch(0)), data.epoch(1), strict=True))


@pytest.mark.parametrize(
    ("count", "atoms", "size"), [(10, 9, 4), (950, 21, 8), (5000, 20, 32), (10**6, 20, 64), (99, 3000, 1)]
)
def test_the_automatic_size_grows_with_the_data_and_shrinks_with_the_atoms(count, atoms, size):
    assert automatic_size(count, atoms) == size


def test_knows_groups_and_names():
    data = batches(3, frame_groups=["b", "a", "b"], names=["x", "y", "z"])
    assert list(data.groups) == ["a", "b"]
    assert [data.group(i) for i in range(3)] == [1, 0, 1]
    assert (data.name(1), batches(3).name(1)) == ("y", "#1")
