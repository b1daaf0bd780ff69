import math

import pytest
import torch

from equitorch.graph import AtomGraph
from equitorch.models.potential import Potential
from equitorch.training.batches import GraphBatches
from equitorch.training.config import Train
from equitorch.training.loss import Loss
from equitorch.training.run import DivergedError
from equitorch.training.trainer import Trainer
from tests.training.toy import CUTOFF, Toy, frames


def batches(graphs, size=4, **options):
    return GraphBatches([graph.with_edges(CUTOFF) for graph in graphs], size, **options)


def trainer(settings=None, **loss):
    torch.manual_seed(0)
    potential = Potential(Toy(), species=[1, 8], reference_energies={1: -10.0, 8: -80.0}).double()
    weights = loss or {"energy": 1.0, "forces": 1.0}
    settings = settings or Train(lr=0.01, warmup=0, precision="float64", clip=None, ema=0.0)
    return Trainer(potential, Loss(weights), settings, steps=100)


def test_learns():
    run, data = trainer(), batches(frames(12), shuffle=True)
    first = run.epoch(data, 0)
    for number in range(1, 100):
        last = run.epoch(data, number)
    assert last["train_loss"] < 0.3 * first["train_loss"]
    assert run.validate(data)["valid_forces_mae"] < first["train_forces_mae"]


def test_the_gradient_of_the_weights_is_that_of_the_loss():
    run, graph = trainer(), AtomGraph.batch([g.with_edges(CUTOFF) for g in frames(3)])
    _, sums, counts = run._predict(run.potential.train(), (batch := next(batches(frames(3)).epoch(0))))
    total = run.loss.total(sums, counts)
    output = run.potential(graph)
    energy = ((output["energy"] - graph.energy) / graph.ptr.diff()).square().mean()
    expected = energy + (output["forces"] - graph.forces).square().mean()
    torch.testing.assert_close(total, expected)
    weight = run.potential.model.first.weight
    (gradient,) = torch.autograd.grad(total, weight)
    step, shift = 1e-6, torch.randn_like(weight)
    values = []
    for sign in (1, -1):
        weight.data += sign * step * shift
        values.append(run.loss.total(*run._predict(run.potential, batch)[1:]).item())
        weight.data -= sign * step * shift
    assert (gradient * shift).sum().item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


def test_energies_of_ten_thousand_ev_lose_no_digit_in_float32():
    graphs = [g.replace(energy=g.energy - 1e6).with_edges(CUTOFF).to(dtype=torch.float32) for g in frames(6)]
    potential = Potential(Toy(), species=[1, 8], reference_energies={1: -10.0, 8: -80.0}, shift=0.0)
    potential.offset.fill_(-1e6)
    row = Trainer(potential, Loss({"energy": 1.0}), Train(), steps=1).validate(GraphBatches(graphs, 6))
    potential.offset.fill_(0.0)
    other = [g.replace(energy=g.energy + 1e6) for g in graphs]
    near = Trainer(potential, Loss({"energy": 1.0}), Train(), steps=1).validate(GraphBatches(other, 6))
    assert row["valid_energy_mae"] == pytest.approx(near["valid_energy_mae"], rel=1e-7)


def test_frames_without_a_label_are_not_counted():
    graphs = frames(6)
    some = [g if i % 2 else g.replace(forces=None) for i, g in enumerate(graphs)]
    table = trainer().validate(batches(some, size=6))
    expected = trainer().validate(batches(graphs[1::2], size=6))
    assert table["valid_forces_mae"] == pytest.approx(expected["valid_forces_mae"])
    assert table["valid_energy_mae"] != pytest.approx(expected["valid_energy_mae"])


def test_skips_a_loss_that_is_no_number_and_names_the_frame_at_the_third():
    graphs = frames(8)
    graphs[5] = graphs[5].replace(energy=torch.tensor([math.inf], dtype=torch.float64))
    data = batches(graphs, size=4, names=[f"a.xyz#{i}" for i in range(8)])
    run = trainer()
    before = {name: value.clone() for name, value in run.potential.state_dict().items()}
    row = run.epoch(data, 0)
    assert math.isfinite(row["train_loss"])
    assert run.bad_frames == ["a.xyz#5"]
    assert any(not torch.equal(before[name], value) for name, value in run.potential.state_dict().items())
    run.epoch(data, 1)
    with pytest.raises(
        DivergedError, match=r"not a number 3 times, in the frames a\.xyz#5; a\.xyz#5; a\.xyz#5; look at"
    ):
        run.epoch(data, 2)
    assert all(value.isfinite().all() for value in run.evaluated.state_dict().values())


def test_names_many_bad_frames_in_few_words():
    graphs = [g.replace(energy=torch.tensor([math.inf], dtype=torch.float64)) for g in frames(12)]
    names = [f"/long/way/to/train_300K.xyz #{i}" for i in range(11)] + ["b.xyz #3"]
    data, run = batches(graphs, size=12, names=names), trainer()
    run.epoch(data, 0)
    assert run.bad_frames == ["train_300K.xyz #0, #1, … (11 frames), b.xyz #3"]


def test_a_bad_step_leaves_weights_and_moments_alone():
    run, data = trainer(), batches(frames(4))
    run.epoch(data, 0)
    state = run.state()
    bad = [g.replace(forces=torch.full_like(g.forces, math.inf)) for g in frames(4)]
    run.epoch(batches(bad), 1)
    for name, value in run.state().tensors.items():
        assert torch.equal(value, state.tensors[name]), name


def test_continues_bit_for_bit_from_its_state():
    settings = Train(lr=0.01, warmup=3, precision="float64", ema=0.9)
    data = batches(frames(10), shuffle=True, seed=3)
    straight, first, second = (trainer(settings) for _ in range(3))
    for number in range(4):
        straight.epoch(data, number)
    for number in range(2):
        first.epoch(data, number)
    torch.manual_seed(99)
    second.load(first.state())
    for number in range(2, 4):
        second.epoch(data, number)
    expected, found = straight.state(), second.state()
    assert expected.values == found.values
    assert expected.tensors.keys() == found.tensors.keys()
    for name, value in expected.tensors.items():
        if not name.startswith("random"):
            assert torch.equal(value, found.tensors[name]), name


def test_the_order_of_frames_depends_on_seed_and_epoch_only():
    data = batches(frames(10), shuffle=True, seed=1)
    orders = [data.order(0), data.order(1), batches(frames(10), shuffle=True, seed=2).order(0)]
    assert data.order(0) == orders[0]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(10)) for order in orders)
