"""equitorch/layers/stacks.py"""

import pytest
import torch

from equitorch.layers import PerStack, degree_linear
from equitorch.layers.stacks import stack_irreps, stacks, uniform_linear
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant


def both(layer):
    """A layer of two stacks as a function of the two."""

    def function(natural, pseudo):
        y = layer(torch.cat([natural, pseudo], dim=-1))
        return list(y.split([3, y.shape[-1] - 3], dim=-1))

    return function


def test_linear_keeps_stacks_apart_and_the_mirror():
    torch.manual_seed(0)
    layer = degree_linear(3, (4, 2), (3, 5), parity="both").double()
    irreps = stack_irreps(3, "both")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert_equivariant(both(layer), irreps, irreps, channels=[4, 2])
    assert [name for name, _ in layer.named_parameters() if "bias" in name] == ["natural.bias"]


def test_linear_starts_uniform():
    torch.manual_seed(0)
    x = torch.randn(2000, 9, 64)
    y = degree_linear(2, 64, 32)(x)
    torch.testing.assert_close(y.var(), torch.tensor(1 / 3), rtol=0.05, atol=0)
    assert uniform_linear(64, 32).weight.abs().max() <= 1 / 8


def test_stacks_and_their_irreps():
    assert stack_irreps(2, "natural") == [Irreps("0e+1o+2e")]
    assert stack_irreps(2, "so3") == [Irreps("0+1+2")]
    assert stack_irreps(2, "both")[1] == Irreps("0o+1e+2o")
    assert stacks([4, 0], "both") == (4, 0)


def test_the_check_can_fail():
    layer = PerStack([torch.nn.Identity(), lambda_module(lambda x: x + 1)], (3, 2))
    irreps = stack_irreps(1, "both")
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(both(layer), irreps, irreps, channels=[3, 2])


def lambda_module(function):
    module = torch.nn.Module()
    module.forward = function
    return module


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="parity expects one of natural, both, so3, got 'even'"):
        stacks(3, "even")
    with pytest.raises(ValueError, match=r"parity 'both' expects channels as a pair of numbers.* got 3"):
        stacks(3, "both")
    with pytest.raises(ValueError, match=r"parity 'natural' expects channels as one number, got \(3, 2\)"):
        stacks((3, 2), "natural")
    with pytest.raises(ValueError, match=r"PerStack expects 3 \+ 2 channels, got 4"):
        PerStack([torch.nn.Identity(), torch.nn.Identity()], (3, 2))(torch.ones(1, 4))
