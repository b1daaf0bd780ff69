"""equitorch/layers/attention.py"""

import pytest
import torch

from equitorch.layers import GraphAttention, PolynomialCutoff, SmoothLeakyReLU, edge_softmax
from equitorch.layers.stacks import both_ends, stack_irreps
from equitorch.ops import use_reference
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, edge_frames
from equitorch.reps import wigner_D
from equitorch.testing import assert_equivariant, random_rotation
from tests.equiformer_reference import (
    MODELS,
    assert_same,
    edge_scalars,
    edges,
    linear,
    part,
    reference,
)

INDEX = torch.tensor([[1, 2, 3, 0, 2, 0], [0, 0, 0, 1, 1, 2]])  # the last node has no edge
PLAN = EdgePlan.build(INDEX, 4)
CUTOFF = 3.0
CHANNELS = {"natural": (4, 3, 2, 3), "so3": (4, 3, 2, 3), "both": ((3, 2), (3, 2), (2, 1), (2, 3))}


def make(parity="natural", *, lmax=2, mmax=2, **options):
    """Attention with random weights: no bias hides at zero."""
    torch.manual_seed(0)
    channels, hidden, value, out = CHANNELS[parity]
    layer = GraphAttention(
        lmax,
        mmax,
        channels,
        hidden=hidden,
        heads=2,
        score_channels=3,
        value_channels=value,
        scalars=5,
        edge_channels=6,
        channels_out=out,
        parity=parity,
        **options,
    ).double()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return layer


def inputs(layer, edges=6, nodes=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(nodes, (layer.lmax + 1) ** 2, sum(layer.channels), generator=g, dtype=torch.float64)
    scalars, v = (torch.randn(edges, n, generator=g, dtype=torch.float64) for n in (5, 3))
    return x.to(dtype), scalars.to(dtype), v.to(dtype)


def rotated(layer, v, **options):
    return EdgeRotation.build(v, layer.lmax, layer.mmax, **options)


def test_leaky_relu_is_that_of_equiformer():
    case = reference("escn_primitives")["smooth_leaky_relu"]
    assert_same(SmoothLeakyReLU()(case["x"]), case["y"])


@pytest.mark.parametrize("name", MODELS)
def test_is_that_of_equiformer(name):
    data, prefix = reference(name), "blocks.0.ga."
    config, values, params = data["config"], data["intermediates"], part(data["params"], prefix)
    scalars = edge_scalars(data, prefix)
    layer = GraphAttention(
        config["lmax_list"][0],
        config["mmax_list"][0],
        config["sphere_channels"],
        hidden=config["attn_hidden_channels"],
        heads=config["num_heads"],
        score_channels=config["attn_alpha_channels"],
        value_channels=config["attn_value_channels"],
        scalars=scalars.shape[1],
        edge_channels=config["edge_channels"],
        activation="gate" if config["use_gate_act"] else "separable_s2",
        parity="so3",
        exact=False,
        rescale=True,
        resolution=config["grid_resolution"],
    ).double()
    layer.load_state_dict(published(params))
    plan, rotation = edges(data)
    x = values["blocks.0.norm_1"]
    assert_same(layer(x, scalars, rotation, plan), values["blocks.0.ga"])
    _, extra = layer.conv1(both_ends(x, rotation, plan, layer.channels), layer._factor(scalars))
    assert_same(extra, values["blocks.0.ga.so2_conv_1.extra"])
    assert_same(layer.attention(extra.split(layer.split, dim=-1)[0], plan), data["alphas"][0])
    if config["use_gate_act"]:  # exact: the frames do not matter
        again = layer(x, scalars, rotated(layer, data["inputs"]["edge_distance_vec"]), plan)
        assert_same(again, values["blocks.0.ga"])


def published(params):
    """The weights of a published attention block under our names."""
    state = linear(params, "proj", "proj") | {"score": params["alpha_dot"]}
    state |= {f"score_norm.{n}": w for n, w in part(params, "alpha_norm.").items()}
    state |= {f"radial.{n}": w for n, w in part(params, "so2_conv_1.rad_func.net.").items()}
    for k in (1, 2):
        conv = part(params, f"so2_conv_{k}.")
        state |= {f"conv{k}.m0.{n}": w for n, w in part(conv, "fc_m0.").items()}
        for name, weight in part(conv, "so2_m_conv.").items():
            real, imag = weight.chunk(2)
            m = name.split(".")[0]
            state |= {f"conv{k}.real.{m}": real, f"conv{k}.imag.{m}": imag}
    return state


@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_means_a_loop_over_nodes(weighted):
    torch.manual_seed(0)
    t = torch.randn(6, 2, dtype=torch.float64)
    w = torch.tensor([0.3, 0.0, 1.0, 0.2, 0.5, 0.0]).double() if weighted else torch.ones(6).double()
    ours = edge_softmax(t, PLAN, envelope=w if weighted else None)
    for i in range(3):
        at = INDEX[1] == i
        e = w[at, None] * t[at].exp()
        expected = e / e.sum(0) * w[at, None] if e.sum() else torch.zeros_like(e)
        torch.testing.assert_close(ours[at], expected)
    torch.testing.assert_close(edge_softmax(t + 500, PLAN), edge_softmax(t, PLAN))


@pytest.mark.parametrize("lmax", [1, 2, 4])
@pytest.mark.parametrize("activation", ["gate", "product"])
@pytest.mark.parametrize("parity", CHANNELS)
def test_commutes_with_every_rotation_and_mirror(parity, activation, lmax):
    layer = make(parity, lmax=lmax, mmax=min(lmax, 2), activation=activation)
    _, scalars, _ = inputs(layer)
    envelope, irreps = torch.rand(6).double(), stack_irreps(lmax, parity)
    out = CHANNELS[parity][3]

    def function(r, *xs):
        v = r[INDEX[0], :, 0] - r[INDEX[1], :, 0]
        y = layer(torch.cat(xs, dim=-1), scalars, rotated(layer, v), PLAN, envelope=envelope)
        return list(y.split(out if parity == "both" else [out], dim=-1))

    vector = "1" if parity == "so3" else "1o"
    widths = [w for w in layer.channels if w]
    assert_equivariant(function, [vector, *irreps], irreps, channels=[1, *widths], batch=(4,), atol=1e-12)


def test_the_check_can_fail():
    """Published weights know left from right: a mirror is found out."""
    layer = make("so3")
    _, scalars, _ = inputs(layer)
    irreps = stack_irreps(2, "natural")

    def function(r, x):
        v = r[INDEX[0], :, 0] - r[INDEX[1], :, 0]
        return layer(x, scalars, rotated(layer, v), PLAN)

    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(function, ["1o", *irreps], irreps, channels=[1, 4], batch=(4,))


@pytest.mark.parametrize("activation", ["gate", "product"])
@pytest.mark.parametrize("parity", CHANNELS)
def test_does_not_see_the_frames(parity, activation):
    layer = make(parity, lmax=3, mmax=2, activation=activation, rescale=True, share_orders=True)
    x, scalars, v = inputs(layer)
    angle = torch.rand(6, dtype=torch.float64) * 6
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(6).double(), torch.ones(6).double()
    roll = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1).view(6, 3, 3)
    y = layer(x, scalars, rotated(layer, v), PLAN)
    torch.testing.assert_close(
        layer(x, scalars, rotated(layer, v, frames=roll @ edge_frames(v)), PLAN), y, rtol=0, atol=1e-13
    )


