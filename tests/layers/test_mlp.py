"""equitorch/layers/mlp.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import MLP, FullyConnectedNet
from tests.strategies import random, seeds


def test_means_affine_maps_with_an_activation_between():
    mlp = MLP([3, 5, 2], torch.tanh)
    x = torch.randn(4, 3)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in mlp.layers)
    expected = torch.tanh(x @ w1.T + b1) @ w2.T + b2
    torch.testing.assert_close(mlp(x), expected)
    mlp.activate_last = True
    torch.testing.assert_close(mlp(x), torch.tanh(expected))
    assert MLP([3, 5], bias=False).layers[0].bias is None


@pytest.mark.parametrize("act", ["silu", "tanh", None])
@pytest.mark.parametrize("out_act", [True, False])
def test_agrees_with_e3nn_and_loads_its_weights(act, out_act):
    nn = pytest.importorskip("e3nn.nn")
    options = {"variance_in": 2, "variance_out": 3, "out_act": out_act}
    functions = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, None: None}
    if act is None and out_act:
        return
    theirs = nn.FullyConnectedNet([4, 8, 6, 3], functions[act], **options).double()
    ours = FullyConnectedNet([4, 8, 6, 3], act, **options).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(10, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_keeps_unit_variance():
    torch.manual_seed(0)
    y = FullyConnectedNet([64, 256, 256, 64], "silu", variance_out=4.0)(torch.randn(512, 64))
    assert y.square().mean().item() == pytest.approx(4.0, rel=0.1)
    plain = MLP([64, 256, 256, 64])(torch.randn(512, 64))  # the check can fail: default weights shrink
    assert plain.square().mean().item() < 0.5


def test_compiles_and_differentiates():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for net in (MLP([4, 3, 2]).double(), FullyConnectedNet([4, 3, 2], "silu").double()):
        torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), net(x))
        assert torch.autograd.gradgradcheck(net, x)
        assert net(x[:0]).shape == (0, 2)


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"MLP\(\[4, 8, 1\]\) expects x of shape \(\.\.\., 4\), got \(2, 3\)"
    ):
        MLP([4, 8, 1])(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"at least two sizes, input and output, got \[4\]"):
        MLP([4])
    with pytest.raises(ValueError, match=r"got 'sulu'"):
        MLP([4, 1], "sulu")
    assert math.isfinite(FullyConnectedNet([2, 2])(torch.ones(2)).sum().item())


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.sampled_from([torch.nn.functional.silu, torch.sin, torch.tanh]),
    st.floats(0.1, 5),
    st.floats(0.1, 5),
    st.booleans(),
    seeds,
)
def test_is_e3nns_fully_connected_net(hs, act, variance_in, variance_out, out_act, seed):
    nn = pytest.importorskip("e3nn.nn")
    theirs = nn.FullyConnectedNet(hs, act, variance_in, variance_out, out_act).double()
    ours = FullyConnectedNet(hs, act, variance_in, variance_out, out_act).double()
    ours.load_state_dict(theirs.state_dict())
    x = random(seed, 2, 3, hs[0])
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-11, atol=1e-11)
    theirs.load_state_dict(ours.state_dict())


def test_takes_the_exact_constant_where_asked():
    x = torch.randn(5, 2, dtype=torch.float64)
    net = FullyConnectedNet([2, 1], "relu", out_act=True, e3nn_compat=False).double()
    expected = (x @ net.layer0.weight / 2**0.5).relu() * 2**0.5
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=0)
