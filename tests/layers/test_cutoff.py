"""equitorch/layers/cutoff.py"""

import math

import pytest
import torch

from equitorch.layers import CosineCutoff, PolynomialCutoff

CUTOFFS = [CosineCutoff(5.0), CosineCutoff(5.0, lower=1.0), PolynomialCutoff(5.0), PolynomialCutoff(5.0, p=3)]


def derivatives(function, d, order):
    """The function and its derivatives at each point, one by one."""
    d = d.clone().requires_grad_()
    y = function(d)
    out = [y]
    for _ in range(order):
        (y,) = torch.autograd.grad(y.sum(), d, create_graph=True)
        out.append(y)
    return [y.detach() for y in out]


def test_means_the_published_formulas():
    d = torch.linspace(0, 4.999, 50, dtype=torch.float64)
    x = d / 5
    torch.testing.assert_close(CUTOFFS[0](d), (1 + torch.cos(math.pi * x)) / 2)
    window = (1 + torch.cos(math.pi * (2 * (d - 1) / 4 + 1))) / 2
    torch.testing.assert_close(CUTOFFS[1](d), torch.where(d > 1, window, 0.0))
    torch.testing.assert_close(CUTOFFS[2](d), 1 - 28 * x**6 + 48 * x**7 - 21 * x**8)
    torch.testing.assert_close(CUTOFFS[3](d), 1 - 10 * x**3 + 15 * x**4 - 6 * x**5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cutoff", CUTOFFS, ids=repr)
def test_is_exactly_zero_at_and_beyond_the_cutoff(cutoff, dtype):
    for y in derivatives(cutoff, torch.tensor([5.0, 5.0001, 7.0, 1e6], dtype=dtype), 2):
        assert torch.equal(y, torch.zeros(4, dtype=dtype))
    assert (cutoff(torch.linspace(0, 6, 1001, dtype=dtype)) >= 0).all()


@pytest.mark.parametrize(("cutoff", "smooth"), list(zip(CUTOFFS, [1, 1, 2, 2], strict=True)), ids=repr)
def test_has_derivatives_without_a_jump(cutoff, smooth):
    """The last column is the first derivative that does jump: the check can fail."""
    edges = [5.0] if not getattr(cutoff, "lower", 0) else [1.0, 5.0]
    for edge in edges:
        left, right = (
            derivatives(cutoff, torch.tensor([edge + h], dtype=torch.float64), smooth + 1)
            for h in (-1e-7, 1e-7)
        )
        jumps = [abs((a - b).item()) for a, b in zip(left, right, strict=True)]
        assert max(jumps[:-1]) < 1e-6 < 0.1 < jumps[-1]


@pytest.mark.parametrize("cutoff", CUTOFFS, ids=repr)
def test_differentiates_twice(cutoff):
    d = torch.tensor([0.0, 0.3, 1.7, 3.1, 4.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cutoff, d)
    assert torch.autograd.gradgradcheck(cutoff, d)


@pytest.mark.parametrize("cutoff", CUTOFFS, ids=repr)
def test_compiles_to_one_graph(cutoff):
    d = torch.linspace(0, 6, 7)
    torch.testing.assert_close(torch.compile(cutoff, fullgraph=True, backend="aot_eager")(d), cutoff(d))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects 0 <= lower < upper, got lower=6, upper=5"):
        CosineCutoff(5, lower=6)
    with pytest.raises(ValueError, match=r"integer p >= 1, got upper=5.0, p=0"):
        PolynomialCutoff(5.0, p=0)
