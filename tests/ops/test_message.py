"""equitorch/ops/message and equitorch/ops/density: walks over edges"""

import pytest
import torch

from equitorch.ops.backend import use_reference
from equitorch.ops.density import density
from equitorch.ops.density.reference import density as density_reference
from equitorch.ops.edges import EdgePlan
from equitorch.ops.message import message
from equitorch.ops.message.reference import message as message_reference
from equitorch.testing import random_orthogonal

DEGREE = torch.tensor([0, 1, 1, 1])
SHAPES = [(0, 0, 3), (1, 0, 3), (3, 1, 1), (5, 129, 3), (129, 3, 17)]


def graph(nodes, edges, *, reverse=False, seed=0):
    """Random edges, sorted by target; some nodes have none. ``reverse``: each comes with its opposite."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(max(nodes, 1), (2, edges), generator=generator)
    back = None
    if reverse:
        index, back = torch.cat([index, index.flip(0)], dim=1), torch.arange(2 * edges).roll(edges)
    order = torch.argsort(index[1], stable=True)
    if back is not None:
        back = torch.argsort(order)[back[order]]
    return EdgePlan.build(index[:, order], nodes, edge_reverse=back)


def operands(op, plan, channels, dtype=torch.float64, *, rows=4, degrees=2):
    """Strided on purpose: a user's tensor may be a view of another."""
    torch.manual_seed(0)
    nodes, edges, pairs = plan.num_nodes, plan.source.shape[0], plan.num_pairs
    shapes = {
        "message": [(pairs, degrees, channels), (nodes, rows, channels), (nodes, rows, channels)],
        "density": [(pairs, degrees, channels), (2, nodes, channels), (edges, rows), (nodes, rows, channels)],
    }[op]
    return [torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype).mT for shape in shapes]


REFERENCES = {"message": message_reference, "density": density_reference}
SLOTS = [("message", k) for k in range(3)] + [("density", k) for k in range(4)]


def evaluate(op, open_slot, filled, plan):
    call = getattr(torch.ops.equitorch, op)
    return call(filled, open_slot, [*plan, DEGREE], [2])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("nodes", "edges", "channels"), SHAPES)
@pytest.mark.parametrize(("op", "open_slot"), SLOTS)
def test_kernel_agrees_with_the_reference(op, open_slot, nodes, edges, channels, dtype, reverse):
    plan = graph(nodes, edges, reverse=reverse)
    filled = operands(op, plan, channels, dtype)
    del filled[open_slot]
    got = evaluate(op, open_slot, filled, plan)
    torch.testing.assert_close(got, REFERENCES[op](open_slot, filled, [*plan, DEGREE], [2]))


@pytest.mark.parametrize(("reverse", "dtype"), [(False, torch.float32), (True, torch.float64)])
@pytest.mark.parametrize(("nodes", "edges", "channels"), [(0, 0, 3), (1, 0, 3), (3, 1, 1), (4, 5, 129)])
@pytest.mark.parametrize(("op", "open_slot"), SLOTS)
def test_triton_agrees_with_the_reference(op, open_slot, nodes, edges, channels, dtype, reverse):
    """On a GPU the compiled kernel; elsewhere the same source in Triton's interpreter."""
    kernel = pytest.importorskip(f"equitorch.ops.{op}.triton", reason="Triton is not installed")
    plan = graph(nodes, edges, reverse=reverse)
    filled = operands(op, plan, channels, dtype)
    del filled[open_slot]
    got = getattr(kernel, op)(open_slot, filled, [*plan, DEGREE], [2])
    torch.testing.assert_close(got, REFERENCES[op](open_slot, filled, [*plan, DEGREE], [2]))


@pytest.mark.parametrize(("op", "open_slot"), SLOTS)
def test_triton_takes_more_rows_and_degrees_than_one_program_holds(op, open_slot):
    kernel = pytest.importorskip(f"equitorch.ops.{op}.triton", reason="Triton is not installed")
    plan, degree = graph(3, 2, reverse=True), torch.randint(9, (17,))
    filled = operands(op, plan, 2, rows=17, degrees=9)
    del filled[open_slot]
    got = getattr(kernel, op)(open_slot, filled, [*plan, degree], [9])
    torch.testing.assert_close(got, REFERENCES[op](open_slot, filled, [*plan, degree], [9]))


@pytest.mark.parametrize("op", ["message", "density"])
def test_every_slot_is_a_derivative_of_one_form(op):
    """q(x) is the product of any operand with its slot: the kernels of all slots belong together."""
    plan = graph(6, 20, reverse=True)
    xs = operands(op, plan, 3)
    values = []
    for k, x in enumerate(xs):
        values.append((evaluate(op, k, xs[:k] + xs[k + 1 :], plan) * x).sum())
    torch.testing.assert_close(torch.stack(values), values[0].expand(len(xs)))


def test_message_is_a_matrix_product_when_every_node_sees_every_other():
    """An answer known without this library: all-to-all edges of weight one sum the others' features."""
    nodes = 5
    index = torch.cartesian_prod(torch.arange(nodes), torch.arange(nodes)).T.flip(0)
    plan = EdgePlan.build(index[:, index[0] != index[1]], nodes)
    x = torch.randn(nodes, 4, 3, dtype=torch.float64)
    out = message(torch.ones(plan.num_pairs, 2, 3, dtype=torch.float64), x, DEGREE, plan)
    torch.testing.assert_close(out, x.sum(0) - x)


