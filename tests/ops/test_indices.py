"""equitorch/ops/indices.py"""

import pytest
import torch

from equitorch.ops.indices import expect_indices


@pytest.mark.parametrize("index", [torch.tensor([0, 2]), torch.tensor([[2, 0]]).int(), torch.zeros(0).long()])
def test_lets_indices_pass(index):
    expect_indices("index", index, 3)


def test_looks_at_no_values_where_there_are_none():
    expect_indices("index", torch.empty(2, dtype=torch.int64, device="meta"), 3)
    torch.func.vmap(lambda i: expect_indices("index", i, 3) or i)(torch.tensor([[7], [8]]))
    program = torch.compile(lambda i: expect_indices("index", i, 3) or i, backend="eager", fullgraph=True)
    assert program(torch.tensor([7])).item() == 7


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (torch.tensor([0, 3]), "index is expected to hold numbers from 0 to 2, got 0 to 3"),
        (torch.tensor([-1, 1]), "got -1 to 1"),
        (torch.tensor([0.0]), "index is expected to hold integers, got torch.float32"),
        (torch.tensor([True]), "got torch.bool"),
    ],
)
def test_says_what_it_expected(index, words):
    with pytest.raises(ValueError, match=words):
        expect_indices("index", index, 3)
