"""Every layer under everything that PyTorch does to a module: one line a layer, one test a transformation."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from equitorch import layers
from equitorch.layers import normalize2mom

IRREPS = "2x0e+0o+0x2o+1o+2x1e+2e"  # 17 rows
SPHERE = "0e+1o+2e"


class Case(NamedTuple):
    """A layer, the shape of one point of its input, or of each input, and what it cannot do."""

    make: Callable[[], nn.Module]
    point: tuple[int, ...] | list[tuple[int, ...]]
    mixes_points: bool = False  # one point's result depends on the others


class OneSpecies(nn.Module):
    """A layer whose second argument says which species each point is of."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, torch.zeros(x.shape[:-2], dtype=torch.int64, device=x.device))


CASES = {
    "Activation": Case(lambda: layers.Activation("2x0e+0o+1o", ["silu", torch.tanh, None]), (6, 3)),
    "BatchNorm, training": Case(lambda: layers.BatchNorm(IRREPS, 3), (17, 3), mixes_points=True),
    "BatchNorm, evaluation": Case(lambda: layers.BatchNorm(IRREPS, 3).eval(), (17, 3)),
    "BatchNorm, instance": Case(
        lambda: layers.BatchNorm(IRREPS, 3, instance=True), (17, 3), mixes_points=True
    ),
    "DiagramLinear": Case(lambda: layers.DiagramLinear.power("S", 3, 2, 2, 3, 4), (9, 3)),
    "DiagramLinear, rotations": Case(
        lambda: layers.DiagramLinear.power("SO", 3, 2, 1, 3, 4, mixing="depthwise"), (9, 3)
    ),
    "Dropout": Case(lambda: layers.Dropout(IRREPS, 0.5).eval(), (17, 3)),
    "ExtractIr": Case(lambda: layers.ExtractIr(IRREPS, "1e"), (17, 3)),
    "FeedForward": Case(lambda: layers.FeedForward(2, 3, 4), (9, 3)),
    "FeedForward, grid": Case(
        lambda: layers.FeedForward(2, 3, 4, kind="separable_grid", exact=False), (9, 3)
    ),
    "FeedForward, product": Case(lambda: layers.FeedForward(2, 3, 4, kind="product"), (9, 3)),
    "FromS2Grid": Case(lambda: layers.FromS2Grid((8, 7), 2), (8, 7, 3)),
    "FullyConnectedNet": Case(lambda: layers.FullyConnectedNet([4, 5, 2], "silu"), (4,)),
    "Gate": Case(lambda: layers.Gate("0e+0o", ["silu", torch.tanh], "3x0e", ["sigmoid"], "2x1o+2e"), (16, 3)),
    "GatedRows": Case(lambda: layers.GatedRows(3, 2, 2), [(14, 2), (6,)]),
    "GatedRows, both": Case(lambda: layers.GatedRows(2, 2, (2, 1), parity="both"), [(9, 3), (7,)]),
    "GauntManyBody": Case(lambda: OneSpecies(layers.GauntManyBody(2, 1, 3)), (9, 3)),
    "GauntManyBody, rank 1": Case(lambda: OneSpecies(layers.GauntManyBody(2, 1, 3, rank=1)), (9, 3)),
    "GauntSO2Convolution": Case(lambda: layers.GauntSO2Convolution(2, 3, 3, 4, parity="so3"), (9, 3)),
    "GauntSelfInteraction": Case(lambda: layers.GauntSelfInteraction(2, 3, rank=2), (9, 3)),
    "GauntSelfmix": Case(lambda: layers.GauntSelfmix(2, (3, 2), parity="both"), (9, 5)),
    "GauntTensorProduct": Case(lambda: layers.GauntTensorProduct(2, 1, 2, 3), [(9, 3), (4, 3)]),
    "GauntTensorProduct, full": Case(
        lambda: layers.GauntTensorProduct(1, 2, 1, 3, "full", 2), [(8, 3), (18, 3)]
    ),
    "GauntTensorProduct, odd": Case(
        lambda: layers.GauntTensorProduct(2, 1, 2, 3, "odd", 2), [(9, 3), (4, 3)]
    ),
    "GridMLP": Case(lambda: layers.GridMLP(1, 3, 4, exact=False), (4, 3)),
    "Identity": Case(lambda: layers.Identity("0e+0e+1o", "2x0e+1o"), (5, 3)),
    "LayerNorm": Case(lambda: layers.LayerNorm(IRREPS, 3), (17, 3)),
    "Linear": Case(lambda: layers.Linear(IRREPS, 3, 4, irreps_out="1e+0e+2e+1o+0e"), (17, 3)),
    "MLP": Case(lambda: layers.MLP([4, 5, 2]), (4,)),
    "Norm": Case(lambda: layers.Norm(IRREPS), (17, 3)),
    "Norm, squared": Case(lambda: layers.Norm(IRREPS, squared=True), (17, 3)),
    "NormActivation": Case(lambda: layers.NormActivation(IRREPS, torch.tanh, bias=True, channels=3), (17, 3)),
    "NormActivation, plain": Case(lambda: layers.NormActivation(IRREPS, torch.sigmoid, False), (17, 3)),
    "RMSNorm": Case(lambda: layers.RMSNorm(IRREPS, 3), (17, 3)),
    "S2Activation": Case(lambda: layers.S2Activation(SPHERE, torch.tanh, (8, 7), lmax_out=1), (9, 3)),
    "SO3Activation": Case(lambda: layers.SO3Activation(1, 1, torch.tanh, 2), (10, 3)),
    "RadialMLP": Case(lambda: layers.RadialMLP(4, 5, 2), (4,)),
    "SeparableLayerNorm": Case(lambda: layers.SeparableLayerNorm(IRREPS, 3), (17, 3)),
    "SmoothLeakyReLU": Case(lambda: layers.SmoothLeakyReLU(), (4,)),
    "SphereProduct": Case(lambda: layers.SphereProduct(layers.RowGrid.exact(3, 1), 2), [(10, 4), (6,)]),
    "SphereSiLU": Case(lambda: layers.SphereSiLU(layers.RowGrid.published(2), 2), (9, 2)),
    "SphericalHarmonics": Case(lambda: layers.SphericalHarmonics("0e+2e+1o", True), (3,)),
    "SphericalHarmonics, polynomials": Case(lambda: layers.SphericalHarmonics(2, False), (3,)),
    "TensorProduct": Case(
        lambda: layers.TensorProduct(
            "3x0e+3x1o", "2x1o", "3x1o+3x1e", [(0, 0, 0, "uvu", True), (1, 0, 1, "uvu", True)]
        ),
        [(4, 3), (3, 2)],
    ),
    "TensorProduct, fully connected": Case(
        lambda: layers.FullyConnectedTensorProduct("6x0e+3x1o", "2x0e+2x1o", "3x0e+6x1o"), [(5, 3), (4, 2)]
    ),
    "TensorSquare": Case(lambda: layers.TensorSquare("3x0e+3x1o"), (4, 3)),
    "ToS2Grid": Case(lambda: layers.ToS2Grid(2, (8, 7)), (9, 3)),
    "normalize2mom": Case(lambda: normalize2mom(torch.tanh), (4,)),
}
INDEPENDENT = [name for name, case in CASES.items() if not case.mixes_points]


