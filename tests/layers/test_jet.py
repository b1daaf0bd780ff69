"""equitorch/layers/jet.py"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from equitorch.layers import MLP, CosineCutoff, ExpNormBasis, GaussianBasis
from equitorch.layers.activation import ACTIVATIONS
from equitorch.layers.jet import along, jet

SMOOTH = ("silu", "tanh", "sigmoid", "softplus", "ssp", "ssp_float32")


def curve(orders, points=7, features=5, seed=0):
    return torch.randn(orders, points, features, generator=torch.Generator().manual_seed(seed)).double()


def by_jacobians(module, x):
    """The derivatives of t -> module(x(t)) by reverse differentiation, one after the other."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    point = sum(t**k / math.factorial(k) * x[k] for k in range(len(x)))
    rows = []
    for y in module(point).reshape(-1):
        row = [y]
        for _ in range(len(x) - 1):
            (y,) = torch.autograd.grad(y, t, create_graph=True, materialize_grads=True)
            row.append(y)
        rows.append(torch.stack(row))
    return torch.stack(rows, dim=1).reshape(len(x), *module(point).shape).detach()


@pytest.mark.parametrize("orders", [1, 2, 3, 4])
@pytest.mark.parametrize("name", SMOOTH)
def test_is_the_chain_rule(name, orders):
    function = torch.nn.Sequential(nn.Linear(5, 4).double(), MLP([4, 6, 3], name).double())
    x = curve(orders, points=3)
    torch.testing.assert_close(jet(function, x), by_jacobians(function, x), rtol=1e-11, atol=1e-11)


def test_knows_polynomials():
    x = torch.tensor([[2.0], [3.0], [5.0], [7.0]]).double()  # x, x', x'', x'''
    cube = jet(lambda y: y**3, x)
    expected = [8.0, 3 * 4 * 3, 6 * 2 * 9 + 3 * 4 * 5, 6 * 27 + 18 * 2 * 3 * 5 + 3 * 4 * 7]
    assert cube.flatten().tolist() == pytest.approx(expected, abs=1e-12)
    assert along(torch.exp, x).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("basis", [ExpNormBasis(6, 4.5), GaussianBasis(6, 4.5), CosineCutoff(4.5)], ids=repr)
def test_takes_a_distance_to_its_features(basis):
    basis = basis.double()
    d = torch.tensor([0.3, 1.7, 4.4]).double()
    path = torch.stack([d, torch.ones_like(d), torch.zeros_like(d)])
    torch.testing.assert_close(jet(basis, path), by_jacobians(basis, path), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("orders", [1, 3])
@pytest.mark.parametrize("name", ["silu", "ssp"])
def test_has_first_and_second_derivatives_itself(name, orders):
    network = MLP([3, 2, 2], name, activate_last=True).double()
    x = curve(orders, points=2, features=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: jet(network, x), (x, *network.parameters()))
    assert torch.autograd.gradgradcheck(lambda x, *_: jet(network, x), (x, *network.parameters()))


@pytest.mark.parametrize("points", [0, 1, 129])
def test_takes_any_number_of_points(points):
    x = curve(3, points=points)
    assert jet(MLP([5, 8, 3], "silu").double(), x).shape == (3, points, 3)


def test_takes_layers_without_a_bias():
    layer = nn.Linear(5, 3, bias=False).double()
    assert torch.equal(jet(layer, curve(3))[1:], (curve(3) @ layer.weight.mT)[1:])


def test_leaves_higher_orders_to_the_definition():
    x = curve(5, points=2)
    torch.testing.assert_close(jet(F.silu, x), by_jacobians(F.silu, x), rtol=1e-10, atol=1e-10)


def test_the_check_can_fail():
    x = curve(3, points=2)
    assert not torch.allclose(jet(F.silu, x), jet(ACTIVATIONS["tanh"], x))
    assert not torch.allclose(
        jet(F.silu, x)[2], by_jacobians(F.silu, x * torch.tensor([1, 1, 2])[:, None, None])[2]
    )
