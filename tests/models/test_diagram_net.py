"""equitorch/models/diagram_net.py"""

import itertools

import networkx
import pytest
import torch
from torch.autograd import gradcheck

from equitorch.models import DiagramNet
from equitorch.reps import TensorPower
from equitorch.reps.automorphism import Automorphism
from equitorch.testing import assert_equivariant, equivariance_error

SQUARE = Automorphism([(1, 2, 3, 0)])
GROUPS = [
    ("S", 4, {}),
    ("A", 4, {}),
    ("B", 3, {}),
    ("B", 3, {"activation": "tanh"}),
    (SQUARE, 4, {}),
    ("O", 3, {}),
    ("SO", 3, {}),
    ("Sp", 4, {}),
    ("Sp", 4, {"form": "interleaved"}),
    ("O(1,2)", 3, {}),
    ("SO(2,1)", 3, {}),
]
NAMES = [f"{group}{n}{'-'.join(map(str, options.values()))}" for group, n, options in GROUPS]
FREE = [("S", 4, 6), ("B", 3, 5), ("O", 3, 5), ("Sp", 4, 6)]


def network(group, n, orders=((1, 2), (0, 1, 2), (0, 1, 2), 2), channels=(2, 3, 3, 2), **options):
    torch.manual_seed(0)
    return randomised(DiagramNet(group, n, list(orders), list(channels), **options))


def randomised(net):
    """With biases that are not zero, in float64."""
    net = net.double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def check(net, channels=2):
    def tensor(x):
        y = net(x)
        return torch.cat(list(y.values()), dim=-2) if isinstance(y, dict) else y

    assert_equivariant(tensor, [net.rep(0)], net.rep(-1), channels=channels, atol=1e-10)


def random(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("group", "n", "options"), GROUPS, ids=NAMES)
@pytest.mark.parametrize("products", ["none", "sqrt"])
def test_commutes_with_the_group(group, n, options, products):
    check(network(group, n, products=products, **options))
    check(network(group, n, ((2, 1), (0, 1), (0, 1), (0, 1)), products=products, **options))


@pytest.mark.parametrize(("group", "n", "options"), GROUPS[:7], ids=NAMES[:7])
@pytest.mark.parametrize("kind", ["gate", "norm"])
def test_commutes_with_the_group_by_other_nonlinearities(group, n, options, kind):
    check(network(group, n, nonlinearity=kind, norm=True, products="mean", **options))


@pytest.mark.parametrize(("options", "rows"), [({"basis": "minimal"}, 2), ({"mixing": "depthwise"}, 1)])
def test_passes_options_on(options, rows):
    net = network("O", 2, (rows, (0, rows), rows), (2, 3, 2), **options)
    check(net)
    assert all(getattr(layer.linear, key) == value for layer in net.layers for key, value in options.items())


def test_the_check_can_fail():
    net = network("S", 4)
    net.layers[0].linear.register_forward_hook(lambda module, x, y: y + torch.arange(y.shape[-2])[:, None])
    assert equivariance_error(net, [net.rep(0)], net.rep(-1), channels=2) > 1e-3
    even = network("A", 4, (1, (0, 1, 2, 3), 1), (2, 3, 2))  # what commutes with A alone does not with S
    power = TensorPower("S", 4, 1)
    assert equivariance_error(even, [power], power, channels=2) > 1e-3


def test_depends_on_its_input_in_every_layer():
    """Not only through a linear map: gates and products see the tensors."""
    for group, n, options in GROUPS:
        net = network(group, n, **options)
        x = random(1, n + n * n, 2)
        odd = net(x) - net(2 * x) / 2
        assert odd.abs().max() > 1e-3, (group, n, options)


