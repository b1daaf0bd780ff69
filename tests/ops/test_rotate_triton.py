"""equitorch/ops/rotate/triton.py: its kernels, on a GPU or in Triton's interpreter"""

import numpy as np
import pytest
import torch

from equitorch.layers import SO2Convolution
from equitorch.ops.backend import use_reference
from equitorch.ops.rotate import EdgeRotation, rotate_back, rotate_in, rotate_out
from equitorch.ops.rotate import op as rotate_op
from equitorch.ops.rotate import reference as definition
from equitorch.ops.rotate.op import _terms
from equitorch.ops.rotate.reference import FEATURE, MESSAGE, WIGNER
from tests.ops.test_rotate import case, plan_of, random_vectors

kernel = pytest.importorskip("equitorch.ops.rotate.triton", reason="Triton is not installed")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")
SLOTS, ENDS = (FEATURE, WIGNER, MESSAGE), ("source", "target")
SHAPES = [(0, 0, 3), (1, 0, 3), (1, 1, 1), (3, 2, 129), (2, 5, 32), (3, 3, 0)]
DEGREES = [(0, 0), (2, 1), (2, 2), (3, 0)]


def moved(tensors, device=DEVICE):
    return [t.to(device) for t in tensors]


def run(slot, xs, plan, sizes):
    return kernel.rotate(slot, moved(xs[:slot] + xs[slot + 1 :]), moved(plan), sizes).cpu()


def check(slot, xs, plan, sizes, tolerance=None):
    """The kernel against the definition, which is computed where the operands are."""
    got, want = run(slot, xs, plan, sizes), definition.rotate(slot, xs[:slot] + xs[slot + 1 :], plan, sizes)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    tolerance = tolerance or (1e-11 if xs[0].dtype == torch.float64 else 1e-4)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("nodes", "edges", "channels"), SHAPES)
@pytest.mark.parametrize(("lmax", "mmax"), DEGREES)
@pytest.mark.parametrize("slot", SLOTS)
def test_agrees_with_the_reference(slot, lmax, mmax, nodes, edges, channels, dtype):
    check(slot, *case(nodes, edges, channels, lmax, mmax, dtype))


@pytest.mark.parametrize(("lmax", "mmax"), [(4, 2), (3, 3), (6, 3), (5, 5)])
@pytest.mark.parametrize("slot", SLOTS)
def test_agrees_where_degrees_have_programs_of_their_own(slot, lmax, mmax):
    """And where a degree's matrix is computed in pieces."""
    check(slot, *case(2, 3, 5, lmax, mmax))


