"""equitorch/ops/convolution: couple neighbours' features with filters of the edges, and sum"""

import pytest
import torch

from equitorch.ops.backend import use_reference
from equitorch.ops.convolution import convolution, form_lists
from equitorch.ops.convolution import reference as definition
from equitorch.ops.edges import EdgePlan, walks
from equitorch.reps import Coupling, Irreps

FORMS = {  # features, filters, result: sizes that differ in every slot
    "natural": ("0e + 1o", "0e + 1o + 2e", "1o + 2e + 0e + 3o"),
    "copies": ("2x1o + 0e", "1o + 1e", "0o + 1e + 2o + 0e"),
    "none": ("1o", "0e + 1o", "4e"),
}
SHAPES = [(0, 0, 3), (1, 0, 3), (1, 1, 1), (3, 2, 129), (5, 129, 3), (129, 3, 17), (9, 70, 0)]
SLOTS = [("convolution", slot) for slot in range(4)] + [("projected_convolution", slot) for slot in range(5)]


def form(name):
    ends = [Irreps(irreps) for irreps in FORMS[name]]
    coupling = Coupling.from_paths(*ends, [(*path, 1.5) for path in Coupling.paths(*ends)])
    dims = (*coupling.dims, len(Coupling.paths(*ends)))
    return form_lists(coupling) + form_lists(coupling.permuted((2, 1, 0))), dims, coupling


