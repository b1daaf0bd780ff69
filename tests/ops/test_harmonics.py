"""equitorch/ops/harmonics"""

import functools
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops.backend import use_reference
from equitorch.ops.harmonics import reference, spherical_harmonics
from equitorch.reps import wigner_D_all

ops = torch.ops.equitorch
KERNELS = ["cpu", "triton"]
seeds = st.integers(0, 2**31 - 1)


def vectors(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rotation(seed):
    q, _ = torch.linalg.qr(vectors(3, seed=seed))
    return q  # proper or not


def tolerances(dtype):
    return {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}


def test_means_the_tabulated_polynomials():
    x, y, z = vectors(7).unbind(-1)
    square = x * x + y * y + z * z
    table = [torch.ones_like(x), *(math.sqrt(3) * c for c in (x, y, z)), math.sqrt(15) * x * z]
    table += [math.sqrt(15) * x * y, math.sqrt(5) * (1.5 * y * y - 0.5 * square), math.sqrt(15) * y * z]
    table += [math.sqrt(15) / 2 * (z * z - x * x)]
    ours = spherical_harmonics(2, torch.stack([x, y, z], -1), normalize=False)
    torch.testing.assert_close(ours, torch.stack(table, -1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("normalization", reference.NORMALIZATIONS)
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_e3nn(normalization, normalize):
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    x = vectors(50)
    x = x if normalize else torch.nn.functional.normalize(x, dim=-1)
    theirs = o3.spherical_harmonics(list(range(9)), x, normalize, normalization)
    ours = spherical_harmonics(8, x, normalize, normalization)
    assert (ours - theirs).abs().max() < 1e-12


def test_degree_twenty_equals_the_complex_harmonics():
    special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("this SciPy is older than sph_harm_y")
    l, x = 20, torch.nn.functional.normalize(vectors(40), dim=-1)
    polar, azimuth = torch.acos(x[:, 1]).numpy(), torch.atan2(x[:, 0], x[:, 2]).numpy()
    rows = []
    for m in range(-l, l + 1):
        value = (-1) ** m * math.sqrt(2) * special.sph_harm_y(l, abs(m), polar, azimuth)
        rows.append(torch.tensor(value.imag if m < 0 else value.real if m else value.real / math.sqrt(2)))
    ours = spherical_harmonics(l, x, normalization="integral")[:, l * l :]
    theirs = torch.stack(rows, dim=-1)
    assert (ours - theirs).abs().max() / theirs.norm(dim=-1).max() < 1e-12


@given(seeds, st.integers(0, 16))
def test_turns_by_the_wigner_matrices(seed, lmax):
    x, r = vectors(4, seed=seed), rotation(seed + 1)
    turned = spherical_harmonics(lmax, x @ r.T)
    torch.testing.assert_close(turned, _turn(spherical_harmonics(lmax, x), r, lmax), rtol=0, atol=1e-10)


def test_the_check_can_fail():
    x, r = vectors(4), rotation(1)
    shuffled = spherical_harmonics(2, x)[:, [0, 2, 1, 3, 4, 5, 6, 7, 8]]
    moved = spherical_harmonics(2, x @ r.T)[:, [0, 2, 1, 3, 4, 5, 6, 7, 8]]
    assert (moved - _turn(shuffled, r, 2)).abs().max() > 0.1


def _turn(rows, r, lmax):
    return rows @ torch.block_diag(*wigner_D_all(lmax, r)).T


@pytest.mark.parametrize(
    ("normalization", "square"), [("component", 9), ("integral", 9 / (4 * math.pi)), ("norm", 1)]
)
def test_has_the_norm_that_its_name_says(normalization, square):
    rows = spherical_harmonics(4, vectors(5), normalization=normalization)[:, 16:]
    torch.testing.assert_close(rows.square().sum(-1), torch.full((5,), float(square), dtype=torch.float64))


def test_single_precision_is_as_good_at_degree_sixteen():
    x = vectors(200)
    exact, single = spherical_harmonics(16, x), spherical_harmonics(16, x.float())
    assert (exact - single).abs().max() / math.sqrt(33) < 2e-6


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("count", "lmax", "dtype"),
    [
        (0, 2, torch.float64),
        (1, 0, torch.float64),
        (3, 1, torch.float32),
        (129, 2, torch.float64),
        (129, 3, torch.float32),
    ],
)
def test_kernel_agrees_with_reference(kernel, normalize, count, lmax, dtype):
    """On a GPU the compiled kernel; elsewhere the same source in Triton's interpreter."""
    fused = pytest.importorskip(f"equitorch.ops.harmonics.{kernel}")
    rows, options = (lmax + 1) ** 2, (lmax, normalize, "integral")
    x, h = (vectors(count, seed=seed, dtype=dtype).T.contiguous().T for seed in (0, 1))
    g = torch.randn(rows, count, dtype=dtype).T
    close = functools.partial(torch.testing.assert_close, **tolerances(dtype))
    close(fused.spherical_harmonics(x, *options), reference.spherical_harmonics(x, *options))
    close(fused.gradient(g, x, *options), reference.gradient(g, x, *options))
    close(fused.second(g, x, h, *options), reference.second(g, x, h, *options))


@pytest.mark.parametrize("normalize", [True, False])
def test_closed_derivatives_are_those_of_the_reference(normalize):
    x, h, options = vectors(5).requires_grad_(), vectors(5, seed=1), (4, normalize, "norm")
    g = torch.randn(5, 25, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(reference.spherical_harmonics(x, *options), x, g, create_graph=True)
    torch.testing.assert_close(reference.gradient(g, x, *options), slope)
    torch.testing.assert_close(reference.second(g, x, h, *options), torch.autograd.grad(slope, (g, x), h))


@pytest.mark.parametrize("normalize", [True, False])
def test_differentiates_twice(normalize):
    x = vectors(3).requires_grad_()
    for function in (
        lambda x: spherical_harmonics(3, x, normalize),
        lambda x: ops.spherical_harmonics(x, 3, normalize, "component"),
    ):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("normalize", [True, False])
def test_third_and_fourth_derivatives_are_those_of_the_reference(normalize):
    def derivatives():
        x = vectors(4).requires_grad_()
        value, found = spherical_harmonics(4, x, normalize).pow(3).sum(), []
        for _ in range(4):
            (grad,) = torch.autograd.grad(value, x, create_graph=True)
            found.append(grad)
            value = grad.pow(2).sum()
        return found

    ours = derivatives()
    with use_reference():
        theirs = derivatives()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_degree_zero_has_derivatives_and_they_vanish():
    x = vectors(2).requires_grad_()
    (slope,) = torch.autograd.grad(spherical_harmonics(0, x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(bend.sum(), x)
    assert not slope.any()
    assert not bend.any()
    assert not third.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_short_vectors_have_no_direction_and_no_gradient(dtype):
    x = torch.tensor([[0.0, 0, 0], [1e-13, 0, 0], [0, 1e-11, 0]], dtype=dtype, requires_grad=True)
    for reference_only in (False, True):
        with use_reference() if reference_only else torch.enable_grad():
            rows = spherical_harmonics(2, x)
            (slope,) = torch.autograd.grad(rows.square().sum() + rows[:, 1:4].sum(), x, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), x)
        assert rows[:2].tolist() == [[1.0] + [0.0] * 8] * 2
        torch.testing.assert_close(rows[2, 2].item(), math.sqrt(3))
        assert not slope[:2].any()
        assert not bend[:2].any()
        assert slope[2].any()


def test_nan_stays_visible():
    x = torch.tensor([[math.nan, 0.0, 1.0], [0.0, 1.0, 0.0]])
    rows = spherical_harmonics(2, x)
    assert rows[0, 1:].isnan().any()
    assert rows[1].isfinite().all()


@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 0, 3), (2, 3, 4)])
def test_takes_any_batch_even_an_empty_one(shape):
    x = vectors(*shape)
    assert spherical_harmonics(3, x).shape == (*shape, 16)
    with use_reference():
        assert spherical_harmonics(3, x).shape == (*shape, 16)


def test_two_runs_and_two_threads_agree_bit_for_bit():
    x, before = vectors(5000, dtype=torch.float32), torch.get_num_threads()
    first = spherical_harmonics(4, x)
    try:
        torch.set_num_threads(2)
        assert torch.equal(first, spherical_harmonics(4, x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, spherical_harmonics(4, x))


def test_half_precision_runs_by_the_reference():
    x = vectors(4)
    exact, half = spherical_harmonics(2, x), spherical_harmonics(2, x.bfloat16())
    torch.testing.assert_close(half.double(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["spherical_harmonics", "spherical_harmonics_gradient"])
def test_is_a_well_formed_operator(name):
    x, g = vectors(4).requires_grad_(), torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    operands = (x,) if name == "spherical_harmonics" else (g, x)
    torch.library.opcheck(getattr(ops, name), (*operands, 2, True, "component"))


def test_second_is_a_well_formed_operator():
    x, h, g = vectors(4), vectors(4, seed=1), torch.randn(4, 9, dtype=torch.float64)
    torch.library.opcheck(ops.spherical_harmonics_second, (g, x, h, 2, True, "component"))


def test_compiles_to_one_graph_forward_and_backward():
    def function(x):
        return spherical_harmonics(3, x)

    results = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        x = vectors(2, 4).requires_grad_()
        rows = run(x)
        results.append((rows, *torch.autograd.grad(rows.pow(3).sum(), x)))
    torch.testing.assert_close(results[0], results[1])


def test_is_recorded_with_its_derivatives():
    """The route by which a compiled force loss is trained: one program for energy and forces."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def bend(x):
        (slope,) = torch.autograd.grad(spherical_harmonics(2, x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), x)[0]

    x = vectors(4).requires_grad_()
    program = make_fx(bend, tracing_mode="symbolic")(x)
    assert any("harmonics_second" in str(node.target) for node in program.graph.nodes)
    other = vectors(5, seed=2).requires_grad_()
    torch.testing.assert_close(program(other), bend(other))


def test_has_a_batching_rule():
    x = vectors(4, 5)
    whole = spherical_harmonics(2, x)
    torch.testing.assert_close(torch.vmap(lambda v: spherical_harmonics(2, v))(x), whole)
    torch.testing.assert_close(
        torch.vmap(lambda v: spherical_harmonics(2, v), in_dims=1, out_dims=1)(x), whole
    )
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: spherical_harmonics(2, v)))(x[0])
    assert jacobian.shape == (5, 9, 3)
    op = torch.vmap(lambda v: ops.spherical_harmonics(v, 2, True, "component"))
    torch.testing.assert_close(op(x), whole)


def test_what_a_transform_or_inference_makes_first_outlives_it():
    x = torch.randn(4, 3, dtype=torch.float64)

    def square(x):
        return spherical_harmonics(3, x).square().sum(0)[-1]

    reference.steps.cache_clear()
    reference._raising.cache_clear()
    twice = torch.func.jacrev(torch.func.jacrev(square))
    first = twice(x)
    assert torch.equal(twice(x), first)
    reference.steps.cache_clear()
    reference._raising.cache_clear()
    with use_reference():
        with torch.inference_mode():
            square(x)
        assert torch.isfinite(torch.autograd.grad(square(x.requires_grad_()), x)[0]).all()


def test_eager_use_imports_no_compiler():
    program = """
import sys, torch
from equitorch.ops import spherical_harmonics
x = torch.randn(4, 3, requires_grad=True)
y = spherical_harmonics(2, x).pow(2).sum()
g, = torch.autograd.grad(y, x, create_graph=True)
g.sum().backward()
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, torch.ones(4, 2)), r"vectors of shape \(\.\.\., 3\), got torch.float32 of shape \(4, 2\)"),
        ((2, torch.ones(4, 3, dtype=torch.int64)), "floating point vectors"),
        ((-1, torch.ones(4, 3)), "an integer >= 0, got -1"),
        (([0, 1], torch.ones(4, 3)), r"got \[0, 1\]; pick rows"),
        ((1, torch.ones(4, 3), True, "standard"), "component, integral, norm, got 'standard'"),
    ],
)
def test_says_what_it_expected(arguments, words):
    with pytest.raises(ValueError, match=words):
        spherical_harmonics(*arguments)
