"""equitorch/layers/so2_activation.py"""

import math

import pytest
import torch
import torch.nn.functional as F

from equitorch.layers import GatedRows, RowGrid, SphereProduct, SphereSiLU, row_activation, row_grid
from equitorch.layers.row_grid import kept_index
from equitorch.layers.stacks import stack_irreps
from equitorch.reps import wigner_D
from equitorch.reps.order import order_rows
from equitorch.reps.sphere import SphereGrid
from equitorch.testing import assert_equivariant
from tests.equiformer_reference import MODELS, assert_same, reference

KINDS = ["gate", "product"]
CHANNELS = {"natural": 4, "so3": 4, "both": (3, 2)}


def make(kind, lmax, mmax, parity="natural", **options):
    return row_activation(kind, lmax, mmax, CHANNELS[parity], parity=parity, **options).double()


def inputs(act, lmax, mmax, *batch, dtype=torch.float64):
    rows = len(order_rows(lmax, mmax))
    width = act.channels_in if isinstance(act.channels_in, int) else sum(act.channels_in)
    return torch.randn(*batch, rows, width, dtype=dtype), torch.randn(*batch, act.extra, dtype=dtype)


def roll(lmax, mmax, angle):
    """What a turn about the axis y does to order-major rows."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    full = torch.block_diag(*[wigner_D(l, turn) for l in range(lmax + 1)])
    index = kept_index(lmax, mmax, "order")
    return full[index][:, index]


@pytest.mark.parametrize("name", MODELS)
def test_is_that_of_equiformer(name):
    data = reference(name)
    config, values = data["config"], data["intermediates"]
    lmax, heads = config["lmax_list"][0], config["num_heads"] * config["attn_alpha_channels"]
    act = row_activation(
        "gate" if config["use_gate_act"] else "separable_s2",
        lmax,
        config["mmax_list"][0],
        config["attn_hidden_channels"],
        rows="degree",
        exact=False,
        resolution=config["grid_resolution"],
    ).double()
    ours = act(values["blocks.0.ga.so2_conv_1"], values["blocks.0.ga.so2_conv_1.extra"][:, heads:])
    assert_same(ours, values["blocks.0.ga.act"])


def test_gate_means_a_loop_over_rows():
    act, (x, gates) = make("gate", 3, 1), inputs(make("gate", 3, 1), 3, 1, 5)
    y = act(x, gates)
    for k, (l, _) in enumerate(order_rows(3, 1)):
        wanted = F.silu(x[:, k]) if l == 0 else x[:, k] * torch.sigmoid(gates[:, 4 * (l - 1) : 4 * l])
        torch.testing.assert_close(y[:, k], wanted)


def test_product_means_multiplication_and_a_gated_unit():
    """On invariants alone, whose harmonic is the constant 1 / sqrt(L + 1) of the grid."""
    act, (x, s) = make("product", 2, 2), inputs(make("product", 2, 2), 2, 2, 5)
    x[:, 1:] = 0
    y = act(x, s)
    swish = F.silu(s[:, :4]) * s[:, 4:8]
    torch.testing.assert_close(y[:, 0], x[:, 0, :4] * x[:, 0, 4:] / 3**0.5 * s[:, 8:].sigmoid() + swish)
    torch.testing.assert_close(y[:, 1:], torch.zeros_like(y[:, 1:]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("lmax", [1, 2, 4])
@pytest.mark.parametrize("parity", CHANNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_commutes_with_every_rotation_and_mirror_on_nodes(kind, parity, lmax):
    act = make(kind, lmax, lmax, parity, rows="degree")
    irreps = stack_irreps(lmax, parity)
    scalars = "0" if parity == "so3" else "0e"
    (a, b), (c, d) = ((w, 0) if isinstance(w, int) else w for w in (act.channels_in, act.channels_out))

    def function(s, *stacks):
        y = act(torch.cat(stacks, dim=-1), s[..., 0, :])
        return list(y.split([c, d], dim=-1))[: len(stacks)]

    assert_equivariant(
        function, [scalars, *irreps], irreps, channels=[act.extra, a, b][: 1 + len(irreps)], atol=1e-13
    )


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (4, 2), (6, 2), (6, 3), (3, 0)])
@pytest.mark.parametrize("parity", CHANNELS)
@pytest.mark.parametrize(
    "options", [{"kind": "gate"}, {"kind": "product"}, {"kind": "product", "latitudes": 5}]
)
def test_commutes_with_rolls_and_the_mirror_on_edges(options, parity, lmax, mmax):
    """A mirror that keeps the edge: eta on orders m >= 0 and -eta on m < 0, eta = 1 for natural rows."""
    act = make(lmax=lmax, mmax=mmax, parity=parity, **options)
    x, s = inputs(act, lmax, mmax, 3)
    y = act(x, s)
    turn = roll(lmax, mmax, 0.7)
    torch.testing.assert_close(act(turn @ x, s), turn @ y, rtol=0, atol=1e-13)
    sign = torch.tensor([1.0 if m >= 0 else -1.0 for _, m in order_rows(lmax, mmax)]).double()[:, None]
    widths = [(w, 0) if isinstance(w, int) else w for w in (act.channels_in, act.channels_out)]
    eta_in, eta_out = (torch.tensor([1.0] * a + [-1.0] * b).double() for a, b in widths)
    torch.testing.assert_close(act(sign * eta_in * x, s), sign * eta_out * y, rtol=0, atol=1e-13)


def test_the_check_can_fail():
    """With one longitude less, and for a function that is no polynomial."""
    torch.manual_seed(0)
    coarse = RowGrid(SphereGrid.exact(12, longitudes=6), 4, 2)
    for act in (SphereProduct(coarse, 4), row_activation("s2", 4, 2, 4, exact=False, resolution=[10, 5])):
        x, s = inputs(act, 4, 2, 3)
        turn = roll(4, 2, 0.7)
        scalars = [s] if act.extra else []
        error = (act.double()(turn @ x, *scalars) - turn @ act(x, *scalars)).abs().max()
        assert error > 1e-3


def test_silu_on_many_longitudes_nearly_commutes_with_rolls():
    errors = []
    for longitudes in (5, 18, 32):
        act = SphereSiLU(RowGrid(SphereGrid.exact(18, latitudes=7, longitudes=longitudes), 6, 2), 4).double()
        x = torch.randn(3, 29, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        turn = roll(6, 2, 0.7)
        errors.append((act(turn @ x) - turn @ act(x)).abs().max())
    assert errors[0] > 1e-2
    assert errors[1] < 1e-3
    assert errors[2] < 1e-6


@pytest.mark.parametrize("kind", ["gate", "product", "s2", "separable_s2"])
def test_keeps_dtype_batch_and_inputs(kind):
    act = row_activation(kind, 3, 2, 4, exact=False)
    for lead in ((0,), (1,), (5,), (2, 3)):
        x, s = inputs(act, 3, 2, *lead, dtype=torch.float32)
        arguments = (x, s) if act.extra else (x,)
        before = [a.clone() for a in arguments]
        y = act(*arguments)
        assert y.shape == (*lead, 14, 4)
        assert y.dtype == torch.float32
        assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
        flat = [a.flatten(0, -2) if a is s and len(arguments) > 1 else a.flatten(0, -3) for a in arguments]
        torch.testing.assert_close(act(*flat).reshape(y.shape), y)


@pytest.mark.parametrize("kind", ["gate", "product", "s2", "separable_s2"])
def test_compiles_once_for_all_batches(kind):
    torch.compiler.reset()
    act = row_activation(kind, 3, 2, 4, exact=False)
    whole = torch.compile(act, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (5, 7, 9):
        arguments = inputs(act, 3, 2, n, dtype=torch.float32)[: 1 + bool(act.extra)]
        with torch._dynamo.config.patch(error_on_recompile=n > 5):
            torch.testing.assert_close(whole(*arguments), act(*arguments))


@pytest.mark.parametrize("parity", CHANNELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [None, 1])
def test_has_right_derivatives(kind, parity, piece, monkeypatch):
    act = make(kind, 2, 1, parity)
    if piece:
        monkeypatch.setattr(row_grid, "_PIECE", {"cpu": piece})
    xs = [x.requires_grad_() for x in inputs(act, 2, 1, 2)]
    assert torch.autograd.gradcheck(act, xs, fast_mode=True)
    assert torch.autograd.gradgradcheck(act, xs, fast_mode=True)


def test_has_finite_derivatives_at_zero():
    for kind in ("gate", "product", "s2", "separable_s2"):
        act = row_activation(kind, 2, 1, 4, exact=False).double()
        xs = [torch.zeros_like(x).requires_grad_() for x in inputs(act, 2, 1, 2)][: 1 + bool(act.extra)]
        first = torch.autograd.grad(act(*xs).sum(), xs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first) + sum(x.sum() for x in xs), xs)
        assert all(torch.isfinite(g).all() for g in (*first, *second))


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match="'s2' commutes with rotations on no finite grid; exact ones are gate"
    ):
        row_activation("s2", 2, 2, 4)
    with pytest.raises(ValueError, match="is one of gate, product, s2, separable_s2, got 'relu'"):
        row_activation("relu", 2, 2, 4)
    with pytest.raises(ValueError, match="'s2' has no parity on pseudo channels"):
        row_activation("s2", 2, 2, (4, 4), parity="both", exact=False)
    with pytest.raises(ValueError, match=r"no more pseudo channels than natural ones.* got \(2, 3\)"):
        SphereProduct(RowGrid.exact(2), (2, 3), parity="both")
    with pytest.raises(
        ValueError, match=r"GatedRows\(.* expects x of shape \(\.\.\., 9, 4\), got \(5, 9, 3\)"
    ):
        GatedRows(2, 2, 4)(torch.ones(5, 9, 3), torch.ones(5, 8))
    with pytest.raises(ValueError, match=r"scalars: shape \(\.\.\., 8\), the batch as in x, got \(5, 7\)"):
        GatedRows(2, 2, 4)(torch.ones(5, 9, 4), torch.ones(5, 7))
    with pytest.raises(ValueError, match=r"expects extra scalars: none got \(5, 4\)"):
        row_activation("s2", 2, 2, 4, exact=False)(torch.ones(5, 9, 4), torch.ones(5, 4))
