"""equitorch/layers/product_plan.py, with product_schemes and product_layout"""

import torch

from equitorch.layers import FullTensorProduct, FullyConnectedTensorProduct, TensorProduct
from equitorch.layers.product_layout import flat_from_rows, rows_from_flat
from equitorch.ops.backend import use_reference
from equitorch.reps import Irreps


def calls(product):
    return [(call.sides[0].way, call.sides[1].way, call.channels) for call in product.calls]


def test_channelwise_products_are_one_call_on_the_operands_themselves():
    """No copy of the features: what makes these products fast must not get lost unnoticed."""
    irreps = Irreps("8x0e+8x1o+8x2e")
    paths = [(i, j, j, "uvu", True) for i in (0,) for j in range(3)]
    filtered = TensorProduct(irreps, "0e+1o+2e", irreps, paths)
    assert calls(filtered) == [("whole", "single", 8)]
    pairs = TensorProduct(irreps, irreps, "8x0e+8x1o", [(i, i, 0, "uuu", False) for i in range(3)])
    assert calls(pairs) == [("whole", "whole", 8)]
    assert calls(FullTensorProduct(irreps, irreps)) == [("parts", "parts", 64)]


def test_every_way_of_a_path_gives_the_same(monkeypatch):
    """Which way is chosen depends on sizes: here each is taken in turn, whatever it costs."""
    from equitorch.layers import product_plan, product_schemes

    one, two, out = "3x0e+3x1o", "2x0e+2x1o+2x2e", "2x0e+4x1o"
    x, y = (torch.randn(5, Irreps(own).dim, dtype=torch.float64) for own in (one, two))

    def product():
        torch.manual_seed(0)
        return FullyConnectedTensorProduct(one, two, out, layout="e3nn").double()(x, y)

    expected, kinds = product(), set()

    def remember(options):
        kinds.update(scheme.kinds for found in options.values() for scheme in found)
        return product_schemes.cheapest(options)

    monkeypatch.setattr(product_plan, "cheapest", remember)
    product()
    assert len(kinds) == 7
    for kind in kinds:
        for dense in (True, False):
            monkeypatch.setattr(product_plan, "dense_is_cheaper", lambda *_, dense=dense: dense)
            monkeypatch.setattr(
                product_plan,
                "cheapest",
                lambda options, kind=kind: {
                    p: min(found, key=lambda scheme: scheme.kinds != kind) for p, found in options.items()
                },
            )
            torch.testing.assert_close(product(), expected)


def test_layouts_are_each_others_inverse_with_right_derivatives():
    irreps = Irreps("3x0e+0x1o+3x2e+3x1o")
    x = torch.randn(2, irreps.dim, dtype=torch.float64, requires_grad=True)
    rows = rows_from_flat(x, irreps, 3)
    with use_reference():
        torch.testing.assert_close(rows_from_flat(x, irreps, 3), rows)
    assert torch.equal(flat_from_rows(rows, irreps), x)
    assert torch.autograd.gradcheck(lambda t: rows_from_flat(t, irreps, 3).square(), x)
    assert torch.autograd.gradgradcheck(lambda t: rows_from_flat(t, irreps, 3).square(), x)
    assert torch.autograd.gradgradcheck(
        lambda t: flat_from_rows(t, irreps).square(), rows.detach().requires_grad_()
    )
