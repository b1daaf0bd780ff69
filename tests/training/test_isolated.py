import torch

from equitorch.graph import AtomGraph
from equitorch.models import Potential, TensorNet
from equitorch.training.isolated import silence_isolated_atoms
from tests.training.toy import CUTOFF, Toy, frames


def test_isolated_atoms_get_nothing_and_others_what_they_had_but_little():
    torch.manual_seed(0)
    model = TensorNet(channels=16, layers=1, radial=8, cutoff=CUTOFF)
    potential = Potential(model, species=[1, 8]).double().eval()
    numbers = torch.tensor([1, 8])
    alone = AtomGraph.batch(
        [AtomGraph.build(z, torch.zeros(1, 3), cutoff=CUTOFF, dtype=torch.float64) for z in numbers[:, None]]
    )
    cluster = frames(1)[0].with_edges(CUTOFF)
    before = potential(cluster)["forces"]
    assert potential(alone)["energy"].abs().max() > 1e-3
    assert silence_isolated_atoms(potential)
    assert potential(alone)["energy"].abs().max() < 1e-12
    after = potential(cluster)["forces"]
    assert 0.1 * before.norm() < after.norm() < 10 * before.norm()


def test_leaves_models_alone_that_end_otherwise():
    potential = Potential(Toy(), species=[1, 8])
    before = [p.clone() for p in potential.parameters()]
    assert not silence_isolated_atoms(potential)
    assert all(torch.equal(a, b) for a, b in zip(before, potential.parameters(), strict=True))
