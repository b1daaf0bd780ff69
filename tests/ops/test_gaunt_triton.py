"""equitorch/ops/gaunt/triton.py: its kernel, on a GPU or in Triton's interpreter"""

import itertools

import numpy as np
import pytest
import torch

from equitorch.ops import gaunt as public
from equitorch.ops.backend import use_reference
from equitorch.ops.gaunt import op
from equitorch.ops.gaunt.form import PARITIES, Form, Program, Request
from equitorch.ops.gaunt.reference import gaunt as reference
from equitorch.reps.product_grid import product_grid

kernel = pytest.importorskip("equitorch.ops.gaunt.triton", reason="Triton is not installed")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")
SHAPES = [(0, 3), (3, 0), (1, 1), (1, 129), (129, 1), (3, 33)]
DEGREES = [(0, 0, 0), (1, 0, 1), (2, 1, 3), (3, 2, 0), (1, 3, 2)]
ROUNDING = {"ieee": 5e-6, "tf32x3": 5e-6, "tf32": 5e-3, "bf16": 5e-2}


def forward(parity):
    outs = [slot for slot in (2, 3) if Form(1, 1, 1, parity).components(slot)]
    return Program((0, 1), tuple(Request(slot, ((0, 1),)) for slot in outs))


def backward(parity):
    program = forward(parity)
    return program.derivative((0, 1), tuple(range(len(program.requests))))


def twice(parity):
    """Derivatives of the gradients with respect to everything: several pairs in each request."""
    program = backward(parity)
    return program.derivative(tuple(range(len(program.slots))), (0, 1))


PROGRAMS = {"forward": forward, "backward": backward, "twice": twice}


def draw(form, program, items, channels, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(items, form.rows(slot), channels, generator=generator).to(dtype) for slot in program.slots
    ]


def run(xs, program, form):
    return [z.cpu() for z in kernel.gaunt([x.to(DEVICE) for x in xs], program, form)]


