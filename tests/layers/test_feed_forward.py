"""equitorch/layers/feed_forward.py"""

import pytest
import torch
import torch.nn.functional as F

from equitorch.layers import FeedForward, GridMLP, row_grid
from equitorch.layers.feed_forward import KINDS
from equitorch.layers.stacks import stack_irreps
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant, equivariance_error
from tests.equiformer_reference import MODELS, assert_same, linear, part, reference

EXACT = ["gate", "spectral", "product"]


def randomised(layer):
    torch.manual_seed(0)
    for parameter in layer.double().parameters():
        torch.nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("name", MODELS)
def test_is_that_of_equiformer(name):
    data = reference(name)
    config, values = data["config"], data["intermediates"]
    params = part(data["params"], "blocks.0.ffn.")
    layer = FeedForward(
        config["lmax_list"][0],
        config["sphere_channels"],
        config["ffn_hidden_channels"],
        kind="separable_grid" if config["use_grid_mlp"] else "gate",
        exact=False,
        resolution=config["grid_resolution"],
    ).double()
    state = linear(params, "so3_linear_1", "linear1") | linear(params, "so3_linear_2", "linear2")
    state |= {f"gate.{name}": w for name, w in part(params, "gating_linear.").items()}
    state |= {f"scalar.{name}": w for name, w in part(params, "scalar_mlp.0.").items()}
    state |= {f"act.grid.{name}": w for name, w in part(params, "grid_mlp.").items()}
    layer.load_state_dict(state)
    assert_same(layer(values["blocks.0.norm_2"]), values["blocks.0.ffn"])


@pytest.mark.parametrize("lmax", [1, 2, 4])
@pytest.mark.parametrize("parity", ["natural", "both", "so3"])
@pytest.mark.parametrize("kind", EXACT)
def test_commutes_with_every_rotation_and_mirror(kind, parity, lmax):
    sizes = [(4, 3), (5, 2), (3, 2)] if parity == "both" else [4, 5, 3]
    layer = randomised(FeedForward(lmax, *sizes, kind=kind, parity=parity))
    irreps = stack_irreps(lmax, parity)

    def function(*stacks):
        return list(layer(torch.cat(stacks, dim=-1)).split([3, 2][: len(stacks)], dim=-1))

    assert_equivariant(function, irreps, irreps, channels=[4, 3][: len(irreps)], atol=1e-12)


@pytest.mark.parametrize("kind", ["s2", "separable_s2", "grid", "separable_grid"])
def test_published_ones_nearly_commute_the_better_the_finer(kind):
    """This check can fail: a coarse grid is found out."""
    irreps = Irreps.spherical_harmonics(2)
    coarse, fine = (randomised(FeedForward(2, 4, 5, kind=kind, exact=False, resolution=r)) for r in (6, 60))
    errors = [equivariance_error(layer, [irreps], irreps) for layer in (coarse, fine)]
    assert errors[0] > 1e-4
    assert errors[1] < 1e-3 * errors[0]


def test_grid_mlp_is_a_perceptron_on_values():
    layer = GridMLP(2, 4, 6, exact=False, resolution=14, normalization="integral").double()
    x = torch.randn(3, 9, 4, dtype=torch.float64)
    values = torch.einsum("pk,nkc->npc", layer.points.to_points.value, x)
    for k in (0, 2, 4):
        values = F.linear(values if k == 0 else F.silu(values), layer.grid[k].weight)
    torch.testing.assert_close(layer(x), torch.einsum("kp,npc->nkc", layer.points.to_rows.value, values))


def test_spectral_gates_twice():
    """As published: a sigmoid of silu."""
    layer = randomised(FeedForward(1, 2, 3, kind="spectral"))
    x = torch.randn(5, 4, 2, dtype=torch.float64)
    y, g = layer.linear1(x), F.silu(layer.scalar(x[:, 0])).sigmoid()
    expected = layer.linear2(torch.cat([F.silu(y[:, :1]), y[:, 1:] * g[:, None]], dim=1))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_dtype_batch_and_inputs(kind):
    torch.manual_seed(0)
    layer = FeedForward(2, 4, 5, 3, kind=kind, exact=False)
    for lead in ((0,), (1,), (5,), (2, 3)):
        x = torch.randn(*lead, 9, 4)
        before = x.clone()
        y = layer(x)
        assert y.shape == (*lead, 9, 3)
        assert torch.equal(x, before)
    assert layer.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_once_for_all_batches(kind):
    torch.compiler.reset()
    layer = FeedForward(2, 4, 5, 3, kind=kind, exact=False)
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (5, 7, 9):
        x = torch.randn(n, 9, 4)
        with torch._dynamo.config.patch(error_on_recompile=n > 5):
            torch.testing.assert_close(whole(x), layer(x))


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize("kind", ["gate", "product", "separable_s2", "separable_grid"])
def test_has_right_derivatives(kind, piece, monkeypatch):
    if piece:
        monkeypatch.setattr(row_grid, "_PIECE", {"cpu": piece})
    layer = FeedForward(1, 2, 3, kind=kind, exact=False).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    weights = [w for w in layer.parameters() if w.ndim == 2]

    def function(x, *weights):
        names = [n for n, w in layer.named_parameters() if w.ndim == 2]
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, *weights), fast_mode=True)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"on no finite grid, .* exact kinds are gate, spectral and product"):
        FeedForward(2, 4, 5, kind="grid")
    with pytest.raises(ValueError, match="activation 's2' commutes with rotations on no finite grid"):
        FeedForward(2, 4, 5, kind="s2")
    with pytest.raises(ValueError, match=r"FeedForward expects a kind of gate, .*, got 'mlp'"):
        FeedForward(2, 4, 5, kind="mlp")
    with pytest.raises(ValueError, match=r"FeedForward\(l<=2, gate\) expects x of shape \(\.\.\., 9, 4\)"):
        FeedForward(2, 4, 5)(torch.ones(3, 9, 5))
    with pytest.raises(ValueError, match="GridMLP expects exact=False and one stack, got exact=False"):
        FeedForward(2, (4, 4), (5, 5), kind="grid", parity="both", exact=False)
