"""equitorch/interop/cuequivariance.py: against stored numbers of cuEquivariance 0.13, and against itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equitorch.interop.cuequivariance import (
    angles_to_cuequivariance,
    channel_wise,
    features_from_cuequivariance,
    features_to_cuequivariance,
    from_cuequivariance_irreps,
    sort_irreps,
    to_cuequivariance_irreps,
)
from equitorch.interop.cuequivariance_modules import from_cuequivariance
from equitorch.layers import TensorProduct
from equitorch.reps import Irreps
from equitorch.reps.rotation import angles_to_matrix
from tests.strategies import irreps, irreps_without_parity, seeds

few = settings(max_examples=10)
LAYOUTS = st.sampled_from(["ir_mul", "mul_ir"])


@pytest.fixture
def cue():
    pytest.importorskip("cuequivariance_torch")
    return pytest.importorskip("cuequivariance")


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def product_of(spec1, spec2, kept=None):
    """A channelwise product on flat features (mul_ir), with weights in cuEquivariance's order."""
    found = channel_wise(spec1, spec2, kept)
    return found, TensorProduct(spec1, spec2, found.irreps_out, found.instructions, layout="e3nn")


def test_has_the_stored_numbers_of_a_channel_wise_product():
    found, product = product_of("2x0e+1o", "0e+1o", "0e+0o+1o+1e")
    x, y = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0]), torch.arange(2.0, 6.0)
    z = product(x, y, torch.arange(1.0, 1.0 + product.weight_numel))
    assert repr(found.irreps_out) == "2x0e+1x0e+2x1o+1x1o+1x1e"
    torch.testing.assert_close(
        z,
        torch.tensor(
            [
                2.0,
                8.0,
                39.837168574084,
                12.0,
                16.0,
                20.0,
                30.0,
                40.0,
                50.0,
                36.0,
                12.0,
                24.0,
                -14.849242404918,
                -44.547727214752,
                44.547727214752,
            ]
        ),
    )


def test_reorders_weights_both_ways():
    found, product = product_of("2x0e+3x1o", "0e+1o")
    by_input = TensorProduct("2x0e+3x1o", "0e+1o", found.irreps_out, found.input_order, layout="e3nn")
    weight, x, y = torch.randn(product.weight_numel), torch.randn(4, 11), torch.randn(4, 4)
    torch.testing.assert_close(by_input(x, y, weight[found.to_input_order]), product(x, y, weight))
    assert torch.equal(weight[found.to_input_order][found.from_input_order], weight)


@given(irreps | irreps_without_parity, LAYOUTS, seeds)
def test_features_go_both_ways(spec, layout, seed):
    torch.manual_seed(seed)
    x = torch.randn(3, spec.dim)
    rows = features_from_cuequivariance(x, spec, layout=layout)
    assert torch.equal(features_to_cuequivariance(rows, spec, layout=layout), x)


def test_equal_multiplicities_are_a_view():
    x = torch.randn(3, 4 * 8)
    assert features_from_cuequivariance(x, "8x0e+8x1o").data_ptr() == x.data_ptr()


@given(irreps | irreps_without_parity)
def test_irreps_go_both_ways_and_sort_alike(spec):
    pytest.importorskip("cuequivariance")
    theirs = to_cuequivariance_irreps(spec)
    assert from_cuequivariance_irreps(theirs) == spec
    ours, sort = sort_irreps(spec), theirs.sort()
    assert from_cuequivariance_irreps(sort.irreps) == ours.irreps
    assert (sort.perm, sort.inv) == (ours.p, ours.inv)


