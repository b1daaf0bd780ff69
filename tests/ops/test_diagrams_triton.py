"""equitorch/ops/diagrams/triton.py: its kernels, on a GPU or in Triton's interpreter"""

import itertools

import numpy as np
import pytest
import torch

from equitorch.layers import DiagramLinear
from equitorch.ops.backend import use_reference
from equitorch.ops.diagrams import diagram_analysis, diagram_linear, diagram_synthesis, linear_plan, op
from equitorch.ops.diagrams import reference as definition
from equitorch.ops.diagrams.jobs import (
    SECTORS,
    TENSOR,
    Job,
    Level,
    Place,
    Term,
    analysis_launches,
    synthesis_launches,
)

kernel = pytest.importorskip("equitorch.ops.diagrams.triton", reason="Triton is not installed")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")
GROUPS = [
    *itertools.product("S", (1, 2, 3, 5), [""]),
    *itertools.product("B", (1, 3), [""]),
    *itertools.product("O", (1, 2, 3, 5), ["O"]),
    *itertools.product(["Sp"], (2, 4), ["Sp:block", "Sp:interleaved"]),
    ("O", 2, "O(1,1)"),
    ("O", 5, "O(2, 3)"),
    ("A", 2, ""),
    ("A", 3, ""),
    ("SO", 2, "O"),
    ("SO", 3, "O(1,2)"),
]
MATRICES = "2|partition:0:0|partition:1:0|partition:2:0>"
SHAPES = [(0, 3), (3, 0), (1, 1), (1, 129), (33, 1), (3, 33)]


def keys(group, n, order, form):
    """Of the lower and of the upper halves, up to order two with permutations on either side."""
    found = []
    for more in (1, 2) if order < 3 else (1,):
        plan = linear_plan(group, n, [order], [order], form, channels_in=more, channels_out=3 - more)
        found += [*plan.keys_in, *plan.keys_out]
    return [key for key in dict.fromkeys(found) if "|" in key]


def shapes(key, n, batch, channels):
    plan, views = definition.reading(key)
    return [
        (batch, n ** (sector.rank + sector.alternating), len(group), channels)
        for sector, group in zip(plan.sectors, views, strict=True)
    ]


def draw(key, n, batch, channels, dtype=torch.float64):
    """A tensor, and all of its sectors."""
    torch.manual_seed(0)
    sizes = [(batch, n ** int(key.split("|")[0]), channels), *shapes(key, n, batch, channels)]
    x, *zs = (torch.randn(size, dtype=torch.float64).to(DEVICE, dtype) for size in sizes)
    return x, zs


def check(key, n, form, x, zs, scale=0.3, tolerance=1e-11):
    got, want = kernel.analysis(x, key, n, form, scale), definition.analysis(x.double(), key, n, form, scale)
    got.append(kernel.synthesis(zs, key, n, form, scale))
    want.append(definition.synthesis([z.double() for z in zs], key, n, form, scale))
    assert [z.shape for z in got] == [z.shape for z in want]
    assert {z.dtype for z in got} == {x.dtype}
    for z, right in zip(got, want, strict=True):
        torch.testing.assert_close(z.double(), right, rtol=0, atol=tolerance)


@pytest.fixture
def no_reference(monkeypatch):
    """What the kernels do not take fails."""
    monkeypatch.setattr(kernel, "reference", None)


@pytest.mark.parametrize(("group", "n", "form"), GROUPS)
def test_agrees_with_the_reference(group, n, form, no_reference):
    for order in range(4):
        for key in keys(group, n, order, form):
            check(key, n, form, *draw(key, n, 1 if order == 3 else 2, 3))


def test_agrees_at_order_four(no_reference):
    for key, n, form in (
        ("4|pairing:0:0|pairing:2:0>", 3, "O"),
        ("4|pairing:0:0|pairing:2:0", 2, "Sp:block"),
        ("4|partition:0:0|partition:1:0", 2, ""),
    ):
        check(key, n, form, *draw(key, n, 1, 2))


@pytest.mark.parametrize(("batch", "channels"), SHAPES)
@pytest.mark.parametrize(
    ("key", "form"), [(MATRICES, ""), ("2|pairing:0:0|pairing:2:0<", "Sp:block")], ids=["S", "Sp"]
)
def test_agrees_at_awkward_sizes(key, form, batch, channels, no_reference):
    check(key, 2, form, *draw(key, 2, batch, channels, torch.float32), tolerance=1e-5)


