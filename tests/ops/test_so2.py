"""equitorch/ops/so2: blocks of matrices, factors of rows, stacks of two parities"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops.backend import use_reference
from equitorch.ops.so2 import Layout, join_stacks, scale_orders, so2_linear, split_stacks
from equitorch.ops.so2.reference import COMPLEX, ONCE, TWICE
from equitorch.reps.order import order_index, order_rows, order_sizes
from tests.strategies import seeds

LAYOUTS = {
    "real": Layout.build([(ONCE, 5, 3), (TWICE, 4, 2)], extra=2),
    "complex": Layout.build([(ONCE, 3, 5), (COMPLEX, 2, 4), (COMPLEX, 3, 1)], extra=1),
    "two scalars": Layout.build([(ONCE, 3, 2), (ONCE, 2, 4), (TWICE, 0, 3), (COMPLEX, 2, 2)]),
}
degrees = st.integers(0, 5).flatmap(lambda l: st.tuples(st.just(l), st.integers(0, l)))


def operands(layout, edges, dtype=torch.float64):
    """The message strided on purpose, the weights, the bias."""
    y = torch.randn(layout.width_in, edges, dtype=dtype).T
    weights = [torch.randn(layout.weight_shape(k), dtype=dtype) for k in range(len(layout.blocks))]
    return [y, torch.randn(layout.extra + layout.blocks[0].width_out, dtype=dtype), *weights]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edges", [0, 1, 3, 129])
@pytest.mark.parametrize("name", LAYOUTS)
def test_agrees_with_the_reference_through_three_derivatives(name, edges, dtype):
    layout, results = LAYOUTS[name], []
    inputs = [x.requires_grad_() for x in operands(layout, edges, dtype)]

    def everything():
        out, extra = so2_linear(inputs[0], inputs[2:], inputs[1], layout)
        yield from (out, extra)
        total = out.sin().sum() + extra.cos().sum()
        for _ in range(3):
            found = torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True)
            yield from found
            total = sum((g / (1 + g.square())).sum() for g in found)

    results.append(list(everything()))
    with use_reference():
        results.append(list(everything()))
    tolerance = 1e-2 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


def test_is_a_product_of_numbers():
    layout = Layout.build([(ONCE, 1, 1), (COMPLEX, 1, 1)])
    weights = [torch.tensor([[2.0]]), torch.tensor([[[3.0]], [[4.0]]])]
    out, _ = so2_linear(torch.tensor([[5.0, 1.0, 2.0]]), weights, None, layout)
    assert (3 + 4j) * (1 + 2j) == -5 + 10j
    assert out.tolist() == [[10.0, -5.0, 10.0]]


def test_same_bits_twice():
    inputs = operands(LAYOUTS["complex"], 700, torch.float32)
    call = [so2_linear(inputs[0], inputs[2:], None, LAYOUTS["complex"])[0] for _ in range(2)]
    assert torch.equal(*call)


def test_frees_what_it_saved():
    """A second pass backward must complain as PyTorch's own functions do."""
    y, bias, *weights = (x.requires_grad_() for x in operands(LAYOUTS["real"], 3))
    out, _ = so2_linear(y, weights, bias, LAYOUTS["real"])
    out.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.sum().backward()


@given(degrees, st.integers(1, 3), seeds)
def test_factors_belong_to_degree_and_order(pair, channels, seed):
    torch.manual_seed(seed)
    rows = order_rows(*pair)
    y = torch.randn(4, len(rows), channels, dtype=torch.float64)
    f = torch.randn(4, sum(order_sizes(*pair)), channels, dtype=torch.float64)
    place = [row for row in rows if row[1] >= 0]
    shared = torch.stack([f[:, place.index((l, abs(m)))] for l, m in rows], dim=1)
    torch.testing.assert_close(scale_orders(y, f, *pair), y * shared)


def test_factors_have_right_derivatives():
    y = torch.randn(3, 7, 2, dtype=torch.float64, requires_grad=True)
    f = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, f: scale_orders(y, f, 2, 1), (y, f))
    assert torch.autograd.gradgradcheck(lambda y, f: scale_orders(y, f, 2, 1), (y, f))
    for slot, pair in enumerate(((f, y), (y, y), (y, f))):
        filled = [x.detach().clone().requires_grad_() for x in pair]
        torch.library.opcheck(torch.ops.equitorch.scale_orders.default, (filled, slot, [], [3, 2]))


@given(degrees, st.integers(0, 3), st.integers(0, 3), seeds)
def test_sorted_stacks_hide_the_sign_of_the_mirror(pair, natural, pseudo, seed):
    """Columns change sign under the mirror run by run, and the way back is the inverse and the transpose."""
    torch.manual_seed(seed)
    sign = torch.tensor([-1.0 if m < 0 else 1.0 for _, m in order_rows(*pair)], dtype=torch.float64)
    y = torch.randn(3, len(sign), natural + pseudo, dtype=torch.float64, requires_grad=True)
    z = split_stacks(y, *pair, natural)
    assert torch.equal(join_stacks(z, *pair, natural, natural + pseudo), y)
    parity = torch.tensor([1.0] * natural + [-1.0] * pseudo, dtype=torch.float64)
    runs = [natural * (pair[0] + 1), -pseudo * (pair[0] + 1)]
    for k in order_sizes(*pair)[1:]:
        runs += [k * (natural + pseudo), -k * (natural + pseudo)]
    signs = torch.cat([torch.full((abs(n),), 1.0 if n >= 0 else -1.0, dtype=torch.float64) for n in runs])
    torch.testing.assert_close(split_stacks(y * sign[:, None] * parity, *pair, natural), z * signs)
    g = torch.randn_like(z)
    (grad,) = torch.autograd.grad(z, y, g)
    torch.testing.assert_close(grad, join_stacks(g, *pair, natural, natural + pseudo))
    with use_reference():
        assert torch.equal(split_stacks(y, *pair, natural), z)


def test_the_check_can_fail():
    assert not torch.equal(order_index(2, 2), torch.arange(9))
    y = torch.randn(1, 9, 2)
    assert not torch.equal(split_stacks(y, 2, 2, 1), y.flatten(1))


def test_says_what_it_expected():
    layout = LAYOUTS["real"]
    y, bias, *weights = operands(layout, 3)
    with pytest.raises(ValueError, match=r"expects y of shape \(edges, 13\) and .*got \(3, 12\)"):
        so2_linear(y[:, :-1], weights, bias, layout)
    with pytest.raises(ValueError, match=r"weights of shapes \[\(5, 5\), \(2, 4\)\]"):
        so2_linear(y, weights[::-1], bias, layout)
    with pytest.raises(ValueError, match=r"factors of shape \(3, 5, 2\), got \(3, 7, 2\)"):
        scale_orders(torch.randn(3, 7, 2), torch.randn(3, 7, 2), 2, 1)
