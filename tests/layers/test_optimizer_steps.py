"""What optimizers write is noticed, by those as well that leave version counters alone."""

import pytest
import torch

from equitorch.layers.diagrams import DiagramLinear
from equitorch.layers.optimizer_steps import optimizer_steps


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}])
def test_counts_the_steps_of_every_optimizer(options):
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    before = optimizer_steps()
    for kind in (torch.optim.Adam, torch.optim.SGD):
        kind([weight], lr=0.1, **options).step()
    assert optimizer_steps() - before == 2


def test_fused_steps_leave_version_counters_alone():
    """If this fails, PyTorch has changed, and steps need not be counted any more."""
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad, version = torch.ones(3), weight._version
    torch.optim.Adam([weight], fused=True).step()
    assert weight._version == version


@pytest.mark.parametrize("backend", ["dense", "plan", "fused", "auto"])
def test_a_layer_is_evaluated_with_the_weights_after_a_fused_step(backend):
    layer = DiagramLinear.power("S", 4, 2, 2, 3, 5, backend=backend).double()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    x = torch.randn(6, 16, 3, dtype=torch.float64)
    layer(x).square().sum().backward()
    with torch.no_grad():
        layer(x)
        optimizer.step()
        torch.testing.assert_close(
            layer(x), torch.einsum("iojc,bjc->bio", layer.to_dense(), x) + layer.dense_bias()
        )
