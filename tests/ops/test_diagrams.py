"""equitorch/ops/diagrams"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from equitorch.ops.backend import use_reference
from equitorch.ops.diagrams import (
    cpu,
    diagram_analysis,
    diagram_linear,
    diagram_synthesis,
    linear_plan,
    orbit_map,
    prepared_linear,
    reference,
)
from equitorch.reps import TensorPower
from equitorch.reps.automorphism import Automorphism
from equitorch.reps.halves import sector_pairs
from equitorch.reps.hom import hom_basis

GROUPS = [
    ("S", 1, ""),
    ("S", 3, ""),
    ("A", 2, ""),
    ("A", 3, ""),
    ("A", 4, ""),
    ("B", 3, ""),
    ("O", 3, "O"),
    ("SO", 2, "O"),
    ("SO", 3, "O"),
    ("Sp", 4, "Sp:block"),
    ("Sp", 4, "Sp:interleaved"),
    ("O(1,2)", 3, "O(1,2)"),
    ("SO(2,1)", 3, "O(2,1)"),
]
MIXED = [
    ("S", 3, [2], [2], ""),
    ("S", 3, [2, 1, 0], [1, 2, 0, 1], ""),
    ("A", 3, [1], [2], ""),
    ("A", 3, [2, 0], [1, 1], ""),
    ("SO", 3, [2], [1, 2], "O"),
    ("Sp", 4, [2, 2], [2], "Sp:block"),
    ("O", 3, [1], [1], "O"),
    ("B", 2, [2], [2], ""),
]


def power(group, n, order, form):
    return TensorPower(group, n, order, form="interleaved" if form.endswith("interleaved") else "block")


def draw(plan, n, channels_in, channels_out, batch=2, dtype=torch.float64, grad=False):
    torch.manual_seed(0)
    shapes = [(batch, n**order, channels_in) for order in plan.orders_in]
    shapes += [pair.weight_shape(channels_in, channels_out) for pair in plan.pairs]
    made = [torch.randn(shape, dtype=dtype, requires_grad=grad) for shape in shapes]
    return made[: len(plan.orders_in)], made[len(plan.orders_in) :]


def matrix(group, n, l, k, form, weights):
    """The sum of dense matrices (rows_out, rows_in, channels_in, channels_out)."""
    maps = hom_basis(power(group, n, k, form), power(group, n, l, form), basis="spanning")
    flat = [w.permute(0, 1, 3, 2, 4).flatten(0, 2) for w in weights]
    return torch.einsum("dij,dab->ijab", maps, torch.cat(flat))


def function(plan, n, count, **options):
    return lambda *operands: tuple(diagram_linear(operands[:count], operands[count:], plan, n, **options))


@pytest.mark.parametrize(("group", "n", "form"), GROUPS)
@pytest.mark.parametrize("kernel", [True, False])
def test_is_the_sum_of_all_diagrams(group, n, form, kernel):
    """Against matrices of the reps floor, which are written down entry by entry."""
    sizes = [(l, k) for l in range(5) for k in range(5) if l + k <= 5 - (n > 3)]
    for (l, k), (channels_in, channels_out) in itertools.product(sizes, [(2, 3), (3, 1)]):
        channels = {"channels_in": channels_in, "channels_out": channels_out}
        plan = linear_plan(group.split("(")[0], n, [l], [k], form, **channels)
        xs, weights = draw(plan, n, channels_in, channels_out)
        expected = torch.zeros(2, n**l, channels_out, dtype=torch.float64)
        if weights:
            expected = torch.einsum("ijab,zja->zib", matrix(group, n, l, k, form, weights), xs[0])
        if kernel:
            found = diagram_linear(xs, weights, plan, n)
        else:
            with use_reference():
                found = diagram_linear(xs, weights, plan, n)
        torch.testing.assert_close(found[0], expected, atol=1e-10, rtol=1e-10)


def test_order_of_weights_is_that_of_the_reps_floor():
    for (family, n), l, k in itertools.product([("S", 3), ("A", 3), ("B", 3), ("SO", 3)], range(4), range(4)):
        plan = linear_plan(family, n, [l], [k])
        assert [(plan.upper[p.upper], plan.lower[p.lower]) for p in plan.pairs] == list(
            sector_pairs(family, n, l, k)
        )


@pytest.mark.parametrize("scale", [0.3, torch.tensor([0.5, 0.2], dtype=torch.float64)])
def test_mixed_orders_are_sums_of_single_ones(scale):
    n, orders_out, orders_in = 3, [2, 1, 2], [2, 0, 1, 2]
    plan = linear_plan("S", n, orders_out, orders_in)
    xs, weights = draw(plan, n, 2, 3)
    found = diagram_linear(xs, weights, plan, n, scale=scale)
    expected = [torch.zeros_like(y) for y in found]
    tops, bottoms = [0] * 9, [0] * 9
    for j, l in enumerate(orders_out):
        bottoms = [0] * 9
        for i, k in enumerate(orders_in):
            single = linear_plan("S", n, [l], [k])
            parts = []
            for pair in single.pairs:
                whole = weights[pair.rank]
                at = bottoms[pair.rank], tops[pair.rank]
                parts.append(
                    whole[:, at[0] : at[0] + pair.halves_in, :, at[1] : at[1] + pair.halves_out].contiguous()
                )
            expected[j] += diagram_linear([xs[i]], parts, single, n, scale=scale)[0]
            for pair in linear_plan("S", n, [k], [k]).pairs:
                bottoms[pair.rank] += pair.halves_in
        for pair in linear_plan("S", n, [l], [l]).pairs:
            tops[pair.rank] += pair.halves_out
    for y, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(y, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("batch", "channels"), [(0, 2), (1, 1), (3, 8), (2, 129), (129, 3), (2, 16), (1, 29), (2, 0)]
)
def test_kernels_agree_with_the_reference(dtype, batch, channels):
    keys = [
        ("2|partition:0:0|partition:1:0|partition:2:0>", 5, ""),
        ("2|sign:1:1|sign:2:0|partition:2:0", 3, ""),
        ("3|partition:0:0|partition:1:0|partition:2:0<|partition:3:0<", 3, ""),
        ("4|even:0,0:0|even:0,2:0|even:2,1:0", 2, ""),
        ("4|pairing:0:0|pairing:2:0>|pairing:4:0", 4, "Sp:block"),
        ("3|pairing:1:0", 4, "Sp:interleaved"),
        ("3|pairing:1:0|free:1:2", 3, "O(1,2)"),
        ("0|partition:0:0", 3, ""),
        ("1|partition:0:0|partition:1:0", 1, ""),
    ]
    for key, n, form in keys:
        torch.manual_seed(0)
        x = torch.randn(batch, channels, n ** int(key[0]), dtype=dtype).mT
        found, expected = [], []
        for out, context in ((found, torch.no_grad()), (expected, use_reference())):
            with context:
                zs = diagram_analysis(x, key, n, form, 0.7)
                strided = [torch.cos(z).transpose(0, 1).contiguous().transpose(0, 1) for z in zs]
                out += [*zs, diagram_synthesis(strided, key, n, form, 0.7)]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_threads_share_nothing():
    plan = linear_plan("S", 16, [2], [2])
    xs, weights = draw(plan, 16, 16, 16, batch=7, dtype=torch.float64)
    expected = diagram_linear(xs, weights, plan, 16)
    torch.set_num_threads(2)
    try:
        for _ in range(20):
            torch.testing.assert_close(diagram_linear(xs, weights, plan, 16), expected)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("family", "n", "out", "into", "form"), MIXED)
def test_analysis_and_synthesis_are_adjoint(family, n, out, into, form):
    plan = linear_plan(family, n, out, into, form)
    for key in {*plan.keys_in, *plan.keys_out}:
        x = torch.randn(2, n ** int(key[0]), 3, dtype=torch.float64)
        zs = diagram_analysis(x, key, n, form, 0.7)
        ws = [torch.randn_like(z) for z in zs]
        y = diagram_synthesis(ws, key, n, form, 0.7)
        torch.testing.assert_close((x * y).sum(), sum((z * w).sum() for z, w in zip(zs, ws, strict=True)))


@pytest.mark.parametrize(("family", "n", "out", "into", "form"), MIXED)
def test_differentiates_twice(family, n, out, into, form):
    plan = linear_plan(family, n, out, into, form, channels_in=2, channels_out=3)
    xs, weights = draw(plan, n, 2, 3, grad=True)
    f = function(plan, n, len(xs), scale=0.3)
    assert torch.autograd.gradcheck(f, (*xs, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (*xs, *weights), fast_mode=True)


@pytest.mark.parametrize(("family", "n", "out", "into", "form"), [MIXED[1], MIXED[3], *MIXED[4:6]])
def test_compiles_to_one_graph(family, n, out, into, form):
    torch.compiler.reset()
    plan = linear_plan(family, n, out, into, form, channels_in=2, channels_out=3)
    xs, weights = draw(plan, n, 2, 3, grad=True)
    f = function(plan, n, len(xs), scale=0.3)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    ours, theirs = f(*xs, *weights), compiled(*xs, *weights)
    torch.testing.assert_close(theirs, ours)
    grads = [torch.autograd.grad(sum(y.sin().sum() for y in ys), [*xs, *weights]) for ys in (ours, theirs)]
    torch.testing.assert_close(grads[1], grads[0])
    with torch.no_grad():
        torch.testing.assert_close(compiled(*xs, *weights), f(*xs, *weights))


@pytest.mark.parametrize(("family", "n", "out", "into", "form"), MIXED[:5])
def test_maps_over_one_more_axis(family, n, out, into, form):
    plan = linear_plan(family, n, out, into, form)
    xs, weights = draw(plan, n, 2, 3)
    f = function(plan, n, len(xs))
    dims = (1,) * len(xs) + (None,) * len(weights)
    found = torch.func.vmap(f, in_dims=dims)(*[torch.stack([x, x.cos()], 1) for x in xs], *weights)
    for place, operands in enumerate((xs, [x.cos() for x in xs])):
        torch.testing.assert_close(tuple(y[place] for y in found), f(*operands, *weights))
    slope = torch.func.jacrev(lambda x: f(x, *xs[1:], *weights)[0].sum())(xs[0])
    x = xs[0].clone().requires_grad_()
    torch.testing.assert_close(slope, torch.autograd.grad(f(x, *xs[1:], *weights)[0].sum(), x)[0])


@pytest.mark.parametrize(
    ("key", "n", "form"),
    [("2|partition:0:0|partition:1:0|partition:2:0>", 3, ""), ("3|pairing:1:0|pairing:3:0", 4, "Sp:block")],
)
def test_operators_keep_the_rules(key, n, form):
    x = torch.randn(2, n ** int(key[0]), 2, requires_grad=True)
    zs = torch.ops.equitorch.diagram_analysis(x, key, n, form, 0.3)
    leaves = [z.detach().requires_grad_() for z in zs]
    torch.library.opcheck(torch.ops.equitorch.diagram_analysis.default, (x, key, n, form, 0.3))
    torch.library.opcheck(torch.ops.equitorch.diagram_synthesis.default, (leaves, key, n, form, 0.3))
    z = torch.randn(2, 9, 2, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.equitorch.diagram_symbol.default, (z, "free:1:1:2", 3, "O", False))
    zs = torch.vmap(torch.ops.equitorch.diagram_analysis, in_dims=(2, None, None, None, None))(
        torch.stack([x, x], 2), key, n, form, 0.3
    )
    torch.testing.assert_close(zs[0][1], leaves[0])


def test_padding_counts_as_absent():
    """A batch of graphs of different sizes is each graph by itself."""
    sizes, n = [2, 4, 3], 4
    plan = linear_plan("S", n, [2, 1], [2, 1])
    xs, weights = draw(plan, n, 2, 3, batch=3)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    found = diagram_linear(xs, weights, plan, n, scale=1 / mask.sum(1), mask=mask)
    for sample, size in enumerate(sizes):
        square = xs[0][sample].reshape(n, n, 2)[:size, :size].reshape(1, size * size, 2)
        alone = diagram_linear(
            [square, xs[1][sample : sample + 1, :size]], weights, plan, size, scale=1 / size
        )
        padded = torch.zeros(n, n, 3, dtype=torch.float64)
        padded[:size, :size] = alone[0].reshape(size, size, 3)
        torch.testing.assert_close(found[0][sample], padded.reshape(n * n, 3))
        torch.testing.assert_close(found[1][sample, :size], alone[1][0])
        assert found[1][sample, size:].abs().sum() == 0


@pytest.mark.parametrize("dense", [True, False])
def test_orbit_map_is_the_sum_over_orbits(dense, monkeypatch):
    monkeypatch.setattr("equitorch.ops.diagrams.orbits._DENSE", 1 << 22 if dense else 0)
    square = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
    for l, k in [(1, 2), (2, 1), (0, 2), (2, 0), (1, 1)]:
        orbits = torch.tensor(square.orbits(l + k)).reshape(4**l, 4**k)
        maps = hom_basis(TensorPower(square, 4, k), TensorPower(square, 4, l))
        x = torch.randn(3, 4**k, 2, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(len(maps), 2, 5, dtype=torch.float64, requires_grad=True)
        expected = torch.einsum("dij,dab,zja->zib", maps, weight, x)
        torch.testing.assert_close(orbit_map(x, weight, orbits), expected)
    assert torch.autograd.gradgradcheck(
        lambda x, w: orbit_map(x, w, orbits), (x[:1], weight[..., :1]), fast_mode=True
    )


def test_the_check_can_fail():
    """With the axes of one view exchanged, a matrix takes the place of its transpose."""
    x = torch.randn(1, 9, 1, dtype=torch.float64)
    right, wrong = (diagram_analysis(x, f"2|partition:2:0{mark}", 3)[0] for mark in ("", ">"))
    torch.testing.assert_close(wrong[:, :, 0], right[:, :, 0])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrong[:, :, 1], right[:, :, 0])


def test_says_what_it_expected():
    plan = linear_plan("S", 3, [2], [2])
    xs, weights = draw(plan, 3, 2, 3)
    with pytest.raises(ValueError, match=r"rows\) with|with \[9\] rows, got \[\(2, 9\)\]"):
        diagram_linear([xs[0][..., 0]], weights, plan, 3)
    with pytest.raises(ValueError, match="a weight for each of 3 pairs of sectors, got 2"):
        diagram_linear(xs, weights[:2], plan, 3)
    with pytest.raises(ValueError, match=r"a weight of shape \(1, 2, 2, 2, 3\), got \(1, 2, 2, 3\)"):
        diagram_linear(xs, [weights[0][:, :, :, 0], *weights[1:]], plan, 3)
    with pytest.raises(ValueError, match="a form is"):
        reference.form_matrix("O(1,3)", 3)
    with pytest.raises(ValueError, match="orbit_map expects"):
        orbit_map(xs[0], weights[0], torch.zeros(3, 3))


@pytest.mark.parametrize(("family", "form"), [("S", ""), ("O", "O"), ("Sp", "Sp:block"), ("O", "O(1,3)")])
@pytest.mark.parametrize("recorded", [False, True])
def test_adds_a_bias_to_the_halves_without_strands(family, form, recorded):
    """In one pass and in three, both against a second input that is the number one."""
    plan, wide = linear_plan(family, 4, [2], [2], form), linear_plan(family, 4, [2], [2, 0], form)
    x, one = torch.randn(3, 16, 2, dtype=torch.float64), torch.ones(3, 1, 2, dtype=torch.float64)
    weights = [torch.randn(pair.weight_shape(2, 5), dtype=torch.float64) for pair in plan.pairs]
    bias = torch.randn(plan.pairs[plan.constant].halves_out, 5, dtype=torch.float64, requires_grad=recorded)
    (found,) = diagram_linear([x], weights, plan, 4, bias=bias, scale=0.5)
    first, *rest = weights
    shift = torch.zeros_like(first[:, :1])
    shift[:, 0, 0] = bias
    (expected,) = diagram_linear([x, one], [torch.cat([first, shift], dim=1), *rest], wide, 4, scale=0.5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_says_which_bias_it_expected():
    plan = linear_plan("O", 3, [1], [1], "O")
    weights, x = [torch.randn(1, 1, 2, 1, 2)], torch.randn(4, 3, 2)
    with pytest.raises(ValueError, match=r"diagram_linear expects none as bias here, got shape \(1, 2\)"):
        diagram_linear([x], weights, plan, 3, bias=torch.randn(1, 2))


@pytest.mark.parametrize(("family", "n", "form"), [("S", 5, ""), ("S", 40, ""), ("Sp", 4, "Sp:block")])
def test_prepared_weights_do_the_same(family, n, form):
    plan = linear_plan(family, n, [2], [2], form)
    (x,), weights = draw(plan, n, 8, 9, batch=5, dtype=torch.float32)
    bias = torch.randn(plan.pairs[plan.constant].halves_out, 9)
    apply = prepared_linear(weights, plan, n, bias=bias, scale=0.3)
    kernel = cpu.prepared(weights, bias, plan.keys_in[0], plan.keys_out[0], n, form, 0.3)
    torch.testing.assert_close(kernel.run(x), apply(x))
    assert kernel.run(x[0]) is kernel.run(x[:, 1:]) is kernel.run(x.double()) is None

    def expected(x):
        with use_reference():
            return diagram_linear([x], weights, plan, n, bias=bias, scale=0.3)[0]

    for given in (x, x[:0], x[1:2], x.mT.contiguous().mT, torch._neg_view(x)):
        torch.testing.assert_close(apply(given), expected(given), atol=1e-4, rtol=1e-5)
    with use_reference():
        torch.testing.assert_close(apply(x), expected(x), atol=1e-4, rtol=1e-5)
    recorded = x.clone().requires_grad_()
    assert apply(recorded).requires_grad
    weights[0].mul_(2)
    torch.testing.assert_close(apply(x), expected(x), atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match="expects inputs of shape"):
        apply(x[:, 1:])


def test_prepared_weights_are_there_for_many_threads():
    plan = linear_plan("S", 12, [2], [2])
    xs, weights = zip(*[draw(plan, 12, 8, 8, batch=batch) for batch in (3, 16, 40)], strict=True)
    apply = prepared_linear(weights[0], plan, 12)
    given = [x for (x,) in xs] * 40
    expected = [diagram_linear([x], weights[0], plan, 12)[0] for x in given[:3]] * 40
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with ThreadPoolExecutor(3) as pool:
                torch.testing.assert_close(list(pool.map(apply, given)), expected)
        finally:
            torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, lambda z: z.double()),
        (1, lambda z: z.double()),
        (1, lambda z: z[:, :2]),
        (0, lambda z: z[:, :, :1]),
        (0, lambda z: z[:1]),
        (1, lambda z: z[..., :1]),
        (1, lambda z: z[0]),
    ],
)
def test_no_kernel_reads_beyond_its_tensors(number, change):
    zs = [torch.ones(2, 1, 2, 3), torch.ones(2, 3, 3, 3)]
    zs[number] = change(zs[number])
    for synthesis in (diagram_synthesis, lambda *a: torch.ops.equitorch.diagram_synthesis(*a, "", 1.0)):
        with pytest.raises(ValueError, match="diagram_synthesis expects tensors of shapes"):
            synthesis(zs, "2|partition:0:0|partition:1:0", 3)
    with pytest.raises(ValueError, match=r"expects x of shape \(batch, 25, channels\) for n=5, got"):
        diagram_analysis(torch.ones(2, 9, 1), "2|partition:0:0|partition:1:0", 5)


def test_whole_numbers_are_summed_as_they_are():
    (z,) = diagram_analysis(torch.arange(9).reshape(1, 9, 1), "2|partition:0:0", 3)
    assert z.flatten().tolist() == [12, 36]


def test_weights_agree_in_the_channels_of_the_result():
    plan = linear_plan("S", 3, (2,), (2,), "")
    weights = [torch.ones(pair.weight_shape(2, 4)) for pair in plan.pairs]
    weights[1] = weights[1][..., :1]
    with pytest.raises(ValueError, match=r"expects a weight of shape \(1, 3, 2, 3, 4\), got"):
        diagram_linear([torch.ones(5, 9, 2)], weights, plan, 3)
