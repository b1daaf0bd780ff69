"""equitorch/layers/so2.py"""

import copy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from equitorch.layers import SO2Convolution
from equitorch.ops.backend import use_reference
from equitorch.reps import matrix_y, wigner_D
from equitorch.reps.order import order_index, order_sizes
from tests.escn_primitives import primitives
from tests.strategies import seeds

CASES = {"natural": (3, 4), "so3": (3, 4), "both": ((3, 2), (2, 4))}
MIRROR = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))
degrees = st.integers(0, 5).flatmap(lambda l: st.tuples(st.just(l), st.integers(0, l)))


def layer(lmax=2, mmax=2, parity="so3", channels=None, **options):
    ours = SO2Convolution(lmax, mmax, *(channels or CASES[parity]), parity=parity, **options).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    return ours


def message(conv, *batch):
    return torch.randn(*batch, conv.rows, conv.channels_in, dtype=torch.float64)


def factor(conv, *batch):
    return torch.randn(*batch, sum(order_sizes(conv.lmax, conv.mmax)), conv.channels_in, dtype=torch.float64)


def turned(x, lmax, mmax, R, natural):
    """Order-major rows under a roll, or the mirror; channels from ``natural`` on have the other parity."""
    D = torch.block_diag(*[wigner_D(l, R) for l in range(lmax + 1)])
    index = order_index(lmax, mmax)
    sign = torch.ones(x.shape[-1], dtype=x.dtype)
    sign[natural:] = torch.linalg.det(R).round()
    return D[index][:, index] @ x * sign


@example((4, 2), "both", 0, 3)
@example((0, 0), "both", 2, 1)
@given(degrees, st.sampled_from(sorted(CASES)), st.integers(0, 2), seeds)
def test_commutes_with_rolls_and_where_it_should_with_the_mirror(pair, parity, extra, seed):
    torch.manual_seed(seed)
    conv = layer(*pair, parity, extra=extra)
    y, f = message(conv, 5), factor(conv, 5)
    roll = matrix_y(torch.tensor(0.3 + seed % 7, dtype=torch.float64))
    for R in [roll] if parity == "so3" else [roll, MIRROR, MIRROR @ roll]:
        out, scalars = conv(y, f)
        other, same = conv(turned(y, *pair, R, conv.stacks_in[0]), f)
        torch.testing.assert_close(other, turned(out, *pair, R, conv.stacks_out[0]), rtol=0, atol=1e-12)
        if extra:
            torch.testing.assert_close(same, scalars, rtol=0, atol=1e-12)


def test_the_check_can_fail():
    """Weights of the kind "so3" tell a mirror image apart; so must the test."""
    conv = layer(parity="so3")
    y = message(conv, 5)
    error = conv(turned(y, 2, 2, MIRROR, 3))[0] - turned(conv(y)[0], 2, 2, MIRROR, 4)
    assert error.abs().max() > 0.1


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize(
    ("parity", "channels"),
    [("natural", (1, 1)), ("natural", (2, 1)), ("so3", (1, 2)), ("both", ((1, 2), (2, 1)))],
)
def test_is_every_map_that_commutes(parity, channels, extra):
    """The commutant by brute force, with one constant column in (the bias) and the extra row out."""
    conv = layer(2, 2, parity, channels, extra=extra)
    inside, outside = [
        [
            torch.block_diag(torch.eye(ones, dtype=torch.float64), _matrix(R, stacks, parity))
            for R in (matrix_y(torch.tensor(0.7, dtype=torch.float64)), MIRROR)[: 1 if parity == "so3" else 2]
        ]
        for ones, stacks in ((1, conv.stacks_in), (extra, conv.stacks_out))
    ]
    conditions = torch.cat(
        [
            torch.kron(torch.eye(len(b), dtype=torch.float64), a.T.contiguous())
            - torch.kron(b, torch.eye(len(a), dtype=torch.float64))
            for a, b in zip(inside, outside, strict=True)
        ]
    )
    free = conditions.shape[1] - int(torch.linalg.matrix_rank(conditions))
    assert free == sum(p.numel() for p in conv.parameters())

    names = [name for name, _ in conv.named_parameters()]
    y = torch.cat([torch.zeros(1, 9 * conv.channels_in), torch.eye(9 * conv.channels_in)]).double()

    def everything(*parameters):
        rows, scalars = torch.func.functional_call(
            conv, dict(zip(names, parameters, strict=True)), (y.view(-1, 9, conv.channels_in),)
        )
        return torch.cat([rows.flatten()] + ([] if scalars is None else [scalars.flatten()]))

    jacobian = torch.autograd.functional.jacobian(everything, tuple(conv.parameters()))
    assert torch.linalg.matrix_rank(torch.cat([j.flatten(1) for j in jacobian], 1)) == free


