"""equitorch/layers/linear.py"""

import copy

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from equitorch.layers import Linear
from equitorch.ops.backend import use_reference
from equitorch.reps import Irreps, intertwiners
from equitorch.testing import assert_equivariant
from tests.strategies import irreps

CASES = [
    ("0e+1o+2e", None),
    ("0e+0o+1e+1o", None),
    ("1o+2x0e+1o", None),
    ("16x0e+8x1o", "4x1o+3x0e"),
    ("0e+1o", "2x2e+1o+0e+0o+1o"),
    ("0x1o+2x0e", "0e+0x2e"),
    ("1e", "2o"),
    ("2x0+1+0", "1+0+2"),
]


def randomised(layer):
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias)
    return layer.double()


def e3nn_flat(irreps, x):
    """Rows and channels to e3nn's flat layout: copies times channels make the multiplicity."""
    blocks = x.split([mul * ir.dim for mul, ir in irreps], dim=-2)
    flat = [
        block.unflatten(-2, (mul, ir.dim)).transpose(-1, -2).flatten(-3)
        for (mul, ir), block in zip(irreps, blocks, strict=True)
        if mul
    ]
    return torch.cat(flat, dim=-1)


def e3nn_irreps(irreps, channels):
    return "+".join(f"{mul * channels}x{ir}" for mul, ir in irreps)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("spec", "out"), CASES)
def test_commutes_with_every_rotation_and_mirror(spec, out, bias):
    layer = randomised(Linear(spec, 3, 5, irreps_out=out, bias=bias))
    assert_equivariant(layer, [layer.irreps_in], layer.irreps_out, channels=3)


@pytest.mark.parametrize(("spec", "out"), CASES)
def test_is_every_map_that_commutes(spec, out):
    layer = Linear(spec, 1, 1, irreps_out=out)
    assert layer.weight.numel() == len(intertwiners(layer.irreps_in, layer.irreps_out))


@example(Irreps("0e+0x1o+2x2o"), Irreps("0x0e+3x1o+0e"), "path")  # no copies on one side
@given(irreps, irreps, st.sampled_from(["element", "path"]))
def test_agrees_with_e3nn_and_takes_its_weights(spec, out, path_normalization):
    o3 = pytest.importorskip("e3nn.o3")
    assume(all(ir in spec.copies for ir in out.copies if ir.is_scalar()))  # e3nn fails on a bias alone
    ours = Linear(spec, 3, 5, irreps_out=out, path_normalization=path_normalization).double()
    theirs = o3.Linear(
        e3nn_irreps(ours.irreps_in, 3),
        e3nn_irreps(ours.irreps_out, 5),
        biases=True,
        path_normalization=path_normalization,
    ).double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_e3nn(theirs.weight, theirs.bias)
    assert torch.equal(ours.e3nn_weight(), theirs.weight.data)
    x = torch.randn(7, ours.irreps_in.dim, 3, dtype=torch.float64)
    expected = theirs(e3nn_flat(ours.irreps_in, x))
    torch.testing.assert_close(e3nn_flat(ours.irreps_out, ours(x)), expected, rtol=1e-13, atol=1e-13)


def test_loads_the_state_of_e3nn_as_it_is():
    o3 = pytest.importorskip("e3nn.o3")
    theirs, ours = (
        o3.Linear("8x0e+8x1o", "16x0e+8x1o", biases=True),
        Linear("0e+1o", 8, 8, irreps_out="2x0e+1o"),
    )
    ours.load_state_dict(
        {name: value for name, value in theirs.state_dict().items() if name in ("weight", "bias")}
    )
    x = torch.randn(3, 4, 8)
    torch.testing.assert_close(e3nn_flat(ours.irreps_out, ours(x)), theirs(e3nn_flat(ours.irreps_in, x)))


@pytest.mark.parametrize(("spec", "out"), [case for case in CASES if case != ("1e", "2o")])
def test_keeps_unit_variance(spec, out):
    torch.manual_seed(0)
    layer = Linear(spec, 128, 64, irreps_out=out)
    y = layer(torch.randn(64, layer.irreps_in.dim, 128))
    reached = torch.cat([layer.irreps_out.rows(ir) for ir in set(layer.irreps_in.copies)])
    assert y[:, reached].var().item() == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("spec", ["1o+2x0e+1o+2e", "0+1+2"])
