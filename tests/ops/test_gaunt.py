"""equitorch/ops/gaunt"""

import contextlib
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops.backend import use_reference
from equitorch.ops.gaunt import choice, gaunt_product, poisson_bracket, product_and_bracket
from equitorch.ops.gaunt.form import Form, Program, Request
from equitorch.ops.gaunt.program import evaluate
from equitorch.reps import Irreps
from equitorch.reps.gaunt import gaunt_coupling
from equitorch.reps.product_grid import product_grid, table
from equitorch.testing import assert_equivariant, equivariance_error

BACKENDS = ["dense", "grid", "separable", "fft"]
FAST = BACKENDS[1:]
UNEVEN = (2, 1, 3)  # no slot can be mistaken for another
op = torch.ops.equitorch.gaunt


def operands(lmax1, lmax2, batch=(5,), channels=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pair = channels if isinstance(channels, tuple) else (channels, channels)
    sizes = [(*batch, (lmax + 1) ** 2, c) for lmax, c in zip((lmax1, lmax2), pair, strict=True)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def contraction(x, y, lmax_out, parity):
    """The meaning, in one line and without the op."""
    lmaxs = [math.isqrt(t.shape[-2]) - 1 for t in (x, y)]
    return torch.einsum(
        "...ic,...jc,ijk->...kc", x, y, gaunt_coupling(*lmaxs, lmax_out, parity).dense().to(x)
    )


def relative(found, expected):
    """Largest error over the root mean square; zero against nothing but zeros."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if not expected.any():
        return found.abs().max().item() if found.numel() else 0.0
    return ((found - expected).abs().max() / expected.double().square().mean().sqrt()).item()


CASES = [(l, l, out) for l in range(1, 9) for out in sorted({l - 1, l, 2 * l})]
CASES += [(0, 0, 0), (0, 3, 2), (3, 0, 3), (1, 4, 2), (5, 2, 3), (2, 3, 9), (6, 1, 0)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_exact_contraction(backend):
    """Float64 and float32, x and y of many degrees, results truncated, equal and whole, wide and narrow."""
    for lmax1, lmax2, lmax_out in CASES:
        for channels in (2, 20) if lmax1 < 5 else (20,):
            x, y = operands(lmax1, lmax2, (4,), channels)
            exact = [contraction(x, y, lmax_out, parity) for parity in ("even", "odd")]
            for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
                pair = [t.to(dtype) for t in (x, y)]
                found = product_and_bracket(*pair, lmax_out, backend=backend)
                for z, parity, e in zip(found, ("even", "odd"), exact, strict=True):
                    alone = gaunt_product(*pair, lmax_out, parity=parity, backend=backend)
                    for ours in (z, alone):
                        assert relative(ours.double(), e) < bound * (10 if not e.any() else 1), (lmax1, lmax2)


@pytest.mark.parametrize(("lmax", "parity"), [(6, "even"), (8, "even"), (6, "odd")])
def test_many_rows_keep_single_precision(lmax, parity):
    """The largest of many errors, on large grids; sums over all points at once are twice as far off."""
    for count, channels in (300, 3), (100, 17):
        x, y = operands(lmax, lmax, (count,), channels, torch.float32)
        exact = gaunt_product(x.double(), y.double(), 2 * lmax, parity=parity, backend="separable")
        found = gaunt_product(x, y, 2 * lmax, parity=parity, backend="grid")
        assert relative(found.double(), exact) < 3.5e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("parity", ["even", "odd", "both"])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_every_slot_and_sums_of_them_agree_with_the_reference(backend, parity, channels):
    """What derivatives ask for: both factors open at once, several pairs in a request, pieces of a batch."""
    form = Form(2, 3, 4, parity, backend)
    outs = [slot for slot in (2, 3) if form.components(slot)]
    first = Program((0, 1), tuple(Request(slot, ((0, 1),)) for slot in outs))
    second = first.derivative((0, 1), tuple(range(len(outs))))
    third = second.derivative(tuple(range(2 + len(outs))), (0, 1))
    for program in (first, second, third):
        tensors = [
            torch.randn(
                7, form.rows(slot), channels, dtype=torch.float64, generator=torch.Generator().manual_seed(n)
            )
            for n, slot in enumerate(program.slots)
        ]
        with use_reference():
            expected = op(tensors, program.numbers, form.sizes)
        found, _ = evaluate(tensors, program, form, choice._MAKERS[backend](form, tensors[0]))
        for ours, theirs in zip(found, expected, strict=True):
            assert relative(ours, theirs) < 1e-12


@pytest.mark.parametrize("backend", FAST)
def test_a_batch_in_pieces_is_the_whole_batch(backend, monkeypatch):
    x, y = operands(3, 2, (40,), 20)
    whole = product_and_bracket(x, y, 4, backend=backend)
    monkeypatch.setattr("equitorch.ops.gaunt.program._CACHE", 1 << 18)
    for ours, theirs in zip(product_and_bracket(x, y, 4, backend=backend), whole, strict=True):
        assert relative(ours, theirs) < 1e-13


@pytest.mark.parametrize(("backend", "name"), [("grid", "values"), ("separable", "rows"), ("fft", "values")])
def test_goes_the_way_it_is_told(backend, name, monkeypatch):
    x, y = operands(2, 2)
    kind = type(choice._MAKERS[backend](Form(2, 2, 2, "even", backend), x))

    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr(kind, name, stop)
    for other in BACKENDS:
        with pytest.raises(InterruptedError) if other == backend else contextlib.nullcontext():
            gaunt_product(x, y, 2, backend=other)


@pytest.mark.parametrize("lmax", [9, 12, 16, 20])
@pytest.mark.parametrize("parity", ["even", "odd"])
def test_separable_and_grid_agree_at_high_degrees(lmax, parity):
    for channels in (1, 16):
        x, y = operands(lmax, lmax, (2,), channels)
        found = [
            gaunt_product(x, y, lmax, parity=parity, backend=backend)
            for backend in ("separable", "grid", "auto")
        ]
        assert relative(found[0], found[1]) < 1e-12
        assert relative(found[2], found[1]) < 1e-12
        single = gaunt_product(x.float(), y.float(), lmax, parity=parity, backend="separable")
        assert relative(single.double(), found[1]) < 5e-6


def test_means_the_product_of_two_functions():
    """Known without couplings: values multiply, and gradients cross."""
    grid = product_grid(3, 2, 5)
    x, y = operands(3, 2)
    (f, fb, fa), (g, gb, ga) = (
        [table(grid, lmax, name) @ t for name in ("value", "polar", "azimuthal")]
        for lmax, t in ((3, x), (2, y))
    )
    even, odd = product_and_bracket(x, y, 5)
    torch.testing.assert_close(table(grid, 5, "value") @ even, f * g)
    torch.testing.assert_close(table(grid, 5, "value") @ odd, fb * ga - fa * gb)


def test_means_the_cross_product():
    x, y = operands(1, 1)
    expected = torch.linalg.cross(x[:, 1:], y[:, 1:], dim=1) * math.sqrt(3 / (4 * math.pi))  # 0.4886
    for backend in BACKENDS:
        torch.testing.assert_close(poisson_bracket(x, y, 1, backend=backend)[:, 1:], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bracket_with_itself_vanishes(backend):
    x, y = operands(4, 4)
    assert poisson_bracket(x, x, 8, backend=backend).abs().max() < 1e-12
    there, back = (poisson_bracket(*pair, 8, backend=backend) for pair in ((x, y), (y, x)))
    torch.testing.assert_close(there, -back)
    assert there[:, 0].abs().max() < 1e-12  # a bracket has no mean
    torch.testing.assert_close(
        gaunt_product(x, y, 8, backend=backend), gaunt_product(y, x, 8, backend=backend)
    )


natural = Irreps.spherical_harmonics


def pseudo(lmax):
    return Irreps([(1, (l, -((-1) ** l))) for l in range(lmax + 1)])


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 5), st.integers(0, 2**31 - 1))
def test_commutes_with_every_rotation_and_mirror(backend, lmax1, lmax2, lmax_out, seed):
    for kind1 in (natural, pseudo):
        for kind2 in (natural, pseudo):
            same = kind1 is kind2
            outputs = [natural(lmax_out), pseudo(lmax_out)] if same else [pseudo(lmax_out), natural(lmax_out)]
            assert_equivariant(
                lambda x, y: product_and_bracket(x, y, lmax_out, backend=backend),
                [kind1(lmax1), kind2(lmax2)],
                outputs,
                seed=seed,
                channels=2,
                batch=(2,),
                atol=1e-10,
            )


def test_the_check_can_fail():
    """A product called pseudo, a bracket called natural, a grid that aliases, a sign turned over."""
    both = [natural(2), natural(2)]
    assert equivariance_error(lambda x, y: gaunt_product(x, y, 2), both, pseudo(2)) > 0.1
    assert equivariance_error(lambda x, y: poisson_bracket(x, y, 2), both, natural(2)) > 0.1
    coarse = table(product_grid(2, 2, latitudes=3, longitudes=5), 2, "value")

    def aliased(x, y):
        return torch.linalg.pinv(coarse) @ ((coarse @ x) * (coarse @ y))

    assert equivariance_error(aliased, both, natural(2)) > 0.01
    x, y = operands(2, 2)
    assert relative(-gaunt_product(x, y, 2), contraction(x, y, 2, "even")) > 1
    assert relative(gaunt_product(x.flip(1), y, 2), contraction(x, y, 2, "even")) > 1


def of(x, y, backend, parity="both", lmax_out=UNEVEN[2]):
    if parity == "both":
        return torch.cat(product_and_bracket(x, y, lmax_out, backend=backend))
    return gaunt_product(x, y, lmax_out, parity=parity, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parity", ["even", "odd", "both"])
def test_differentiates_twice(backend, parity):
    x, y = (t.requires_grad_() for t in operands(*UNEVEN[:2], (2,), 1))

    def function(x, y):
        return of(x, y, backend, parity, 1)

    assert torch.autograd.gradcheck(function, (x, y), fast_mode=False)
    assert torch.autograd.gradgradcheck(function, (x, y))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("channels", [(20, 20), (2, 1)])
def test_differentiates_to_third_order(backend, channels):
    found = []
    for reference_only in (False, True):
        x, y = (t.requires_grad_() for t in operands(*UNEVEN[:2], channels=channels))
        with use_reference() if reference_only else torch.enable_grad():
            value, grads = of(x, y, backend).pow(3).sum(), []
            for _ in range(3):
                grads += torch.autograd.grad(value, (x, y), create_graph=True)
                value = sum(g.pow(2).sum() for g in grads[-2:])
        found.append(grads)
    for ours, theirs in zip(*found, strict=True):
        assert relative(ours, theirs) < 1e-11


@pytest.mark.parametrize("backend", FAST)
def test_gradients_reach_only_what_asks_for_them(backend):
    """One operand, one of two results, the same tensor twice; gradients that are views of one number."""
    x, y = operands(*UNEVEN[:2], (3,), 20)
    w = x.clone().requires_grad_()
    found = []
    for reference_only in (False, True):
        with use_reference() if reference_only else contextlib.nullcontext():
            only = [product_and_bracket(w, y, 2, backend=backend)[n].sum() for n in (0, 1)]
            only += [
                gaunt_product(y, w, 2, backend=backend).sum(),
                gaunt_product(w, w, 2, backend=backend).sum(),
            ]
            found.append([torch.autograd.grad(value, w)[0] for value in only])
    for ours, theirs in zip(*found, strict=True):
        assert relative(ours, theirs) < 1e-12


def program_of(parity, backend="auto"):
    form = Form(*UNEVEN, parity, backend)
    slots = [slot for slot in (2, 3) if form.components(slot)]
    return Program((0, 1), tuple(Request(slot, ((0, 1),)) for slot in slots)).numbers, form.sizes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parity", ["even", "both"])
def test_is_a_well_formed_operator(backend, parity):
    """Schema, fake tensor, autograd and tracing, as PyTorch itself checks them."""
    tensors = [t.requires_grad_() for t in operands(*UNEVEN[:2], (2,), 2)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(op, (tensors, *program_of(parity, backend)), test_utils=tests)


def test_compiles_to_one_graph_forward_and_backward():
    torch._dynamo.reset()

    def loss(x, y):
        even, odd = product_and_bracket(x * 2, y, 3, backend="separable")
        return (even * odd).square().sum() + gaunt_product(x, y, 1, parity="odd", backend="grid").sum()

    run = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in ((4,), (7,), (3, 2)):
        x, y = (t.requires_grad_() for t in operands(*UNEVEN[:2], batch, 2))
        value, expected = run(x, y), loss(x, y)
        torch.testing.assert_close(value, expected)
        pairs = [torch.autograd.grad(v, (x, y)) for v in (value, expected)]
        torch.testing.assert_close(*pairs)


@pytest.mark.parametrize("backend", ["dense", "grid", "separable"])
def test_exports(backend):
    class Module(torch.nn.Module):
        def forward(self, x, y):
            return product_and_bracket(x, y, 3, backend=backend)

    x, y = operands(*UNEVEN[:2], (4,), 2)
    items = torch.export.Dim("items")
    program = torch.export.export(Module(), (x, y), dynamic_shapes=({0: items}, {0: items}))
    more = operands(*UNEVEN[:2], (6,), 2)
    torch.testing.assert_close(program.module()(*more), Module()(*more))


@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 2), (-1, 1)])
@pytest.mark.parametrize("backend", ["grid", "separable"])
def test_has_a_batching_rule(dims, backend):
    def function(x, y):
        return product_and_bracket(x, y, 3, backend=backend)

    x, y = operands(*UNEVEN[:2], (3,), 2)
    xs, ys = (
        t if d is None else torch.stack([t, 2 * t, t * t], dim=d) for t, d in zip((x, y), dims, strict=True)
    )
    found = torch.vmap(function, in_dims=dims)(xs, ys)
    for n, (a, b) in enumerate(
        zip(*([t] * 3 if d is None else t.unbind(d) for t, d in ((xs, dims[0]), (ys, dims[1]))), strict=True)
    ):
        torch.testing.assert_close(tuple(z[n] for z in found), function(a, b))


def test_the_operator_itself_has_a_batching_rule():
    tensors, rest = operands(*UNEVEN[:2], (6, 3), 2), program_of("both", "grid")
    found = torch.vmap(lambda x, y: op([x, y], *rest))(*tensors)
    expected = op([t.flatten(0, 1) for t in tensors], *rest)
    torch.testing.assert_close([z.flatten(0, 1) for z in found], expected)


@pytest.mark.parametrize("backend", FAST)
def test_works_under_jacobians_and_hessians(backend):
    x, y = operands(1, 1, (1,), 2)

    def function(x):
        return of(x, y, backend, lmax_out=1)

    jacobian = torch.func.jacrev(function)(x)
    expected = torch.autograd.functional.jacobian(function, x)
    torch.testing.assert_close(jacobian, expected)
    hessian = torch.func.jacrev(torch.func.jacrev(lambda x: of(x, x, backend, lmax_out=1).pow(2).sum()))(x)
    expected = torch.autograd.functional.hessian(lambda x: of(x, x, backend, lmax_out=1).pow(2).sum(), x)
    torch.testing.assert_close(hessian, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("batch", "channels"),
    [((), 1), ((), 3), ((0,), 1), ((0, 4), 129), ((1,), 1), ((3,), 0), ((2, 3), 3), ((129,), 1), ((3,), 129)],
)
def test_takes_any_batch_and_any_channels(backend, batch, channels):
    x, y = (t.requires_grad_() for t in operands(1, 2, batch, channels))
    found = product_and_bracket(x, y, 2, backend=backend)
    for z, parity in zip(found, ("even", "odd"), strict=True):
        expected = contraction(x, y, 2, parity)
        torch.testing.assert_close(z, expected, atol=1e-12, rtol=0)
    grads = torch.autograd.grad(found[0].sum() + found[1].square().sum(), (x, y))
    assert [g.shape for g in grads] == [x.shape, y.shape]
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("batches", "channels"),
    [
        (((6, 1), (4,)), (2, 2)),
        (((), (5,)), (3, 1)),
        (((5,), ()), (1, 20)),
        (((4, 1), (1, 3)), (1, 1)),
        (((1,), (0,)), (2, 1)),
    ],
)
def test_spreads_batches_and_single_channels(backend, batches, channels):
    x, _ = operands(2, 1, batches[0], channels, seed=1)
    _, y = operands(2, 1, batches[1], channels, seed=2)
    expected = contraction(x, y, 3, "even")
    torch.testing.assert_close(gaunt_product(x, y, 3, backend=backend), expected)
    x.requires_grad_()
    found = torch.autograd.grad(gaunt_product(x, y, 3, backend=backend).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(contraction(x, y, 3, "even").sum(), x))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_strides_do_not_matter(backend, channels):
    x, y = operands(2, 3, (6,), channels)
    expected = of(x, y, backend)
    views = [
        lambda t: t.mT.contiguous().mT,
        lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
        lambda t: t.repeat_interleave(2, dim=0)[::2],
        lambda t: torch.cat([t, t], dim=-1)[..., :channels],
        lambda t: torch.nn.functional.pad(t, (1, 1, 2, 2, 3, 3))[3:-3, 2:-2, 1:-1],
    ]
    for view in views:
        assert torch.equal(view(x), x)
        torch.testing.assert_close(of(view(x), view(y), backend), expected)
    x = x[:1].expand(6, -1, -1)
    torch.testing.assert_close(of(x, y, backend), of(x.contiguous(), y, backend))


@pytest.mark.parametrize("backend", FAST)
def test_neither_writes_its_operands_nor_shares_their_memory(backend):
    x, y = operands(2, 2, (4,), 20)
    before = [x.clone(), y.clone()]
    first = of(x, y, backend)
    kept = first.clone()
    of(y, x, backend)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(first, kept)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_reference_gives_the_same(backend):
    x, y = operands(3, 2)
    with use_reference():
        expected = of(x, y, backend)
    torch.testing.assert_close(of(x, y, backend), expected)


def test_global_flags_do_not_lower_the_precision():
    """Lower precision is an argument, never a side effect."""
    x, y = operands(6, 6, (8,), 64, torch.float32)
    exact = torch.cat([contraction(x.double(), y.double(), 6, parity) for parity in ("even", "odd")])
    before, flag = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cuda.matmul.allow_tf32 = True
        for backend in BACKENDS:
            assert relative(of(x, y, backend, lmax_out=6).double(), exact) < 5e-6, backend
    finally:
        torch.backends.cuda.matmul.allow_tf32 = flag
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_by_the_reference(dtype):
    x, y = operands(2, 2, dtype=dtype)
    expected = contraction(x.double(), y.double(), 2, "even")
    for backend in BACKENDS:
        found = gaunt_product(x, y, 2, backend=backend)
        assert found.dtype == dtype
        assert relative(found.double(), expected) < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [3, 20])
def test_autocast_lowers_nothing(backend, channels):
    x, y = operands(4, 4, (4,), channels, torch.float32)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(gaunt_product(x, y, 4, backend=backend).square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        z = gaunt_product(x, y, 4, backend=backend)
        (found,) = torch.autograd.grad(z.square().sum(), x)
    assert z.dtype == torch.float32
    assert relative(found, expected) < 1e-5


def test_shapes_come_from_tensors_without_data():
    x, y = (t.to("meta").requires_grad_() for t in operands(2, 1))
    for backend in BACKENDS:
        z = gaunt_product(x, y, 3, backend=backend)
        assert z.shape == (5, 16, 3)
        assert torch.autograd.grad(z.sum(), x)[0].shape == x.shape


def test_what_a_transform_makes_first_outlives_it():
    """Coefficients are kept; those made inside a transform would belong to one that is over."""
    from equitorch.ops.gaunt import reference

    x, y = operands(2, 1)

    def square(x):
        return gaunt_product(x, y, 2).square().sum()

    reference._coefficients.cache_clear()
    twice = torch.func.jacrev(torch.func.jacrev(square))
    first = twice(x)
    assert torch.equal(twice(x), first)
    assert torch.func.jacrev(square)(x).shape == x.shape


def test_threads_change_no_digit_that_counts():
    x, y = operands(4, 4, (60,), 20, torch.float32)
    before = torch.get_num_threads()
    first = [of(x, y, backend) for backend in ("grid", "separable")]
    try:
        torch.set_num_threads(2)
        second = [of(x, y, backend) for backend in ("grid", "separable")]
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip(first, second, strict=True):
        assert relative(ours, theirs) < 1e-6


def test_eager_use_imports_no_compiler():
    code = (
        "import sys, torch; from equitorch.ops import gaunt_product as g;"
        "x = torch.randn(2, 4, 3, requires_grad=True);"
        "[g(x, x, 2, backend=b).sum().backward() for b in ('dense', 'grid', 'separable', 'fft', 'auto')];"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


X = torch.randn(4, 9, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaunt_product(X, X, 2, parity="both"), "expects parity even or odd, got 'both'"),
        (
            lambda: gaunt_product(X, X, 2, backend="slow"),
            "expects backend to be one of auto, dense, grid, sep",
        ),
        (lambda: gaunt_product(X, X, 2, precision="half"), "precision one of ieee, tf32x3, tf32, bf16, got"),
        (lambda: gaunt_product(X, X, -1), "gaunt_product expects lmax_out to be a whole number >= 0, got -1"),
        (lambda: poisson_bracket(X, X, 2.0), "poisson_bracket expects lmax_out to be a whole number"),
        (lambda: gaunt_product(X, X, True), "expects lmax_out to be a whole number >= 0, got True"),
        (lambda: gaunt_product(X[:, :8], X, 2), r"expects x of shape \(\.\.\., \(lmax \+ 1\)\^2, channels\)"),
        (
            lambda: product_and_bracket(X, X[:, :3], 2),
            r"product_and_bracket expects y of shape .*\(4, 3, 2\)",
        ),
        (lambda: gaunt_product(X[:, :0], X, 2), r"expects x of shape .*\(4, 0, 2\)"),
        (lambda: gaunt_product(X[0, 0], X, 2), "expects x of shape"),
        (lambda: gaunt_product(X, X[:3], 2), r"expects leading axes that broadcast, got \(4, 9, 2\)"),
        (lambda: gaunt_product(X.long(), X, 2), "with real numbers, got torch.int64"),
        (lambda: gaunt_product(X, X.double(), 2), "expects x and y of one dtype"),
        (
            lambda: gaunt_product(X, X[..., [0, 0, 0]], 2),
            "equally many channels, or one of them with a single",
        ),
    ],
)
def test_says_what_it_expected(call, words):
    with pytest.raises(ValueError, match=words):
        call()