def _matrix(R, stacks, parity):
    """Of all rows and channels of a message, channels fastest."""
    columns = 9 * sum(stacks)
    x = torch.eye(columns, dtype=torch.float64).view(columns, 9, sum(stacks))
    return turned(x, 2, 2, R, stacks[0]).flatten(1).T


@given(degrees, seeds)
def test_is_a_product_of_complex_matrices(pair, seed):
    torch.manual_seed(seed)
    conv = layer(*pair, extra=2)
    y = message(conv, 5)
    out, scalars = conv(y)
    k = order_sizes(*pair)[0]
    first = functional.linear(y[:, :k].flatten(1), conv.m0.weight, conv.m0.bias)
    torch.testing.assert_close(torch.cat([scalars, out[:, :k].flatten(1)], 1), first)
    row = k
    for k, real, imag in zip(order_sizes(*pair)[1:], conv.real, conv.imag, strict=True):
        a, b, c, d = (x[:, row + i : row + i + k].flatten(1) for x in (y, out) for i in (0, k))
        torch.testing.assert_close(torch.complex(a, b) @ torch.complex(real, imag).T, torch.complex(c, d))
        row += 2 * k


def test_agrees_with_the_original_code():
    case = primitives()["so2_conv_L4M2"]
    params, conv = case["params"], layer(4, 2, "so3", (6, 5), extra=3)
    state = {"m0.weight": params["fc_m0.weight"], "m0.bias": params["fc_m0.bias"]}
    for m in range(2):
        state[f"real.{m}"], state[f"imag.{m}"] = params[f"so2_m_conv.{m}.fc.weight"].chunk(2)
    conv.load_state_dict(state)
    radial = nn.Sequential(
        *(nn.Linear(7, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.SiLU()),
        nn.Linear(8, 72),
    ).double()
    prefix = "rad_func.net."
    radial.load_state_dict({k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)})
    kept = order_index(4, 2).sort().values
    order = torch.searchsorted(kept, order_index(4, 2))
    y, extra = conv(case["x"][:, order], radial(case["edge"]).unflatten(1, (-1, 6)))
    torch.testing.assert_close(y, case["y"][:, order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(extra, case["extra"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parity", CASES)
@pytest.mark.parametrize("edges", [0, 1, 3, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_reference(parity, edges, dtype):
    conv = layer(3, 2, parity, extra=2).to(dtype)
    inputs = [
        x.to(dtype).mT.contiguous().mT.requires_grad_() for x in (message(conv, edges), factor(conv, edges))
    ]
    results = []
    for context in (use_reference, None):
        with use_reference() if context else torch.enable_grad():
            out = conv(*inputs)
            grads = torch.autograd.grad(
                sum(o.sin().sum() for o in out), [*inputs, *conv.parameters()], create_graph=True
            )
            twice = torch.autograd.grad(sum(g.sin().sum() for g in grads), [*inputs, *conv.parameters()])
            results.append([*out, *grads, *twice])
    tolerance = 2e-3 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("parity", CASES)
def test_differentiates_three_times(parity):
    conv = layer(1, 1, parity, (1, 2) if parity != "both" else ((1, 1), (2, 1)), extra=1)
    names = [name for name, _ in conv.named_parameters()]

    def call(y, f, *parameters):
        return torch.func.functional_call(conv, dict(zip(names, parameters, strict=True)), (y, f))

    def force(*inputs):
        out = sum((o**2).sum() for o in call(*inputs))
        return torch.autograd.grad(out, inputs[:3], create_graph=True)

    inputs = [x.requires_grad_() for x in (message(conv, 2), factor(conv, 2))] + list(conv.parameters())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(force, inputs)


@pytest.mark.parametrize("parity", CASES)
def test_compiles_to_one_graph_and_exports(parity):
    conv = layer(2, 1, parity, extra=1)
    y, f = message(conv, 6).requires_grad_(), factor(conv, 6)
    whole = torch.compile(conv, fullgraph=True, backend="aot_eager")
    losses = [sum(o.square().sum() for o in g(y, f)) for g in (whole, conv)]
    wanted = [y, *conv.parameters()]
    torch.testing.assert_close(*[torch.autograd.grad(loss, wanted) for loss in losses])
    edges = torch.export.Dim("edges", min=1)
    program = torch.export.export(conv, (y.detach(), f), dynamic_shapes=({0: edges}, {0: edges}))
    y, f = message(conv, 11), factor(conv, 11)
    torch.testing.assert_close(program.module()(y, f), conv(y, f))


@pytest.mark.parametrize("parity", CASES)
def test_maps_over_a_batch_gives_jacobians_and_takes_leading_axes(parity):
    conv = layer(2, 2, parity, extra=1)
    y, f = message(conv, 2, 3), factor(conv, 2, 3)
    out, scalars = conv(y, f)
    torch.testing.assert_close(torch.vmap(conv)(y, f), (out, scalars))
    torch.testing.assert_close(conv(y[1, 2], f[1, 2]), (out[1, 2], scalars[1, 2]))
    jacobian = torch.func.jacrev(lambda y: conv(y, f)[0])(y)
    bias = conv(torch.zeros_like(y))[0]
    torch.testing.assert_close(torch.einsum("abkcdelm,delm->abkc", jacobian, y) + bias, out)


def test_keeps_its_inputs_and_nothing_else():
    """Inputs are untouched, a copy is independent, and a change in between is noticed."""
    conv = layer(extra=1)
    y = message(conv, 4)
    before, twin = y.clone(), copy.deepcopy(conv)
    torch.testing.assert_close(twin(y), conv(y))
    assert torch.equal(y, before)
    y.requires_grad_()
    out, _ = conv(y)
    with torch.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


@pytest.mark.parametrize("parity", CASES)
def test_computes_no_gradient_of_weights_that_nobody_asked_for(parity, monkeypatch):
    from equitorch.ops.so2 import strided

    conv, asked, weight = layer(2, 2, parity), [], strided.weight
    monkeypatch.setattr(strided, "weight", lambda k, *rest: asked.append(k) or weight(k, *rest))
    y = message(conv, 4).requires_grad_()
    (grad,) = torch.autograd.grad(conv(y)[0].square().sum(), y, create_graph=True)
    assert not asked
    grad.sum().backward(inputs=list(conv.parameters()))
    assert set(asked) == set(range(len(conv.layout.blocks)))


@pytest.mark.parametrize("parity", CASES)
def test_starts_with_the_variance_of_a_linear_layer(parity):
    """Uniform weights within 1 / sqrt(terms) make variance 1/3, bias included."""
    torch.manual_seed(0)
    conv = SO2Convolution(4, 2, *{"both": ((64, 64), (64, 64))}.get(parity, (64, 64)), parity=parity)
    out, _ = conv(torch.randn(500, conv.rows, conv.channels_in))
    assert out[:, 5:].var().item() == pytest.approx(1 / 3, rel=0.1)


def test_one_stack_of_two_may_be_empty():
    conv = layer(2, 1, "both", ((3, 0), (0, 4)), extra=1)
    y = message(conv, 5)
    out, scalars = conv(y)
    assert out.shape == (5, 7, 4)
    assert scalars.shape == (5, 1)
    assert out[:, :3].abs().max() == 0  # scalars of the other parity have no source
    assert conv(message(conv, 0))[0].shape == (0, 7, 4)


def test_says_what_it_expected():
    conv = SO2Convolution(2, 1, 8, 16, extra=3)
    expected = r"SO2Convolution\(2, 1, 8 -> 16, extra=3, natural\) expects y of shape \(\.\.\., 7, 8\)"
    with pytest.raises(ValueError, match=expected):
        conv(torch.randn(10, 9, 8))
    with pytest.raises(ValueError, match=r"expects factors of shape \(10, 5, 8\), got \(10, 7, 8\)"):
        conv(torch.randn(10, 7, 8), torch.randn(10, 7, 8))
    with pytest.raises(ValueError, match="'both' expects channels as a pair"):
        SO2Convolution(2, 1, 8, 16, parity="both")
    with pytest.raises(ValueError, match="'so3' expects channels as one number"):
        SO2Convolution(2, 1, (8, 8), 16, parity="so3")
    with pytest.raises(ValueError, match="parity expects one of natural, both, so3, got 'o3'"):
        SO2Convolution(2, 1, 8, 16, parity="o3")
    with pytest.raises(ValueError, match="0 <= mmax <= lmax"):
        SO2Convolution(2, 3, 8, 16)
