"""equitorch/ops/segment"""

import pytest
import torch

from equitorch.ops.edges import EdgePlan
from equitorch.ops.segment import segment_sum, spread
from equitorch.ops.segment.op import _segment
from equitorch.ops.segment.ordered import segment as ordered
from equitorch.ops.segment.reference import EDGES, NODES
from equitorch.ops.segment.reference import segment as reference


def plan(edges, nodes):
    torch.manual_seed(edges)
    target = torch.randint(max(nodes, 1), (edges,)).sort().values
    return EdgePlan.build(torch.stack([torch.randint(max(nodes, 1), (edges,)), target]), nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("edges", "nodes"), [(0, 0), (0, 4), (1, 1), (3, 7), (129, 10)])
def test_kernel_is_the_reference(edges, nodes, dtype):
    walk = [plan(edges, nodes).target, plan(edges, nodes).row_ptr]
    for slot, rows in ((NODES, edges), (EDGES, nodes)):
        for x in (torch.randn(rows, 3, dtype=dtype), torch.randn(3, rows, dtype=dtype).mT):
            torch.testing.assert_close(ordered(slot, [x], walk, []), reference(slot, [x], walk, []))


def test_means_a_loop_over_edges():
    p, x = plan(9, 4), torch.randn(9, 2)
    expected = torch.zeros(4, 2)
    for e, i in enumerate(p.target.tolist()):
        expected[i] += x[e]
    torch.testing.assert_close(segment_sum(x, p), expected)
    y = torch.randn(4, 2)
    torch.testing.assert_close((spread(y, p) * x).sum(), (y * expected).sum())


def test_differentiates_compiles_and_passes_opcheck():
    p = plan(9, 4)
    x = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    function = lambda x: segment_sum(x * spread(segment_sum(x, p), p).exp(), p)  # noqa: E731
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)
    whole = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x), function(x))
    torch.library.opcheck(_segment.op, ([x], NODES, [p.target, p.row_ptr], []))


def test_the_check_can_fail():
    p, x = plan(129, 10), torch.randn(129, 3)
    walk = [p.target.flip(0).contiguous(), p.row_ptr]  # not ascending: another graph for the reference
    assert not torch.allclose(ordered(NODES, [x], walk, []), reference(NODES, [x], walk, []))


def test_says_what_it_expected():
    p = plan(9, 4)
    with pytest.raises(ValueError, match=r"segment_sum expects shape \(9 edges, channels\), got \(4, 2\)"):
        segment_sum(torch.randn(4, 2), p)
    with pytest.raises(ValueError, match=r"spread expects shape \(4 nodes, channels\), got \(9, 2\)"):
        spread(torch.randn(9, 2), p)
