"""equitorch/layers/activation.py"""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import Activation, NormActivation, ShiftedSoftplus, normalize2mom, ssp
from equitorch.layers.activation import ACTIVATIONS, E3NN_CONSTANTS, parity_of
from equitorch.reps import Irreps, common_channels, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.strategies import flat_irreps, random, seeds

# Second moments under a standard normal, from tables of integrals or 40-digit quadrature.
EXACT = {
    "silu": 1.6765324703310909,
    "tanh": 1.5925374197228315,
    "sigmoid": 1.8462285453386054,
    "relu": math.sqrt(2),
    "softplus": 1.0418668355353016,
    "gelu": 1.5335304411955353,
    "ssp": 1.8755962561350417,
    "abs": 1.0,
}


@pytest.mark.parametrize("name", EXACT)
def test_constants_are_e3nns_and_the_exact_ones(name):
    assert normalize2mom(name, exact=True).constant == pytest.approx(EXACT[name], rel=1e-12)
    assert normalize2mom(ACTIVATIONS[name]).constant == E3NN_CONSTANTS[name]
    assert E3NN_CONSTANTS[name] == pytest.approx(EXACT[name], rel=2e-3)
    e3nn_math = pytest.importorskip("e3nn.math")
    torch.manual_seed(0)
    assert e3nn_math.normalize2mom(ACTIVATIONS[name]).cst == pytest.approx(E3NN_CONSTANTS[name], rel=1e-12)


def test_recognises_a_function_by_its_values_not_its_name():
    def silu(x):
        return torch.cos(x)

    assert normalize2mom(torch.nn.SiLU()).constant == E3NN_CONSTANTS["silu"]
    exact = ((1 + math.exp(-2)) / 2) ** -0.5
    assert normalize2mom(silu, exact=True).constant == pytest.approx(exact, rel=1e-12)
    assert normalize2mom(silu).constant == pytest.approx(exact, rel=2e-3)
    assert normalize2mom(lambda x: x, exact=True).constant == 1.0
    assert normalize2mom(normalize2mom("tanh")).constant == E3NN_CONSTANTS["tanh"]


def test_shifted_softplus_goes_through_the_origin():
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    expected = torch.log(0.5 * torch.exp(x) + 0.5)
    torch.testing.assert_close(ssp(x), expected)
    torch.testing.assert_close(ShiftedSoftplus()(x), expected)
    assert ShiftedSoftplus(shift=0.0)(x)[1].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("spec", "acts"),
    [
        ("16x0e", [F.silu]),
        ("4x0e+2x0o+1o+3x0o", ["silu", torch.tanh, None, torch.abs]),
        ("0e+1e", [None, None]),
        ("2x0+1", ["sigmoid", None]),
    ],
)
def test_commutes_and_has_the_parity_it_says(spec, acts):
    layer = Activation(spec, acts)
    assert_equivariant(layer, [spec], layer.irreps_out)
    x = torch.randn(2, layer.irreps_in.dim, 3)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


@pytest.mark.parametrize("acts", [["silu", torch.tanh, None], ["relu", torch.abs, None]])
def test_agrees_with_e3nn(acts):
    nn = pytest.importorskip("e3nn.nn")
    spec, functions = "4x0e+2x0o+1x1o", [ACTIVATIONS.get(a, a) if isinstance(a, str) else a for a in acts]
    ours, theirs = Activation(spec, acts), nn.Activation(spec, functions)
    x = torch.randn(7, 9, dtype=torch.float64)
    torch.testing.assert_close(ours(x[..., None])[..., 0], theirs(x))
    assert repr(ours.irreps_out) == repr(theirs.irreps_out)


