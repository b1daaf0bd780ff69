"""equitorch/layers/convolution.py"""

import copy
import pickle

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from equitorch.layers import EquivariantConvolution
from equitorch.ops.edges import EdgePlan
from equitorch.reps import Irreps, from_e3nn, to_e3nn
from equitorch.testing import assert_equivariant

IRREPS = st.lists(st.sampled_from(["0e", "0o", "1e", "1o", "2e", "2o", "3o"]), min_size=1, max_size=3)


def operands(conv, nodes, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (nodes, conv.irreps_in.dim, conv.channels),
        (edges, conv.irreps_filter.dim),
        (edges, len(conv.paths), conv.channels),
    )
    xs = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    return xs, torch.randint(nodes, (2, edges), generator=generator)


def e3nn_product(conv):
    """e3nn's product of the same paths, built in float64."""
    o3 = pytest.importorskip("e3nn.o3", reason="e3nn is not installed")

    def flat(irreps, mul):
        return o3.Irreps([(mul, (ir.l, ir.p)) for ir in irreps.copies])

    ends = (
        flat(conv.irreps_in, conv.channels),
        flat(conv.irreps_filter, 1),
        flat(conv.irreps_out, conv.channels),
    )
    blocks = range(len(conv.paths)) if conv.separate_paths else [k for _, _, k in conv.path_copies]
    paths = [(i, j, k, "uvu", True) for (i, j, _), k in zip(conv.path_copies, blocks, strict=True)]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return o3.TensorProduct(*ends, paths, shared_weights=False, internal_weights=False)
    finally:
        torch.set_default_dtype(before)


def widened(irreps, channels):
    return Irreps([(mul * channels, ir) for mul, ir in irreps])


@example(["0e", "1o", "2e"], ["0e", "1o", "2e", "3o"], ["0e", "1o", "2e", "3o"], 2, False)
@example(["1o"], ["0e"], ["2e"], 3, False)  # nothing couples
@given(
    IRREPS,
    IRREPS,
    st.sets(st.sampled_from(["0e", "0o", "1e", "1o", "2e", "3o"]), min_size=1),
    st.integers(1, 3),
    st.booleans(),
)
def test_is_e3nns_uvu_product_gathered_and_summed(one, two, three, channels, separate):
    """Values, first derivatives and the derivatives of those."""
    conv = EquivariantConvolution(
        "+".join(one), "+".join(two), "+".join(sorted(three)), channels, separate_paths=separate
    )
    product = e3nn_product(conv)
    (x, y, w), edges = operands(conv, 4, 7)

    def theirs(x, y, w):
        messages = product(to_e3nn(x, widened(conv.irreps_in, channels))[edges[0]], y, w.flatten(1))
        summed = messages.new_zeros(4, messages.shape[1]).index_add(0, edges[1], messages)
        return from_e3nn(summed, widened(conv.irreps_out, channels), channels)

    results = []
    for call in (lambda *xs: conv(*xs, edges), theirs):
        out = call(x, y, w)
        loss = (out + 1).square().sum() / 2 if conv.paths else (x.sum() + y.sum() + w.sum()) * 0
        grads = torch.autograd.grad(loss, (x, y, w), create_graph=True)
        second = sum(grad.square().sum() for grad in grads)
        results.append(
            [out, *grads, *torch.autograd.grad(second, (x, y, w), materialize_grads=True)]
            if conv.paths
            else [out]
        )
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("separate", [False, True])
def test_commutes_with_rotations_and_mirrors(separate):
    conv = EquivariantConvolution(
        "0e + 1o + 1e", "0e + 1o + 2e", "0e + 0o + 1o + 1e + 2e", 3, separate_paths=separate
    )
    (_, _, w), edges = operands(conv, 5, 12)
    w = w.detach()

    def on_graph(x, y):
        """Both in one batch: of nodes, of which five are there, and of edges."""
        out = conv(x[:5], y[..., 0], w, edges)
        return torch.cat([out, out.new_zeros(7, *out.shape[1:])])

    assert_equivariant(
        on_graph, (conv.irreps_in, conv.irreps_filter), conv.irreps_out, channels=3, batch=(12,)
    )


