"""equitorch/ops/convolution/triton.py: the unrolled kernels, on a GPU or in Triton's interpreter"""

import numpy as np
import pytest
import torch

from equitorch.layers import EquivariantConvolution
from equitorch.ops.convolution import convolution, form_lists, form_name
from equitorch.ops.convolution import reference as definition
from equitorch.ops.convolution.reference import FILTER, RESULT, WALKS, WEIGHT, WEIGHT_TYPES
from equitorch.ops.edges import EdgePlan, walks
from equitorch.reps import Coupling, Irrep, Irreps

kernel = pytest.importorskip("equitorch.ops.convolution.triton", reason="Triton is not installed")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")
FORMS = {  # features, filters, result: sizes that differ in every slot
    "small": ("2x0e + 1o", "0e + 1o", "1o + 0e"),
    "copies": ("2x1o + 0e", "1o + 1e", "0o + 1e + 2o + 0e"),
    "none": ("1o", "0e + 1o", "4e"),
}
SHAPES = [(0, 0, 3), (1, 0, 3), (1, 1, 1), (2, 1, 129), (3, 3, 3), (9, 2, 0)]
SLOTS = [("convolution", slot) for slot in range(4)] + [("projected_convolution", slot) for slot in range(5)]


def form(name):
    """The lists of a coupling both ways, and its sizes."""
    ends = [Irreps(irreps) for irreps in FORMS[name]]
    paths = [(*path, 1.5) for path in Coupling.paths(*ends)]
    coupling = Coupling.from_paths(*ends, paths)
    return both_ways(coupling), (*coupling.dims, len(paths))


def both_ways(coupling):
    return form_lists(coupling) + form_lists(coupling.permuted((2, 1, 0)))


def graph(nodes, edges, *, reverse=False):
    """Edges in any order, some nodes without; or, with ``reverse``, the plan of edges both ways."""
    index = torch.randint(max(nodes, 1), (2, edges), generator=torch.Generator().manual_seed(0))
    if not reverse:
        return index
    index, back = torch.cat([index, index.flip(0)], dim=1), torch.arange(2 * edges).roll(edges)
    order = torch.argsort(index[1], stable=True)
    return EdgePlan.build(index[:, order], nodes, edge_reverse=torch.argsort(order)[back[order]])


def case(op, coupling, nodes, edges, channels, dtype=torch.float64, *, reverse=False, weight_dtype=None):
    """Operands of all slots, strided on purpose; the plan, and the sizes."""
    generator = torch.Generator().manual_seed(0)
    lists, dims = form(coupling) if isinstance(coupling, str) else coupling
    index = graph(nodes, edges, reverse=reverse)
    walk = index.walks() if reverse else walks(index, nodes)
    edges, pairs = walk[0].shape[0], walk[7].shape[0]
    weights = {"convolution": [(pairs, dims[3], channels)]}.get(op, [(pairs, 2), (2, dims[3], channels)])
    shapes = [(nodes, dims[0], channels), (edges, dims[1]), *weights, (nodes, dims[2], channels)]
    xs = [
        torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype, generator=generator).mT
        for shape in shapes
    ]
    xs[2] = xs[2].to(weight_dtype or dtype)
    return xs, [*walk, *lists], [*dims, WEIGHT_TYPES.index(xs[2].dtype), form_name(lists)]


def without(xs, slot):
    return xs[:slot] + xs[slot + 1 :]


def moved(tensors, device=DEVICE):
    return [t.to(device) for t in tensors]


def check(op, slot, xs, plan, sizes, tolerance=None):
    """The kernel against the definition, which is computed where the operands are."""
    filled = without(xs, slot)
    got = getattr(kernel, op)(slot, moved(filled), moved(plan), sizes).cpu()
    want = getattr(definition, op)(slot, filled, plan, sizes)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if tolerance is None:
        tolerance = 1e-11 if xs[0].dtype == torch.float64 else 1e-4
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "reverse"), [(torch.float32, True), (torch.float64, False)])
@pytest.mark.parametrize(("nodes", "edges", "channels"), SHAPES)
@pytest.mark.parametrize(("op", "slot"), SLOTS)
def test_agrees_with_the_reference(op, slot, nodes, edges, channels, dtype, reverse):
    """Edges in any order, or both ways with pairs that two of them share."""
    check(op, slot, *case(op, "small", nodes, edges, channels, dtype, reverse=reverse))


