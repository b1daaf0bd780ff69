"""equitorch/layers/norm.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import LayerNorm, Norm, RMSNorm, SeparableLayerNorm
from equitorch.reps import Irreps, common_channels, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.equiformer_reference import MODELS, assert_same, part, reference
from tests.strategies import flat_irreps, random, seeds

SPEC = "2x0e+0o+2x1o+1e+0e+2e"
LAYERS = [
    LayerNorm(SPEC, 4),
    LayerNorm(SPEC, 4, affine=False),
    RMSNorm(SPEC, 4),
    RMSNorm(SPEC, 4, affine=False),
    RMSNorm(SPEC, 4, centered=True),
    SeparableLayerNorm(SPEC, 4),
    SeparableLayerNorm(SPEC, 4, affine=False),
    SeparableLayerNorm("0o+1e+2o", 4),
]
LAYERS = [layer.double() for layer in LAYERS]


def randomised(layer):
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def test_norm_is_the_length_of_each_irrep():
    x = torch.randn(3, 8, 2, dtype=torch.float64)
    y = Norm("2x0e+2x1o")(x)
    torch.testing.assert_close(y[:, :2], x[:, :2].abs())
    torch.testing.assert_close(y[:, 2], torch.linalg.vector_norm(x[:, 2:5], dim=1))
    torch.testing.assert_close(y[:, 3], torch.linalg.vector_norm(x[:, 5:], dim=1))
    torch.testing.assert_close(Norm("2x0e+2x1o", squared=True)(x), y**2)


@pytest.mark.parametrize("squared", [True, False])
def test_norm_is_invariant_and_compiles(squared):
    layer = Norm(SPEC, squared=squared)
    assert_equivariant(layer, [SPEC], layer.irreps_out)
    x = torch.randn(2, layer.irreps.dim, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    assert Norm("2x0+1", squared=squared).irreps_out == Irreps("3x0")


def test_norm_has_gradient_zero_at_zero():
    """The root of a sum of squares has none there: PyTorch's own rule would give NaN."""
    x = torch.zeros(2, 4, 3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(Norm("0e+1o")(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum() + x.square().sum(), x)
    assert (first == 0).all()
    assert (second == 0).all()
    (naive,) = torch.autograd.grad(x.square().sum(-2).sqrt().sum(), x)
    assert naive.isnan().any()
    y = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(Norm("0e+1o"), y)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_commutes_with_every_rotation_and_mirror(layer):
    assert_equivariant(randomised(layer), [layer.irreps], layer.irreps)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_differentiates_at_zero_and_compiles(layer):
    zero = torch.zeros(2, layer.irreps.dim, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(randomised(layer)(zero).square().sum(), zero, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum() + zero.sum(), zero)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    x = torch.randn(2, layer.irreps.dim, 4, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    assert layer(x[:0]).shape == x[:0].shape


@pytest.mark.parametrize(
    "layer",
    [
        LayerNorm("0e+1o", 2),
        RMSNorm("0e+1o", 2),
        RMSNorm("0e+1o", 2, centered=True),
        SeparableLayerNorm("0e+1o", 2),
    ],
    ids=repr,
)
def test_has_right_derivatives(layer):
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(randomised(layer.double()), x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_are_pytorchs_own_on_invariants():
    x = torch.randn(5, 1, 16, dtype=torch.float64)
    torch.testing.assert_close(LayerNorm("0e", 16).double()(x), torch.nn.LayerNorm(16).double()(x))
    torch.testing.assert_close(RMSNorm("0e", 16).double()(x), torch.nn.RMSNorm(16, eps=1e-5).double()(x))


def test_gives_every_irrep_size_one_or_keeps_their_ratios():
    irreps = Irreps("0e+1o+2e")
    x = torch.randn(6, 9, 64, dtype=torch.float64)
    x[:, 1:4] *= 100
    y = LayerNorm(irreps, 64).double()(x)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 9)):
        torch.testing.assert_close(
            y[:, rows].square().mean((1, 2)), torch.ones(6).double(), rtol=1e-4, atol=0
        )
    z = RMSNorm(irreps, 64).double()(x)
    torch.testing.assert_close(z / z[:, :1, :1], x / x[:, :1, :1])
    by_degree = [z[:, rows].square().mean((1, 2)) for rows in (slice(0, 1), slice(1, 4), slice(4, 9))]
    torch.testing.assert_close(sum(by_degree) / 3, torch.ones(6).double(), rtol=1e-4, atol=0)


def test_the_check_can_fail():
    norm = torch.nn.LayerNorm(4).double()  # centres vectors too, by a different amount in each component
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(norm, ["1o"], "1o")


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"LayerNorm\(1x0e\+1x1o\) expects x of shape \(\.\.\., 4, 8\), got \(2, 4, 3\)"
    ):
        LayerNorm("0e+1o", 8)(torch.ones(2, 4, 3))
    with pytest.raises(ValueError, match=r"RMSNorm\(1x1o\) expects x of shape \(\.\.\., 3, 8\)"):
        RMSNorm("1o", 8)(torch.ones(2, 4, 8))
    with pytest.raises(ValueError, match=r"Norm\(1x1o\) expects x of shape \(\.\.\., 3, channels\)"):
        Norm("1o")(torch.ones(4, 8))


@given(flat_irreps, st.booleans(), seeds)
def test_is_e3nns_norm(spec, squared, seed):
    o3 = pytest.importorskip("e3nn.o3")
    theirs, ours = o3.Norm(str(spec), squared), Norm(rows_of(spec), squared)
    x = random(seed, 2, 3, spec.dim)
    invariants = Irreps([(mul, (0, 1)) for mul, _ in spec])
    torch.testing.assert_close(to_e3nn(ours(from_e3nn(x, spec)), invariants), theirs.double()(x))
    assert ours.irreps_out == rows_of(Irreps(str(theirs.irreps_out)), common_channels(spec))


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_sh", "rms_norm_sh"])
def test_is_the_norm_of_equiformer_to_round_off(kind):
    case = reference("escn_primitives")["norms"][kind]
    x, params, irreps = case["x"], case["params"], Irreps.spherical_harmonics(4)
    make = {"layer_norm": LayerNorm, "layer_norm_sh": SeparableLayerNorm}.get(kind)
    layer = (make(irreps, 8) if make else RMSNorm(irreps, 8, centered=True)).double()
    names = {"affine_weight": "weight", "affine_bias": "bias", "norm_l0.weight": "scalar.weight"}
    names["norm_l0.bias"] = "scalar.bias"
    state = {names[name]: value for name, value in params.items()}
    if "bias" in state:
        state["bias"] = state["bias"][None]
    layer.load_state_dict(state)
    assert_same(layer(x), case["y"])


@pytest.mark.parametrize("model", MODELS)
def test_is_the_final_norm_of_equiformer(model):
    data = reference(model)
    values, params = data["intermediates"], part(data["params"], "norm.")
    irreps = Irreps.spherical_harmonics(data["config"]["lmax_list"][0])
    if data["config"]["norm_type"] == "layer_norm_sh":
        layer = SeparableLayerNorm(irreps, 16).double()
        scalar = {f"scalar.{n}": v for n, v in part(params, "norm_l0.").items()}
        layer.load_state_dict({"weight": params["affine_weight"], **scalar})
    else:
        layer = RMSNorm(irreps, 16, centered=True).double()
        layer.load_state_dict({"weight": params["affine_weight"], "bias": params["affine_bias"][None]})
    assert_same(layer(values["blocks.1"]), values["norm"])


def test_separable_norm_is_pytorchs_on_invariants_and_leaves_ratios_of_degrees():
    x = torch.randn(5, 9, 16, dtype=torch.float64)
    y = SeparableLayerNorm("0e+1o+2e", 16).double()(x)
    torch.testing.assert_close(y[:, 0], torch.nn.LayerNorm(16).double()(x[:, 0]))
    torch.testing.assert_close(y[:, 1:] / y[:, 1:2, :1], x[:, 1:] / x[:, 1:2, :1])
    assert dict(SeparableLayerNorm("0o+1e", 4).named_parameters()).keys() == {"weight"}
