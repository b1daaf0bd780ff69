"""equitorch/layers/tensor_square.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import TensorSquare
from equitorch.reps import Irreps, common_channels, rows_of
from equitorch.testing import assert_equivariant
from tests.layers.test_tensor_product import derivatives
from tests.layers.test_tensor_products import irreps, o3, rules  # noqa: F401 (a fixture)
from tests.strategies import seeds


@pytest.mark.filterwarnings("ignore")
def test_is_that_of_e3nn(o3):  # noqa: F811
    @given(irreps, st.sampled_from([None, ["0e", "1e", "2e"], "2x0e+1o+3x1e+2e"]), rules, seeds)
    def check(own, wanted, rule, seed):
        out, kept = (wanted, None) if isinstance(wanted, str) else (None, wanted)
        theirs = o3.TensorSquare(own, out, kept, rule)
        ours = TensorSquare(own, out, kept, rule, layout="e3nn")
        assert repr(ours.irreps_out) == repr(theirs.irreps_out)
        assert [path[:5] for path in ours.instructions] == [tuple(path[:5]) for path in theirs.instructions]
        if theirs.weight_numel:
            ours.load_state_dict(theirs.state_dict())
        x = [torch.randn(3, ours.irreps_in.dim, requires_grad=True)]
        for a, b in zip(derivatives(ours, x, seed), derivatives(theirs, x, seed), strict=False):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)

    check()


def test_means_the_square_of_a_vector():
    """An answer known without any library: its squared length, over the root of 3 * 5."""
    x = torch.randn(5, 3, 1, dtype=torch.float64)
    square = TensorSquare("1o", filter_ir_out=["0e"]).double()
    torch.testing.assert_close(square(x).flatten(), x.square().sum(1).flatten() / 15**0.5)


@pytest.mark.parametrize("rule", ["component", "norm"])
def test_normalises_for_equal_operands(rule):
    """Unit variance of each component, or of each norm, after squaring."""
    torch.manual_seed(0)
    own = Irreps("4x1o+4x2e")
    square = TensorSquare(own, irrep_normalization=rule, layout="e3nn").double()
    x = own.randn(20000, -1, normalization=rule, dtype=torch.float64)
    for (_, ir), block in zip(
        square.irreps_out, square(x).split([e.dim for e in square.irreps_out], 1), strict=True
    ):
        second_moment = block.square().mean() * (ir.dim if rule == "norm" else 1)
        assert second_moment.item() == pytest.approx(1, rel=0.35)


@pytest.mark.parametrize("out", [None, "2x0e+2x1e+2x2e+4x1o"])
def test_commutes_with_every_rotation_and_mirror(out):
    square = TensorSquare("3x0e+3x1o", out).double()
    own, result = "3x0e+3x1o", square.irreps_out
    assert_equivariant(square, [rows_of(own)], rows_of(result), channels=common_channels(own))


def test_the_check_can_fail():
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(TensorSquare("1o").double(), ["1o"], "0o+2e", channels=1)


def test_prints_what_it_does():
    assert repr(TensorSquare("2x1o", "0e", irrep_normalization="norm")) == (
        "TensorSquare(2x1o -> 1x0e | 3 paths | 3 weights | norm, element)"
    )


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="TensorSquare expects irreps_out or filter_ir_out, got both"):
        TensorSquare("1o", "0e", ["0e"])
    with pytest.raises(ValueError, match=r"irrep_normalization of component, norm or none, got 'L2'"):
        TensorSquare("1o", irrep_normalization="L2")
