"""equitorch/layers/batch_norm.py"""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import BatchNorm
from equitorch.reps import common_channels, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.strategies import flat_irreps, random, seeds

SPEC = "2x0e+3x1o+0o+0e+2e"


@pytest.mark.parametrize(
    ("instance", "reduce", "normalization", "affine", "include_bias"),
    [
        (False, "mean", "component", True, True),
        (True, "max", "norm", True, True),
        (False, "max", "component", True, False),
        (True, "mean", "component", False, True),
        (False, "mean", "norm", False, True),
    ],
)
@pytest.mark.parametrize("samples", [(), (3,), (2, 3)])
def test_agrees_with_e3nn_state_and_all(instance, reduce, normalization, affine, include_bias, samples):
    nn = pytest.importorskip("e3nn.nn")
    options = {"instance": instance, "reduce": reduce, "normalization": normalization, "affine": affine}
    options["include_bias"] = include_bias
    theirs, ours = nn.BatchNorm(SPEC, **options).double(), BatchNorm(SPEC, 1, **options).double()
    for parameter in theirs.parameters():
        parameter.data.normal_()
    ours.load_state_dict(theirs.state_dict())
    for training in (True, True, False):
        theirs.train(training), ours.train(training)
        x = torch.randn(6, *samples, theirs.irreps.dim, dtype=torch.float64) + 0.3
        torch.testing.assert_close(ours(x[..., None])[..., 0], theirs(x))
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_counts_channels_as_e3nn_does():
    """8x0e + 8x1o of e3nn is 2x0e + 2x1o with 4 channels."""
    nn = pytest.importorskip("e3nn.nn")
    theirs, ours = nn.BatchNorm("8x0e+8x1o").double(), BatchNorm("2x0e+2x1o", 4).double()
    for parameter in theirs.parameters():
        parameter.data.normal_()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 8, 4, dtype=torch.float64)
    scalars, vectors = x[:, :2].flatten(1), x[:, 2:].unflatten(1, (2, 3)).transpose(2, 3).reshape(5, 24)
    y = theirs(torch.cat([scalars, vectors], dim=1))
    vectors = y[:, 8:].view(5, 2, 4, 3).transpose(2, 3).reshape(5, 6, 4)
    torch.testing.assert_close(ours(x), torch.cat([y[:, :8].view(5, 2, 4), vectors], dim=1))


@pytest.mark.parametrize(("instance", "training"), list(itertools.product([True, False], repeat=2)))
def test_commutes_with_every_rotation_and_mirror(instance, training):
    layer = BatchNorm(SPEC, 4, instance=instance, momentum=0.0).double().train(training)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert_equivariant(layer, [SPEC], SPEC, batch=(5, 2))


def test_the_check_can_fail():
    layer = torch.nn.BatchNorm1d(3).double()  # one mean for each component of a vector
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(lambda x: layer(x), ["1o"], "1o")


def test_gives_the_batch_unit_size():
    x = 3 + 7 * torch.randn(400, 4, 5, dtype=torch.float64)
    y = BatchNorm("0e+1o", 5).double()(x)
    torch.testing.assert_close(y[:, 0].mean(0), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(y[:, 0].square().mean(0), torch.ones(5).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(y[:, 1:].square().mean((0, 1)), torch.ones(5).double(), rtol=1e-5, atol=0)


def test_differentiates_at_zero_and_compiles():
    layer = BatchNorm("0e+1o", 2).double()
    zero = torch.zeros(3, 4, 2, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(zero).square().sum() + layer(zero).sum(), zero)
    assert torch.isfinite(first).all()
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x), layer(x))
    assert layer.running_var.ne(1).all()


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"reduce to be one of mean, max, got 'sum'"):
        BatchNorm("0e", 1, reduce="sum")
    with pytest.raises(ValueError, match=r"expects x of shape \(batch, \.\.\., 4, 8\), got \(4, 8\)"):
        BatchNorm("0e+1o", 8)(torch.ones(4, 8))


@given(
    flat_irreps,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["mean", "max"]),
    st.sampled_from(["component", "norm"]),
    st.sampled_from([(), (3,), (2, 2)]),
    seeds,
)
def test_is_e3nns_batch_norm(spec, affine, include_bias, instance, reduce, normalization, between, seed):
    """In training twice, then in evaluation: outputs, gradients, running averages, the state both ways."""
    nn = pytest.importorskip("e3nn.nn")
    spec, given_spec = spec.remove_zero_multiplicities(), spec  # on which e3nn's breaks
    options = {"affine": affine, "include_bias": include_bias, "instance": instance, "reduce": reduce}
    options |= {"normalization": normalization, "eps": 1e-3, "momentum": 0.3}
    theirs = nn.BatchNorm(str(spec), **options).double()
    ours = BatchNorm(rows_of(given_spec), common_channels(spec), **options).double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    for step, training in enumerate((True, True, False)):
        x = random(seed + step, 4, *between, spec.dim).requires_grad_()
        y = theirs.train(training)(x)
        z = to_e3nn(ours.train(training)(from_e3nn(x, spec)), spec)
        torch.testing.assert_close(z, y, rtol=1e-10, atol=1e-10)
        (dy,), (dz,) = (torch.autograd.grad(out.sin().sum(), x) for out in (y, z))
        torch.testing.assert_close(dz, dy, rtol=1e-9, atol=1e-9)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_keeps_its_averages_when_a_batch_is_empty():
    layer = BatchNorm("0e+1o", 2)
    assert layer(torch.ones(0, 4, 2)).shape == (0, 4, 2)
    assert layer(torch.ones(3, 0, 4, 2)).shape == (3, 0, 4, 2)
    assert torch.equal(layer.running_var, torch.ones(4))
