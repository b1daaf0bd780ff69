"""equitorch/ops/contraction"""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops.backend import use_reference
from equitorch.ops.contraction import contraction, reference
from equitorch.ops.contraction.program import paths, program
from equitorch.reps import Irreps
from equitorch.reps.symmetric_power import monomials
from equitorch.testing import assert_equivariant

OPTIONS = "0e+1o+2e", "1o+0e", (2, 3)
SMALL = "0e+1o", "1o", (2,)  # Triton's interpreter is slow
op = torch.ops.equitorch.contraction.default


def operands(nodes=4, channels=2, species=3, options=OPTIONS, dtype=torch.float64):
    """Strided on purpose, and the last species without a node."""
    torch.manual_seed(0)
    x = torch.randn(nodes, channels, Irreps(options[0]).dim, dtype=dtype).mT.requires_grad_()
    weight = torch.randn(species, channels, len(paths(*options)), dtype=dtype).mT.requires_grad_()
    return x, weight, torch.randint(0, max(species - 1, 1), (nodes,))


def of(x, weight, index, options=OPTIONS):
    return contraction(x, weight, index, *options)


def by_monomials(x, weight, index, options=OPTIONS):
    """The definition: a sum over monomials, each column with its weight."""
    starts = [s.start for s in Irreps(options[1]).copy_slices()]
    out = x.new_zeros(x.shape[0], Irreps(options[1]).dim, x.shape[2])
    for number, (_, copy, node) in enumerate(paths(*options)):
        found = monomials([node])
        terms = x[:, torch.from_numpy(found.factors)].prod(1) * torch.from_numpy(found.value)[:, None]
        rows = torch.from_numpy(found.row + starts[copy])
        out = out.index_add(1, rows, terms * weight[index, number][:, None])
    return out


def test_means_the_square_of_a_vector():
    """An answer known without this library: x.x / 3**0.5, and the weight of its species."""
    x, weight, index = operands(5, 3, options=("1o", "0e", (2,)))
    expected = weight[index, 0] * x.square().sum(1) / 3**0.5
    torch.testing.assert_close(of(x, weight, index, ("1o", "0e", (2,)))[:, 0], expected)


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        ("0e+1o+2e+3o", "0e+1o", (3, 3)),
        ("2x0e+1o+1e", "0o+2x1o", (3, 2, 3)),
        ("0+1+2", "0+1", (3, 2)),
        ("0e+1o", "0e+1o", (4, 4)),
        ("1o", "0o+2e", (2, 1)),  # no path to 0o, nor a linear one to 2e
        ("2e+2e", "2e", (4,)),
    ],
)
def test_is_the_sum_over_monomials(options):
    case = operands(options=options)
    expected = by_monomials(*case, options)
    torch.testing.assert_close(of(*case, options), expected, rtol=1e-11, atol=1e-11)
    with use_reference():
        torch.testing.assert_close(of(*case, options), expected, rtol=1e-11, atol=1e-11)


@given(
    st.sampled_from(["0e+1o+2e", "0e+0o+1o+1e", "1o+3o", "2x1o"]), st.integers(1, 4), st.integers(0, 2**31)
)
def test_commutes_with_every_rotation_and_mirror(irreps, correlation, seed):
    options = irreps, "0e+0o+1e+1o", (correlation,) * 4
    weight = operands(channels=3, options=options)[1].detach()
    index = torch.tensor([0, 1, 0, 2, 2])
    assert_equivariant(lambda x: of(x, weight, index, options), [irreps], options[1], channels=3, seed=seed)


def test_the_check_can_fail():
    weight, index = operands(channels=4)[1].detach(), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: of(x + 1, weight, index), [OPTIONS[0]], OPTIONS[1])


@pytest.mark.parametrize("derivative", ["", "n", "s", "nb", "sb"])
@pytest.mark.parametrize(
    ("kernel", "nodes", "channels", "species"),
    [
        *[(kernel, *sizes) for kernel in ("cpu", "triton") for sizes in ((0, 3, 2), (3, 0, 2), (1, 129, 1))],
        ("cpu", 129, 3, 5),
        ("triton", 3, 3, 4),
    ],
)
def test_kernels_agree_with_the_reference(kernel, nodes, channels, species, derivative):
    """On a GPU the compiled kernels; elsewhere the same source in Triton's interpreter."""
    kernels = pytest.importorskip(f"equitorch.ops.contraction.{kernel}")
    steps = program(*SMALL, derivative)
    torch.manual_seed(0)
    index = torch.randint(0, max(species - 1, 1), (nodes,))
    for dtype, error in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        x = [torch.randn(nodes, channels, n, dtype=dtype).mT for n in (1, steps.nodes - 1)]
        w = [torch.randn(species, channels, n, dtype=dtype).mT for n in (steps.species, 0)]
        ours, theirs = (run(steps, x, w, index) for run in (kernels.run, reference.run))
        torch.testing.assert_close(ours, theirs, rtol=error, atol=error)


