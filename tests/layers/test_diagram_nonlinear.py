"""equitorch/layers/diagram_nonlinear.py"""

import pytest
import torch

from equitorch.layers import TensorActivation, TensorNorm, TensorProducts
from equitorch.reps import DirectSum, TensorPower
from equitorch.testing import assert_equivariant

GROUPS = [("S", 3), ("A", 3), ("B", 3), ("O", 3), ("SO", 3), ("Sp", 4), ("O(1,2)", 3)]
ORDERS = (0, 2, 1)


def group_of(name, n):
    return TensorPower(name, n, 1).matrix_group


def tensors(name, n, orders):
    return DirectSum(tuple(TensorPower(name, n, order) for order in orders))


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        torch.nn.init.normal_(parameter)
    return module


def modules(name, n):
    """Each layer that the group allows, and the orders of its input."""
    group = group_of(name, n)
    for kind in ("auto", "gate", *["norm"] * group.is_orthogonal):
        odd = {"activation": "tanh"} if name == "B" else {}
        activation = TensorActivation(group, ORDERS, 3, nonlinearity=kind, **odd)
        yield activation, activation.orders_in
    for scaling in ("sum", "mean"):
        yield TensorProducts(group, ORDERS, 3, scaling=scaling), ORDERS
    if group.is_orthogonal:
        yield TensorNorm(group, ORDERS, 3), ORDERS


@pytest.mark.parametrize(("name", "n"), GROUPS)
def test_commutes_with_the_group(name, n):
    for module, orders in modules(name, n):
        layer = randomised(module)
        reps = tensors(name, n, orders), tensors(name, n, ORDERS)
        assert_equivariant(lambda x, f=layer: f(x, n), [reps[0]], reps[1], channels=3, atol=1e-10)


def test_the_check_can_fail():
    """A function of single entries does not commute with O, nor a norm with Sp."""
    pointwise, rep = TensorActivation(group_of("S", 3), ORDERS, 3), tensors("O", 3, ORDERS)
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x: pointwise(x, 3), [rep], rep, channels=3)
    norm, rep = TensorNorm(group_of("S", 4), (1,), 3).double(), tensors("Sp", 4, (1,))
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x: norm(x, 4), [rep], rep, channels=3)


def test_gates_and_norms_are_what_the_formulas_say():
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    gate = TensorActivation(group_of("O", 3), (1,), 3).double()
    torch.testing.assert_close(gate(x, 3), x[:, :3] * x[:, 3:].sigmoid())
    norm = randomised(TensorActivation(group_of("O", 3), (0, 1), 3, nonlinearity="norm"))
    size = x[:, 1:].square().mean(1, keepdim=True).sqrt()
    a, b = norm.slope[:, 0]
    expected = [torch.nn.functional.silu(x[:, :1]), x[:, 1:] * (a * size + b).sigmoid()]
    torch.testing.assert_close(norm(x, 3), torch.cat(expected, dim=1))


@pytest.mark.parametrize(("name", "n"), [("O", 3), ("O(1,2)", 3), ("Sp", 4)])
def test_joins_tensors_by_the_form(name, n):
    """x F y: matrix products, and x^T F y for vectors."""
    module = TensorProducts(group_of(name, n), (1, 2), 1, scaling="sum").double()
    form = module.group.form
    with torch.no_grad():
        for parameter in (module.factors, module.mix):
            parameter.fill_(1)
        keep = {(1, 2, 1, 1), (2, 2, 1, 2)}
        for weight, path in zip(module.mix, module.paths, strict=True):
            weight.mul_(path in keep)
    x = torch.randn(1, n + n * n, 1, dtype=torch.float64)
    vector, matrix = x[0, :n, 0], x[0, n:, 0].reshape(n, n)
    y = module(x, n)[0, :, 0]
    torch.testing.assert_close(y[:n], vector + vector @ form @ matrix)
    torch.testing.assert_close(y[n:].reshape(n, n), matrix + matrix @ form @ matrix)


def test_knows_which_products_there_are():
    group = group_of("O", 3)
    assert TensorProducts(group, (3, 0), 2).paths == [(0, 0, 0, 0), (0, 3, 0, 3), (3, 3, 3, 0)]
    assert (2, 2, 2, 0) not in TensorProducts(group, (0, 2), 2).paths  # by 2, 2 -> 2 and a trace


def test_absent_points_count_as_none():
    """Norms and means are those of the points that are there."""
    group, x = group_of("S", 5), torch.randn(1, 30, 2, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False, False]])
    there = torch.cat([mask, (mask[:, :, None] & mask[:, None, :]).flatten(1)], dim=1)
    x = x * there[..., None]
    for module in (TensorNorm(group, (1, 2), 2), TensorProducts(group, (1, 2), 2, scaling="mean")):
        layer = randomised(module)
        alone = layer(x[:, there[0]], 3)
        torch.testing.assert_close(layer(x, 5, mask)[:, there[0]], alone)


WRONG = [
    ("O", {"nonlinearity": "swish"}, "one of auto, pointwise, gate or norm, got nonlinearity='swish'"),
    (
        "O",
        {"nonlinearity": "pointwise"},
        r"O\(4\) has no nonlinearity pointwise: .* permutations only; use gate",
    ),
    ("B", {"nonlinearity": "pointwise"}, "only odd functions such as tanh commute"),
    ("Sp", {"nonlinearity": "norm"}, r"Sp\(4\) leaves no norm of tensors alone; use nonlinearity gate"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG)
def test_says_what_does_not_commute(name, options, message):
    with pytest.raises(ValueError, match=message):
        TensorActivation(group_of(name, 4), (1,), 2, **options)


def test_says_that_there_is_no_norm():
    with pytest.raises(ValueError, match=r"O\(1,3\) leaves no norm of tensors alone; use norm=False"):
        TensorNorm(group_of("O(1,3)", 4), (1,), 2)