@pytest.mark.parametrize(("nodes", "edges"), [(2, 65), (65, 3)])
@pytest.mark.parametrize("slot", SLOTS)
def test_agrees_on_many_edges(slot, nodes, edges):
    """Nodes with many edges, with one, and without; a last program with fewer edges than the others."""
    check(slot, *case(nodes, edges, 3, 1, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("slot", SLOTS)
def test_half_precision_is_summed_in_single(slot, dtype):
    xs, plan, sizes = case(2, 5, 16, 2, 1, torch.float32)
    xs = [x.to(dtype) for x in xs]
    wide = run(slot, [x.float() for x in xs], plan, sizes)
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(run(slot, xs, plan, sizes), wide.to(dtype), rtol=rounding, atol=rounding)


@pytest.mark.parametrize("lmax", range(9))
def test_places_are_those_of_the_plan(lmax):
    for mmax in range(lmax + 1):
        start, row, entry, *_ = (part.tolist() for part in _terms(lmax, mmax))
        dims = kernel._dims(lmax, mmax)
        assert dims == ((lmax + 1) ** 2, len(entry), len(start) - 1)
        assert kernel.degrees(list(dims)) == (lmax, mmax)
        for l in range(lmax + 1):
            for m in range(-min(l, mmax), min(l, mmax) + 1):
                here = slice(start[kernel._place(l, m, lmax)], start[kernel._place(l, m, lmax) + 1])
                assert row[here] == [l * l + i for i in range(2 * l + 1)]
                assert entry[here] == [kernel._entry(l, m, mmax) + i for i in range(2 * l + 1)]


@pytest.mark.parametrize("lmax", [2, 6, 12, 30])
def test_pieces_cover_a_degree_within_bounds(lmax):
    for mmax in range(lmax + 1):
        rows = kernel.triton.next_power_of_2(2 * mmax + 1)
        size = kernel._piece(lmax, rows, 64)
        assert 1 <= size <= max(1, 64 // rows)
        for channels in (0, 1, 32, 33, 65, 128, 1000):
            for double in (False, True):
                assert kernel._block(lmax, mmax, channels, double) in (32, 64, 128)


def test_reads_what_is_next_to_each_other_at_once():
    """Only where every row begins at a multiple of 16 bytes, and a thread has the registers."""
    x = torch.zeros(3, 1, 64)
    assert kernel._vector(2, x, x) == 4
    assert kernel._vector(2, x.double(), x.double()) == 2
    assert kernel._vector(9, x, x) == 1
    assert kernel._vector(2, x[..., :63], x) == 1
    assert kernel._vector(2, torch.zeros(65)[1:].view(1, 1, 64), x) == 1


@pytest.mark.parametrize("channels", [16, 17])
def test_reads_operands_that_begin_anywhere(channels):
    """Rows of 16 channels that do not begin at a multiple of 16 bytes."""
    xs, plan, sizes = case(2, 5, channels, 2, 1, torch.float32)
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape) for x in xs]
    check(WIGNER, shifted, plan, sizes)


@pytest.mark.parametrize("name", ["_into", "_back", "_overlap"])
def test_offsets_beyond_32_bits(name):
    """The last rows of 2**31 + 2**16 numbers: all operands lie in one piece of memory that stays empty."""
    channels, far = 64, (2**31 + 2**15) // 64
    memory = torch.from_numpy(np.zeros(2**31 + 2**16, dtype=np.uint16)).view(torch.bfloat16)
    memory[far] = 3  # the entry of a far edge
    memory[far * channels : (far + 1) * channels] = values = torch.arange(1.0, channels + 1).bfloat16()
    memory, x = memory.to(DEVICE), values.float().to(DEVICE)
    at, begin = torch.tensor([far], device=DEVICE), torch.tensor([0, 1], device=DEVICE)
    out, three = torch.zeros(channels, device=DEVICE), torch.full((1,), 3.0, device=DEVICE)
    settings = {"L": 0, "M": 0, "JOINT": 2, "ACC": kernel.tl.float32, "num_warps": 1}
    if name == "_into":
        kernel._into[(1, 1)](memory, three, out, at, channels, 1, BLOCK=64, **settings)
        want = 3 * x
    elif name == "_back":
        kernel._back[(1, 1)](memory, memory, out, begin, at, channels, 1, BLOCK=64, **settings)
        want = 3 * x
    else:
        settings |= {"SUMS": 64, "EDGES": 4, "BLOCK": 32, "VECTOR": 4}
        kernel._overlap[(1, 1)](memory, x, out, at, 1, channels, **settings)
        want = torch.cat([x.square().sum()[None], out[1:]])
    torch.testing.assert_close(out, want)


def test_the_check_can_fail():
    xs, plan, sizes = case(3, 4, 3, 2, 1)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(
            run(MESSAGE, [xs[0], xs[1].flip(1), xs[2]], plan, sizes),
            definition.rotate(MESSAGE, xs[:2], plan, sizes),
        )


@pytest.fixture
def ran(monkeypatch):
    """The slots that the kernels have computed since; CPU tensors go there, too."""
    seen = set()

    def noted(slot, operands, plan, sizes):
        seen.add(slot)
        return kernel.rotate(slot, operands, plan, sizes)

    form = rotate_op._rotate
    monkeypatch.setattr(form, "_kernels", dict.fromkeys(("cpu", "cuda"), lambda: noted))
    monkeypatch.setattr(form, "_loaded", {})
    return seen


class Energy:
    """Gather, rotate, mix, rotate back, sum; then a number, its slopes, and what training makes of them."""

    def __init__(self, lmax, mmax, nodes, edges, channels):
        torch.manual_seed(0)
        self.degrees, self.plan = (lmax, mmax), plan_of(nodes, edges)
        self.plan = type(self.plan)(*moved(self.plan))
        self.conv = SO2Convolution(lmax, mmax, channels, channels, parity="so3").double().to(DEVICE)
        x = torch.randn(nodes, (lmax + 1) ** 2, channels, dtype=torch.float64)
        self.x, self.v = (t.to(DEVICE).requires_grad_() for t in (x, random_vectors(edges)))

    def value(self, x, v):
        rotation = EdgeRotation.build(v, *self.degrees)
        message, _ = self.conv(rotate_in(x, rotation, self.plan))
        return rotate_out(message, rotation, self.plan).square().sum((1, 2)).sin().sum()

    def all(self):
        energy = self.value(self.x, self.v)
        slopes = torch.autograd.grad(energy, (self.x, self.v), create_graph=True)
        loss = energy + sum(g.square().sum() for g in slopes)
        return [energy, *slopes, *torch.autograd.grad(loss, [self.x, self.v, *self.conv.parameters()])]


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (3, 1)])
def test_has_the_slopes_and_training_gradients_of_the_definition(lmax, mmax, ran):
    f = Energy(lmax, mmax, 3, 4, 2)
    got = f.all()
    assert ran == set(SLOTS)
    with use_reference():
        want = f.all()
    assert want[2].abs().max() > 1e-4
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_slopes_are_those_of_finite_differences(ran):
    f = Energy(1, 1, 2, 1, 1)
    assert torch.autograd.gradcheck(f.value, (f.x, f.v), fast_mode=True)
    assert torch.autograd.gradgradcheck(f.value, (f.x, f.v), fast_mode=True)
    assert ran == set(SLOTS)