@pytest.mark.parametrize("slot", range(4))
def test_agrees_where_terms_have_several_coefficients(slot):
    check("convolution", slot, *case("convolution", "copies", 3, 3, 5))


@pytest.mark.parametrize(("nodes", "edges"), [(3, 129), (129, 3)])
@pytest.mark.parametrize("slot", range(4))
def test_agrees_on_many_edges(slot, nodes, edges):
    """Receivers with many edges, with one, and without."""
    coupling = Coupling.from_paths("0e + 1o", "1o", "1o + 0e", [(0, 0, 0, 1.5), (1, 0, 1, -0.7)])
    check("convolution", slot, *case("convolution", (both_ways(coupling), (4, 3, 4, 2)), nodes, edges, 3))


@pytest.mark.parametrize(("op", "slot"), SLOTS)
def test_a_coupling_without_paths_gives_zeros(op, slot):
    check(op, slot, *case(op, "none", 3, 4, 5))


@pytest.mark.parametrize("slot", range(4))
def test_rows_and_paths_that_nothing_reaches_are_zero(slot):
    """Rows of each slot, the first path and the last one are in no term."""
    one = Coupling.between(Irrep("1o"), Irrep("1o"), Irrep("0e")).placed((6, 5, 4), (2, 1, 1))
    coupling = Coupling(one.dims, one.index, one.value, torch.ones_like(one.path))
    check("convolution", slot, *case("convolution", (both_ways(coupling), (6, 5, 4, 3)), 2, 3, 5))


@pytest.mark.parametrize("slot", range(4))
def test_paths_may_overlap_in_any_rows(slot):
    """Two paths share a row of the result and one leaves a row out; a piece may hold two of these rows."""
    index = torch.tensor([[0, 1, 0, 2, 1, 2], [0, 1, 0, 0, 1, 1], [0, 2, 1, 3, 3, 5]])
    coupling = Coupling(
        (3, 2, 6), index, torch.arange(1.0, 7, dtype=torch.float64), index.new_tensor([0, 0, 1, 1, 2, 2])
    )
    xs, plan, sizes = case("convolution", (both_ways(coupling), (3, 2, 6, 3)), 2, 3, 5)
    check("convolution", slot, xs, plan, sizes)
    pieces = kernel.unrolled(slot, plan, sizes, most=2)
    rows = [row for group in pieces.groups for row in group.rows]
    assert sorted(set(rows)) == sorted(rows)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("slot", range(4))
