"""equitorch/layers/gaunt_self_interaction.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import GauntSelfInteraction, GauntTensorProduct
from equitorch.testing import assert_equivariant
from tests.layers.test_gaunt import PARITIES, ends, rows_of


@pytest.mark.parametrize("parity", PARITIES)
def test_is_a_product_with_a_mixture_of_channels(parity):
    layer = GauntSelfInteraction(2, 3, parity=parity).double()
    x = torch.randn(5, 18 if parity == "full" else 9, 3, dtype=torch.float64)
    z = layer.product(x, layer.mixture(x))
    if parity != "odd":
        z[:, 0] += layer.shift
    torch.testing.assert_close(layer(x), z)


@pytest.mark.parametrize("parity", PARITIES)
@pytest.mark.parametrize(("channels", "rank"), [(1, 1), (2, 1), (16, 1), (4, 3)])
def test_begins_with_unit_variance_and_no_mean(parity, channels, rank):
    torch.manual_seed(0)
    layer = GauntSelfInteraction(2, channels, parity=parity, rank=rank)
    stacks = 2 if parity == "full" else 1
    z = layer(torch.randn(160_000 // channels, 9 * stacks, channels))
    assert z.mean(0).abs().max() < 0.06
    for stack, l, rows in rows_of(2, stacks):
        if parity == "even" or (channels > 1 and (parity == "full" or l)):
            assert abs(z.var(0)[rows].mean() - 1) < 0.05, (stack, l)


@given(st.integers(0, 3), st.sampled_from(PARITIES))
def test_commutes_with_every_rotation_and_mirror(lmax, parity):
    layer = GauntSelfInteraction(lmax, 3, parity=parity).double()
    inputs, output = ends(lmax, parity)
    assert_equivariant(layer, [inputs], output, channels=3, atol=1e-10)


def test_the_check_can_fail():
    """As if the operands were independent, the variance would be another."""
    torch.manual_seed(0)
    layer = GauntSelfInteraction(2, 1)
    blind = GauntTensorProduct(2, 2, 2, 1)
    x = torch.randn(20_000, 9, 1)
    assert blind(x, x).var(0).mean() > 1.5 * layer(x).var(0).mean()


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects parity of even, odd or full, got 'both'"):
        GauntSelfInteraction(2, 3, parity="both")
