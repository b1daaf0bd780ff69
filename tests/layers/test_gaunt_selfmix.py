"""equitorch/layers/gaunt_selfmix.py"""

import pytest
import torch

from equitorch.layers import GauntSelfmix
from equitorch.layers.gaunt import sphere_irreps
from equitorch.ops.gaunt import gaunt_product
from equitorch.testing import assert_equivariant


def test_is_a_product_of_two_mixtures():
    layer = GauntSelfmix(2, 3).double()
    x = torch.randn(5, 9, 3, dtype=torch.float64)
    product = gaunt_product(layer.first(x), layer.second(x), 2)
    scale = layer.product.scale3.value.repeat_interleave(torch.tensor([1, 3, 5]), dim=0)
    torch.testing.assert_close(layer(x), layer.last(product * scale))


@pytest.mark.parametrize("lmax", [0, 1, 3])
def test_commutes_with_every_rotation_and_mirror(lmax):
    layer = GauntSelfmix(lmax, 3).double()
    assert_equivariant(layer, [sphere_irreps(lmax)], sphere_irreps(lmax), channels=3, atol=1e-10)


def test_commutes_with_mirrors_in_two_stacks():
    layer = GauntSelfmix(2, (2, 2), parity="both").double()

    def in_rows(x):  # natural rows above pseudo ones, as irreps have it
        beside = layer(torch.cat(x.chunk(2, dim=-2), dim=-1))
        return torch.cat(beside.chunk(2, dim=-1), dim=-2)

    both = sphere_irreps(2, "full")
    assert_equivariant(in_rows, [both], both, channels=2, atol=1e-10)


def test_the_check_can_fail():
    """Stacks taken for each other are not equivariant under mirrors."""
    layer = GauntSelfmix(2, (2, 2), parity="both").double()
    natural = sphere_irreps(2)
    with pytest.raises(AssertionError):
        assert_equivariant(layer, [natural], natural, channels=4)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="parity 'both' expects channels as a pair of numbers"):
        GauntSelfmix(2, 3, parity="both")
