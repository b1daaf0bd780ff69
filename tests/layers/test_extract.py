"""equitorch/layers/extract.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import Extract, ExtractIr
from equitorch.reps import Irreps, common_channels, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.strategies import flat_irreps, random, seeds

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


@given(flat_irreps, st.data(), seeds)
def test_is_e3nns_extract(spec, data, seed):
    nn = pytest.importorskip("e3nn.nn")
    blocks = st.lists(st.integers(0, len(spec) - 1), max_size=4).map(tuple)
    instructions = data.draw(st.lists(blocks, max_size=3))
    outs = [Irreps([spec[i] for i in chosen]) for chosen in instructions]
    channels = common_channels(spec)
    ours = Extract(rows_of(spec), [rows_of(out, channels) for out in outs], instructions)
    x = random(seed, 2, spec.dim)
    theirs = nn.Extract(str(spec), [str(out) for out in outs], instructions)(x)
    for out, a, b in zip(outs, ours(from_e3nn(x, spec)), theirs, strict=True):
        assert torch.equal(to_e3nn(a, out), b)
    for _, ir in spec:
        kept = Irreps([entry for entry in spec if entry.ir == ir])
        one = ExtractIr(rows_of(spec), ir)(from_e3nn(x, spec))
        assert torch.equal(to_e3nn(one, kept), nn.ExtractIr(str(spec), str(ir))(x))
