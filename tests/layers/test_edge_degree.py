"""equitorch/layers/edge_degree.py"""

import pytest
import torch

from equitorch.layers import EdgeDegreeEmbedding, EdgeScalars, PolynomialCutoff, RadialMLP, WideGaussians
from equitorch.layers.edge_degree import row_rescale
from equitorch.ops import spherical_harmonics
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant
from tests.equiformer_reference import MODELS, assert_same, edge_scalars, edges, part, reference

INDEX = torch.tensor([[1, 2, 3, 0, 2, 0], [0, 0, 0, 1, 1, 2]])  # the last node has no edge
PLAN = EdgePlan.build(INDEX, 4)


def embedding(lmax=3, mmax=2, **options):
    torch.manual_seed(0)
    return EdgeDegreeEmbedding(lmax, mmax, 4, scalars=5, hidden=6, degree=2.5, **options).double()


@pytest.mark.parametrize("name", MODELS)
def test_is_that_of_equiformer(name):
    data = reference(name)
    config, prefix = data["config"], "edge_degree_embedding."
    lmax, mmax = config["lmax_list"][0], config["mmax_list"][0]
    scalars = edge_scalars(data, prefix)
    layer = EdgeDegreeEmbedding(
        lmax, mmax, 16, scalars=scalars.shape[1], hidden=16, degree=data["meta"]["avg_degree"], rescale=True
    ).double()
    layer.radial.load_state_dict(part(data["params"], f"{prefix}rad_func.net."))
    plan, rotation = edges(data)
    assert_same(layer(scalars, rotation, plan), data["intermediates"]["edge_degree_embedding"])


def test_means_harmonics_of_the_edges_times_radial_weights():
    layer, vectors = embedding(), torch.randn(6, 3, dtype=torch.float64)
    scalars, envelope = torch.randn(6, 5).double(), torch.rand(6).double()
    weights = layer.radial(scalars).unflatten(1, (4, 4)) * envelope[:, None, None] / 2.5
    harmonics = spherical_harmonics(3, vectors, normalize=True, normalization="norm")
    degrees = torch.arange(4).repeat_interleave(torch.tensor([1, 3, 5, 7]))
    expected = torch.zeros(4, 16, 4).double()
    for e, i in enumerate(INDEX[1]):
        expected[i] += harmonics[e, :, None] * weights[e, degrees]
    ours = layer(scalars, EdgeRotation.build(vectors, 3, 2), PLAN, envelope=envelope)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("mmax", [0, 1, 3])
def test_commutes_with_rotations_and_mirrors(mmax):
    layer, scalars = embedding(mmax=mmax, rescale=True), torch.randn(6, 5).double()

    def function(v):
        rotation = EdgeRotation.build(v[..., 0].reshape(6, 3), 3, mmax)
        return layer(scalars, rotation, PLAN)

    assert_equivariant(function, ["1o"], Irreps.spherical_harmonics(3), channels=1, batch=(6,), atol=1e-13)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by dynamo itself
def test_differentiates_by_distances_and_directions():
    layer, basis = embedding(), WideGaussians(5, 3.0).double()
    envelope = PolynomialCutoff(3.0, 5)

    def function(v):
        d = v.norm(dim=-1)
        return layer(basis(d), EdgeRotation.build(v, 3, 2), PLAN, envelope=envelope(d))

    v = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, v, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, v, fast_mode=True)
    whole = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(v), function(v))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_takes_no_edge_and_one(count, dtype):
    plan = EdgePlan.build(INDEX[:, :count], 4)
    vectors = torch.randn(count, 3, dtype=dtype)
    y = embedding().to(dtype)(torch.randn(count, 5, dtype=dtype), EdgeRotation.build(vectors, 3, 2), plan)
    assert y.shape == (4, 16, 4)
    assert y.dtype == dtype
    assert (y[1:] == 0).all()


def test_scalars_are_the_basis_and_two_elements():
    torch.manual_seed(0)
    layer, numbers = EdgeScalars(9, 3), torch.tensor([6, 1, 8, 1])
    basis = torch.randn(6, 2)
    t = layer(basis, numbers, PLAN)
    assert torch.equal(t[:, :2], basis)
    assert torch.equal(t[1, 2:5], layer.source.weight[8])  # edge 1 leads from node 2, an oxygen
    assert torch.equal(t[1, 5:], layer.target.weight[6])
    assert layer.source.weight.abs().max() <= 1e-3


def test_gaussians_are_their_formula_in_the_digits_of_float64():
    d = torch.linspace(0, 6, 50, dtype=torch.float64)
    centres = torch.linspace(0, 5, 600, dtype=torch.float64)
    expected = torch.exp(-0.5 * ((d[:, None] - centres) / (2 * 5 / 599)) ** 2)
    torch.testing.assert_close(WideGaussians(600, 5.0).float().double()(d), expected, rtol=1e-10, atol=1e-290)
    single = WideGaussians(600, 5.0)(d.float())
    assert (single[single > 0] > 1e-33).all()
    assert not WideGaussians(600, 5.0).state_dict()


def test_radial_network_starts_uniform_without_bias():
    net = RadialMLP(100, 16, 8)
    assert net[0].weight.abs().max() <= 0.1
    assert all((net[k].bias == 0).all() for k in (0, 3, 6))


def test_the_check_can_fail():
    """An embedding of components instead of harmonics."""
    layer = embedding()
    layer.axis.entries = layer.axis.entries.flip(0)
    scalars = torch.randn(6, 5).double()
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(
            lambda v: layer(scalars, EdgeRotation.build(v[..., 0], 3, 2), PLAN),
            ["1o"],
            Irreps.spherical_harmonics(3),
            channels=1,
            batch=(6,),
        )


def test_says_what_it_expected():
    layer, rotation = embedding(), EdgeRotation.build(torch.randn(6, 3), 3, 2)
    with pytest.raises(ValueError, match=r"expects scalars of shape \(6, 5\), got \(6, 4\)"):
        layer(torch.randn(6, 4), rotation, PLAN)
    with pytest.raises(ValueError, match="a rotation with lmax=3 and mmax=2, got lmax=3 and mmax=1"):
        layer(torch.randn(6, 5).double(), EdgeRotation.build(torch.randn(6, 3), 3, 1), PLAN)
    with pytest.raises(ValueError, match=r"a basis of shape \(6, n\) and 4 atomic numbers, got \(5, 2\)"):
        EdgeScalars(9, 3)(torch.randn(5, 2), torch.ones(4, dtype=torch.long), PLAN)
    with pytest.raises(ValueError, match="WideGaussians expects count >= 2"):
        WideGaussians(1, 5.0)
    assert row_rescale(2, 2).tolist() == [1.0] * 9