def test_either_end_and_each_edge_by_itself(ran):
    rotation, plan = EdgeRotation.build(random_vectors(5), 2, 1), plan_of(3, 5)
    rotation = rotation._replace(wigner=rotation.wigner.to(DEVICE), terms=tuple(moved(rotation.terms)))
    plan = type(plan)(*moved(plan))
    x, m = (torch.randn(n, k, 3, dtype=torch.float64, device=DEVICE) for n, k in ((3, 9), (5, 7)))

    def results():
        ends = [f(t, rotation, plan, end=e) for f, t in ((rotate_in, x), (rotate_out, m)) for e in ENDS]
        return [*ends, rotate_back(m, rotation)]

    got = results()
    assert ran == {FEATURE, MESSAGE}
    with use_reference():
        torch.testing.assert_close(got, results())


@needs_gpu
@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (4, 2), (6, 3)])
@pytest.mark.parametrize("slot", SLOTS)
def test_same_bits_twice(slot, lmax, mmax):
    xs, plan, sizes = case(60, 7000, 128, lmax, mmax, torch.float32)
    assert torch.equal(*[run(slot, xs, plan, sizes) for _ in range(2)])


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [128, 100])
@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (4, 2), (6, 2), (6, 3), (6, 6), (8, 8), (10, 10)])
@pytest.mark.parametrize("slot", SLOTS)
def test_agrees_on_a_graph_of_some_size(slot, lmax, mmax, channels, dtype):
    check(
        slot, *case(40, 2000, channels, lmax, mmax, dtype), tolerance=1e-3 if dtype == torch.float32 else None
    )


@needs_gpu
def test_is_recorded_by_a_cuda_graph():
    xs, plan, sizes = case(6, 40, 32, 4, 2, torch.float32)
    (x, D), plan = (t.contiguous() for t in moved(xs[:2])), moved(plan)
    want = kernel.rotate(MESSAGE, [2 * x, D], plan, sizes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = kernel.rotate(MESSAGE, [x, D], plan, sizes)
    x.mul_(2)
    graph.replay()
    torch.testing.assert_close(out, want)


@needs_gpu
def test_compiles_to_one_graph_on_a_gpu():
    f = Energy(2, 2, 6, 20, 32)
    whole = torch.compile(f.value, fullgraph=True)
    values = [g(f.x, f.v) for g in (whole, f.value)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*[torch.autograd.grad(value, (f.x, f.v)) for value in values])