@pytest.mark.parametrize("reference_only", [False, True])
def test_differentiates_twice(reference_only):
    x, weight, index = operands(3)

    def function(x, weight):
        if reference_only:
            with use_reference():
                return of(x, weight, index)
        return of(x, weight, index)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


def test_the_operator_differentiates_twice():
    x, weight, index = operands(3)
    options = OPTIONS[0], OPTIONS[1], list(OPTIONS[2]), ""
    assert torch.autograd.gradcheck(lambda x, w: op([x], [w], index, *options)[0], (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: op([x], [w], index, *options)[0], (x, weight))


def test_differentiates_to_third_order():
    found = []
    for by in (of, by_monomials):
        x, weight, index = operands()
        value, grads = by(x, weight, index).pow(2).sum(), []
        for _ in range(3):
            grads += torch.autograd.grad(value, (x, weight), create_graph=True)
            value = sum(g.pow(2).sum() for g in grads[-2:])
        found.append(grads)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_forces_can_be_trained_without_weights_that_learn():
    x, weight, index = operands()
    with torch.no_grad():
        expected = of(x, weight, index)
    (grad,) = torch.autograd.grad(of(x, weight.detach(), index).sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(grad.square().sum(), x)
    assert again.isfinite().all()
    torch.testing.assert_close(of(x, weight, index), expected)


def test_an_operand_changed_in_place_is_noticed():
    x, weight, index = operands()
    y = of(x, weight, index)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_is_a_well_formed_operator():
    """Schema, fake tensor, autograd and tracing, as PyTorch itself checks them."""
    x, weight, index = operands()
    torch.library.opcheck(op, ([x], [weight], index, OPTIONS[0], OPTIONS[1], list(OPTIONS[2]), ""))


def test_compiles_to_one_graph_forward_and_backward():
    found = []
    for run in (of, torch.compile(of, fullgraph=True, backend="aot_eager")):
        x, weight, index = operands(7, dtype=torch.float32)
        out = run(x, weight, index)
        found.append((out, *torch.autograd.grad(out.pow(2).sum(), (x, weight))))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("dims", [(0, None, 0), (0, 0, 0), (0, None, None), (None, 0, None)])
@pytest.mark.parametrize("compiled", [False, True])
def test_has_a_batching_rule(dims, compiled):
    case = [z.detach() for z in operands(5)]
    many = [torch.stack([z, z.flip(0)]) if d == 0 else z for z, d in zip(case, dims, strict=True)]
    expected = torch.stack(
        [of(*(z[i] if d == 0 else z for z, d in zip(many, dims, strict=True))) for i in range(2)]
    )
    function = torch.vmap(of, in_dims=dims)
    function = torch.compile(function, fullgraph=True, backend="aot_eager") if compiled else function
    torch.testing.assert_close(function(*many), expected)


def test_has_jacobians():
    x, weight, index = operands(2, 1)
    theirs = torch.autograd.functional.jacobian(lambda x: of(x, weight, index), x)
    torch.testing.assert_close(torch.func.jacrev(of)(x, weight, index), theirs)


def test_two_runs_and_two_threads_agree_bit_for_bit():
    x, weight, index = operands(500, 33, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            y = of(x, weight, index)
            found.append([y, *torch.autograd.grad(y.square().sum(), (x, weight))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))


def test_nan_stays_where_it_is():
    x, weight, index = (z.detach() for z in operands(3))
    x[1, :, 0] = float("nan")
    out = of(x, weight, index)
    assert out[1, :, 0].isnan().all()
    assert out[[0, 2]].isfinite().all()
    assert out[1, :, 1].isfinite().all()


def test_runs_in_half_precision_by_the_reference():
    x, weight, index = (z.detach() for z in operands())
    half = of(x.bfloat16(), weight.bfloat16(), index)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), of(x, weight, index), rtol=0.1, atol=0.3)


def test_saves_nothing_but_its_operands():
    saved = []
    x, weight, index = operands(50, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        of(x, weight, index)
    assert not [t for t in saved if t.shape not in (x.shape, weight.shape, index.shape)]


def test_programs_are_small():
    """What is multiplied per node and channel: 500 monomials of two rows or three would be twice as much."""
    steps = program("0e+1o+2e+3o", "0e+1o", (3, 3))
    assert len(steps.left) < 350
    assert len(steps.adjoint(species=False).left) < 800
    assert np.all(np.diff(steps.start) >= 0)


def test_eager_use_imports_no_compiler():
    code = """
import sys, torch
from equitorch.ops.contraction import contraction
x, w = torch.randn(2, 4, 3, requires_grad=True), torch.randn(1, 2, 3, requires_grad=True)
y = contraction(x, w, torch.zeros(2).long(), "0e+1o", "1o", (2,))
g, = torch.autograd.grad(y.square().sum(), x, create_graph=True)
g.sum().backward()
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
