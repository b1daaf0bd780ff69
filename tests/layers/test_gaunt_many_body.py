"""equitorch/layers/gaunt_many_body.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import GauntManyBody
from equitorch.layers.gaunt_many_body import power_moments
from equitorch.reps import Irreps, wigner_3j
from equitorch.testing import assert_equivariant


def gaunt(l1, l2, l3):
    """Integrals of three harmonics, from 3j symbols alone."""
    form = wigner_3j(l1, l2, l3)
    zeros = abs(float(wigner_3j(l1, l2, l3)[l1, l2, l3]))  # real harmonics of m = 0 are those of physics
    return math.sqrt((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1) / (4 * math.pi)) * zeros * form


def product(x, y, lmax1, lmax2, lmax_out):
    out = x.new_zeros(x.shape[0], (lmax_out + 1) ** 2, x.shape[2])
    for a in range(lmax1 + 1):
        for b in range(lmax2 + 1):
            for c in range(abs(a - b), min(a + b, lmax_out) + 1):
                left, right = x[:, a * a : (a + 1) ** 2], y[:, b * b : (b + 1) ** 2]
                out[:, c * c : (c + 1) ** 2] += torch.einsum(
                    "ijk,nic,njc->nkc", gaunt(a, b, c).to(x), left, right
                )
    return out


def layer_and_operands(lmax_in=2, lmax_out=2, nodes=6, channels=3, species=2, **options):
    torch.manual_seed(0)
    layer = GauntManyBody(lmax_in, lmax_out, channels, species=species, **options).double()
    x = torch.randn(nodes, (lmax_in + 1) ** 2, channels, dtype=torch.float64)
    return layer, x, torch.randint(0, species, (nodes,))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_is_the_chain_of_untruncated_products(order):
    layer, x, index = layer_and_operands(2, 2, correlation=order, species=1)
    torch.nn.init.zeros_(layer.weight[0, : order - 1])
    torch.nn.init.ones_(layer.weight[0, order - 1])
    power = x
    for n in range(2, order):
        power = product(power, x, 2 * (n - 1), 2, 2 * n)
    exact = product(power, x, 2 * (order - 1), 2, 2)
    scale = layer.scale.value[order - 1].repeat_interleave(torch.tensor([1, 3, 5]), dim=0)
    torch.testing.assert_close(layer(x, index), exact * scale, rtol=1e-12, atol=1e-12)


def test_a_chain_of_truncated_products_is_something_else():
    _, x, _ = layer_and_operands(2, 2, correlation=3, species=1)
    truncated = product(product(x, x, 2, 2, 2), x, 2, 2, 2)
    exact = product(product(x, x, 2, 2, 4), x, 4, 2, 2)
    assert (truncated - exact).square().mean() > 0.01 * exact.square().mean()


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4), st.sampled_from([None, 1, 2]))
def test_commutes_with_every_rotation_and_mirror(lmax_in, lmax_out, correlation, rank):
    layer, _, index = layer_and_operands(lmax_in, lmax_out, correlation=correlation, rank=rank)
    ends = [Irreps.spherical_harmonics(lmax_in)], Irreps.spherical_harmonics(lmax_out)
    assert_equivariant(lambda x: layer(x, index), *ends, channels=3, batch=(6,), atol=1e-11)


def test_factorised_weights_are_weights():
    """A rank of one is evaluated with one analysis, others as full weights: the same function."""
    one, x, index = layer_and_operands(2, 3, rank=1)
    two = GauntManyBody(2, 3, 3, species=2, rank=2).double()
    torch.nn.init.normal_(one.degree_weight)
    with torch.no_grad():
        two.weight[:, :1], two.degree_weight[:1] = one.weight, one.degree_weight
        two.degree_weight[1:] = 0
    torch.testing.assert_close(two(x, index), one(x, index), rtol=1e-12, atol=1e-12)
    full = GauntManyBody(2, 3, 3, species=2).double()
    with torch.no_grad():
        by_order = one.weight[:, 0] * one.scale.value
        by_degree = one.degree_weight[0] * one.degree_scale.value
        full.weight[:] = by_order[:, :, None] * by_degree / full.scale.value
        full.weight[:, 0, 3] = 0
    torch.testing.assert_close(full(x, index), one(x, index), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [None, 1, 2])
def test_begins_with_unit_mean_square_in_every_degree(rank):
    torch.manual_seed(0)
    layers = [GauntManyBody(2, 2, 4096, correlation=3, rank=rank) for _ in range(2)]
    x = torch.randn(64, 9, 4096)
    mean = sum(layer(x, torch.zeros(64, dtype=torch.int64)).square().mean((0, 2)) for layer in layers) / 2
    for l in range(3):
        assert abs(mean[l * l : (l + 1) ** 2].mean() - 1) < 0.05


def test_moments_are_those_of_samples():
    moments = power_moments(2, 3, 4)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 9, 200_000, generator=generator, dtype=torch.float64)
    powers = {1: x, 2: product(x, x, 2, 2, 4)}
    for n, rows in powers.items():
        for l in range(3):
            sampled = rows[0, l * l : (l + 1) ** 2].square().mean()
            assert abs(sampled / moments[n - 1, l] - 1) < 0.02
    variances = torch.tensor([0.716, 0.477, 0.368], dtype=torch.float64)  # of products of two fields
    torch.testing.assert_close(moments[1, 1:3], 2 * variances[1:], rtol=5e-3, atol=0)
    assert abs(moments[1, 0] - 2 * variances[0] - 9**2 / (4 * math.pi)) < 5e-3


@pytest.mark.parametrize("rank", [None, 1])
def test_trains_forces(rank):
    layer, x, index = layer_and_operands(rank=rank)
    x.requires_grad_()

    def loss():
        (force,) = torch.autograd.grad(layer(x, index)[:, 0].square().sum(), x, create_graph=True)
        return force.square().sum()

    found = torch.autograd.grad(loss(), layer.weight)[0]
    step, direction = 1e-5, torch.randn_like(layer.weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            layer.weight += sign * step * direction
        values.append(loss().item())
        with torch.no_grad():
            layer.weight -= sign * step * direction
    numeric = (values[0] - values[1]) / (2 * step)
    assert abs(numeric / (found * direction).sum().item() - 1) < 1e-6


def test_vanishes_with_the_feature():
    layer, x, index = layer_and_operands()
    assert not layer(torch.zeros_like(x), index).any()


def test_says_what_it_expected():
    layer, x, index = layer_and_operands()
    with pytest.raises(ValueError, match=r"expects x of shape \(..., 9, 3\) and an index of shape \(...\)"):
        layer(x[:, :4], index)
    with pytest.raises(ValueError, match="expects correlation to be a whole number >= 1, got 0"):
        GauntManyBody(2, 2, 3, correlation=0)
    with pytest.raises(ValueError, match="expects a rank >= 1, or None, got 0"):
        GauntManyBody(2, 2, 3, rank=0)
