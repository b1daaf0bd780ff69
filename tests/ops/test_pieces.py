"""equitorch/ops/pieces.py"""

import pytest
import torch

from equitorch.ops.pieces import by_pieces


def layer(x, s, w, b):
    """Weights, a nonlinearity, and a second argument of the points."""
    return torch.sin(x @ w) * s[:, None] + b.cos() * x.sum(1, keepdim=True)


def arguments(n):
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    return [make(n, 3), make(n)], [make(3, 4), make(4)]


def derivatives(function, points, shared):
    inputs = [*points, *shared]
    y = function(points, shared)
    first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs, create_graph=True)
    third = torch.autograd.grad(sum(g.square().sum() for g in second), inputs)
    return [y, *first, *second, *third]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
def test_is_the_function_with_derivatives_of_any_order(n):
    points, shared = arguments(n)
    whole = derivatives(lambda p, s: layer(*p, *s), points, shared)
    pieces = derivatives(lambda p, s: by_pieces(layer, p, s, 2), points, shared)
    torch.testing.assert_close(pieces, whole)


def test_differentiates_only_what_is_wanted():
    points, shared = arguments(5)
    x, s = points[0].detach(), points[1]
    y = by_pieces(layer, [x, s], [w.detach() for w in shared], 2)
    assert torch.autograd.gradcheck(lambda s: by_pieces(layer, [x, s], shared, 2), s)
    assert torch.autograd.grad(y.sum(), s)[0].shape == (5,)
    with torch.no_grad():
        assert not by_pieces(layer, points, shared, 2).requires_grad


def test_never_sees_more_points_than_a_piece():
    seen = []

    def spy(x):
        seen.append(x.shape[0])
        return x.exp()

    x = torch.randn(7, 2, requires_grad=True)
    (g,) = torch.autograd.grad(by_pieces(spy, [x], [], 3).sum(), x, create_graph=True)
    g.sum().backward()
    assert len(seen) == 9
    assert max(seen) == 3


def test_compiles_and_maps():
    points, shared = arguments(7)
    function = lambda *t: by_pieces(layer, t[:2], t[2:], 2)  # noqa: E731
    expected = layer(*points, *shared)
    whole = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(*points, *shared), expected)
    each = torch.func.vmap(lambda x, s: function(x[None], s[None], *shared)[0])(*points)
    torch.testing.assert_close(each, expected)


def test_the_check_can_fail():
    """A function that mixes points is another function in pieces."""
    x = torch.randn(4, 2)
    mixing = lambda x: x - x.mean(0)  # noqa: E731
    assert (by_pieces(mixing, [x], [], 2) - mixing(x)).abs().max() > 1e-3
