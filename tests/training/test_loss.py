import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.training.loss import Loss, Residuals, residuals


def test_is_the_weighted_sum_of_the_mean_squares():
    atoms = torch.tensor([2, 4])
    energy = residuals("energy", torch.tensor([3.0, 8.0]), torch.tensor([1.0, 4.0]), atoms)
    forces = residuals("forces", torch.zeros(6, 3), torch.ones(6, 3), atoms)
    loss = Loss({"energy": 2.0, "forces": 3.0}, {"forces": 2.0})
    errors = {"energy": energy, "forces": forces}
    assert energy.error.tolist() == [1.0, 1.0]
    assert loss.total(loss.sums(errors), loss.counts(errors)).item() == pytest.approx(2 * 1 + 3 / 4)


def test_a_missing_label_weighs_nothing_and_has_no_gradient():
    prediction = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    label = torch.tensor([0.0, math.nan, 1.0])
    loss = Loss({"energy": 1.0, "stress": 1.0})
    nothing = residuals("stress", torch.zeros(3, 3, 3), torch.full((3, 3, 3), math.nan), torch.ones(3))
    errors = {"energy": residuals("energy", prediction, label, torch.ones(3)), "stress": nothing}
    total = loss.total(loss.sums(errors), loss.counts(errors))
    total.backward()
    assert total.item() == pytest.approx((1 + 4) / 2)
    assert prediction.grad.tolist() == [1.0, 0.0, 2.0]
    assert loss.counts(errors).tolist() == [2, 0]


def test_a_prediction_that_is_no_number_is_seen():
    errors = {"energy": residuals("energy", torch.tensor([math.nan]), torch.tensor([1.0]), torch.ones(1))}
    loss = Loss({"energy": 1.0})
    assert math.isnan(loss.total(loss.sums(errors), loss.counts(errors)))


def test_huber_is_smooth_where_it_becomes_linear_and_agrees_with_pytorch():
    loss = Loss({"energy": 1.0}, kind="huber", delta=0.5)
    x = torch.linspace(-2, 2, 81, dtype=torch.float64)
    theirs = torch.nn.functional.huber_loss(x, torch.zeros_like(x), delta=0.5, reduction="none")
    torch.testing.assert_close(loss.pointwise(x), 2 * theirs)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=6), st.integers(0, 1000))
def test_is_the_same_for_a_batch_and_for_its_parts_added_up(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    loss = Loss({"forces": 1.0})
    parts = [
        Residuals(
            torch.randn(n, generator=generator), torch.zeros(n), torch.rand(n, generator=generator) > 0.3
        )
        for n in sizes
    ]
    parts = [Residuals(p.error * p.mask, p.label, p.mask) for p in parts]
    whole = Residuals(*(torch.cat([getattr(p, name) for p in parts]) for name in ("error", "label", "mask")))
    sums = sum(loss.sums({"forces": part}) for part in parts)
    counts = sum(loss.counts({"forces": part}) for part in parts)
    expected = loss.total(loss.sums({"forces": whole}), loss.counts({"forces": whole}))
    torch.testing.assert_close(loss.total(sums, counts), expected)
