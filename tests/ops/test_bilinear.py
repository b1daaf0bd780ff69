"""equitorch/ops/bilinear"""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops.backend import use_reference
from equitorch.ops.bilinear import Bilinear, bilinear
from equitorch.ops.bilinear.reference import bilinear as reference
from equitorch.reps import Coupling, Irrep, Irreps
from equitorch.testing import assert_equivariant

VECTOR = Irrep(1, -1)
CROSS = Coupling.between(VECTOR, VECTOR, Irrep(1, 1))
UNEVEN = Coupling.between(VECTOR, Irrep(2, 1), Irrep(3, -1))  # no slot can be mistaken for another
op = torch.ops.equitorch.bilinear
WIDTHS = [(1, 1, 1), (0, 0, 0), (0, 1, 0), (3, 3, 3), (3, 1, 3), (1, 3, 3), (129, 129, 129), (129, 1, 129)]


def operands(open_slot=2, items=4, widths=(2, 2, 2), dtype=torch.float64):
    """Strided on purpose: a user's tensor may be a view of another."""
    torch.manual_seed(0)
    filled = [slot for slot in range(3) if slot != open_slot]
    xs = [torch.randn(items, widths[s], UNEVEN.dims[s], dtype=dtype).mT for s in filled]
    return [x.requires_grad_() for x in xs], open_slot, UNEVEN.plan(), list(widths)


def in_kernel_order(case):
    xs, open_slot, plan, sizes = case
    return open_slot, [x.detach() for x in xs], plan, sizes


def test_means_the_cross_product():
    """An answer known without this library, up to the unit norm of a coupling."""
    x, y = torch.randn(2, 5, 3, 7, dtype=torch.float64)
    ours, theirs = Bilinear(CROSS)(x, y), torch.linalg.cross(x, y, dim=-2) / 6**0.5
    torch.testing.assert_close(ours, theirs * (ours * theirs).sum().sign())


def test_means_the_matrix_product():
    x, y = torch.randn(2, 5, 9, 7, dtype=torch.float64)
    ours = Bilinear(Coupling.matrix_product(3))(x, y)
    matrices = (z.unflatten(1, (3, 3)).movedim(-1, 1) for z in (x, y))
    torch.testing.assert_close(ours, torch.matmul(*matrices).movedim(1, -1).flatten(1, 2))


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**31 - 1))
def test_commutes_with_every_rotation_and_mirror(l1, l2, pick, seed):
    x, y = Irreps([(1, (l1, (-1) ** l1))]), Irreps([(1, (l2, 1))])
    l3 = abs(l1 - l2) + pick % (2 * min(l1, l2) + 1)
    z = Irreps([(1, (l3, (-1) ** l1))])
    assert_equivariant(Bilinear(Coupling.between(x, y, z)), [x, y], z, seed=seed)


def test_the_check_can_fail():
    wrong = Coupling(CROSS.dims, CROSS.index, CROSS.value.abs())
    with pytest.raises(AssertionError):
        assert_equivariant(Bilinear(wrong), [Irreps("1o"), Irreps("1o")], Irreps("1e"))


@pytest.mark.parametrize("kernel", ["cpu", "triton"])
@pytest.mark.parametrize("open_slot", [0, 1, 2])
@pytest.mark.parametrize(
    ("items", "widths"), [(3, widths) for widths in WIDTHS] + [(0, (3, 3, 3)), (0, (3, 1, 3)), (1, (3, 3, 3))]
)
def test_kernel_agrees_with_reference(kernel, open_slot, items, widths):
    """On a GPU the compiled kernel; elsewhere the same source in Triton's interpreter."""
    fused = pytest.importorskip(f"equitorch.ops.bilinear.{kernel}")
    for dtype in (torch.float32, torch.float64):
        case = in_kernel_order(operands(open_slot, items, widths, dtype))
        torch.testing.assert_close(fused.bilinear(*case), reference(*case), rtol=1e-4, atol=1e-4)
        if dtype == torch.float64:
            torch.testing.assert_close(fused.bilinear(*case), reference(*case), rtol=1e-12, atol=1e-12)


def test_rows_that_no_entry_reaches_are_zero():
    lonely = Coupling((2, 3, 4), torch.tensor([[1], [2], [3]]), torch.tensor([2.0], dtype=torch.float64))
    x, y = torch.ones(5, 2, 3, requires_grad=True), torch.ones(5, 3, 1, requires_grad=True)
    out = Bilinear(lonely)(x, y)
    assert out.unique(dim=0).tolist() == [[[0.0] * 3] * 3 + [[2.0] * 3]]
    grad_x, grad_y = torch.autograd.grad(out.sum(), (x, y))
    assert grad_x[0].tolist() == [[0.0] * 3, [2.0] * 3]
    assert grad_y[0].tolist() == [[0.0], [0.0], [6.0]]


@pytest.mark.parametrize("open_slot", [0, 1, 2])
@pytest.mark.parametrize("widths", [(2, 2, 2), (2, 1, 2)])
def test_differentiates_twice(open_slot, widths):
    (a, b), *rest = operands(open_slot, 2, widths)
    assert torch.autograd.gradcheck(lambda a, b: op([a, b], *rest), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: op([a, b], *rest), (a, b))