@pytest.mark.parametrize("points", [0, 1, 33, 70])
def test_chooses_a_map_for_each_species(spec, points):
    torch.manual_seed(0)
    layer = randomised(Linear(spec, 3, 4, irreps_out="2x0e+1o" if "o" in spec else None, species=3))
    x = torch.randn(points, layer.irreps_in.dim, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 3, (points,)) * (points != 33)  # with 33 points, one species has all
    y = layer(x, index)
    expected = torch.zeros_like(y)
    for s in range(3):
        single = Linear(spec, 3, 4, irreps_out=layer.irreps_out).double()
        single.weight.data.copy_(layer.weight.data[s])
        if single.bias is not None:
            single.bias.data.copy_(layer.bias.data[s])
        expected = torch.where((index == s)[:, None, None], single(x), expected)
    torch.testing.assert_close(y, expected)
    with use_reference():  # the way of other devices and of compiled programs
        torch.testing.assert_close(layer(x, index), expected)
    if points:
        assert_equivariant(
            lambda rows: layer(rows, index[:5] * 0),
            [spec],
            layer.irreps_out,
            channels=3,
            batch=(len(index[:5]),),
        )


def test_choosing_maps_compiles_to_one_graph():
    layer, x = Linear("0e+1o", 3, 4, species=3), torch.randn(40, 4, 3)
    index = torch.randint(0, 3, (40,))
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x, index), layer(x, index))


def test_species_have_right_derivatives():
    layer, index = Linear("2x0e+1o", 2, 2, species=2).double(), torch.tensor([1, 0, 1])
    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)

    def of(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x, index))

    def by_reference(x, weight):
        with use_reference():
            return of(x, weight)

    for function in (of, by_reference):
        assert torch.autograd.gradcheck(function, (x, layer.weight))
        assert torch.autograd.gradgradcheck(function, (x, layer.weight))


@pytest.mark.parametrize(("spec", "out"), CASES)
def test_compiles_to_one_graph(spec, out):
    layer = randomised(Linear(spec, 3, 4, irreps_out=out))
    x = torch.randn(2, 3, layer.irreps_in.dim, 3, dtype=torch.float64, requires_grad=True)
    torch.compiler.reset()  # one forward, many layouts: more than Dynamo keeps at a time
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x), layer(x))
    (compiled,) = torch.autograd.grad(whole(x).square().sum(), x)
    (eager,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(compiled, eager)
    with use_reference():
        torch.testing.assert_close(layer(x), whole(x))


def test_has_right_derivatives():
    layer = randomised(Linear("1o+2x0e+1o", 2, 2, irreps_out="0e+2x1o+0e"))
    x = torch.randn(2, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_scale_keeps_its_digits_through_dtypes():
    layer = Linear("2x0e+0e+0e", 3, 3, path_normalization="path").float().double()
    assert torch.equal(layer.scale.value, layer.scale.exact)
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    assert torch.equal(twin(x), layer(x))
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("spec", ["1o", "0o"])
def test_the_check_can_fail(spec):
    """A bias on a vector or a pseudoscalar must be caught, or the first test proves nothing."""
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x: x + 1, [Irreps(spec)], Irreps(spec))


def test_says_what_it_expected():
    with pytest.raises(
        ValueError,
        match=r"Linear\(1x0e\+1x1o, 8 -> 16\) expects x of shape \(\.\.\., 4, 8\), got \(10, 3, 8\)",
    ):
        Linear("0e+1o", 8, 16)(torch.randn(10, 3, 8))
    with pytest.raises(ValueError, match=r"species=2\) expects an index of shape \(10,\), got none"):
        Linear("0e", 1, 1, species=2)(torch.randn(10, 1, 1))
    with pytest.raises(ValueError, match=r"expects no index, got one of shape \(10,\)"):
        Linear("0e", 1, 1)(torch.randn(10, 1, 1), torch.zeros(10, dtype=torch.long))
    with pytest.raises(ValueError, match=r"expects weights of shape \(2,\), got \(3,\)"):
        Linear("0e+1o", 1, 1).load_e3nn(torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_another_dtype_is_refused_by_name(dtype):
    layer = Linear("0e+1o", 4, 8)
    with pytest.raises(ValueError, match=rf"Linear\(.*4 -> 8\) expects .*torch.float32, got {dtype}"):
        layer(torch.ones(3, 4, 4).to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.ones(3, 4, 4).bfloat16())


@pytest.mark.parametrize("channels", [(-1, 8), (8, -1), (8.0, 8), (True, 8)])
def test_channels_are_whole_numbers(channels):
    with pytest.raises(ValueError, match=r"Linear expects channels_(in|out) to be a whole number >= 0, got"):
        Linear("0e", *channels)


@pytest.mark.parametrize("arguments", [("16x0e",), ("16x0e", 8), (8, Irreps("16x0e")), (8,)])
def test_irreps_in_place_of_channels_are_explained(arguments):
    with pytest.raises(ValueError, match=r"to be a number of channels, got .*irreps_out.*channels"):
        Linear("16x0e", *arguments)