@pytest.mark.parametrize(("order", "n", "channels"), [(2, 17, 32), (2, 33, 3), (2, 32, 33), (3, 9, 1)])
def test_sums_over_axes_come_in_parts(order, n, channels, no_reference):
    """Boxes that fill axes, and that reach over their ends."""
    key = f"{order}|partition:0:0|partition:1:0"
    assert n > kernel.box(order, n, channels)[0]
    check(key, n, "", *draw(key, n, 1, channels))


def test_sums_over_axes_that_are_not_the_last(monkeypatch, no_reference):
    """In boxes of any side, also where axes lie behind those that are summed over."""
    monkeypatch.setattr(kernel, "box", lambda order, n, channels: (2, 4))
    for key, n in (("3|partition:1:0|partition:2:0", 3), ("4|partition:3:0", 3)):
        check(key, n, "", *draw(key, n, 1, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype, no_reference):
    key = "2|partition:0:0|partition:1:0"
    x, zs = draw(key, 5, 2, 4, dtype)
    check(key, 5, "", x, zs, tolerance=16 * torch.finfo(dtype).eps)
    ones = torch.ones(1, 40 * 40, 1, dtype=dtype, device=DEVICE)
    assert kernel.analysis(ones, key, 40, "", 0.025)[0].flatten().tolist() == pytest.approx([1, 1], abs=1e-3)


def test_reads_strided_operands(no_reference):
    x, zs = draw(MATRICES, 3, 2, 6)
    x, zs = x.mT.contiguous().mT[:, :, ::2], [z[..., ::2] for z in zs]
    assert not x.is_contiguous()
    check(MATRICES, 3, "", x, zs)


@pytest.mark.parametrize(
    ("key", "n", "form"),
    [(MATRICES, 5, ""), ("3|pairing:1:0", 4, "Sp:interleaved"), ("3|pairing:1:0", 3, "O(1,2)")],
)
def test_is_its_adjoint(key, n, form):
    x, zs = draw(key, n, 2, 3)
    found = kernel.analysis(x, key, n, form, 0.3)
    inner = sum((a * b).sum() for a, b in zip(found, zs, strict=True))
    torch.testing.assert_close(inner, (x * kernel.synthesis(zs, key, n, form, 0.3)).sum())


def test_other_plans_go_to_the_reference(monkeypatch):
    monkeypatch.setattr(kernel, "_run", None)
    x, zs = draw(MATRICES, 3, 1, 2)
    monkeypatch.setattr(kernel, "_TERMS", 4)
    assert not kernel.supported(x, MATRICES, 3)
    check(MATRICES, 3, "", x, zs)
    monkeypatch.setattr(kernel, "_TERMS", 100)
    assert kernel.supported(x, MATRICES, 3)
    assert not kernel.supported(x.to(torch.complex64), MATRICES, 3)
    assert not kernel.supported(x, MATRICES, 1 << 16)


def test_passes_over_memory():
    """Row and column sums in one pass, all that is added to a matrix at once, and few launches."""
    launches = analysis_launches("2|partition:0:0|partition:1:0", "", True, True)
    assert [len(launches.axes), *(len(level.jobs) for level in launches.levels)] == [1, 4, 1]
    (level,) = synthesis_launches(MATRICES, "").levels
    assert [len(job.terms) for job in level.jobs] == [7]
    launches = analysis_launches("3|partition:0:0|partition:1:0|partition:2:0", "", False, True)
    assert len(launches.axes) == 1
    assert len(launches.levels) <= 3
    assert len(synthesis_launches("3|partition:0:0|partition:1:0|partition:2:0", "").levels) <= 3


def test_offsets_beyond_32_bits():
    """The last row of 2**31 + 2**14 numbers: memory that stays empty."""
    channels = 2**29 + 2**12
    memory = torch.from_numpy(np.zeros(4 * channels, dtype=np.uint16)).view(torch.bfloat16)
    memory[3 * channels : 3 * channels + 64] = values = torch.arange(1.0, 65.0).bfloat16()
    memory, out, one = memory.to(DEVICE), torch.zeros(64, device=DEVICE), torch.ones(1, device=DEVICE)
    launches = analysis_launches("2|partition:0:0", "", False, True)
    job = Job(Place(SECTORS, (0,), 1), 0, (Term(Place(TENSOR, (3,), 1), ()),))
    for jobs in ((job,), (job._replace(terms=(Term(Place(TENSOR, (3,), 1), (-1,)),)),)):
        kernel._gather[1, 1](
            (memory, one, one, out.zero_()), one, 1, 1, channels, 1, 1, LEVEL=Level(jobs),
            SIZES=launches.sizes, FORM="", PLUS=0, ACC=kernel.tl.float32, BR=1, BJ=1, BC=64,
        )  # fmt: skip
        torch.testing.assert_close(out.cpu(), values.float())


@pytest.mark.parametrize("form", ["Sp:block", "Sp:interleaved", "O(1,3)"])
def test_the_check_can_fail(form):
    """The other contraction is another one."""
    key = "2|pairing:0:0"
    x, zs = draw(key, 4, 1, 2)
    check(key, 4, form, x, zs)
    other = kernel.analysis(x, key, 4, "O", 0.3)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(other, definition.analysis(x, key, 4, form, 0.3))


@pytest.fixture
def kernels(monkeypatch):
    """CPU tensors go to these kernels, too."""
    monkeypatch.setitem(op._loaded, "cpu", kernel)
    return kernel


@pytest.mark.parametrize(
    ("group", "n", "form"), [("S", 3, ""), ("A", 3, ""), ("O", 3, "O"), ("Sp", 2, "Sp:block"), ("SO", 2, "O")]
)
@pytest.mark.parametrize("per_sample", [True, False])
def test_has_all_derivatives_of_the_definition(group, n, form, per_sample, kernels):
    plan = linear_plan(group, n, [2], [2], form, channels_in=2, channels_out=3)
    torch.manual_seed(0)
    sizes = [(2, n**2, 2), *[pair.weight_shape(2, 3) for pair in plan.pairs]]
    operands = [torch.randn(s, dtype=torch.float64, device=DEVICE, requires_grad=True) for s in sizes]
    scale = torch.tensor([0.3, 0.5], device=DEVICE) if per_sample else 0.3

    def results():
        (y,) = diagram_linear(operands[:1], operands[1:], plan, n, scale=scale)
        energy = y.sin().sum()
        slopes = torch.autograd.grad(energy, operands, create_graph=True)
        loss = energy + sum(g.square().sum() for g in slopes)
        return [y, *slopes, *torch.autograd.grad(loss, operands)]

    got = results()
    with use_reference():
        want = results()
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_gradients_of_gradients(kernels):
    key = "2|partition:1:0"
    x, zs = draw(key, 2, 1, 1)

    def halves(x):
        return tuple(diagram_analysis(x, key, 2, "", 0.3))

    def whole(*zs):
        return diagram_synthesis(zs, key, 2, "", 0.3)

    assert torch.autograd.gradgradcheck(halves, x.requires_grad_())
    assert torch.autograd.gradgradcheck(whole, [z.requires_grad_() for z in zs])


def test_a_layer_runs_on_them(kernels, monkeypatch):
    layer = DiagramLinear.power("S", 5, 2, 2, 3, 3).to(DEVICE)
    x = torch.randn(2, 25, 3, device=DEVICE, requires_grad=True)
    with use_reference():
        want = layer(x)
    torch.testing.assert_close(layer(x), want)
    monkeypatch.setattr(kernel, "_run", None)
    with pytest.raises(TypeError, match="not callable"):
        layer(x)


@needs_gpu
@pytest.mark.parametrize(
    ("group", "order", "n", "form"),
    [("S", 2, 64, ""), ("S", 3, 17, ""), ("S", 4, 6, ""), ("Sp", 4, 8, "Sp:block")],
)
def test_agrees_on_many_entries(group, order, n, form):
    for key in keys(group, n, order, form):
        check(key, n, form, *draw(key, n, 5, 33, torch.float32), scale=n**-1.0, tolerance=1e-4)


@needs_gpu
def test_same_bits_twice():
    x, zs = draw(MATRICES, 64, 50, 32, torch.float32)
    for run in (
        lambda: kernel.analysis(x, MATRICES, 64, "", 0.1),
        lambda: [kernel.synthesis(zs, MATRICES, 64, "", 0.1)],
    ):
        for one, other in zip(run(), run(), strict=True):
            assert torch.equal(one, other)
