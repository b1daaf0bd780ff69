"""equitorch/layers/diagrams.py"""

import copy
import itertools
import math
import pickle

import pytest
import torch

from equitorch.layers import DiagramLinear, Linear
from equitorch.reps import DirectSum, Dual, Irreps, KroneckerProduct, Outer, TensorPower, hom_basis, hom_dim
from equitorch.reps.automorphism import Automorphism
from equitorch.testing import assert_equivariant

SQUARE = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
GROUPS = [
    ("S", 2),
    ("S", 3),
    ("A", 3),
    ("B", 3),
    ("O", 3),
    ("SO", 2),
    ("SO", 3),
    ("Sp", 2),
    ("Sp", 4),
    ("O(1,2)", 3),
    ("SO(1,2)", 3),
    (SQUARE, 4),
]
SIZES = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2), (2, 2)]
BACKENDS = ["dense", "plan", "fused", "auto"]


def power(group, n, order, **options):
    return TensorPower(group, n, order, **options)


MIXED = [
    (DirectSum((power("S", 3, 2), power("S", 3, 1))), DirectSum((power("S", 3, 1), power("S", 3, 2)))),
    (DirectSum((power("S", 3, 0), power("S", 3, 2))), power("S", 3, 3)),
    (power("O", 3, 2), DirectSum((power("O", 3, 1), power("O", 3, 2), power("O", 3, 0)))),
    (DirectSum((power("SO", 3, 2), power("SO", 3, 1))), DirectSum((power("SO", 3, 1), power("SO", 3, 2)))),
    (DirectSum((power("A", 3, 2), power("A", 3, 1))), power("A", 3, 2)),
    (Outer(power("S", 3, 1), power("O", 3, 1)), Outer(power("S", 3, 2), power("O", 3, 1))),
    (Outer(power("S", 2, 2), power("SO", 3, 1)), Outer(power("S", 2, 1), power("SO", 3, 2))),
    (Outer(power("A", 3, 1), power("SO", 2, 1)), Outer(power("A", 3, 1), power("SO", 2, 1))),
    (
        DirectSum((Outer(power("S", 3, 1), power("O", 2, 0)), Outer(power("S", 3, 0), power("O", 2, 2)))),
        DirectSum((Outer(power("S", 3, 2), power("O", 2, 0)), Outer(power("S", 3, 1), power("O", 2, 2)))),
    ),
    (power("S", 3, 2, symmetric=True), power("S", 3, 2, symmetric=True)),
    (power("O", 3, 2, symmetric=True), power("O", 3, 2)),
    (Outer(power("S", 3, 2, symmetric=True), power("O", 2, 1)), Outer(power("S", 3, 1), power("O", 2, 1))),
    (Dual(power("Sp", 4, 1)), power("Sp", 4, 1)),
    (power("Sp", 4, 1, form="interleaved"), Dual(power("Sp", 4, 1, form="interleaved"))),
    (power("O(1,2)", 3, 2), Dual(power("O(1,2)", 3, 2))),
    (Dual(power("Sp", 2, 2, symmetric=True)), power("Sp", 2, 2)),
    (KroneckerProduct((power("O", 3, 1), power("O", 3, 1))), power("O", 3, 2)),
    (DirectSum((power(SQUARE, 4, 1), power(SQUARE, 4, 0))), DirectSum((power(SQUARE, 4, 2),) * 2)),
    (Irreps("0e+1o+2e+1e"), power("O", 3, 2)),
    (power("O", 3, 2), Irreps("2x0e+1e+2e+1o")),
    (DirectSum((power("O", 3, 1), power("O", 3, 2))), Irreps("0e+1o")),
]


def made(rep_in, rep_out, channels=(2, 3), **options):
    """A layer in float64 with random parameters, biases among them."""
    torch.manual_seed(0)
    layer = DiagramLinear(rep_in, rep_out, *channels, **options).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def features(layer, *batch, rows=None):
    torch.manual_seed(1)
    return torch.randn(*batch, rows or layer.rep_in.dim, layer.channels_in, dtype=torch.float64)


def by_matrix(layer, x):
    y = torch.einsum("iojc,...jc->...io", layer.to_dense(), x)
    return y if layer.bias is None else y + layer.dense_bias()


def by_definition(layer):
    """The matrix from the maps of ``hom_basis``, which are written down from the definitions of diagrams."""
    maps = hom_basis(layer.rep_in, layer.rep_out, basis="spanning")
    flat = [w.movedim(2, 3).flatten(0, 2) for w in layer.weights.full()]
    weights = torch.cat(flat) if flat else maps.new_zeros(0, layer.channels_in, layer.channels_out)
    return torch.einsum("dij,dco->iojc", maps, weights)


