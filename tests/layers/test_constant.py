"""equitorch/layers/constant.py"""

import copy

import pytest
import torch

from equitorch.layers import Constant
from equitorch.layers.constant import Indices

THIRD = torch.tensor([1 / 3], dtype=torch.float64)


def test_is_rounded_once():
    constant = Constant(THIRD)
    assert constant.value.dtype == torch.float32
    assert torch.equal(constant.bfloat16().float().double().value, THIRD)
    plain = torch.nn.Module()
    plain.register_buffer("value", THIRD)
    assert not torch.equal(plain.float().double().value, THIRD)  # what it is for


def test_is_no_weight():
    constant = torch.nn.Sequential(Constant(THIRD))
    assert not constant.state_dict()
    assert not list(constant.parameters())
    assert torch.equal(copy.deepcopy(constant).double()[0].value, THIRD)
    assert constant.to("meta").to_empty(device="cpu")[0].value.item() == pytest.approx(1 / 3)


def test_is_made_on_the_default_device():
    with torch.device("meta"):
        constant = Constant(THIRD)
    assert constant.value.is_meta
    assert constant.to_empty(device="cpu").value.item() == pytest.approx(1 / 3)


def test_indices_keep_their_type_and_values():
    indices = Indices(torch.tensor([3, 1]))
    assert indices.half().to("meta").to_empty(device="cpu").value.tolist() == [3, 1]
    assert indices.value.dtype == torch.int64
    assert not indices.state_dict()
