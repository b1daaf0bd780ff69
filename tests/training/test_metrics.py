import math

import numpy as np
import pytest
import torch

from equitorch.training.loss import Residuals
from equitorch.training.metrics import Moments


def test_agrees_with_numpy_on_what_is_there():
    generator = torch.Generator().manual_seed(0)
    label = 5 + torch.randn(200, generator=generator)
    error, mask = 0.1 * torch.randn(200, generator=generator), torch.rand(200, generator=generator) > 0.2
    moments = Moments()
    for part in range(4):
        rows = slice(50 * part, 50 * part + 50)
        moments.add_residuals(Residuals(error[rows], label[rows], mask[rows]))
    e, y = error[mask].double().numpy(), label[mask].double().numpy()
    result = moments.result()
    assert result["count"] == mask.sum()
    assert result["mae"] == pytest.approx(np.abs(e).mean())
    assert result["rmse"] == pytest.approx(np.sqrt((e**2).mean()))
    assert result["r2"] == pytest.approx(1 - (e**2).sum() / ((y - y.mean()) ** 2).sum())


def test_keeps_bins_apart_and_adds_them_up():
    moments = Moments(3)
    bins = torch.tensor([0, 2, 2])
    moments.add(torch.tensor([1.0, 2.0, 4.0]), torch.zeros(3), torch.ones(3, dtype=torch.bool), bins)
    assert [moments.result(i)["count"] for i in range(3)] == [1, 0, 2]
    assert moments.result(2)["mae"] == 3.0
    assert math.isnan(moments.result(1)["mae"])
    assert moments.result()["count"] == 3


def test_says_nothing_of_r2_where_all_labels_are_equal():
    moments = Moments()
    moments.add(torch.ones(4), torch.full((4,), 3.0), torch.ones(4, dtype=torch.bool))
    assert math.isnan(moments.result()["r2"])


def test_sums_in_float64():
    moments = Moments()
    for _ in range(10):
        moments.add(torch.full((1000,), 0.1), torch.zeros(1000), torch.ones(1000, dtype=torch.bool))
    assert moments.result()["mae"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-13)