def attention_at(d, *, score=0.0, others=1):
    """Attention weights of a node with one neighbour at distance d, and others within the cutoff."""
    count = others + 1
    plan = EdgePlan.build(torch.stack([torch.arange(1, count + 1), torch.zeros(count).long()]), count + 1)
    t = torch.cat([torch.tensor([[score]]), torch.zeros(others, 1)]).double()
    far = torch.cat([d[None], torch.full((others,), 1.5).double()])
    return edge_softmax(t, plan, envelope=PolynomialCutoff(CUTOFF, 5)(far))[:, 0]


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("score", [0.0, 30.0, 300.0])
def test_is_smooth_where_a_neighbour_leaves(score, others):
    """Value, slope and curvature; also for the last neighbour, and for one of the highest score."""
    gap = 1e-5 * 2.0 ** torch.arange(3) if score else torch.tensor([1e-3, 1e-4])
    outside = attention_at(torch.tensor(CUTOFF + 0.1).double(), score=score, others=others)
    assert outside[0] == 0
    assert torch.isfinite(outside).all()
    if score > 30:  # the one that leaves takes everything until it is gone
        return
    for g in gap:
        d = (CUTOFF - g).double().requires_grad_()
        a = attention_at(d, score=score, others=others)
        slope = torch.autograd.grad(a[0], d, create_graph=True)[0]
        curve = torch.autograd.grad(slope, d)[0]
        size = float(torch.tensor(score).exp()) if others else 1.0
        assert a[0] <= 36 * size * (g / CUTOFF) ** 3
        assert slope.abs() <= 108 * size * (g / CUTOFF) ** 2
        assert curve.abs() <= 216 * size * (g / CUTOFF)