def check(xs, program, form, tolerance=5e-6):
    got, want = run(xs, program, form), reference([x.double() for x in xs], program, form)
    for z, right in zip(got, want, strict=True):
        assert (z.shape, z.dtype) == (right.shape, xs[0].dtype)
        scale = max(right.square().mean().sqrt().item(), 1.0) if right.numel() else 1.0
        torch.testing.assert_close(z.double() / scale, right / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("parity", PARITIES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_the_reference_in_every_slot(name, parity, degrees):
    form, program = Form(*degrees, parity), PROGRAMS[name](parity)
    check(draw(form, program, 3, 5), program, form)


@pytest.mark.parametrize(("items", "channels"), SHAPES)
@pytest.mark.parametrize("parity", ["even", "odd"])
def test_agrees_at_awkward_sizes(parity, items, channels):
    form, program = Form(2, 1, 1, parity), backward(parity)
    check(draw(form, program, items, channels), program, form)


@pytest.mark.parametrize("degrees", [(4, 4, 4), (8, 2, 8), (5, 7, 6)])
@pytest.mark.parametrize("parity", ["even", "odd"])
def test_agrees_at_higher_degrees(parity, degrees):
    form, program = Form(*degrees, parity), backward(parity)
    check(draw(form, program, 2, 3), program, form)


@pytest.mark.parametrize(
    ("parity", "name", "most", "launches"),
    [
        ("even", "backward", 100, 1),
        ("even", "backward", 8, 2),
        ("even", "twice", 12, 3),
        ("even", "twice", 8, 4),
        ("odd", "forward", 0, 2),
        ("odd", "twice", 0, 8),
        ("both", "backward", 20, 2),
        ("both", "backward", 12, 4),
        ("both", "backward", 8, 6),
    ],
)
def test_agrees_however_it_is_divided(parity, name, most, launches, monkeypatch):
    """A launch for everything, for each result, for each pair, for each product; sums add up in place."""
    monkeypatch.setattr(kernel, "room", lambda precision, major: most)
    form, program = Form(1, 2, 1, parity), PROGRAMS[name](parity)
    assert len(kernel.plan(program, form, most)) == launches
    check(draw(form, program, 2, 3), program, form)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype, monkeypatch):
    """Also if results are made by several launches."""
    form, program = Form(2, 2, 2, "even"), twice("even")
    xs = draw(form, program, 3, 4, dtype)
    wide = run([x.float() for x in xs], program, form)
    rounding = 2 * torch.finfo(dtype).eps
    for most in (1000, 0):
        monkeypatch.setattr(kernel, "room", lambda precision, major, most=most: most)
        for z, right in zip(run(xs, program, form), wide, strict=True):
            torch.testing.assert_close(z, right.to(dtype), rtol=rounding, atol=rounding)


@pytest.mark.parametrize("precision", ROUNDING if CUDA else ["ieee", "tf32x3"])
def test_keeps_the_precision_asked_for(precision):
    form, program = Form(3, 3, 3, "both", precision=precision), backward("both")
    check(draw(form, program, 4, 16), program, form, ROUNDING[precision])


def test_reads_strided_operands():
    form, program = Form(2, 1, 2, "even"), backward("even")
    xs = [torch.randn(5, 2 * form.rows(slot), 3).mT[:, :, ::2].mT for slot in program.slots]
    assert not xs[0].is_contiguous()
    check(xs, program, form)


def test_other_numbers_go_over_a_grid(monkeypatch):
    monkeypatch.setattr(kernel, "_gaunt", None)
    for form, dtype in ((Form(2, 2, 2, "both"), torch.float64), (Form(9, 1, 1, "both"), torch.float32)):
        xs = draw(form, forward("both"), 2, 3, dtype)
        assert not kernel.supported(form, xs)
        check(xs, forward("both"), form, 1e-5 if dtype == torch.float32 else 1e-12)
    assert kernel.supported(Form(2, 2, 2, "both"), draw(form, forward("both"), 2, 3))


@pytest.mark.parametrize("degrees", [(2, 2, 2), (3, 2, 4), (1, 1, 1)])
def test_has_one_of_every_two_opposite_points(degrees):
    """So that they make up the grid, which is exact, and has no more points than that has to have."""
    grid = kernel._half(Form(*degrees, "even"))
    points = grid.points[:, : grid.alpha.shape[0] // 2].flatten(0, 1)
    both = torch.cat([points, -points])
    distance = torch.cdist(both, grid.points.flatten(0, 1))
    assert distance.min(0).values.max() < 1e-7
    least = product_grid(*degrees)
    assert grid.beta.shape == least.beta.shape
    assert grid.alpha.shape[0] - least.alpha.shape[0] in (0, 1)


@pytest.mark.parametrize("lmax", range(9))
def test_rows_of_even_degrees_come_first(lmax):
    for odd in (0, 1):
        rows = [l * l + i for l in range(odd, lmax + 1, 2) for i in range(2 * l + 1)]
        assert kernel._count(lmax, odd) == len(rows)
        assert 0 <= 16 * kernel._tiles(lmax, odd, 16) - len(rows) < 16


def test_launches_are_within_bounds():
    """What one launch computes is divided until it fits, at the latest into single products."""
    for lmax, parity, name in itertools.product(range(9), PARITIES, PROGRAMS):
        form, program = Form(lmax, lmax, lmax, parity), PROGRAMS[name](parity)
        for launch in kernel.plan(program, form, 24):
            assert kernel.cost(launch.job) <= 24
        parts = [term for launch in kernel.plan(program, form, 24) for r in launch.job.results
                 for component in r.components for term in component.terms]  # fmt: skip
        assert len(parts) == len(kernel._pieces(program, form))


def test_memory_of_a_program_decides_on_its_columns():
    form = Form(8, 8, 8, "even")
    (launch,) = kernel.plan(forward("even"), form, 24)
    assert kernel.settings(launch.job, "tf32x3", 232448)["BLOCK"] == 64
    assert kernel.settings(launch.job, "tf32x3", 101376)["BLOCK"] == 32
    assert kernel.settings(launch.job, "tf32", 101376)["BLOCK"] == 64


def test_offsets_beyond_32_bits():
    """The last row of 2**31 + 2**14 numbers: the operands are one piece of memory that stays empty."""
    channels = 2**29 + 2**12
    memory = torch.from_numpy(np.zeros(4 * channels, dtype=np.uint16)).view(torch.bfloat16)
    memory[3 * channels : 3 * channels + 64] = values = torch.arange(1.0, 65.0).bfloat16()
    memory, out = memory.to(DEVICE), torch.zeros(channels if CUDA else 64, device=DEVICE)
    form = Form(1, 1, 0, "even")
    (launch,) = kernel.plan(forward("even"), form, 1000)
    kernel._gaunt[(1,)](
        (memory, memory), (out,), kernel._tables(form, out.device), 64, channels,
        JOB=launch.job, POINTS=16, ADD=False, PRECISION="ieee", BLOCK=64, P=16, TILE=16,
    )  # fmt: skip
    torch.testing.assert_close(out[:64].cpu(), values.float().square() * (0.25 / np.pi) ** 0.5)


def test_the_check_can_fail():
    """The bracket changes its sign with the order of its factors."""
    form, program = Form(2, 2, 2, "odd"), forward("odd")
    xs = draw(form, program, 3, 4)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(
            run(xs[::-1], program, form)[0], reference(xs, program, form)[0], rtol=0, atol=5e-6
        )


@pytest.fixture
def ran(monkeypatch):
    """The programs that the kernel has computed since; CPU tensors go there, too."""
    seen = []

    def noted(tensors, program, form, known=()):
        seen.append(program)
        return kernel.gaunt(tensors, program, form), []

    monkeypatch.setattr(op, "chosen", noted)
    return seen


@pytest.mark.parametrize("function", ["gaunt_product", "poisson_bracket", "product_and_bracket"])
def test_has_the_slopes_and_training_gradients_of_the_definition(function, ran):
    torch.manual_seed(0)
    x, y = (torch.randn(2, n, 3, device=DEVICE, requires_grad=True) for n in (9, 4))

    def results():
        found = getattr(public, function)(x, y, 2)
        energy = sum(z.sin().sum() for z in (found if isinstance(found, tuple) else [found]))
        slopes = torch.autograd.grad(energy, (x, y), create_graph=True)
        loss = energy + sum(g.square().sum() for g in slopes)
        return [energy, *slopes, *torch.autograd.grad(loss, (x, y))]

    got = results()
    assert len(ran) >= 3
    with use_reference():
        want = results()
    assert want[-1].abs().max() > 1e-2
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize(
    ("lmax", "precision"),
    [*itertools.product((1, 2, 4, 7, 8), ("ieee", "tf32x3")), (4, "tf32"), (4, "bf16"), (8, "bf16")],
)
@pytest.mark.parametrize("parity", PARITIES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_on_many_columns(name, parity, lmax, precision):
    form, program = Form(lmax, lmax, lmax, parity, precision=precision), PROGRAMS[name](parity)
    check(draw(form, program, 50, 129), program, form, 2 * ROUNDING[precision])


@needs_gpu
def test_same_bits_twice():
    form, program = Form(4, 4, 4, "both"), twice("both")
    xs = draw(form, program, 500, 128)
    for one, other in zip(run(xs, program, form), run(xs, program, form), strict=True):
        assert torch.equal(one, other)


@needs_gpu
def test_is_what_runs_on_a_gpu(monkeypatch):
    def stop(*_):
        raise RuntimeError("the kernel")

    monkeypatch.setattr(kernel, "gaunt", stop)
    x = torch.randn(2, 9, 3, device="cuda")
    with pytest.raises(RuntimeError, match="the kernel"):
        public.gaunt_product(x, x, 2)