def built(name: str) -> tuple[nn.Module, Callable[..., list[Tensor]]]:
    """The layer in float64, and what makes random inputs for it."""
    torch.manual_seed(0)
    case = CASES[name]
    layer = case.make().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    points = case.point if isinstance(case.point, list) else [case.point]
    return layer, lambda *batch: [torch.randn(*batch, *point, dtype=torch.float64) for point in points]


def tracked(xs: list[Tensor]) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in xs]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_takes_any_leading_axes(name):
    layer, inputs = built(name)
    xs = inputs(2, 3)
    y = layer(*xs)
    torch.testing.assert_close(layer(*[x.flatten(0, 1) for x in xs]), y.flatten(0, 1))
    torch.testing.assert_close(torch.stack([layer(*parts) for parts in zip(*xs, strict=True)]), y)
    torch.testing.assert_close(layer(*[x[1:, 2:] for x in xs])[0, 0], y[1, 2])


@pytest.mark.parametrize("name", CASES)
def test_takes_an_empty_batch(name):
    layer, inputs = built(name)
    shape = layer(*inputs(2)).shape[1:]
    for batch in ((0,), (0, 2), (2, 0)):
        xs = tracked(inputs(*batch))
        y = layer(*xs)
        assert y.shape == (*batch, *shape)
        gradients = torch.autograd.grad(y.sum(), xs)
        assert [g.shape for g in gradients] == [x.shape for x in xs]
    assert all(torch.isfinite(value).all() for value in layer.state_dict().values())


