"""equitorch/ops/linear/"""

import pytest
import torch

from equitorch.ops.backend import use_reference
from equitorch.ops.linear import linear
from equitorch.ops.linear.op import _linear
from equitorch.ops.linear.reference import INPUT, OUTPUT, WEIGHT, Group, Layout
from equitorch.ops.linear.reference import linear as reference
from equitorch.ops.linear.strided import linear as strided

LAYOUTS = {
    "one copy": Layout(9, 3, 9, 4, [Group(0, 1, 0, 1, 1), Group(1, 1, 1, 1, 3), Group(4, 1, 4, 1, 5)]),
    "copies": Layout(11, 2, 13, 5, [Group(0, 2, 9, 4, 1), Group(2, 3, 0, 3, 3)]),
    "fewer and more": Layout(7, 3, 8, 2, [Group(1, 2, 2, 1, 3), Group(0, 1, 0, 2, 1)]),
    "rows without partners": Layout(9, 2, 10, 3, [Group(4, 1, 3, 1, 5)]),
    "nothing in common": Layout(3, 2, 4, 3, []),
}


def slots(layout, points, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(points, layout.rows_in, layout.channels_in, dtype=dtype)
    weight = torch.randn(layout.weights, dtype=dtype)
    return [x, weight, torch.randn(points, layout.rows_out, layout.channels_out, dtype=dtype)]


def test_means_a_matrix_product():
    layout = Layout(4, 3, 4, 5, [Group(0, 1, 0, 1, 1), Group(1, 1, 1, 1, 3)])
    x, weight, _ = slots(layout, 6)
    y = linear(x, weight, layout)
    torch.testing.assert_close(y[:, :1], x[:, :1] @ weight[:15].view(3, 5))
    torch.testing.assert_close(y[:, 1:], x[:, 1:] @ weight[15:].view(3, 5))


@pytest.mark.parametrize("points", [0, 1, 3, 129])
@pytest.mark.parametrize("open_slot", [INPUT, WEIGHT, OUTPUT])
@pytest.mark.parametrize("name", LAYOUTS)
def test_kernel_agrees_with_the_reference(name, open_slot, points):
    layout = LAYOUTS[name]
    for dtype in (torch.float32, torch.float64):
        operands = slots(layout, points, dtype)
        del operands[open_slot]
        expected = reference(open_slot, operands, [], layout.sizes())
        torch.testing.assert_close(strided(open_slot, operands, [], layout.sizes()), expected)
        scattered = [torch.stack([o, o], -1)[..., 0] for o in operands]
        torch.testing.assert_close(strided(open_slot, scattered, [], layout.sizes()), expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_has_right_derivatives(name):
    layout = LAYOUTS[name]
    x, weight, _ = slots(layout, 2)
    operands = [x.requires_grad_(), weight.requires_grad_()]
    assert torch.autograd.gradcheck(lambda *a: linear(*a, layout), operands)
    if layout.groups:
        assert torch.autograd.gradgradcheck(lambda *a: linear(*a, layout), operands)


@pytest.mark.parametrize("open_slot", [INPUT, WEIGHT, OUTPUT])
def test_registered_operator(open_slot):
    layout = LAYOUTS["copies"]
    operands = slots(layout, 3)
    del operands[open_slot]
    operands = [operand.requires_grad_() for operand in operands]
    torch.library.opcheck(_linear.op, (operands, open_slot, [], layout.sizes()))


def test_maps_over_a_batch():
    layout = LAYOUTS["copies"]
    x, weight, _ = slots(layout, 4)
    y = torch.func.vmap(lambda row: linear(row[None], weight, layout)[0])(x)
    torch.testing.assert_close(y, linear(x, weight, layout))
    with use_reference():
        torch.testing.assert_close(linear(x, weight, layout), y)


def test_says_what_it_expected():
    layout = LAYOUTS["one copy"]
    with pytest.raises(
        ValueError, match=r"x of shape \(points, 9, 3\) and 36 weights, got \(2, 8, 3\) and \(36,\)"
    ):
        linear(torch.ones(2, 8, 3), torch.ones(36), layout)