@pytest.mark.parametrize("channels", [2, 1])
def test_module_differentiates_to_third_order(channels):
    join = Bilinear(UNEVEN)
    found = []
    for reference_only in (False, True):
        torch.manual_seed(0)
        x = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
        y = torch.randn(3, 5, channels, dtype=torch.float64, requires_grad=True)
        with use_reference() if reference_only else torch.enable_grad():
            value, grads = join(x, y).pow(3).sum(), []
            for _ in range(3):
                grads += torch.autograd.grad(value, (x, y), create_graph=True)
                value = sum(g.pow(2).sum() for g in grads[-2:])
        found.append(grads)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(join, (x, y))
    assert torch.autograd.gradgradcheck(join, (x, y))


def test_expanded_gradients_are_read_right():
    x, y = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True).unbind()
    ours = torch.autograd.grad(Bilinear(CROSS)(x, y).sum(), x)[0]
    with use_reference():
        theirs = torch.autograd.grad(Bilinear(CROSS)(x, y).sum(), x)[0]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("widths", [(2, 2, 2), (2, 1, 2)])
def test_is_a_well_formed_operator(widths):
    """Schema, fake tensor, autograd and tracing, as PyTorch itself checks them."""
    torch.library.opcheck(op, operands(widths=widths))


@pytest.mark.parametrize("batch", [(), (0,), (6,), (5, 2), (0, 4)])
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_takes_any_batch_even_an_empty_one(batch, channels):
    x, y = torch.randn(*batch, 3, channels), torch.randn(*batch, 5, 1)
    assert Bilinear(UNEVEN)(x, y).shape == (*batch, 7, channels)


def test_spreads_batches_like_pytorch():
    join, x, y = Bilinear(UNEVEN), torch.randn(6, 1, 3, 2), torch.randn(4, 5, 2)
    whole = join(x.expand(6, 4, 3, 2), y.expand(6, 4, 5, 2))
    torch.testing.assert_close(join(x, y), whole)


def test_two_runs_and_two_threads_agree_bit_for_bit():
    join, before = Bilinear(UNEVEN), torch.get_num_threads()
    x, y = torch.randn(500, 3, 33), torch.randn(500, 5, 33)
    first = join(x, y)
    try:
        torch.set_num_threads(2)
        assert torch.equal(first, join(x, y))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, join(x, y))


def test_nan_stays_where_it_is():
    x, y = torch.ones(3, 3, 2), torch.ones(3, 5, 2)
    x[1, :, 0] = float("nan")
    out = Bilinear(UNEVEN)(x, y)
    assert out[1, :, 0].isnan().all()
    assert out[[0, 2]].isfinite().all()
    assert out[1, :, 1].isfinite().all()


def test_follows_the_dtype_of_its_operands():
    join = Bilinear(UNEVEN)
    x, y = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(4, 5, 2, dtype=torch.float64)
    exact = join(x, y)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        out = join(x.to(dtype), y.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=error, atol=error)


def test_compiles_to_one_graph_forward_and_backward():
    join, found = Bilinear(UNEVEN).float(), []
    for run in (join, torch.compile(join, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        x, y = torch.randn(2, 3, 7, requires_grad=True), torch.randn(2, 5, 1, requires_grad=True)
        out = run(x, y)
        found.append((out, *torch.autograd.grad(out.pow(2).sum(), (x, y))))
    torch.testing.assert_close(found[0], found[1])


def test_has_a_batching_rule():
    join, x, y = Bilinear(UNEVEN), torch.randn(6, 4, 3, 2), torch.randn(6, 4, 5, 2)
    torch.testing.assert_close(torch.vmap(join)(x, y), join(x, y))


def test_holds_no_weights_and_follows_copies():
    import copy
    import pickle

    join = Bilinear(UNEVEN)
    assert not join.state_dict()
    x, y = torch.randn(4, 3, 2), torch.randn(4, 5, 2)
    for other in (copy.deepcopy(join), pickle.loads(pickle.dumps(join))):
        assert torch.equal(other(x, y), join(x, y))


def test_eager_use_imports_no_compiler():
    program = """
import sys, torch
from equitorch.ops import Bilinear
from equitorch.reps import Coupling
x = torch.randn(2, 9, 4, requires_grad=True)
y = Bilinear(Coupling.matrix_product(3))(x, x)
g, = torch.autograd.grad(y.sum(), x, create_graph=True)
g.sum().backward()
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="joins 3 and 5 rows into 7, got x of shape"):
        Bilinear(UNEVEN)(torch.randn(2, 5, 4), torch.randn(2, 3, 4))
    with pytest.raises(ValueError, match="equally many channels"):
        bilinear(torch.randn(2, 3, 4), torch.randn(2, 5, 3), UNEVEN.plan())
    with pytest.raises(ValueError, match="of one dtype"):
        bilinear(torch.randn(2, 3, 4), torch.randn(2, 5, 4).double(), UNEVEN.plan())


def test_coefficients_survive_a_change_of_precision():
    join = Bilinear(Coupling.between(Irreps("1o"), Irreps("2e"), Irreps("3o")))
    x, y = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(4, 5, 2, dtype=torch.float64)
    want = join(x, y)
    assert torch.equal(join.float().double()(x, y), want)
