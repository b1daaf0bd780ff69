"""equitorch/ops/edges.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops.edges import EdgePlan, walks
from tests.strategies import seeds

NAMES = ["source", "target", "row_ptr", "edge_by_target", "sender_ptr", "edge_by_source", "pair", "pair_edge"]


@given(st.sampled_from([0, 1, 4]), st.sampled_from([0, 1, 30]), st.booleans(), seeds)
def test_visits_every_edge_of_a_node_once(nodes, edges, ordered, seed):
    """By target and by source, of edges in any order, isolated nodes and repeated edges among them."""
    torch.manual_seed(seed)
    index = torch.randint(max(nodes, 1), (2, edges if nodes else 0))
    if ordered:
        index = index[:, index[1].argsort(stable=True)]
    walk = EdgePlan.build(index, nodes).walks() if ordered else walks(index, nodes)
    found = dict(zip(NAMES, walk, strict=True))
    for end, start, listed in (
        ("target", "row_ptr", "edge_by_target"),
        ("source", "sender_ptr", "edge_by_source"),
    ):
        for node in range(nodes):
            mine = found[listed][found[start][node] : found[start][node + 1]]
            assert mine.tolist() == (found[end] == node).nonzero().squeeze(1).tolist()
    assert found["pair_edge"][found["pair"], 0].tolist() == list(range(index.shape[1]))


def test_pairs_hold_an_edge_and_the_one_that_leads_back():
    index, back = torch.tensor([[1, 2, 0, 0], [0, 0, 1, 2]]), torch.tensor([2, 3, 0, 1])
    plan = EdgePlan.build(index, 3, edge_reverse=back)
    assert plan.pair.tolist() == [0, 1, 0, 1]
    assert plan.pair_edge.tolist() == [[0, 2], [1, 3]]
    assert [plan.num_pairs, plan.directed().num_pairs] == [2, 4]
    assert index[0][plan.sender_edge].tolist() == sorted(index[0].tolist())


def test_takes_integers_of_any_width():
    index = torch.tensor([[1, 0], [0, 1]])
    for narrow in (index.int(), index.short()):
        for ours, wide in zip(walks(narrow, 2), walks(index, 2), strict=True):
            assert ours.dtype == torch.int64
            assert ours.equal(wide)


def test_maps_over_graphs():
    index = torch.randint(4, (3, 2, 9))
    for together, *each in zip(
        torch.vmap(lambda e: tuple(walks(e, 4)))(index), *(walks(e, 4) for e in index), strict=True
    ):
        assert together.equal(torch.stack(each))


def test_says_what_it_expected():
    index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="sorted by target, got targets that descend"):
        EdgePlan.build(index, 2)
    for plan in (walks, EdgePlan.build):
        with pytest.raises(
            ValueError, match="edge_index is expected to hold numbers from 0 to 0, got 0 to 1"
        ):
            plan(index.flip(1), 1)
        with pytest.raises(ValueError, match="edge_index is expected to hold integers, got torch"):
            plan(index.float(), 2)
        with pytest.raises(ValueError, match=r"of shape \(2, edges\), source and target, got \(2,\)"):
            plan(index[0], 2)


def test_transposed_edges_are_told_how_to_turn():
    for plan in (walks, EdgePlan.build):
        with pytest.raises(ValueError, match=r"of shape \(2, edges\).*got \(3, 2\); give edge_index\.T"):
            plan(torch.tensor([[0, 1], [1, 0], [1, 1]]), 2)
