"""equitorch/layers/tensor_products.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import ElementwiseTensorProduct, FullTensorProduct, FullyConnectedTensorProduct
from equitorch.reps import Irreps, common_channels, rows_of
from equitorch.testing import assert_equivariant

irrep = st.tuples(st.integers(0, 2), st.sampled_from([1, -1]))
irreps = st.lists(st.tuples(st.integers(0, 4), irrep), min_size=1, max_size=3)
rules = st.sampled_from(["component", "norm", "none"])


@pytest.fixture
def o3():
    """e3nn, with its constants in float64."""
    module = pytest.importorskip("e3nn.o3")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield module
    torch.set_default_dtype(before)


def agree(ours, theirs):
    assert repr(ours.irreps_out) == repr(theirs.irreps_out)
    assert [path[:5] for path in ours.instructions] == [tuple(path[:5]) for path in theirs.instructions]
    if theirs.weight_numel:
        ours.load_state_dict(theirs.state_dict())
    x, y = (torch.randn(3, own.dim) for own in (ours.irreps_in1, ours.irreps_in2))
    torch.testing.assert_close(ours(x, y), theirs(x, y), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore")
def test_are_those_of_e3nn(o3):
    @given(irreps, irreps, irreps, rules, st.sampled_from(["element", "path", "none"]))
    def check(one, two, out, rule, path):
        agree(
            FullyConnectedTensorProduct(one, two, out, rule, path, layout="e3nn"),
            o3.FullyConnectedTensorProduct(one, two, out, rule, path),
        )
        kept = None if rule == "norm" else ["0e", "1o", "1e"]
        agree(
            FullTensorProduct(one, two, kept, rule, layout="e3nn"),
            o3.FullTensorProduct(one, two, kept, rule),
        )
        first, second = Irreps(one).num_irreps, Irreps(two).num_irreps
        one, two = [*one, (second, (1, 1))], [(first, (1, -1)), *two]  # equally many
        agree(
            ElementwiseTensorProduct(one, two, kept, rule, layout="e3nn"),
            o3.ElementwiseTensorProduct(one, two, kept, rule),
        )

    check()


def test_full_product_of_vectors_is_their_dyad():
    """An answer known without any library: all nine products, in an orthogonal basis."""
    x, y = torch.randn(2, 5, 3, 1, dtype=torch.float64)
    z = FullTensorProduct("1o", "1o").double()(x, y)
    torch.testing.assert_close(z.square().sum(1), (x * y.mT).square().sum((1, 2))[:, None])
    torch.testing.assert_close(z[:, 0], (x * y).sum(1) / 3**0.5)


def test_elementwise_product_splits_blocks():
    product = ElementwiseTensorProduct("3x0e+1x1o", "2x1o+2x0e")
    assert repr((product.irreps_in1, product.irreps_in2)) == "(2x0e+1x0e+1x1o, 2x1o+1x0e+1x0e)"


@pytest.mark.parametrize("kind", [FullTensorProduct, FullyConnectedTensorProduct])
def test_commute_with_every_rotation_and_mirror(kind):
    one, two = "3x0e+3x1o", "2x1e+2x0o"
    product = kind(one, two, *(["2x1o+1x2o+0o"] if kind is FullyConnectedTensorProduct else [])).double()
    rows = [rows_of(own) for own in (one, two, product.irreps_out)]
    assert_equivariant(product, rows[:2], rows[2], channels=[common_channels(one), common_channels(two)])


def test_the_check_can_fail():
    product = FullTensorProduct("1o", "1o").double()
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(product, ["1o", "1o"], "0e+1o+2e", channels=1)


def test_say_what_they_expected():
    with pytest.raises(ValueError, match=r"expects equally many irreps, got 2 of '2x0e' and 3 of '3x1o'"):
        ElementwiseTensorProduct("2x0e", "3x1o")
    with pytest.raises(ValueError, match=r"cannot read '3q' as an irrep"):
        FullTensorProduct("2x0e", "3x1o", ["3q"])
