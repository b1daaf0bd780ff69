import math

import pytest
import torch
from torch import nn

from equitorch.training.config import Schedule, Train
from equitorch.training.optimizer import LearningRate, averaged, build_optimizer, clip_gradients


def test_cosine_starts_at_the_base_and_ends_at_the_floor():
    rate = LearningRate(1e-3, 0, 100, Schedule(name="cosine", min_lr=1e-5))
    assert rate.at(0) == pytest.approx(1e-3)
    assert rate.at(50) == pytest.approx((1e-3 + 1e-5) / 2)
    assert rate.at(100) == rate.at(1000) == pytest.approx(1e-5)


def test_warms_up_linearly():
    rate = LearningRate(1.0, 10, 100, Schedule(name="constant"))
    assert [rate.at(step) for step in (0, 4, 9, 50)] == [0.1, 0.5, 1.0, 1.0]


def test_a_short_cosine_has_a_short_warm_up():
    rate = LearningRate(1.0, 500, 100, Schedule(name="cosine", min_lr=0.0))
    assert rate.at(4) == pytest.approx(0.5, rel=0.01)
    assert max(rate.at(step) for step in range(100)) > 0.97


def test_plateau_agrees_with_pytorch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0.0, min_lr=0.1
    )
    ours = LearningRate(1.0, 0, 1, Schedule(name="plateau", factor=0.5, patience=2, min_lr=0.1))
    for loss in [5, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]:
        theirs.step(float(loss))
        ours.epoch_ended(float(loss))
        assert ours.at(0) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_plateau_counts_no_number_as_no_progress():
    rate = LearningRate(1.0, 0, 1, Schedule(name="plateau", factor=0.5, patience=0))
    rate.epoch_ended(1.0)
    rate.epoch_ended(math.nan)
    assert rate.at(0) == 0.5
    assert rate.best == 1.0


def test_continues_from_its_state():
    rate = LearningRate(1.0, 0, 1, Schedule(name="plateau"), reduction=0.3, best=2.0, bad_epochs=4)
    other = LearningRate(1.0, 0, 1, Schedule(name="plateau"))
    other.load(rate.state())
    assert other == rate


def test_decays_matrices_only():
    optimizer = build_optimizer(nn.Linear(3, 2), Train(weight_decay=0.1))
    assert [(g["params"][0].ndim, g["weight_decay"]) for g in optimizer.param_groups] == [(2, 0.1), (1, 0.0)]


def test_average_follows_a_formula_and_starts_as_a_copy():
    model = nn.Linear(1, 1, bias=False).double()
    average = averaged(model, 0.9)
    torch.testing.assert_close(average.module.weight, model.weight)
    expected = None
    for step in range(200):
        model.weight.data.fill_(float(step))
        average.update_parameters(model)
        keep = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else keep * expected + (1 - keep) * step
    assert average.module.weight.item() == pytest.approx(expected)


def test_no_average_is_the_model_itself():
    model = nn.Linear(2, 2)
    average = averaged(model, 0.0)
    for _ in range(3):
        model.weight.data.normal_()
        average.update_parameters(model)
    assert torch.equal(average.module.weight, model.weight)


def test_clips_to_the_norm_and_leaves_small_gradients_alone():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 10.0).item() == 5.0
    assert parameters[0].grad.tolist() == [3.0, 0.0]
    clip_gradients(parameters, 1.0)
    assert parameters[0].grad.norm() == pytest.approx(0.6)
    assert parameters[2].grad is None