def test_message_reads_the_sender():
    """One edge from node 1 to node 0: only node 0 receives, and what it receives is node 1's."""
    plan = EdgePlan.build(torch.tensor([[1], [0]]), 2)
    x = torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, 4, 1)
    out = message(torch.ones(1, 2, 1), x, DEGREE, plan)
    assert out[:, 0, 0].tolist() == [2.0, 0.0]


@pytest.mark.parametrize("op", ["message", "density"])
@pytest.mark.parametrize("reverse", [False, True])
def test_differentiates_three_times(op, reverse):
    plan = graph(3, 4, reverse=reverse)
    xs = [x.contiguous().requires_grad_() for x in operands(op, plan, 2)[:-1]]

    def call(*xs):
        return (message(*xs, DEGREE, plan) if op == "message" else density(*xs, DEGREE, plan)) ** 2

    def force(*xs):
        return torch.autograd.grad(call(*xs).sum(), xs[0], create_graph=True)[0] ** 2

    assert torch.autograd.gradcheck(call, xs)
    assert torch.autograd.gradgradcheck(call, xs)
    assert torch.autograd.gradgradcheck(force, xs)


@pytest.mark.parametrize(("op", "open_slot"), SLOTS)
def test_is_a_well_formed_operator(op, open_slot):
    plan = graph(3, 4, reverse=True)
    filled = [x.contiguous().requires_grad_() for x in operands(op, plan, 2)]
    del filled[open_slot]
    torch.library.opcheck(getattr(torch.ops.equitorch, op).default, (filled, open_slot, [*plan, DEGREE], [2]))


def test_computes_only_the_derivatives_that_are_wanted():
    """A force pass, with weights that require gradients, must not pay for them."""
    plan = graph(6, 20, reverse=True)
    weight, x, _ = (t.requires_grad_() for t in operands("message", plan, 3))
    out = message(weight, x, DEGREE, plan).square().sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    seen = []
    weight.register_hook(seen.append)
    torch.autograd.grad(grad.sum(), x, retain_graph=True)
    assert not seen
    torch.autograd.grad(grad.sum(), weight)
    assert seen


@pytest.mark.parametrize("op", ["message", "density"])
def test_same_bits_twice(op):
    plan = graph(60, 700, reverse=True)
    xs = operands(op, plan, 17, torch.float32)
    for k in range(len(xs)):
        filled = xs[:k] + xs[k + 1 :]
        assert torch.equal(evaluate(op, k, filled, plan), evaluate(op, k, filled, plan))


def test_compiles_to_one_graph():
    plan = graph(6, 20, reverse=True)
    weight, x, _ = operands("message", plan, 3)
    weight, x = weight.contiguous().requires_grad_(), x.contiguous().requires_grad_()
    whole = torch.compile(lambda w, x: message(w, x, DEGREE, plan), fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(f(weight, x).square().sum(), (weight, x)) for f in (whole, _eager(plan))]
    torch.testing.assert_close(*grads)


def _eager(plan):
    return lambda w, x: message(w, x, DEGREE, plan)


def test_maps_over_a_batch():
    plan = graph(6, 20)
    weight, x, _ = operands("message", plan, 3)
    both = torch.vmap(lambda x: message(weight, x, DEGREE, plan))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(both[1], message(weight, 2 * x, DEGREE, plan))


def test_reference_can_be_asked_for():
    plan = graph(6, 20)
    weight, x, _ = operands("message", plan, 3)
    with use_reference():
        want = message(weight, x, DEGREE, plan)
    torch.testing.assert_close(message(weight, x, DEGREE, plan), want)


def test_rows_of_a_degree_turn_together():
    """A weight per degree commutes with rotations of the rows; a weight per row would not."""
    rotation = random_orthogonal(generator=torch.Generator().manual_seed(0))
    plan = graph(6, 20)
    weight, x, _ = operands("message", plan, 3)
    turned = torch.cat([x[:, :1], torch.einsum("ab,nbc->nac", rotation, x[:, 1:])], dim=1)
    after = message(weight, turned, DEGREE, plan)[:, 1:]
    before = torch.einsum("ab,nbc->nac", rotation, message(weight, x, DEGREE, plan)[:, 1:])
    torch.testing.assert_close(after, before)
    per_row = message(torch.cat([weight] * 2, 1), turned, torch.arange(4), plan)[:, 1:]
    other = torch.einsum(
        "ab,nbc->nac", rotation, message(torch.cat([weight] * 2, 1), x, torch.arange(4), plan)[:, 1:]
    )
    assert (per_row - other).abs().max() > 0.1


def test_says_what_it_expected():
    plan = graph(6, 20)
    with pytest.raises(ValueError, match="message expects weight"):
        message(torch.randn(3, 2, 3), torch.randn(6, 4, 3), DEGREE, plan)
    with pytest.raises(ValueError, match="density expects 20 pairs"):
        density(torch.randn(3, 2, 3), torch.randn(2, 6, 3), torch.randn(20, 4), DEGREE, plan)
