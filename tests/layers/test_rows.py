"""equitorch/layers/rows.py"""

import pytest
import torch
from hypothesis import given

from equitorch.layers.rows import expect_rows, scale_irreps, shift_scalars
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant, equivariance_error
from tests.strategies import irreps, seeds


def test_scales_each_irrep_by_its_own_factor():
    spec = Irreps("0e+2x1o+0x2e+2x0e")
    x, f = torch.randn(2, 9, 3), torch.randn(2, 5, 3)
    index = torch.tensor([0, 1, 1, 1, 2, 2, 2, 3, 4])
    torch.testing.assert_close(scale_irreps(spec, x, f), x * f[:, index])


def test_shifts_the_invariant_rows():
    spec = Irreps("0o+2x0e+1o+0e")
    x, shift = torch.randn(2, 7, 3), torch.randn(3, 3)
    expected = x.clone()
    expected[:, [1, 2, 6]] += shift
    torch.testing.assert_close(shift_scalars(spec, x, shift), expected)


@given(irreps, seeds)
def test_commutes_with_every_rotation_and_mirror(spec, seed):
    torch.manual_seed(seed)
    factor = torch.randn(spec.num_irreps, 4, dtype=torch.float64)
    shift = torch.randn(spec.count("0e"), 4, dtype=torch.float64)
    assert_equivariant(lambda x: scale_irreps(spec, x, factor), [spec], spec)
    assert_equivariant(lambda x: shift_scalars(spec, x, shift), [spec], spec)


def test_the_check_can_fail():
    assert equivariance_error(lambda x: x + 1, ["0e+1o"], "0e+1o") > 0.1


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"Gate\(1x0e\+1x1o\) expects x of shape \(\.\.\., 4, 8\), got \(4,\)"
    ):
        expect_rows("Gate", Irreps("0e+1o"), torch.zeros(4), 8)