def test_no_score_at_the_cutoff_disturbs_the_others():
    """Shifted by the largest score alone, the others would underflow beside the epsilon."""
    inside = attention_at(torch.tensor(CUTOFF - 1e-9).double(), score=45.0, others=2)
    outside = attention_at(torch.tensor(CUTOFF + 1e-9).double(), score=45.0, others=2)
    torch.testing.assert_close(inside, outside, rtol=0, atol=1e-5)
    w, t = PolynomialCutoff(CUTOFF, 5)(torch.tensor([CUTOFF - 1e-9, 1.5, 1.5]).double()), [45.0, 0.0, 0.0]
    e = w * torch.exp(torch.tensor(t).double() - 45.0)
    naive = e / (e.sum() + 1e-16) * w
    assert (naive - outside).abs().max() > 1e-3


def test_moves_continuously_as_an_edge_leaves():
    layer = make(lmax=2)
    x, scalars, v = inputs(layer)
    cutoff = PolynomialCutoff(CUTOFF, 5)
    v = 2 * v / v.norm(dim=-1, keepdim=True)

    def at(d):
        moved = torch.cat([v[:5], v[5:] / 2 * d])  # the only edge of node 2
        return layer(x, scalars, rotated(layer, moved), PLAN, envelope=cutoff(moved.norm(dim=-1)))

    assert (at(CUTOFF - 1e-5) - at(CUTOFF + 1e-5)).abs().max() < 1e-13
    fewer = EdgePlan.build(INDEX[:, :5], 4)
    without = layer(x, scalars[:5], rotated(layer, v[:5]), fewer, envelope=cutoff(v[:5].norm(dim=-1)))
    torch.testing.assert_close(at(CUTOFF + 1.0), without, rtol=0, atol=1e-14)


@pytest.mark.parametrize("parity", CHANNELS)
@pytest.mark.parametrize("activation", ["gate", "product"])
def test_has_right_derivatives_by_features_scalars_and_vectors(parity, activation):
    layer = make(parity, lmax=1, mmax=1, activation=activation)
    cutoff = PolynomialCutoff(5.0, 5)

    def function(x, scalars, v):
        return layer(x, scalars, rotated(layer, v), PLAN, envelope=cutoff(v.norm(dim=-1)))

    xs = [t.requires_grad_() for t in inputs(layer)]
    assert torch.autograd.gradcheck(function, xs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, xs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_takes_any_number_of_edges_and_repeats_itself_bit_by_bit(count, dtype):
    layer = make().to(dtype)
    x, scalars, v = inputs(layer, dtype=dtype)
    plan = EdgePlan.build(INDEX[:, :count], 4)
    arguments = x, scalars[:count], rotated(layer, v[:count]), plan
    before = [t.clone() for t in arguments[:2]]
    y = layer(*arguments, envelope=torch.rand(count, dtype=dtype))
    assert y.shape == (4, 9, 3)
    assert y.dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(arguments[:2], before, strict=True))
    assert torch.equal(layer(*arguments), layer(*arguments))
    with use_reference():
        torch.testing.assert_close(layer(*arguments), layer(*arguments))


def test_compiles_once_for_all_numbers_of_edges():
    torch.compiler.reset()
    layer = make()
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    index = torch.cat([INDEX, torch.tensor([[0, 1, 2, 0, 1, 2], [3, 3, 3, 3, 3, 3]])], dim=1)
    for count in (7, 11, 12):
        x, scalars, v = inputs(layer, edges=count)
        plan = EdgePlan.build(index[:, :count], 4)
        arguments = x, scalars, rotated(layer, v), plan
        with torch._dynamo.config.patch(error_on_recompile=count > 7):
            torch.testing.assert_close(whole(*arguments), layer(*arguments))


def test_is_equivariant_in_float32():
    layer = make(lmax=3, mmax=2).float()
    x, scalars, v = inputs(layer, dtype=torch.float32)
    turn = random_rotation(generator=torch.Generator().manual_seed(0))
    D = torch.block_diag(*[wigner_D(l, turn) for l in range(4)]).float()
    y = layer(x, scalars, rotated(layer, v), PLAN)
    again = layer(D @ x, scalars, rotated(layer, v @ turn.mT.float()), PLAN)
    torch.testing.assert_close(again, D @ y, rtol=0, atol=3e-6 * y.abs().max().item())


def test_says_what_it_expected():
    layer = make()
    x, scalars, v = inputs(layer)
    with pytest.raises(
        ValueError, match=r"GraphAttention\(l<=2, \|m\|<=2, 2 heads\) expects x of shape \(4, 9"
    ):
        layer(x[:3], scalars, rotated(layer, v), PLAN)
    with pytest.raises(ValueError, match="a rotation with lmax=2 and mmax=2, got lmax=2 and mmax=1"):
        layer(x, scalars, EdgeRotation.build(v, 2, 1), PLAN)
    with pytest.raises(ValueError, match=r"edge_softmax expects scores of shape \(6, heads\)"):
        edge_softmax(torch.ones(5, 1), PLAN)
    with pytest.raises(ValueError, match="commutes with rotations on no finite grid"):
        make(activation="separable_s2")
