"""equitorch/layers/extract.py"""

import pytest
import torch

from equitorch.layers import Extract, ExtractIr
from equitorch.testing import assert_equivariant

ARGUMENTS = ("2x1e+0e+3x0e+2e", ["3x0e+0e", "2e+2x1e", ""], [(2, 1), (3, 0), ()])


def test_agrees_with_e3nn():
    nn = pytest.importorskip("e3nn.nn")
    ours, theirs = Extract(*ARGUMENTS), nn.Extract(*ARGUMENTS)
    x = torch.randn(4, 15)
    for a, b in zip(ours(x[..., None]), theirs(x), strict=True):
        assert torch.equal(a[..., 0], b)
    assert torch.equal(
        ExtractIr("2x1e+0e+1e", "1e")(x[:, :10, None])[..., 0], nn.ExtractIr("2x1e+0e+1e", "1e")(x[:, :10])
    )


def test_commutes_and_compiles():
    layer = Extract(*ARGUMENTS)
    assert_equivariant(layer, [ARGUMENTS[0]], ARGUMENTS[1])
    x = torch.randn(2, 15, 3)
    for a, b in zip(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x), strict=True):
        assert torch.equal(a, b)


def test_the_check_can_fail():
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(Extract("1e+1o", ["1o"], [(1,)]), ["1e+1o"], ["1e"])


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects blocks that make up 1x0e, got \[0\]"):
        Extract("1o+0e", ["0e"], [(0,)])
    with pytest.raises(ValueError, match=r"one instruction for each output, 2, got 1"):
        Extract("1o+0e", ["0e", "1o"], [(1,)])
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 4, channels\), got \(2, 3, 1\)"):
        ExtractIr("1o+0e", "0e")(torch.ones(2, 3, 1))