def agree(theirs, *xs, **options):
    """Values and first derivatives, of inputs and weights."""
    ours = from_cuequivariance(theirs)
    results = []
    for module in (ours, theirs):
        inputs = [x.clone().requires_grad_() for x in xs]
        y = module(*inputs, **options)
        variables = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
        results.append([y, *torch.autograd.grad(y.sin().sum(), variables, materialize_grads=True)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    return ours


def positive(spec):
    return spec.remove_zero_multiplicities()


@few
@given(irreps.map(positive), irreps.map(positive), LAYOUTS, LAYOUTS, st.integers(1, 3), seeds)
def test_linear(one, two, layout_in, layout_out, classes, seed):
    cuet = pytest.importorskip("cuequivariance_torch")
    torch.manual_seed(seed)
    irreps_in, irreps_out = map(to_cuequivariance_irreps, (one, two + one))
    options = {
        "layout_in": layout_in,
        "layout_out": layout_out,
        "weight_classes": classes,
        "dtype": torch.float64,
        "method": "naive",
    }
    theirs = cuet.Linear(irreps_in, irreps_out, **options)
    index = {"weight_indices": torch.randint(0, classes, (5,))} if classes > 1 else {}
    agree(theirs, torch.randn(5, one.dim), **index)
    for shared in (True, False) if classes == 1 else ():
        theirs = cuet.Linear(irreps_in, irreps_out, internal_weights=False, shared_weights=shared, **options)
        agree(theirs, torch.randn(5, one.dim), torch.randn(1 if shared else 5, theirs.weight_numel))


@few
@given(irreps.map(positive), irreps.map(positive), LAYOUTS, LAYOUTS, LAYOUTS, st.booleans(), seeds)
def test_products(one, two, first, second, out, shared, seed):
    cuet = pytest.importorskip("cuequivariance_torch")
    torch.manual_seed(seed)
    irreps_in = [to_cuequivariance_irreps(spec) for spec in (one, two)]
    options = {"layout_in1": first, "layout_in2": second, "layout_out": out, "shared_weights": shared}
    options |= {"dtype": torch.float64, "method": "naive"}
    spec = channel_wise(one, two).irreps_out
    kept = [entry.ir for entry in to_cuequivariance_irreps(spec)][:2]
    xs = [torch.randn(3, one.dim), torch.randn(3, two.dim)]
    for theirs in (
        cuet.FullyConnectedTensorProduct(*irreps_in, to_cuequivariance_irreps(spec[:3]), **options),
        cuet.ChannelWiseTensorProduct(*irreps_in, **options),
        cuet.ChannelWiseTensorProduct(*irreps_in, kept, **options),
    ):
        agree(theirs, *xs, *([] if shared else [torch.randn(3, theirs.weight_numel)]))


def test_products_gather_and_scatter(cue):
    import cuequivariance_torch as cuet

    torch.manual_seed(0)
    spec = [cue.Irreps("O3", "2x0e+2x1o"), cue.Irreps("O3", "0e+1o")]
    theirs = cuet.ChannelWiseTensorProduct(
        *spec, layout=cue.ir_mul, shared_weights=False, dtype=torch.float64, method="naive"
    )
    options = {
        "indices_1": torch.tensor([1, 0, 1, 2]),
        "indices_out": torch.tensor([0, 0, 3, 1]),
        "size_out": 5,
    }
    agree(theirs, torch.randn(3, 8), torch.randn(4, 4), torch.randn(4, theirs.weight_numel), **options)


def test_outputs_sort_as_the_group_says(cue):
    import cuequivariance_torch as cuet
    from cuequivariance.group_theory.experimental.e3nn import O3_e3nn

    spec = [cue.Irreps(O3_e3nn, "2x0e+2x1o+0o"), cue.Irreps(O3_e3nn, "0e+1o")]
    theirs = cuet.ChannelWiseTensorProduct(*spec, layout=cue.ir_mul, dtype=torch.float64, method="naive")
    ours = agree(theirs, torch.randn(3, 9), torch.randn(3, 4))
    assert ours.irreps_out == ours.irreps_out.sort().irreps


def test_rotation_takes_gamma_first(cue):
    import cuequivariance_torch as cuet

    angles, spec = torch.rand(3, 5), Irreps("2x0e+1o+2e")
    rotate = cuet.Rotation(to_cuequivariance_irreps(spec), layout=cue.mul_ir, method="naive")
    x = torch.randn(5, spec.dim)
    expected = (spec.matrix(angles_to_matrix(*angles)) @ x[..., None]).squeeze(-1)
    torch.testing.assert_close(rotate(*angles_to_cuequivariance(*angles), x), expected)


def test_the_check_can_fail():
    """Weights in the order of the inputs give something else, or the order would not matter."""
    found, product = product_of("2x0e+1o", "0e+1o")
    weight, x, y = torch.arange(1.0, 1.0 + product.weight_numel), torch.ones(5), torch.ones(4)
    assert not torch.allclose(product(x, y, weight[found.to_input_order]), product(x, y, weight))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="ir_mul or mul_ir, got 'rows'"):
        features_from_cuequivariance(torch.zeros(1), "0e", layout="rows")
    with pytest.raises(ValueError, match=r"of cuequivariance_torch, got torch\.nn\.modules\.linear\.Linear"):
        from_cuequivariance(torch.nn.Linear(1, 1))


def test_says_whether_weights_are_missing(cue):
    import cuequivariance_torch as cuet

    spec = cue.Irreps("O3", "2x0e")
    own = cuet.Linear(spec, spec, layout=cue.ir_mul, dtype=torch.float64)
    ours = from_cuequivariance(own)
    with pytest.raises(ValueError, match="has weights of its own: it expects weight of None"):
        ours(torch.zeros(1, 2), torch.zeros(1, 4))
    ours.weight = None
    with pytest.raises(ValueError, match="has no weights of its own: it expects weight to be given"):
        ours(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="expected to be of O3 or SO3, got another group"):
        from_cuequivariance_irreps(cue.Irreps("SU2", "1/2"))