def graph(nodes, edges, *, reverse=False, seed=0):
    """Edges in any order, some nodes without; or, with ``reverse``, the plan of edges both ways."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(max(nodes, 1), (2, edges), generator=generator)
    if not reverse:
        return index
    index, back = torch.cat([index, index.flip(0)], dim=1), torch.arange(2 * edges).roll(edges)
    order = torch.argsort(index[1], stable=True)
    return EdgePlan.build(index[:, order], nodes, edge_reverse=torch.argsort(order)[back[order]])


def case(op, name, nodes, edges, channels, dtype=torch.float64, *, reverse=False, latent=3):
    """Operands of all slots, strided on purpose; the plan, and the sizes."""
    torch.manual_seed(0)
    lists, dims, _ = form(name)
    index = graph(nodes, edges, reverse=reverse)
    walk = index.walks() if reverse else walks(index, nodes)
    edges, pairs = walk[0].shape[0], walk[7].shape[0]
    shapes = {
        "x": (nodes, dims[0], channels),
        "y": (edges, dims[1]),
        "weight": (pairs, dims[3], channels),
        "latent": (pairs, latent),
        "projection": (latent, dims[3], channels),
        "g": (nodes, dims[2], channels),
    }
    kept = ("x", "y", "weight", "g") if op == "convolution" else ("x", "y", "latent", "projection", "g")
    xs = [torch.randn(*shapes[k][:-2], shapes[k][-1], shapes[k][-2], dtype=dtype).mT for k in kept]
    return xs, [*walk, *lists], [*dims, definition.WEIGHT_TYPES.index(dtype)]


def without(xs, slot):
    return xs[:slot] + xs[slot + 1 :]


@pytest.mark.parametrize(("dtype", "reverse"), [(torch.float32, True), (torch.float64, False)])
@pytest.mark.parametrize(("nodes", "edges", "channels"), SHAPES)
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("op", "slot"), SLOTS)
def test_kernel_agrees_with_the_reference(op, slot, name, nodes, edges, channels, dtype, reverse):
    xs, plan, sizes = case(op, name, nodes, edges, channels, dtype, reverse=reverse)
    got = getattr(torch.ops.equitorch, op)(without(xs, slot), slot, plan, sizes)
    want = getattr(definition, op)(slot, without(xs, slot), plan, sizes)
    assert got.shape == xs[slot].shape
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["natural", "copies"])
def test_reference_is_the_sum_it_claims_to_be(name):
    """The definition in one line over a dense coupling, edge by edge, path by path."""
    _, dims, coupling = form(name)
    index, (xs, plan, sizes) = graph(4, 7), case("convolution", name, 4, 7, 2)
    x, y, w, g = xs
    want = torch.zeros_like(g)
    for e, (j, i) in enumerate(index.T.tolist()):
        for p in range(dims[3]):
            own = coupling.path == p
            part = Coupling(coupling.dims, coupling.index[:, own], coupling.value[own]).dense()
            want[i] += w[e, p] * torch.einsum("ijk,ic,j->kc", part, x[j], y[e])
    torch.testing.assert_close(definition.convolution(3, [x, y, w], plan, sizes), want)


@pytest.mark.parametrize("op", ["convolution", "projected_convolution"])
def test_every_slot_is_a_derivative_of_one_form(op):
    xs, plan, sizes = case(op, "natural", 6, 20, 3)
    call = getattr(torch.ops.equitorch, op)
    values = [(call(without(xs, k), k, plan, sizes) * x).sum() for k, x in enumerate(xs)]
    torch.testing.assert_close(torch.stack(values), values[0].expand(len(xs)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_differentiates_three_times(reverse, projected):
    op = "projected_convolution" if projected else "convolution"
    xs, _, _ = case(op, "natural", 3, 3, 2, reverse=reverse, latent=2)
    xs, edges = [x.contiguous().requires_grad_() for x in xs[:-1]], graph(3, 3, reverse=reverse)
    lists, dims, _ = form("natural")

    def call(x, y, w, *p):
        return convolution(x, y, w, edges, lists, dims, projection=p[0] if p else None)

    def force(*xs):
        return torch.autograd.grad((call(*xs) ** 2).sum(), xs[1], create_graph=True)[0]

    assert torch.autograd.gradcheck(call, xs)
    assert torch.autograd.gradgradcheck(call, xs)
    assert torch.autograd.gradgradcheck(force, xs)


@pytest.mark.parametrize(("op", "slot"), SLOTS)
def test_is_a_well_formed_operator(op, slot):
    xs, plan, sizes = case(op, "natural", 3, 4, 2)
    filled = [x.contiguous().requires_grad_() for x in without(xs, slot)]
    torch.library.opcheck(getattr(torch.ops.equitorch, op).default, (filled, slot, plan, sizes))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_widened_not_rounded_again(dtype):
    xs, _, _ = case("convolution", "natural", 5, 20, 3, torch.float32)
    lists, dims, _ = form("natural")
    x, y, w, g = (t.contiguous().requires_grad_() for t in xs)
    narrow, edges = w.detach().to(dtype).requires_grad_(), graph(5, 20)
    got = convolution(x, y, narrow, edges, lists, dims)
    want = convolution(x, y, narrow.float(), edges, lists, dims)
    assert torch.equal(got, want)
    ours, theirs = (torch.autograd.grad(out, (x, y, narrow), g) for out in (got, want))
    assert [t.dtype for t in ours] == [torch.float32, torch.float32, dtype]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_everything_in_half_precision_is_summed_in_single():
    xs, _, _ = case("convolution", "natural", 5, 200, 3, torch.float32)
    lists, dims, _ = form("natural")
    narrow, edges = [t.bfloat16() for t in xs[:3]], graph(5, 200)
    got = convolution(*narrow, edges, lists, dims)
    want = convolution(*[t.float() for t in narrow], edges, lists, dims)
    assert torch.equal(got, want.bfloat16())


def test_keeps_nothing_but_its_operands_for_the_backward_pass():
    xs, _, _ = case("convolution", "natural", 5, 20, 3)
    lists, dims, _ = form("natural")
    operands, saved = [x.contiguous().requires_grad_() for x in xs[:3]], []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = convolution(*operands, graph(5, 20), lists, dims)
    kept = {t.data_ptr() for t in operands}
    assert all(t.data_ptr() in kept for t in saved)
    assert out.requires_grad


@pytest.mark.parametrize(("op", "slot"), SLOTS)
def test_same_bits_twice(op, slot):
    xs, plan, sizes = case(op, "natural", 60, 700, 17, torch.float32)
    call = getattr(torch.ops.equitorch, op)
    assert torch.equal(*[call(without(xs, slot), slot, plan, sizes) for _ in range(2)])


def test_order_of_edges_does_not_matter():
    xs, _, _ = case("convolution", "natural", 6, 40, 3)
    lists, dims, _ = form("natural")
    x, y, w, _ = xs
    index, order = graph(6, 40), torch.randperm(40)
    shuffled = convolution(x, y[order], w[order], index[:, order], lists, dims)
    torch.testing.assert_close(shuffled, convolution(x, y, w, index, lists, dims))
    wrong = convolution(x, y, w[order], index[:, order], lists, dims)
    assert (wrong - shuffled).abs().max() > 0.1  # the check can fail


@pytest.mark.parametrize("projected", [False, True])
def test_compiles_to_one_graph(projected):
    op = "projected_convolution" if projected else "convolution"
    xs, _, _ = case(op, "natural", 6, 20, 3)
    lists, dims, _ = form("natural")
    operands = [x.contiguous().requires_grad_() for x in xs[:-1]]

    edges = graph(6, 20)

    def call(x, y, w, *p):
        return convolution(x, y, w, edges, lists, dims, projection=p[0] if p else None)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(f(*operands).square().sum(), operands) for f in (compiled, call)]
    torch.testing.assert_close(*grads)


def test_maps_over_a_batch_and_gives_jacobians():
    xs, _, _ = case("convolution", "natural", 4, 9, 2)
    lists, dims, _ = form("natural")
    x, y, w, _ = xs
    edges = graph(4, 9)
    both = torch.vmap(lambda x: convolution(x, y, w, edges, lists, dims))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(both[1], convolution(2 * x, y, w, edges, lists, dims))
    jacobian = torch.func.jacrev(lambda y: convolution(x, y, w, edges, lists, dims))(y)
    torch.testing.assert_close(torch.einsum("nkcej,ej->nkc", jacobian, y), both[0])


def test_reference_can_be_asked_for():
    xs, _, _ = case("convolution", "natural", 6, 20, 3)
    lists, dims, _ = form("natural")
    with use_reference():
        want = convolution(*xs[:3], graph(6, 20), lists, dims)
    torch.testing.assert_close(convolution(*xs[:3], graph(6, 20), lists, dims), want)


def test_says_what_it_expected():
    xs, _, _ = case("convolution", "natural", 6, 20, 3)
    lists, dims, _ = form("natural")
    x, y, w, _ = xs
    with pytest.raises(
        ValueError, match=r"6 nodes along 20 edges expects y of shape \(20, 9\), got \(20, 8\)"
    ):
        convolution(x, y[:, :-1], w, graph(6, 20), lists, dims)
    with pytest.raises(
        ValueError, match=r"edge_index is expected to be of shape \(2, edges\).*got \(20, 2\)"
    ):
        convolution(x, y, w, graph(6, 20).T, lists, dims)
    with pytest.raises(ValueError, match="edge_index is expected to hold numbers from 0 to 5, got 0 to 6"):
        convolution(x, y, w, torch.arange(40).view(2, 20) % 7, lists, dims)
    with pytest.raises(ValueError, match="one floating point type"):
        convolution(x.float(), y, w, graph(6, 20), lists, dims)