def test_on_vectors_it_is_the_dot_and_the_cross_product():
    conv = EquivariantConvolution("1o", "1o", "0e + 1e", 1)
    x, y = torch.randn(2, 3, 1, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    out = conv(x, y, torch.ones(1, 2, 1, dtype=torch.float64), torch.tensor([[1], [0]]))
    torch.testing.assert_close(out[0, 0], (x[1].T @ y[0]) / 3**0.5)
    torch.testing.assert_close(out[0, 1:, 0], torch.linalg.cross(x[1, :, 0], y[0]) / 2**0.5)
    assert not out[1].any()


def test_paths_are_in_the_order_of_weights():
    conv = EquivariantConvolution("0e + 1o", "0e + 1o", "1o + 0e", 2, separate_paths=True)
    assert [" ".join(map(str, path)) for path in conv.paths] == [
        "0e 0e 0e",
        "0e 1o 1o",
        "1o 0e 1o",
        "1o 1o 0e",
    ]
    (x, y, _), edges = operands(conv, 3, 6)
    for p in range(len(conv.paths)):
        w = torch.zeros(6, len(conv.paths), 2, dtype=torch.float64)
        w[:, p] = 1
        blocks = conv(x, y, w, edges).split([ir.dim for ir in conv.irreps_out.copies], dim=1)
        assert [bool(block.any()) for block in blocks] == [n == p for n in range(len(conv.paths))]


def test_a_projection_stands_for_the_weights_it_gives():
    conv = EquivariantConvolution("0e + 1o", "0e + 1o + 2e", "0e + 1o + 2e", 5)
    (x, y, _), edges = operands(conv, 6, 40)
    latent = torch.randn(40, 7, dtype=torch.float64, requires_grad=True)
    projection = torch.randn(7, len(conv.paths), 5, dtype=torch.float64, requires_grad=True)
    leaves, results = (x, y, latent, projection), []
    for out in (
        conv(x, y, latent, edges, projection=projection),
        conv(x, y, torch.einsum("eh,hpc->epc", latent, projection), edges),
    ):
        grads = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        results.append([out, *grads, *torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_weights_of_a_plan_are_those_of_pairs():
    conv = EquivariantConvolution("0e + 1o", "0e + 1o", "0e + 1o", 4)
    edges = torch.tensor([[1, 2, 0, 0], [0, 0, 1, 2]])
    plan = EdgePlan.build(edges, 3, edge_reverse=torch.tensor([2, 3, 0, 1]))
    (x, y, w), _ = operands(conv, 3, 4)
    torch.testing.assert_close(conv(x, y, w[:2], plan), conv(x, y, w[[0, 1, 0, 1]], edges))


def test_nodes_without_edges_and_graphs_without_edges_get_zeros():
    conv = EquivariantConvolution("0e + 1o", "0e + 1o", "0e + 1o", 4)
    (x, _, _), _ = operands(conv, 3, 1)
    out = conv(x, x.new_zeros(0, 4), x.new_zeros(0, 4, 4), torch.zeros(2, 0, dtype=torch.int64))
    assert out.shape == x.shape
    assert not out.any()
    assert not torch.autograd.grad(out.sum(), x)[0].any()


def test_constants_survive_a_change_of_precision_and_a_copy():
    conv = EquivariantConvolution("0e + 1o", "0e + 1o + 2e", "0e + 1o + 2e", 4)
    (x, y, w), edges = operands(conv, 5, 20)
    want = conv(x, y, w, edges)
    for other in (conv.float().double(), copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(x, y, w, edges), want)
    assert not conv.state_dict()


def test_exports():
    conv = EquivariantConvolution("0e + 1o", "0e + 1o", "0e + 1o", 4)
    xs, edges = operands(conv, 5, 20)
    program = torch.export.export(conv, (*[x.detach() for x in xs], edges))
    torch.testing.assert_close(program.module()(*[x.detach() for x in xs], edges), conv(*xs, edges).detach())


def test_is_one_operator_of_a_traced_program():
    from torch.fx.experimental.proxy_tensor import make_fx

    conv = EquivariantConvolution("0e + 1o", "0e + 1o", "0e + 1o", 4)
    xs, edges = operands(conv, 5, 20)
    program = make_fx(lambda *xs: conv(*xs))(*[x.detach() for x in xs], edges)
    assert sum("equitorch.convolution" in str(node.target) for node in program.graph.nodes) == 1


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects each irrep of irreps_out once, got 2x1o"):
        EquivariantConvolution("0e + 1o", "0e + 1o", "2x1o", 4)
    conv = EquivariantConvolution("0e + 1o", "0e + 1o", "0e + 1o", 4)
    (x, y, w), edges = operands(conv, 5, 20)
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 4, 4\), got \(5, 4, 3\)"):
        conv(x[..., 1:], y, w[..., 1:], edges)
    with pytest.raises(ValueError, match="edge_index is expected to hold numbers from 0 to 4"):
        conv(x, y, w, edges + 1)
    with pytest.raises(ValueError, match=r"expects weight of shape \(20, 4, 4\), got \(20, 3, 4\)"):
        conv(x, y, w[:, 1:], edges)
    with pytest.raises(ValueError, match=r"expects projection of shape \(2, 4, 4\), got \(3, 4, 4\)"):
        conv(x, y, w[:, 0, :2], edges, projection=w[:3])


def test_the_check_can_fail():
    """A wrong sign of one coefficient is seen by equivariance; a swap of edges' ends by the anchor above."""
    conv = EquivariantConvolution("1o", "1o", "1e", 1)
    conv.value_forward.value[0] *= -1
    x, y = torch.randn(2, 3, 1, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    out = conv(x, y, torch.ones(1, 1, 1, dtype=torch.float64), torch.tensor([[1], [0]]))
    wrong = torch.linalg.cross(x[1, :, 0], y[0]) / 2**0.5 - out[0, :, 0]
    assert wrong.abs().max() > 1e-3
