"""What is kept of weights, and when it must not be used."""

import pytest
import torch
from torch.nn.utils import parametrize

from equitorch.layers.diagrams import DiagramLinear


@pytest.mark.parametrize("backend", ["dense", "fused", "auto"])
def test_what_is_kept_serves_outside_of_inference_mode(backend):
    layer = DiagramLinear.power("SO", 3, 2, 1, 2, 3, backend=backend).requires_grad_(False)
    x = torch.randn(4, 9, 2, requires_grad=True)
    with torch.inference_mode():
        expected = layer(x)
    y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y, expected.clone())


@pytest.mark.parametrize("backend", ["dense", "fused"])
def test_weights_in_the_memory_of_earlier_ones_are_others(backend):
    layer, x = DiagramLinear.power("SO", 3, 2, 1, 4, 4, bias=False, backend=backend), torch.randn(4, 9, 4)
    for _ in range(4):
        with torch.no_grad():
            layer(x)
            for weight in layer.parameters():
                shape, weight.data = weight.shape, torch.empty(0)
                weight.data = torch.randn(shape)
            expected = torch.einsum("iojc,bjc->bio", layer.to_dense(), x)
            torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("backend", ["dense", "plan", "fused", "auto"])
@pytest.mark.parametrize("case", [("S", 4, 2, 2), ("SO", 3, 2, 1), ("Sp", 4, 1, 1)])
def test_autocast_changes_neither_numbers_nor_dtype_nor_what_is_kept(backend, case):
    layer, x = DiagramLinear.power(*case, 4, 4, backend=backend), torch.randn(3, case[1] ** case[2], 4)
    expected = layer(x).detach()
    with torch.no_grad():
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                torch.testing.assert_close(layer(x), expected)
                assert layer(x.bfloat16()).dtype == torch.float32
            torch.testing.assert_close(layer(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("backend", ["dense", "plan", "fused", "auto"])
def test_weights_that_others_stand_for_are_looked_up_each_time(backend):
    class Twice(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    layer, x = DiagramLinear.power("S", 3, 2, 2, 2, 2, bias=False, backend=backend), torch.randn(4, 9, 2)
    for name in list(layer.weights):
        parametrize.register_parametrization(layer.weights, name, Twice())
    with torch.no_grad():
        before = layer(x)
        for parts in layer.weights.parametrizations.values():
            parts.original.mul_(3)
        torch.testing.assert_close(layer(x), 3 * before)
