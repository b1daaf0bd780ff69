"""equitorch/layers/reduced_tensor_products.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import ReducedTensorProducts
from equitorch.testing import assert_equivariant

CASES = [
    ("i", {"i": "0e+1o"}),
    ("ij", {"i": "0e+1o", "j": "1e"}),
    ("ij=ji", {"i": "2x0e+1o"}),
    ("ij=-ji", {"i": "0o+1o+2e"}),
    ("ijk=jki", {"i": "0e+1o"}),
    ("ijk=-jik", {"i": "1o", "k": "0e+1e"}),
    ("ijkl=jikl=klij", {"i": "1o"}),
    ("ij=ji", {"i": "0+1"}),
]
cases = pytest.mark.parametrize(("formula", "irreps"), CASES)


def operands(module, *batch, channels=2):
    return [torch.randn(*batch, each.dim, channels, dtype=torch.float64) for each in module.irreps_in]


@cases
def test_is_the_change_of_basis(formula, irreps):
    module = ReducedTensorProducts(formula, **irreps).double()
    xs, letters = operands(module, 5), "abcd"[: len(module.irreps_in)]
    spec = f"z{letters}," + ",".join(f"n{a}u" for a in letters) + "->nzu"
    expected = torch.einsum(spec, module.change_of_basis, *xs)
    torch.testing.assert_close(module(*xs), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("formula", "irreps"), CASES[:-1])
def test_agrees_with_e3nn(formula, irreps):
    o3 = pytest.importorskip("e3nn.o3")
    ours = ReducedTensorProducts(formula, layout="e3nn", **irreps).double()
    theirs = o3.ReducedTensorProducts(formula, **irreps).double()
    xs = [x.squeeze(-1).requires_grad_() for x in operands(ours, 5, channels=1)]
    torch.testing.assert_close(ours(*xs), theirs(*xs), rtol=1e-5, atol=1e-5)  # its factors are single numbers
    found = [torch.autograd.grad(module(*xs).square().sum(), xs) for module in (ours, theirs)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@given(st.sampled_from(CASES), st.integers(0, 2**31 - 1))
def test_commutes_with_every_rotation_and_mirror(case, seed):
    module = ReducedTensorProducts(case[0], **case[1]).double()
    assert_equivariant(module, list(module.irreps_in), module.irreps_out, seed=seed)


def test_the_check_can_fail():
    module = ReducedTensorProducts("ij=ji", i="1o").double()
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x, y: module(x, y + 1), ["1o", "1o"], module.irreps_out)


def test_exchanged_arguments_change_the_sign():
    module = ReducedTensorProducts("ij=-ji", i="0e+1o+2e").double()
    x, y = operands(module, 5)
    torch.testing.assert_close(module(x, y), -module(y, x))


@cases
def test_differentiates_twice(formula, irreps):
    module = ReducedTensorProducts(formula, **irreps).double()
    xs = [x.requires_grad_() for x in operands(module, 1, channels=1)]
    assert torch.autograd.gradcheck(module, xs)
    assert torch.autograd.gradgradcheck(module, xs)


@pytest.mark.parametrize("batch", [(), (0,), (5, 2)])
def test_takes_any_batch_and_spreads(batch):
    module = ReducedTensorProducts("ijk=jki", i="0e+1o").double()
    x, y, z = operands(module, *batch, channels=3)
    assert module(x, y, z).shape == (*batch, module.irreps_out.dim, 3)
    assert module(x[..., :1], y, z[..., :1]).shape == (*batch, module.irreps_out.dim, 3)
    whole = module(x, y, torch.ones(4, 1, dtype=torch.float64))
    torch.testing.assert_close(whole, module(x, y, torch.ones_like(z)))


def test_may_have_nothing_left():
    module = ReducedTensorProducts("ij=-ji", i="0e")
    assert module(torch.ones(5, 1, 2), torch.ones(5, 1, 2)).shape == (5, 0, 2)


def test_holds_no_weights_and_keeps_its_digits():
    module = ReducedTensorProducts("ij=ji", i="1o")
    assert not module.state_dict()
    again = module.float().double().change_of_basis
    assert again[0].diagonal().sub(3**-0.5).abs().max() < 1e-15


def test_compiles_exports_and_maps():
    module = ReducedTensorProducts("ijk=jki", i="0e+1o").double()
    xs = tuple(operands(module, 5))
    whole = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(*xs), module(*xs))
    torch.testing.assert_close(torch.export.export(module, xs).module()(*xs), module(*xs))
    torch.testing.assert_close(torch.vmap(module)(*xs), module(*xs))


def test_says_what_it_expected():
    module = ReducedTensorProducts("ij=ji", i="1o")
    with pytest.raises(
        ValueError, match=r"expects features of shapes \(\.\.\., 3, channels\), .*got \(5, 3, 2\)"
    ):
        module(torch.ones(5, 3, 2))
    with pytest.raises(ValueError, match="layout of rows or e3nn, got 'flat'"):
        ReducedTensorProducts("ij=ji", layout="flat", i="1o")