def test_can_be_deepsets():
    """Zaheer et al. 2017: rho(sum relu(x a + b)), by the weights of the diagrams."""
    net = DiagramNet("S", 5, [1, 1, 0], [3, 8, 2], activation="relu", normalization="sum").double()
    first, last = (layer.linear for layer in net.layers)
    a, b, c, d = random(3, 8), random(8), random(8, 2), random(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for index, blocks in first.diagrams():
            if blocks == ((0, 1),):
                first.weights[index.name][index.position] = a
        for weight in last.weights.values():
            weight.copy_(c.reshape(weight.shape))
        for linear, shift in ((first, b), (last, d)):
            for weight in linear.bias.values():
                weight.copy_(shift.expand_as(weight))
    x = random(4, 7, 3)
    expected = (x @ a + b).relu().sum(-2, keepdim=True) @ c + d
    assert torch.allclose(net(x), expected, atol=1e-12)


def test_can_count_cliques():
    """relu(sum of the six edges of four points - 5), summed: 24 times the number of 4-cliques."""
    net = DiagramNet("S", 8, [2, 4, 0], [1, 1, 1], activation="relu", normalization="sum").double()
    lift, total = (layer.linear for layer in net.layers)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for index, blocks in lift.diagrams():
            pairs = sorted(block for block in blocks if len(block) == 2)
            others = [block for block in blocks if len(block) != 2]
            if len(pairs) == 2 and len(others) == 2 and [pair[1] for pair in pairs] == [4, 5]:
                lift.weights[index.name][index.position] = 1.0
        _set_last(lift.bias, -5)
        _set_last(total.weights, 1)
    for graph in (networkx.complete_graph(8), networkx.erdos_renyi_graph(8, 0.7, seed=1)):
        adjacency = torch.tensor(networkx.to_numpy_array(graph))
        expected = sum(
            all(graph.has_edge(*pair) for pair in itertools.combinations(four, 2))
            for four in itertools.combinations(range(8), 4)
        )
        assert net(adjacency.reshape(1, 64, 1)).item() == pytest.approx(24 * expected, abs=1e-9)


def _set_last(weights, value):
    """The diagram that asks no indices to agree."""
    for weight in weights.values():
        weight.view(-1)[-1] = value


@pytest.mark.parametrize(("group", "n", "other"), FREE)
@pytest.mark.parametrize("products", ["none", "mean"])
def test_runs_at_any_n_with_the_same_weights(group, n, other, products):
    net, twin = network(group, n, products=products), network(group, other, products=products)
    twin.load_state_dict(net.state_dict())
    x = random(2, other + other**2, 2)
    assert torch.allclose(net(x), twin(x), atol=1e-12)


def test_says_that_it_cannot_run_at_another_n():
    net = DiagramNet("S", 3, [2, 0, 1], [1, 4, 1])
    assert net(torch.randn(9, 1)).shape == (3, 1)
    with pytest.raises(ValueError, match="runs at n=3 only: a stage of order 0 comes before one of higher"):
        net(torch.randn(16, 1))


@pytest.mark.parametrize("products", ["none", "mean"])
@pytest.mark.parametrize("activation", ["softplus", "silu"])  # softplus(0) is not zero
def test_ignores_points_that_are_not_there(products, activation):
    orders = [(1, 2), (0, 1, 2), (0, 1, 2), 0, 0]
    options = {"products": products, "activation": activation, "norm": True}
    net = network("S", 5, orders, [2, 3, 3, 3, 2], **options)
    x1, x2 = random(2, 5, 2), random(2, 5, 5, 2)
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    y = net([x1, x2.flatten(1, 2)], mask=mask)
    for sample, there in enumerate(mask):
        one = [x1[sample, there], x2[sample][there][:, there].flatten(0, 1)]
        assert torch.allclose(y[sample], net(one), atol=1e-11)
    wide = network("S", 5, **options)
    y = wide([x1, x2.flatten(1, 2)], mask=mask).reshape(2, 5, 5, 2)
    assert not y[0][~mask[0]].any()


def test_takes_tensors_by_order():
    net = network("S", 4, ((2, 1), (0, 1), (0, 2)), (3, 4, 5))
    x1, x2 = random(6, 4, 2), random(6, 16, 3)
    y = net({1: x1, 2: x2})
    assert {order: tuple(tensor.shape) for order, tensor in y.items()} == {0: (6, 1, 5), 2: (6, 16, 5)}
    padded = torch.cat([x2, torch.cat([x1, torch.zeros(6, 4, 1)], dim=-1)], dim=-2)
    for other in (net([x2, x1]), net(padded)):
        assert all(torch.equal(y[order], other[order]) for order in y)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_takes_any_batch(shape):
    net = network("Sp", 2)
    x = random(*shape, 6, 2)
    y = net(x)
    assert y.shape == (*shape, 4, 2)
    wide = random(*shape, 6, 4)[..., ::2]
    assert torch.equal(net(wide), net(wide.contiguous()))


def test_makes_no_matrix_of_all_pairs_of_rows():
    """Of order 4 at n = 16 there are 2^16 rows: the matrix of unit features would have 2^32 entries."""
    net = DiagramNet("S", 16, [2, 4, 0], [1, 2, 1])
    with torch.no_grad():
        assert net(torch.rand(40, 256, 1)).shape == (40, 1, 1)


def test_differentiates_and_exports_as_functions_do():
    net = network("Sp", 2, (1, (0, 1), 1), (1, 2, 1), products="sqrt")
    x = random(3, 2, 1)
    assert torch.allclose(torch.func.vmap(net)(x), net(x), atol=1e-12)
    jacobian = torch.func.vmap(torch.func.jacrev(net))(x)
    expected = torch.stack([torch.autograd.functional.jacobian(net, one) for one in x])
    assert torch.allclose(jacobian, expected, atol=1e-12)
    assert torch.allclose(torch.export.export(net, (x,)).module()(x), net(x), atol=1e-12)


@pytest.mark.parametrize(("group", "n", "options"), [GROUPS[0], GROUPS[4], GROUPS[5], GROUPS[7]])
def test_is_differentiable(group, n, options):
    net = network(group, n, (1, (0, 1), 1), (1, 2, 1), products="sqrt", norm=group == "O", **options)
    x = random(2, n, 1).requires_grad_()
    assert gradcheck(net, x)
    net(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(("group", "n", "options"), [GROUPS[0], GROUPS[7]])
def test_compiles_into_one_graph(group, n, options):
    net = network(group, n, (1, (0, 1), 1), (2, 3, 2), products="sqrt", **options)
    x = random(3, n, 2).requires_grad_()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    y, z = net(x), compiled(x)
    assert torch.allclose(y, z, atol=1e-12)
    [dy], [dz] = (torch.autograd.grad(result.sin().sum(), x) for result in (y, z))
    assert torch.allclose(dy, dz, atol=1e-12)


@pytest.mark.parametrize("group", ["S", "O"])
def test_can_be_made_again_from_its_options(group):
    net = network(group, 3, norm=True)
    again = DiagramNet(**net.options).double()
    again.load_state_dict(net.state_dict())
    x = random(2, 12, 2)
    assert torch.equal(again(x), net(x))
    assert str(again) == f"DiagramNet({group}(3), 2x(1, 2) -> 3x(0, 1, 2) -> 3x(0, 1, 2) -> 2x2)"


def test_starts_at_unit_variance():
    for group, n in (("S", 6), ("O", 6), ("Sp", 6)):
        torch.manual_seed(0)
        net = DiagramNet(group, n, [(1, 2), (0, 1, 2), 1], [16, 32, 32])
        assert 0.2 < net(torch.randn(64, n + n * n, 16)).std() < 5


WRONG = [
    ({"orders": 2}, "expects orders and channels of every stage, input first and output last"),
    ({"orders": [2, 0]}, r"got orders=\[2, 0\] and channels=\[1, 4, 1\]"),
    ({"orders": [2], "channels": [1]}, "expects at least two stages"),
    ({"orders": [2, (1, 1), 0]}, r"one or more different orders in a stage, got \(1, 1\); copies"),
    ({"products": True}, "expects products to be auto, none, sum, mean or sqrt, got products=True"),
    ({"nonlinearity": "swish"}, "one of auto, pointwise, gate or norm, got nonlinearity='swish'"),
    ({"group": "SO(1,2)", "norm": True}, r"SO\(1,2\) leaves no norm of tensors alone; use norm=False"),
    ({"basis": "small"}, "expects basis to be spanning or minimal, got 'small'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_refuses_what_makes_no_network(changes, message):
    options = {"group": "O", "n": 3, "orders": [2, (0, 2), 0], "channels": [1, 4, 1]} | changes
    with pytest.raises(ValueError, match=message):
        DiagramNet(**options)


def test_says_what_it_expected():
    net = DiagramNet("SO", 3, [(1, 2), (0, 1), 1], [2, 4, 1])
    text = r"DiagramNet\(SO\(3\), 2x\(1, 2\) -> 4x\(0, 1\) -> 1x1\) expects "
    with pytest.raises(ValueError, match=text + r"x of shape \(..., 12, 2\), got \(5, 13, 2\)"):
        net(torch.randn(5, 13, 2))
    with pytest.raises(ValueError, match=text + r"a tensor of each order \(1, 2\), got 1: \[2\]"):
        net({2: torch.randn(5, 9, 2)})
    with pytest.raises(ValueError, match=text + r"tensors of at most 2 channels, got shapes"):
        net([torch.randn(5, 3, 2), torch.randn(5, 9, 3)])
    with pytest.raises(ValueError, match="takes no mask"):
        net(torch.randn(5, 12, 2), mask=torch.ones(5, 3, dtype=torch.bool))
    free = DiagramNet("S", 3, [2, 0], [1, 1])
    with pytest.raises(ValueError, match=r"\(..., 9, 1\) \(or the rows of another n\), got \(10, 1\)"):
        free(torch.randn(10, 1))