@pytest.mark.parametrize("name", CASES)
def test_takes_strided_inputs_and_leaves_them_alone(name):
    layer, inputs = built(name)
    xs = inputs(4)
    strided = [torch.stack([x, x + 1], dim=-1)[..., 0] for x in xs]
    other, _ = built(name)
    torch.testing.assert_close(layer(*strided), other(*xs))
    assert all(torch.equal(a, b) for a, b in zip(strided, xs, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_compiles_to_one_graph_with_its_gradients(name):
    layer, inputs = built(name)
    other, _ = built(name)
    xs = tracked(inputs(3))
    whole = torch.compile(other, fullgraph=True, backend="aot_eager")
    y, z = layer(*xs), whole(*xs)
    torch.testing.assert_close(z, y)
    wanted = [*xs, *layer.parameters()], [*xs, *other.parameters()]
    first, second = (torch.autograd.grad(out.sin().sum(), w) for out, w in zip((y, z), wanted, strict=True))
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("name", CASES)
def test_exports_with_any_batch_size(name):
    layer, inputs = built(name)
    layer.eval()
    xs, batch = inputs(3), torch.export.Dim("n", min=2)
    sizes = tuple({0: batch} for _ in xs)
    program = torch.export.export(layer, tuple(xs), dynamic_shapes=sizes)
    xs = inputs(5)
    torch.testing.assert_close(program.module()(*xs), layer(*xs))


@pytest.mark.parametrize("name", INDEPENDENT)
def test_maps_and_differentiates_by_torch_func(name):
    layer, inputs = built(name)
    xs = inputs(3)
    y = layer(*xs)
    torch.testing.assert_close(torch.func.vmap(layer)(*[x[:, None] for x in xs])[:, 0], y)
    slots = tuple(range(len(xs)))
    one = torch.func.jacrev(lambda *parts: layer(*[part[None] for part in parts])[0], argnums=slots)
    by_vjp = torch.autograd.functional.vjp(layer, tuple(xs), torch.ones_like(y))[1]
    for jacobian, expected in zip(torch.func.vmap(one)(*xs), by_vjp, strict=True):
        outer = tuple(range(1, y.ndim))
        torch.testing.assert_close(jacobian.sum(outer), expected)


@pytest.mark.parametrize("name", CASES)
def test_has_right_first_and_second_derivatives(name):
    layer, inputs = built(name)
    layer.eval()
    xs = tracked(inputs(2))
    assert torch.autograd.gradcheck(layer, xs, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, xs, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_has_finite_derivatives_at_zero(name):
    layer, inputs = built(name)
    xs = tracked([torch.zeros_like(x) for x in inputs(3)])
    wanted = [*xs, *layer.parameters()]
    first = torch.autograd.grad(
        layer(*xs).square().sum() + layer(*xs).sum(), wanted, create_graph=True, materialize_grads=True
    )
    total = sum(g.square().sum() for g in first) + sum(x.sum() for x in xs)
    second = torch.autograd.grad(total, wanted, materialize_grads=True)
    assert all(torch.isfinite(g).all() for g in (*first, *second))


@pytest.mark.parametrize("name", CASES)
def test_survives_copies_files_and_dtypes(name):
    layer, inputs = built(name)
    xs = inputs(3)
    layer.eval()
    y = layer(*xs)
    for again in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer).float().double(),
    ):
        torch.testing.assert_close(again(*xs), y, rtol=1e-6, atol=1e-6)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = CASES[name].make().double().eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(*xs), y)
    small = copy.deepcopy(layer).float()(*[x.float() for x in xs])
    assert small.dtype == torch.float32
    torch.testing.assert_close(small.double(), y, rtol=1e-4, atol=1e-4)


def test_the_checks_can_fail():
    """PyTorch's own norm of a vector has no derivative at zero, and a batch norm mixes points."""
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(x.square().sum(-1).sqrt().sum(), x)
    assert gradient.isnan().any()
    layer, inputs = built("BatchNorm, training")
    (x,) = inputs(2, 3)
    assert (torch.stack([layer(part) for part in x]) - layer(x)).abs().max() > 1e-3


def test_every_layer_of_e3nn_is_in_the_table():
    nn_ = pytest.importorskip("e3nn.nn")
    elsewhere = {"Extract"}  # more than one result: see test_extract.py
    assert set(nn_.__all__) - elsewhere <= {name.split(",")[0] for name in CASES}