def test_cuts_large_couplings_into_pieces_that_fit(slot, separate):
    """17 paths; kept apart, their 71 rows of the result are those of four programs."""
    ends = "0e + 1o + 2e", Irreps.spherical_harmonics(3), Irreps.spherical_harmonics(3)
    conv = EquivariantConvolution(*ends, 2, separate_paths=separate)
    xs, plan, sizes = case("convolution", (conv.form, conv.dims), 2, 1, 2)
    assert sizes[-1] == conv.form_name
    pieces = kernel.unrolled(slot, plan, sizes, most=24)
    held = [len(s.rows) for g in pieces.groups for s in g.segments]
    assert max(held) <= 24
    assert len(held) == (4 if separate else 1)
    check("convolution", slot, xs, plan, sizes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("slot", range(4))
def test_weights_of_half_precision_are_summed_in_single(slot, dtype):
    xs, plan, sizes = case("convolution", "small", 3, 4, 5, torch.float32, weight_dtype=dtype)
    check("convolution", slot, xs, plan, sizes, tolerance=1e-2 if slot == WEIGHT else 1e-4)
    wide = [*xs[:2], xs[2].float(), xs[3]]
    exact = kernel.convolution(slot, moved(without(wide, slot)), moved(plan), [*sizes[:4], 1, sizes[5]])
    got = kernel.convolution(slot, moved(without(xs, slot)), moved(plan), sizes)
    rounding = torch.finfo(dtype).eps if slot == WEIGHT else 0  # the interpreter cuts digits off
    torch.testing.assert_close(got, exact.to(got.dtype), rtol=rounding, atol=rounding)


@pytest.mark.parametrize("slot", range(4))
def test_everything_in_half_precision_is_rounded_once(slot):
    check("convolution", slot, *case("convolution", "small", 2, 3, 5, torch.bfloat16), tolerance=2e-2)


def test_reads_the_coupling_once():
    """Later calls find it by its name, so that none of them waits for the device."""
    coupling = Coupling.from_paths("1o", "0e", "1o", [(0, 0, 0, 0.123)])
    lists = both_ways(coupling)
    xs, plan, sizes = case("convolution", (lists, (3, 1, 3, 1)), 2, 2, 3)
    want = kernel.convolution(RESULT, moved(xs[:3]), moved(plan), sizes)
    unread = [*moved(plan[:WALKS]), *[torch.empty_like(part, device="meta") for part in lists]]
    assert torch.equal(kernel.convolution(RESULT, moved(xs[:3]), unread, sizes), want)
    other = both_ways(coupling.scaled(2))
    assert form_name(other) != form_name(lists)
    twice = kernel.convolution(RESULT, moved(xs[:3]), moved([*plan[:WALKS], *other]), sizes[:-1])
    torch.testing.assert_close(twice, 2 * want)  # without a name the lists themselves are asked


@pytest.mark.parametrize("name", ["_gather", "_weights", "_filters"])
def test_offsets_beyond_32_bits(name):
    """The last rows of 2**31 + 2**16 numbers: all operands lie in one piece of memory that stays empty."""
    channels, far = 64, (2**31 + 2**15) // 64
    memory = torch.from_numpy(np.zeros(2**31 + 2**16, dtype=np.uint16)).view(torch.bfloat16)
    values = torch.arange(1.0, channels + 1).bfloat16()
    memory[far * channels : (far + 1) * channels] = values
    half = form_lists(Coupling.from_paths("0e", "0e", "0e", [(0, 0, 0, 0.5)]))
    pieces = kernel.Unrolled.build(half, (1, 1, 1, 1), summed=name == "_gather")
    memory, values = memory.to(DEVICE), values.to(DEVICE)
    at = torch.tensor([far], device=DEVICE)
    edge, y = torch.zeros(1, dtype=torch.int64, device=DEVICE), torch.full((1, 1), 3.0, device=DEVICE)
    settings = {"FORM": pieces, "ACC": kernel.tl.float32, "BLOCK": channels, "num_warps": 1}
    out, x = torch.zeros(channels, device=DEVICE), values.float()
    if name == "_gather":
        start = torch.tensor([0, 1], device=DEVICE)
        kernel._gather[(1, 1)](memory, y, memory, out, at, start, edge, at, channels, 1, **settings)
        want = 1.5 * x * x
    elif name == "_weights":
        pair = torch.tensor([[0, -1]], device=DEVICE)
        kernel._weights[(1,)](memory, y, memory, out, at, at, pair, channels, 1, SIDES=1, **settings)
        want = 1.5 * x * x
    else:
        kernel._filters[(1,)](memory, memory, memory, out, at, at, at, channels, **settings)
        want = torch.cat([(0.5 * x**3).sum()[None], out[1:]])
    torch.testing.assert_close(out, want)


def test_the_check_can_fail():
    xs, plan, sizes = case("convolution", "copies", 3, 4, 3)
    filled, wrong = without(xs, RESULT), [xs[0], -xs[1], xs[2]]
    got = kernel.convolution(RESULT, moved(wrong), moved(plan), sizes).cpu()
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(got, definition.convolution(RESULT, filled, plan, sizes))


def test_pieces_have_short_names_that_tell_them_apart():
    lists, dims = form("copies")
    one, same = (kernel.Unrolled.build(lists[:7], dims, summed=True) for _ in range(2))
    other = kernel.Unrolled.build([*lists[:6], lists[6] * (1 + 2**-50)], dims, summed=True)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != repr(one)
    assert len(repr(one)) == 32


@needs_gpu
@pytest.mark.parametrize("slot", range(4))
def test_same_bits_twice(slot):
    xs, plan, sizes = case("convolution", "copies", 60, 7000, 128, torch.float32)
    calls = [kernel.convolution(slot, moved(without(xs, slot)), moved(plan), sizes) for _ in range(2)]
    assert torch.equal(*calls)


@needs_gpu
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slot", range(4))
def test_agrees_on_a_graph_of_some_size(slot, dtype, separate):
    ends = "0e + 1o + 2e", Irreps.spherical_harmonics(3), Irreps.spherical_harmonics(3)
    conv = EquivariantConvolution(*ends, 128, separate_paths=separate)
    check("convolution", slot, *case("convolution", (conv.form, conv.dims), 40, 2000, 128, dtype))


@needs_gpu
def test_is_recorded_by_a_cuda_graph():
    xs, plan, sizes = case("convolution", "copies", 6, 40, 32, torch.float32)
    x, y, w = (t.contiguous() for t in moved(xs[:3]))
    plan = moved(plan)
    want = kernel.convolution(RESULT, [2 * x, y, w], plan, sizes)
    graph_of_it = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph_of_it):
        out = kernel.convolution(RESULT, [x, y, w], plan, sizes)
    x.mul_(2)
    graph_of_it.replay()
    torch.testing.assert_close(out, want)


