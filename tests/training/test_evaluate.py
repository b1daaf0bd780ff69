import math

import numpy as np
import pytest
import torch

from equitorch.graph import AtomGraph
from equitorch.models.potential import Potential
from equitorch.training.batches import GraphBatches
from equitorch.training.evaluate import evaluate
from tests.training.toy import CUTOFF, Toy, frames


@pytest.fixture
def potential():
    torch.manual_seed(0)
    return Potential(Toy(), species=[1, 8], reference_energies={1: -10.0, 8: -80.0}).double()


def test_agrees_with_numpy_on_one_batch_of_everything(potential):
    graphs = [graph.with_edges(CUTOFF) for graph in frames(9)]
    table = evaluate(potential, GraphBatches(graphs, 4))
    whole = AtomGraph.batch(graphs)
    output = potential(whole)
    force = (output["forces"] - whole.forces).numpy()
    energy = (output["energy"] - whole.energy).numpy()
    atoms = whole.ptr.diff().numpy()
    found = table.overall()
    assert found["forces"]["mae"] == pytest.approx(np.abs(force).mean())
    assert found["forces"]["count"] == force.size
    assert found["energy"]["rmse"] == pytest.approx(np.sqrt(((energy / atoms) ** 2).mean()))
    assert found["energy_total"]["mae"] == pytest.approx(np.abs(energy).mean())
    oxygen = whole.atomic_numbers.numpy() == 8
    (row,) = [row for row in table.rows("test") if row["part"] == "element O"]
    assert row["mae"] == pytest.approx(np.abs(force[oxygen]).mean())
    assert "stress" not in found


def test_tells_groups_apart_and_counts_labels_only(potential):
    graphs = frames(6)
    graphs[0] = graphs[0].replace(energy=None)
    graphs[1] = graphs[1].replace(forces=torch.full_like(graphs[1].forces, math.nan))
    names = ["hot", "cold", "hot", "cold", "cold", "cold"]
    data = GraphBatches([g.with_edges(CUTOFF) for g in graphs], 2, frame_groups=names)
    rows = {(row["quantity"], row["part"]): row for row in evaluate(potential, data).rows("test")}
    assert rows["energy", "all"]["count"] == 5
    assert rows["energy", "group hot"]["count"] == 1
    assert rows["forces", "group cold"]["count"] == 3 * sum(graphs[i].num_atoms for i in (3, 4, 5))
    cold = GraphBatches([graphs[i].with_edges(CUTOFF) for i in (3, 4, 5)], 3)
    assert rows["forces", "group cold"]["mae"] == pytest.approx(
        evaluate(potential, cold).overall()["forces"]["mae"]
    )


def test_the_batch_size_does_not_matter(potential):
    graphs = [graph.with_edges(CUTOFF) for graph in frames(7)]
    one, seven = (evaluate(potential, GraphBatches(graphs, size)).overall() for size in (1, 7))
    for quantity, result in one.items():
        assert result == pytest.approx(seven[quantity], rel=1e-12)