def spans(maps):
    """The orthogonal projection on a span of matrices, and its dimension."""
    flat = maps.flatten(1)
    _, s, v = torch.linalg.svd(flat, full_matrices=False)
    v = v[s > 1e-9 * s.max().clamp(min=1)]
    return v.T @ v, len(v)


@pytest.mark.parametrize(("group", "n"), GROUPS)
def test_is_the_sum_of_the_diagrams_by_every_backend(group, n):
    for k, l in [*SIZES, (3, 1), (1, 3)][: None if n < 4 else -2]:
        layer = made(power(group, n, k), power(group, n, l), normalization="sum")
        torch.testing.assert_close(layer.to_dense(), by_definition(layer), rtol=0, atol=1e-11)
        x = features(layer, 4)
        expected = by_matrix(layer, x)
        for backend, grad in itertools.product(BACKENDS, (True, False)):
            layer.backend = backend
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("group", "n"), GROUPS)
@pytest.mark.parametrize("normalization", ["sum", "mean", "sqrt"])
def test_scales_each_sum_over_an_index(group, n, normalization):
    """A weight of one diagram: its matrix times a factor for each block of inputs only."""
    layer = DiagramLinear.power(group, n, 2, 2, 1, 1, bias=False, normalization=normalization).double()
    maps = hom_basis(layer.rep_in, layer.rep_out, basis="spanning")
    scale = {"sum": 1.0, "mean": 1 / n, "sqrt": n**-0.5}[normalization]
    for (index, blocks), exact in zip(layer.diagrams(), maps, strict=True):
        if blocks is None:
            met = exact.sum() / len(exact)
            factor = met ** {"sum": 0.0, "mean": -1.0, "sqrt": -0.5}[normalization]
        else:
            extra = index.name.startswith(("sign", "free"))
            closed = [
                b for b in blocks if min(b) >= 2 and not (extra and len(b) == 1) and "sign" not in index.name
            ]
            factor = scale ** len(closed)
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            layer.weights[index.name][index.position] = 1.0
        torch.testing.assert_close(layer.to_dense()[:, 0, :, 0], exact * factor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rep_in", "rep_out"), MIXED)
@pytest.mark.parametrize("mixing", ["full", "depthwise"])
def test_maps_between_sums_products_and_parts(rep_in, rep_out, mixing):
    layer = made(rep_in, rep_out, mixing=mixing)
    assert_equivariant(layer, [rep_in], rep_out, channels=2, atol=1e-10)
    single = made(rep_in, rep_out, channels=(1, 1), bias=False)
    maps = []
    for name, weight in single.weights.items():
        for number in range(weight.numel()):
            for parameter in single.parameters():
                torch.nn.init.zeros_(parameter)
            with torch.no_grad():
                single.weights[name].view(-1)[number] = 1.0
                maps.append(single.to_dense()[:, 0, :, 0])
    projection, dim = spans(torch.stack(maps))
    expected, count = spans(hom_basis(rep_in, rep_out))
    assert dim == count == hom_dim(rep_in, rep_out)
    torch.testing.assert_close(projection, expected, rtol=0, atol=1e-10)
    x = features(layer, 4)
    for backend in BACKENDS:
        layer.backend = backend
        torch.testing.assert_close(layer(x), by_matrix(layer, x), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("group", "n"), GROUPS)
@pytest.mark.parametrize("mixing", ["full", "depthwise"])
def test_commutes_with_the_group(group, n, mixing):
    for k, l in [(1, 1), (2, 1), (0, 2), (2, 2), (1, 3) if n < 4 else (1, 2)]:
        layer = made(power(group, n, k), power(group, n, l), mixing=mixing)
        assert_equivariant(layer, [layer.rep_in], layer.rep_out, channels=2, atol=1e-10)


@pytest.mark.parametrize(
    ("rep_in", "rep_out"),
    [(power(*g, k), power(*g, l)) for g in GROUPS for k, l in [(2, 2), (1, 2)]] + MIXED[:-3],
)
def test_a_minimal_basis_has_as_many_weights_as_there_are_maps(rep_in, rep_out):
    layer = made(rep_in, rep_out, basis="minimal")
    count = sum(weight.numel() for weight in layer.weights.values())
    assert count == hom_dim(rep_in, rep_out) * 2 * 3
    assert sum(1 for _ in layer.diagrams()) == hom_dim(rep_in, rep_out)
    assert_equivariant(layer, [rep_in], rep_out, channels=2, atol=1e-10)


def test_a_minimal_basis_spans_everything_where_diagrams_depend_on_each_other():
    for group, n, k, l in [("O", 2, 3, 3), ("Sp", 2, 2, 2), ("S", 2, 2, 2), ("SO", 3, 3, 2), ("S", 3, 2, 3)]:
        layer = made(power(group, n, k), power(group, n, l), channels=(1, 1), basis="minimal", bias=False)
        maps = []
        for index, _ in layer.diagrams():
            for parameter in layer.parameters():
                torch.nn.init.zeros_(parameter)
            with torch.no_grad():
                layer.weights[index.name][index.position] = 1.0
                maps.append(layer.to_dense()[:, 0, :, 0])
        assert spans(torch.stack(maps))[1] == len(maps) == hom_dim(layer.rep_in, layer.rep_out)


def test_deep_sets():
    """Zaheer et al. 2017: x -> a x + b mean(x) + c is every permutation equivariant layer on sets."""
    layer = made(power("S", 5, 1), power("S", 5, 1), channels=(1, 1))
    x = features(layer, 3)
    b, a, c = layer.weights["partition_0"], layer.weights["partition_1"], layer.bias["partition_0"]
    torch.testing.assert_close(layer(x), a.item() * x + b.item() * x.mean(1, keepdim=True) + c.item())


def test_the_fifteen_maps_of_invariant_graph_networks():
    """Maron et al. 2019, arXiv:1812.09902, appendix A: written by hand, sums divided by n."""
    layer = made(power("S", 4, 2), power("S", 4, 2), channels=(1, 1), bias=False)
    x = torch.randn(4, 4, dtype=torch.float64)
    one, eye = torch.ones(4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    trace, total = x.trace() / 4, x.mean()
    diagonal, rows, columns = x.diagonal(), x.mean(1), x.mean(0)
    by_hand = {(0, 0): [trace * eye, trace * one], (0, 1): [total * eye, total * one]}
    vectors = [diagonal, columns, rows]  # closed block: none, the first index, the second
    for number, v in enumerate(vectors):
        by_hand[1, number] = [v.diag(), v[None, :].expand(4, 4), v[:, None].expand(4, 4)]
    by_hand[2, 0], by_hand[2, 1] = [x], [x.T]
    found = 0
    for d, name in enumerate(layer.weights):
        weight = layer.weights[name]
        for p, below, above in itertools.product(*(range(weight.shape[a]) for a in (0, 1, 3))):
            for parameter in layer.parameters():
                torch.nn.init.zeros_(parameter)
            with torch.no_grad():
                weight[p, below, :, above] = 1.0
            y = layer(x.reshape(16, 1)).reshape(4, 4)
            expected = by_hand[d, p if d == 2 else below][above]
            torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
            found += 1
    assert found == 15


def test_orthogonal_maps_of_matrices_and_the_cross_product():
    layer = made(power("O", 4, 2), power("O", 4, 2), channels=(1, 1), normalization="sum", bias=False)
    x = torch.randn(4, 4, dtype=torch.float64)
    (trace,), (same, turned) = (w.flatten().tolist() for w in layer.weights.values())
    expected = trace * x.trace() * torch.eye(4, dtype=torch.float64) + same * x + turned * x.T
    torch.testing.assert_close(layer(x.reshape(16, 1)).reshape(4, 4), expected)
    axial = made(power("SO", 3, 2), power("SO", 3, 1), channels=(1, 1))
    a, b = torch.randn(2, 3, dtype=torch.float64)
    cross = torch.linalg.cross(a, b) * axial.weights["free_0_1_2"].item()
    torch.testing.assert_close(axial(torch.outer(a, b).reshape(9, 1))[:, 0], cross)


def test_is_the_linear_map_of_irreps_on_matrices_of_space():
    """Three weights for each pair of channels: trace, antisymmetric and symmetric traceless parts."""
    layer = made(power("O", 3, 2), power("O", 3, 2), basis="minimal", bias=False)
    assert sum(weight.numel() for weight in layer.weights.values()) == 3 * 2 * 3
    irreps = Irreps("0e+1e+2e")
    assert power("O", 3, 2).irreps == irreps
    basis = power("O", 3, 2).change_of_basis
    matrix = torch.einsum("ai,iojc,bj->aobc", basis, layer.to_dense(), basis)
    linear = Linear(irreps, 2, 3, bias=False).double()
    blocks = [matrix[s, :, s, :].movedim(1, 3).movedim(0, 1) for s in (slice(0, 1), slice(1, 4), slice(4, 9))]
    with torch.no_grad():
        flat = torch.cat([block[0, 0].flatten() for block in blocks]) * math.sqrt(2)
        linear.weight.copy_(flat)
    x = features(layer, 4)
    torch.testing.assert_close(linear(basis @ x), basis @ layer(x), rtol=1e-12, atol=1e-12)


def test_dimensions_over_space():
    for k, count in [(2, 3), (3, 15), (4, 91)]:
        layer = DiagramLinear.power("O", 3, k, k, 1, 1, basis="minimal", bias=False)
        assert sum(weight.numel() for weight in layer.weights.values()) == count


@pytest.mark.parametrize("backend", ["plan", "fused", "dense"])
@pytest.mark.parametrize(
    ("group", "n", "k", "l"),
    [("S", 3, 2, 2), ("A", 3, 1, 2), ("O", 3, 3, 1), ("SO", 3, 2, 1), ("Sp", 4, 2, 2), ("B", 2, 2, 2)],
)
def test_has_the_gradients_of_the_matrix(group, n, k, l, backend):
    layer = made(power(group, n, k), power(group, n, l), backend=backend)
    x = features(layer, 3).requires_grad_()
    wanted = [x, *layer.parameters()]
    ours = torch.autograd.grad(layer(x).sin().sum(), wanted)
    theirs = torch.autograd.grad(by_matrix(layer, x).sin().sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mixing", ["full", "depthwise"])
@pytest.mark.parametrize(
    ("rep_in", "rep_out"),
    [
        (power("S", 2, 2), power("S", 2, 1)),
        (power("SO", 3, 1), power("SO", 3, 2)),
        (Outer(power("S", 2, 1), power("SO", 2, 1)), Outer(power("S", 2, 1), power("SO", 2, 1))),
        (power(SQUARE, 4, 1), power(SQUARE, 4, 1)),
    ],
)
def test_has_right_second_derivatives(rep_in, rep_out, mixing):
    layer = made(rep_in, rep_out, channels=(2, 1), mixing=mixing)
    x = features(layer, 2).requires_grad_()
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def of(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(of, (x, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(of, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize(("k", "l"), [(k, l) for k in range(1, 4) for l in range(4) if k + l < 6])
def test_zeros_for_absent_points_change_nothing_but_means(k, l):
    layer = made(power("S", 3, k), power("S", 3, l), normalization="sum", channels=(2, 2))
    x = features(layer, 2)
    wide = torch.nn.functional.pad(x.reshape(2, *[3] * k, 2), [0, 0] + [0, 2] * k).reshape(2, 5**k, 2)
    other = made(power("S", 5, k), power("S", 5, l), normalization="sum", channels=(2, 2))
    other.load_state_dict(layer.state_dict())
    y = other(wide).reshape(2, *[5] * l, 2)
    inside = y[(slice(None), *[slice(0, 3)] * l)]
    torch.testing.assert_close(inside, layer(x).reshape(2, *[3] * l, 2))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("l", [0, 1])
def test_means_of_repeated_points_are_the_same(k, l):
    layer = made(power("S", 3, k), power("S", 3, l), channels=(2, 2))
    x = features(layer, 2)
    index = torch.arange(3).repeat_interleave(2)
    wide = x.reshape(2, *[3] * k, 2)
    for axis in range(1, k + 1):
        wide = wide.index_select(axis, index)
    y = layer(wide.reshape(2, 6**k, 2))
    expected = layer(x).index_select(1, index) if l else layer(x)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(
    ("group", "n", "m"), [("S", 4, 7), ("S", 4, 2), ("O", 3, 5), ("Sp", 4, 2), ("B", 3, 2)]
)
def test_runs_and_loads_at_another_dimension(group, n, m):
    layer = made(power(group, n, 2), power(group, n, 2))
    other = made(power(group, m, 2), power(group, m, 2))
    other.load_state_dict(layer.state_dict())
    x = features(other, 3)
    torch.testing.assert_close(layer(x), other(x))
    torch.testing.assert_close(layer.to_dense(m), other.to_dense())
    with torch.no_grad():
        torch.testing.assert_close(layer(x), other(x))
        small = features(layer, 3)
        torch.testing.assert_close(layer(small), by_matrix(layer, small))


@pytest.mark.parametrize("normalization", ["sum", "mean", "sqrt"])
@pytest.mark.parametrize("mixing", ["full", "depthwise"])
@pytest.mark.parametrize(
    ("rep_in", "rep_out"),
    [
        (power("S", 4, 2), power("S", 4, 2)),
        (power("S", 4, 2), power("S", 4, 0)),
        (DirectSum((power("S", 4, 1), power("S", 4, 2))), power("S", 4, 1)),
        (power("S", 4, 2, symmetric=True), power("S", 4, 2, symmetric=True)),
        (Outer(power("S", 4, 2), power("O", 3, 1)), Outer(power("S", 4, 1), power("O", 3, 1))),
    ],
)
def test_masks_are_runs_of_each_sample_alone(rep_in, rep_out, mixing, normalization):
    layer = made(rep_in, rep_out, mixing=mixing, normalization=normalization)
    sizes = [4, 2, 3, 1]
    mask = torch.arange(4) < torch.tensor(sizes)[:, None]
    x = features(layer, 4)
    y = layer(x, mask=mask)
    torch.testing.assert_close(
        layer(x.reshape(2, 2, *x.shape[1:]), mask=mask.reshape(2, 2, 4)).flatten(0, 1), y
    )
    inner, outer = layer.maps.inner, layer.maps.outer
    for s, n in enumerate(sizes):
        rows = [torch.arange(0)] * 2
        for number, side in enumerate((inner, outer)):
            shape = side.rows(side.with_n(4))
            kept, start = [], 0
            for block, count in zip(side.blocks, shape, strict=True):
                entries = valid_entries(block, side, n)
                kept.append(start + torch.tensor(entries))
                start += count
            rows[number] = torch.cat(kept)
        alone = layer(x[s, rows[0]][None])
        torch.testing.assert_close(y[s, rows[1]], alone[0])
        absent = torch.ones(y.shape[1], dtype=torch.bool)
        absent[rows[1]] = False
        assert not y[s, absent].any()


def valid_entries(block, side, n):
    """Rows of a block whose indices of permutations are below n."""
    found, tables = [], []
    for place, factor in enumerate(block):
        every = 4 if place == side.free else side.sizes[place]
        tuples = (
            itertools.combinations_with_replacement(range(every), factor.order)
            if factor.symmetric
            else itertools.product(range(every), repeat=factor.order)
        )
        tables.append([all(i < n for i in t) or place != side.free for t in tuples])
    for row, parts in enumerate(itertools.product(*tables)):
        if all(parts):
            found.append(row)
    return found


def test_stays_right_with_fewer_points_than_indices():
    layer = made(power("S", 5, 2), power("S", 5, 3))
    for n in (1, 2):
        rep = power("S", n, 3)
        assert_equivariant(layer, [power("S", n, 2)], rep, channels=2, atol=1e-10)


def test_mixed_orders_are_sums_of_layers():
    orders_in, orders_out = (1, 2), (2, 0)
    layer = made(
        DirectSum(tuple(power("S", 3, k) for k in orders_in)),
        DirectSum(tuple(power("S", 3, l) for l in orders_out)),
        bias=False,
        normalization="sum",
    )
    x = features(layer, 4)
    parts = dict(zip(orders_in, x.split([3, 9], dim=1), strict=True))
    expected = dict.fromkeys(orders_out, 0)
    for index, blocks in layer.diagrams():
        k, l = orders_in[index.block_in], orders_out[index.block_out]
        single = made(power("S", 3, k), power("S", 3, l), bias=False, normalization="sum")
        for parameter in single.parameters():
            torch.nn.init.zeros_(parameter)
        (same,) = [i for i, other in single.diagrams() if other == blocks]
        with torch.no_grad():
            single.weights[same.name][same.position] = layer.weights[index.name][index.position]
        expected[l] = expected[l] + single(parts[k])
    torch.testing.assert_close(layer(x), torch.cat([expected[l] for l in orders_out], dim=1))


def test_products_of_groups_are_products_of_matrices():
    s_in, s_out, o_in, o_out = power("S", 3, 1), power("S", 3, 2), power("O", 2, 2), power("O", 2, 2)
    layer = made(Outer(s_in, o_in), Outer(s_out, o_out), channels=(1, 1), bias=False, normalization="sum")
    a, b = (
        made(*reps, channels=(1, 1), bias=False, normalization="sum")
        for reps in ((s_in, s_out), (o_in, o_out))
    )
    with torch.no_grad():
        for name, weight in layer.weights.items():
            one, two = (part.weights[word] for part, word in zip((a, b), name.split("__"), strict=True))
            p = torch.einsum("phcgd,qicej->pqhicgej", one, two)
            weight.copy_(p.reshape(weight.shape))
    expected = torch.kron(a.to_dense()[:, 0, :, 0], b.to_dense()[:, 0, :, 0])
    torch.testing.assert_close(layer.to_dense()[:, 0, :, 0], expected)


@pytest.mark.parametrize(
    ("group", "n", "k", "l", "normalization"),
    [
        ("S", 3, 2, 2, "sqrt"),
        ("S", 3, 1, 2, "sum"),
        ("O", 3, 2, 2, "auto"),
        ("O", 2, 3, 3, "auto"),
        ("SO", 3, 2, 3, "auto"),
        ("Sp", 4, 2, 2, "auto"),
        ("A", 3, 1, 2, "sqrt"),
        ("B", 3, 2, 2, "mean"),
        ("O(1,2)", 3, 2, 2, "sum"),
        (SQUARE, 4, 1, 2, "auto"),
        (SQUARE, 4, 2, 1, "mean"),
    ],
)
@pytest.mark.parametrize("basis", ["spanning", "minimal"])
def test_starts_with_unit_variance(group, n, k, l, normalization, basis):
    """The mean square of the matrix, summed over inputs, is that of the output: within 5 %."""
    torch.manual_seed(0)
    options = {"normalization": normalization, "basis": basis, "bias": False}
    layer = DiagramLinear.power(group, n, k, l, 64, 256, **options)
    assert layer.to_dense().square().sum().item() / (n**l * 256) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("k", "l", "count"), [(1, 1, 2), (2, 0, 2), (2, 1, 5), (1, 2, 3), (2, 2, 10), (3, 3, 77)]
)
def test_starts_the_same_at_every_n_with_means(k, l, count):
    for n in (3, 50):
        layer = DiagramLinear.power("S", n, k, l, 8, 8)
        deviations = torch.cat([entry.deviation for entry in layer.maps.entries])
        torch.testing.assert_close(deviations, torch.full_like(deviations, count**-0.5))
    assert not any(weight.any() for weight in layer.bias.values())


def test_the_order_of_weights_never_changes():
    """Checkpoints hold weights in this order: name, permutation, lower and upper half of each diagram."""
    table = [
        ("partition_0", 0, 0, 0, ((0, 1), (2,))),
        ("partition_0", 0, 0, 1, ((0,), (1,), (2,))),
        ("partition_1", 0, 0, 0, ((0, 1, 2),)),
        ("partition_1", 0, 0, 1, ((0,), (1, 2))),
        ("partition_1", 0, 0, 2, ((0, 2), (1,))),
    ]
    layer = DiagramLinear.power("S", 3, 1, 2, 1, 1)
    found = [(i.name, i.position[0], i.position[1], i.position[3], blocks) for i, blocks in layer.diagrams()]
    assert found == table
    names = {
        ("SO", 3, 2, 3): ["free_0_1_2", "free_0_3_0", "free_1_2_1"],
        ("A", 3, 1, 1): ["partition_0", "partition_1", "sign_0_1_1"],
        ("B", 3, 2, 2): ["even_0_0", "even_0_1", "even_2_0"],
        ("O", 3, 2, 2): ["pairing_0", "pairing_2"],
    }
    for arguments, expected in names.items():
        assert list(DiagramLinear.power(*arguments, 1, 1).weights) == expected
    both = Outer(power("S", 3, 1), power("O", 3, 1))
    assert list(DiagramLinear(both, both, 1, 1).weights) == [
        "partition_0__pairing_1",
        "partition_1__pairing_1",
    ]


def test_mixes_channels_apart_where_weights_are_too_many():
    few, many = (DiagramLinear.power("S", 6, 4, 4, c, c) for c in (15, 16))
    assert (few.mixing, many.mixing) == ("full", "depthwise")
    assert sum(weight.numel() for weight in many.weights.values()) == 4140 * 16
    assert many(torch.randn(1, 6**4, 16)).shape == (1, 6**4, 16)


@pytest.mark.parametrize("backend", ["dense", "fused"])
def test_keeps_its_matrix_until_a_weight_changes(backend):
    layer = made(power("O", 3, 2), power("O", 3, 2), backend=backend)
    x = features(layer, 4)
    with torch.no_grad():
        before = layer(x)
        kept = layer._cache.entries[(3,), backend]
        layer(x)
        assert layer._cache.entries[(3,), backend] is kept
        layer.weights["pairing_2"].mul_(2)
        torch.testing.assert_close(layer(x), by_matrix(layer, x))
        layer.bias["pairing_0"].add_(1)
        torch.testing.assert_close(layer(x), by_matrix(layer, x))
        layer.load_state_dict({name: value * 3 for name, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(x), by_matrix(layer, x))
        values = {name: torch.randn_like(value) for name, value in layer.named_parameters()}
        other = torch.func.functional_call(layer, values, (x,))
        assert (other - layer(x)).abs().max() > 1e-3
        layer.float()
        torch.testing.assert_close(layer(x.float()), by_matrix(layer, x.float()))
    assert (before - layer.double()(x)).abs().max() > 1e-3
    torch.optim.SGD(layer.parameters(), lr=0.1).zero_grad()
    layer(x).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_matrix(layer, x))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), by_matrix(layer, x))


@torch.no_grad()
def test_runs_prepared_weights_until_they_change():
    layer = made(power("S", 5, 2), power("S", 5, 2), backend="fused")
    x, other = features(layer, 4), torch.randn(6, 49, layer.channels_in, dtype=torch.float64)
    weight = layer.weights["partition_2"]

    def double():
        weight.data = 2 * weight

    changes = [
        lambda: weight.mul_(2),
        lambda: weight.data.mul_(2),  # no version counter tells
        double,
        lambda: layer.weights.register_parameter("partition_2", torch.nn.Parameter(-weight)),
        lambda: layer.bias["partition_0"].add_(1),
    ]
    for change in changes:
        before = [layer(x), layer(x), layer(other)]
        change()
        torch.testing.assert_close(layer(x), by_matrix(layer, x))
        expected = torch.einsum("iojc,bjc->bio", layer.to_dense(7), other) + layer.dense_bias(7)
        torch.testing.assert_close(layer(other), expected)
        assert (layer(x) - before[0]).abs().max() > 1e-3
    layer.backend = "dense"
    assert layer._cache.latest
    torch.testing.assert_close(layer(x), by_matrix(layer, x))
    assert "dense" in [backend for _, backend in layer._cache.entries]


def test_measures_its_backends_when_asked():
    layer = made(power("S", 4, 2), power("S", 4, 2))
    x = features(layer, 5)
    seconds = layer.tune(x)
    assert set(seconds) == {"dense", "plan", "fused"}
    assert layer._tuned[layer._key(x, (4,))] == min(seconds, key=seconds.get)
    assert layer.backend == "auto"
    torch.testing.assert_close(layer(x), by_matrix(layer, x))


@pytest.mark.parametrize(
    ("rep_in", "rep_out", "backend"),
    [
        (power("O", 3, 2), power("O", 3, 2), "dense"),
        (Outer(power("S", 3, 1), power("SO", 3, 1)), Outer(power("S", 3, 1), power("SO", 3, 1)), "auto"),
        (power("S", 3, 2, symmetric=True), power("S", 3, 1), "auto"),
        (power(SQUARE, 4, 1), power(SQUARE, 4, 2), "auto"),
    ],
)
def test_compiles_to_one_graph(rep_in, rep_out, backend):
    layer = made(rep_in, rep_out, backend=backend)
    torch.compiler.reset()
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = features(layer, 3).requires_grad_()
    torch.testing.assert_close(whole(x), layer(x))
    wanted = [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(f(x).sin().sum(), wanted) for f in (whole, layer))
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), layer(x))


def test_copies_and_files_hold_everything():
    layer = made(power("SO", 3, 2), power("SO", 3, 2), basis="minimal")
    x = features(layer, 3)
    with torch.no_grad():
        y = layer(x)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad():
            torch.testing.assert_close(again(x), y)
            torch.nn.init.zeros_(next(iter(again.weights.values())))
            assert (again(x) - layer(x)).abs().max() > 1e-3
    assert {name.split(".")[0] for name in layer.state_dict()} == {"weights", "bias"}


@pytest.mark.parametrize("points", [0, 1, 3, 129])
@pytest.mark.parametrize("channels", [(0, 2), (2, 0), (1, 3), (5, 1)])
def test_takes_any_number_of_points_and_channels(points, channels):
    for rep_in, rep_out in [MIXED[0], MIXED[5], (power("O", 3, 2),) * 2, (power(SQUARE, 4, 1),) * 2]:
        layer = made(rep_in, rep_out, channels=channels)
        x = features(layer, points).requires_grad_()
        strided = torch.stack([x, x + 1], dim=-1)[..., 0]
        y = layer(strided)
        torch.testing.assert_close(y, by_matrix(layer, x))
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
        with torch.no_grad():
            torch.testing.assert_close(layer(strided), y)


def test_nothing_where_there_are_no_maps():
    layer = DiagramLinear.power("O", 3, 1, 2, 4, 5)
    assert not layer.weights
    assert layer(torch.randn(2, 3, 4)).shape == (2, 9, 5)
    assert layer.to_dense().shape == (9, 5, 3, 4)
    assert layer.bias is not None  # the identity matrix is invariant all the same
    assert DiagramLinear.power("O", 3, 2, 1, 4, 5).bias is None


def test_the_check_can_fail():
    """A layer for rotations is none for mirrors, and even permutations are not all of them."""
    for small, large, n, k, l in [("SO", "O", 3, 1, 2), ("A", "S", 3, 1, 1)]:
        layer = made(power(small, n, k), power(small, n, l))
        with pytest.raises(AssertionError, match="row"):
            assert_equivariant(layer, [power(large, n, k)], power(large, n, l), channels=2)


def test_says_what_it_expected():
    layer = DiagramLinear.power("O(1,2)", 3, 2, 1, 4, 5)
    name = r"DiagramLinear\(TensorPower\(O\(1,2\), order 2\) -> TensorPower\(O\(1,2\), order 1\), 4 -> 5\)"
    with pytest.raises(ValueError, match=name + r" expects x of shape \(\.\.\., 9, 4\), got \(2, 8, 4\)"):
        layer(torch.randn(2, 8, 4))
    with pytest.raises(ValueError, match=r"or the rows of another n\), got \(2, 24, 4\)"):
        DiagramLinear.power("S", 5, 2, 2, 4, 4)(torch.randn(2, 24, 4))
    with pytest.raises(ValueError, match="takes no mask"):
        layer(torch.randn(2, 9, 4), mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask of shape \(2, 5\) and dtype bool, got \(2, 4\)"):
        DiagramLinear.power("S", 5, 2, 2, 4, 4)(torch.randn(2, 25, 4), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expects .*torch.float32, got torch.float64"):
        layer(torch.randn(2, 9, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="basis to be spanning or minimal, got 'all'"):
        DiagramLinear.power("S", 3, 1, 1, 1, 1, basis="all")
    with pytest.raises(ValueError, match="channels_in to be a whole number >= 0, got '8'"):
        DiagramLinear.power("S", 3, 1, 1, "8", 1)
    with pytest.raises(ValueError, match="representations of one group"):
        DiagramLinear(power("S", 3, 1), power("S", 4, 1), 1, 1)
    with pytest.raises(ValueError, match=r"basis=minimal, which is one at its own n only"):
        DiagramLinear.power("S", 2, 2, 2, 1, 1, basis="minimal")(torch.randn(1, 9, 1))
    with pytest.raises(ValueError, match="has the same dimension n always, got n=4"):
        DiagramLinear.power("A", 3, 1, 1, 1, 1).to_dense(4)
    for n in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"expects n to be a whole number > 0, got {n}"):
            DiagramLinear.power("S", 3, 1, 1, 1, 1).to_dense(n)
    with pytest.raises(ValueError, match="expects n to be an even number > 0, got 3"):
        DiagramLinear.power("Sp", 4, 1, 1, 1, 1).to_dense(3)


def test_forgets_its_matrix_when_it_changes_mode():
    """No version counter sees what is done to ``.data``."""
    layer, x = DiagramLinear.power("S", 3, 2, 2, 2, 2, backend="dense"), torch.randn(4, 9, 2)
    with torch.no_grad():
        before = layer(x)
        for weight in layer.parameters():
            weight.data.mul_(2)
        torch.testing.assert_close(layer.eval()(x), 2 * before)


def test_refuses_more_maps_than_there_is_memory_for():
    with pytest.raises(ValueError, match=r"at most 33,554,432 maps .*, got 10,480,142,147 from 6561 rows"):
        DiagramLinear.power("S", 3, 8, 8, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiagramLinear.power(Automorphism([(1, 2, 3, 0)]), 4, 1, 2, 2, 2),
        lambda: DiagramLinear.power("S", 2, 2, 2, 2, 2, basis="minimal"),
        lambda: DiagramLinear(TensorPower("O", 3, 2, symmetric=True), TensorPower("O", 3, 2), 2, 2),
        lambda: DiagramLinear(Irreps("0e+1o"), TensorPower("O", 3, 2), 2, 2),
        lambda: DiagramLinear.power("SO", 3, 2, 1, 2, 2),
    ],
)
def test_tables_are_there_when_memory_is_given_later(make):
    layer = make()
    with torch.device("meta"):
        later = make()
    later = later.to_empty(device="cpu")
    later.load_state_dict(layer.state_dict())
    x = torch.randn(3, layer.rep_in.dim, 2)
    assert torch.equal(later(x), layer(x))