def test_the_check_can_fail():
    layer = Activation("1x0o", [torch.tanh])
    layer.acts[0] = normalize2mom("sigmoid")  # neither odd nor even
    with pytest.raises(AssertionError, match="row 0"):
        assert_equivariant(layer, ["0o"], "0o")
    assert (parity_of(torch.cos), parity_of(torch.sin), parity_of(F.silu)) == (1, -1, 0)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"neither: the result would have no parity"):
        Activation("0o", ["silu"])
    with pytest.raises(ValueError, match=r"rows of 1o: they would mix under rotations; use Gate"):
        Activation("1o", ["silu"])
    with pytest.raises(ValueError, match=r"expects one function a block, 2, got 1"):
        Activation("0e+1o", ["silu"])
    with pytest.raises(ValueError, match=r"one of silu, .* or a function, got 'sliu'"):
        Activation("0e", ["sliu"])
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 4, channels\), got \(2, 3, 1\)"):
        Activation("0e+1o", ["silu", None])(torch.ones(2, 3, 1))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_norm_activation_commutes(normalize, bias):
    spec = "2x0e+0o+2x1o+2e"
    layer = NormActivation(spec, "sigmoid", normalize=normalize, bias=bias, channels=4).double()
    if bias:
        torch.nn.init.normal_(layer.biases)
    assert_equivariant(layer, [spec], spec)
    x = torch.randn(2, layer.irreps.dim, 4, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


def test_norm_activation_agrees_with_e3nn():
    nn, o3 = pytest.importorskip("e3nn.nn"), pytest.importorskip("e3nn.o3")
    theirs = nn.NormActivation(o3.Irreps("2x1e"), torch.sigmoid, bias=True).double()
    theirs.biases.data.normal_()
    ours = NormActivation("2x1e", torch.sigmoid, bias=True, channels=1).double()
    ours.biases.data.copy_(theirs.biases.data[:, None])
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x[..., None])[..., 0], theirs(x))


@pytest.mark.parametrize("normalize", [True, False])
def test_norm_activation_has_finite_gradients_at_zero(normalize):
    layer = NormActivation("0e+1o", torch.tanh, normalize=normalize)
    x = torch.zeros(3, 4, 2, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x).sum() + (x**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    y = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, y)
    assert torch.autograd.gradgradcheck(layer, y)


def test_norm_activation_says_what_it_expected():
    with pytest.raises(ValueError, match=r"only with normalize=True, got epsilon=1e-06"):
        NormActivation("1o", torch.tanh, normalize=False, epsilon=1e-6)
    with pytest.raises(ValueError, match=r"expects the number of channels, got channels=None"):
        NormActivation("1o", torch.tanh, bias=True)


@pytest.mark.parametrize("function", [torch.sin, torch.cos, lambda x: x, lambda x: x**3, torch.nn.Softsign()])
def test_takes_e3nns_constant_for_any_function(function):
    e3nn_math = pytest.importorskip("e3nn.math")
    theirs = e3nn_math.normalize2mom(function)
    x = torch.randn(9, dtype=torch.float64)
    torch.testing.assert_close(normalize2mom(function)(x), theirs(x), rtol=1e-14, atol=0)
    assert normalize2mom(function, exact=True).constant != theirs.cst


scalar_functions = st.sampled_from([None, torch.tanh, torch.abs, torch.sin])
even_functions = st.sampled_from([None, "silu", torch.tanh, torch.abs, torch.sigmoid])


@st.composite
def activations(draw):
    """Irreps, and a function for each entry that may have one."""
    spec = draw(flat_irreps)
    choice = {"0e": even_functions, "0o": scalar_functions}
    return spec, [draw(choice.get(str(ir), st.none())) for _, ir in spec]


@given(activations(), seeds)
def test_is_e3nns_activation(case, seed):
    nn = pytest.importorskip("e3nn.nn")
    spec, acts = case
    ours = Activation(rows_of(spec), acts)
    theirs = nn.Activation(str(spec), [ACTIVATIONS.get(a, a) if isinstance(a, str) else a for a in acts])
    x = random(seed, 3, spec.dim)
    y = to_e3nn(ours(from_e3nn(x, spec)), Irreps(str(theirs.irreps_out)))
    torch.testing.assert_close(y, theirs(x), rtol=1e-12, atol=1e-12)
    assert ours.irreps_out == rows_of(Irreps(str(theirs.irreps_out)), common_channels(spec))


@given(flat_irreps, st.booleans(), st.sampled_from([None, 1e-3]), seeds)
def test_is_e3nns_norm_activation(spec, bias, epsilon, seed):
    nn, o3 = pytest.importorskip("e3nn.nn"), pytest.importorskip("e3nn.o3")
    theirs = nn.NormActivation(o3.Irreps(str(spec)), torch.tanh, True, epsilon, bias).double()
    channels = common_channels(spec)
    ours = NormActivation(rows_of(spec), torch.tanh, True, epsilon, bias, channels=channels).double()
    if bias:
        theirs.biases.data.normal_()
        ours.biases.data.copy_(theirs.biases.data.view_as(ours.biases))
    x = random(seed, 3, spec.dim)
    torch.testing.assert_close(to_e3nn(ours(from_e3nn(x, spec)), spec), theirs(x), rtol=1e-12, atol=1e-12)