@needs_gpu
@pytest.mark.parametrize("projected", [False, True])
def test_compiles_and_differentiates_on_a_gpu(projected):
    op = "projected_convolution" if projected else "convolution"
    (xs, _, sizes), (lists, dims) = case(op, "copies", 6, 20, 32), form("copies")
    lists, edges = moved(lists), graph(6, 20).to(DEVICE)
    leaves = [x.to(DEVICE).contiguous().requires_grad_() for x in xs[:-1]]

    def call(x, y, w, *p):
        return convolution(x, y, w, edges, lists, dims, projection=p[0] if p else None, name=sizes[5])

    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)
    compiled = torch.compile(call, fullgraph=True)
    grads = [torch.autograd.grad(f(*leaves).square().sum(), leaves) for f in (compiled, call)]
    torch.testing.assert_close(*grads)


@pytest.mark.skipif(
    not CUDA or torch.cuda.get_device_properties(0).total_memory < 40 * 2**30, reason="needs 40 GiB"
)
@pytest.mark.parametrize("slot", [FILTER, WEIGHT, RESULT])
def test_more_numbers_than_32_bits_count(slot):
    """Weights beyond 2**31 numbers; the last edges are compared with a call that has only them."""
    ends = "0e + 1o + 2e", Irreps.spherical_harmonics(3), Irreps.spherical_harmonics(3)
    conv = EquivariantConvolution(*ends, 128)
    nodes, edges, some = 64, 2**31 // (conv.dims[3] * 128) + 2**10, 2**9
    generator = torch.Generator(DEVICE).manual_seed(0)
    target = torch.arange(edges, device=DEVICE) * nodes // edges
    index = torch.stack([torch.randint(nodes, (edges,), device=DEVICE, generator=generator), target])
    index[1, -some:] = nodes - 1
    index[1, :-some].clamp_(max=nodes - 2)
    lists, sizes = moved(conv.form), [*conv.dims, WEIGHT_TYPES.index(torch.float32), conv.form_name]
    shapes = [(nodes, 9, 128), (edges, 16), (edges, conv.dims[3], 128), (nodes, 16, 128)]
    xs = [torch.randn(shape, device=DEVICE, generator=generator) for shape in shapes]
    got = kernel.convolution(slot, without(xs, slot), [*walks(index, nodes), *lists], sizes)
    few = [xs[0], xs[1][-some:], xs[2][-some:], xs[3]]
    want = kernel.convolution(slot, without(few, slot), [*walks(index[:, -some:], nodes), *lists], sizes)
    part = (got[-1], want[-1]) if slot == RESULT else (got[-some:], want)
    torch.testing.assert_close(*part)
