"""equitorch/layers/radial.py"""

import copy

import pytest
import torch

from equitorch.layers import MLP, BesselBasis, CosineCutoff, ExpNormBasis, GaussianBasis, PolynomialCutoff
from equitorch.layers.radial import RadialFunction, set_tables, tables

CUTOFF = 4.5
BASES = {
    "expnorm": lambda: ExpNormBasis(6, CUTOFF, trainable=True),
    "gauss": lambda: GaussianBasis(6, CUTOFF, trainable=True),
    "bessel": lambda: BesselBasis(6, CUTOFF),
}
ENVELOPES = {"cosine": lambda: CosineCutoff(CUTOFF), "polynomial": lambda: PolynomialCutoff(CUTOFF)}


def function(
    basis="expnorm", envelope="polynomial", *, activation="silu", outputs=4, hidden=8, seed=0, **options
):
    torch.manual_seed(seed)
    network = MLP([6, hidden, outputs], activation, activate_last=True)
    made = RadialFunction(BASES[basis](), network, ENVELOPES[envelope](), cutoff=CUTOFF, **options)
    return made.double()


def distances(count=9, seed=1):
    return 0.2 + (CUTOFF - 0.3) * torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_is_the_envelope_times_the_network(basis, envelope, activation):
    f, d = function(basis, envelope, activation=activation), distances()
    expected = f.envelope(d)[:, None] * f.network(f.basis(d))
    torch.testing.assert_close(f(d), expected, rtol=1e-13, atol=1e-14)
    with torch.no_grad():
        torch.testing.assert_close(f(d), expected, rtol=1e-13, atol=1e-14)


def test_vanishes_at_and_beyond_the_cutoff():
    d = torch.tensor([CUTOFF, CUTOFF + 1e-5, 5.0, 100.0]).double()
    for knots in (None, 64):
        assert not function(knots=knots)(d)[1:].any()
        assert function(knots=knots)(d)[0].abs().max() < 1e-40  # the last knot is taken from the left
    assert function("expnorm", "cosine")(torch.tensor([CUTOFF - 1e-3]).double()).abs().max() < 1e-5


@pytest.mark.parametrize("points", [0, 1, 3, 129, 700])
@pytest.mark.parametrize("knots", [None, 64])
def test_takes_any_number_of_points_in_pieces(points, knots):
    f, d = function(knots=knots), distances(points).requires_grad_()
    out = f(d)
    with torch.no_grad():
        one_by_one = [f(x[None]) for x in d.detach()]
    assert out.shape == (points, 4)
    if points:
        torch.testing.assert_close(out, torch.cat(one_by_one), rtol=1e-13, atol=1e-14)
        gradients = torch.autograd.grad(out.sum(), [d, *f.network.parameters()])
        exact = torch.autograd.grad(f.evaluate(d).sum(), [d, *f.network.parameters()])
        for ours, theirs in zip(gradients, exact, strict=True):
            torch.testing.assert_close(
                ours, theirs, rtol=1e-5 if knots else 1e-11, atol=1e-4 if knots else 1e-12
            )


@pytest.mark.parametrize("knots", [None, 5])
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_has_first_and_second_derivatives(knots, activation):
    f = function(activation=activation, outputs=2, hidden=2, knots=knots)
    d, weights = distances(2).requires_grad_(), list(f.parameters())

    def slope(d, *_weights):
        y = f(d)
        return torch.autograd.grad(y.sin().sum(), d, create_graph=True)

    assert torch.autograd.gradcheck(lambda d, *_weights: f(d), (d, *weights))
    assert torch.autograd.gradcheck(slope, (d, *weights))  # a loss on forces


@pytest.mark.parametrize(
    "knots",
    [None, 3],
)
def test_gradients_of_weights_know_the_distance(knots):
    f = function(outputs=2, hidden=2, knots=knots)
    d, weight = distances(2).requires_grad_(), f.network.layers[0].weight

    def gradient(d):
        return torch.autograd.grad(f(d).square().sum(), weight, create_graph=True)[0]

    (ours,) = torch.autograd.grad(gradient(d).sum(), d, materialize_grads=True)
    step = 1e-6 * torch.eye(2).double()
    numeric = [(gradient(d + h).sum() - gradient(d - h).sum()) / 2e-6 for h in step]
    torch.testing.assert_close(ours, torch.stack(numeric).detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("knots", [None, 7])
def test_has_third_derivatives(knots):
    f, d = function(outputs=2, hidden=3, knots=knots), distances(2).requires_grad_()

    def slope(d):
        return torch.autograd.grad(f(d).sum(), d, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, (d,))


def test_needs_no_weights_to_be_trained():
    f = function().requires_grad_(False)
    d = distances().requires_grad_()
    (slope,) = torch.autograd.grad(f(d).sum(), d, create_graph=True)
    (exact,) = torch.autograd.grad(f.evaluate(d).sum(), d)
    torch.testing.assert_close(slope, exact, rtol=1e-12, atol=1e-13)
    assert slope.requires_grad


def test_gives_derivatives_of_any_order():
    f, d = function(), distances(3).requires_grad_()
    y = f.evaluate(d)[:, 1]
    for row in f.derivatives(d.detach(), 3)[:, :, 1]:
        torch.testing.assert_close(row, y, rtol=1e-9, atol=1e-10)
        (y,) = torch.autograd.grad(y.sum(), d, create_graph=True)


@pytest.mark.parametrize(
    ("knots", "value", "slope"), [(32, 2e-4, 2e-3), (128, 1e-7, 2e-6), (512, 1e-11, 2e-9)]
)
def test_reads_from_a_table_within_its_error(knots, value, slope):
    f, d = function("expnorm", "cosine", hidden=32, outputs=24), distances(200).requires_grad_()
    with tables(f, knots):
        y = f(d)
        (dy,) = torch.autograd.grad(y.sum(), d)
    exact = f.evaluate(d)
    (dexact,) = torch.autograd.grad(exact.sum(), d)
    assert (y - exact).abs().max() < value
    assert (dy - dexact).abs().max() < slope * 24**0.5


def test_is_exact_at_the_knots_of_a_table():
    f = function(knots=16)
    d = torch.linspace(0, CUTOFF, 17).double()[1:-1].requires_grad_()
    torch.testing.assert_close(f(d), f.evaluate(d), rtol=0, atol=1e-14)
    (slope,) = torch.autograd.grad(f(d).sum(), d)
    (exact,) = torch.autograd.grad(f.evaluate(d).sum(), d)
    torch.testing.assert_close(slope, exact, rtol=0, atol=1e-12)


def test_a_table_has_a_continuous_second_derivative():
    f = function(knots=8)
    knot = CUTOFF / 8 * 3
    d = torch.tensor([knot - 1e-9, knot + 1e-9]).double().requires_grad_()
    (first,) = torch.autograd.grad(f(d).sum(), d, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), d)
    assert (second[0] - second[1]).abs() < 1e-6 * second[0].abs()


@pytest.mark.parametrize("basis", ["expnorm", "gauss"])
def test_rebuilds_its_table_when_a_weight_changes(basis):
    f, d = function(basis, knots=256), distances()
    optimizer = torch.optim.SGD(f.parameters(), lr=0.1)
    with torch.no_grad():
        before = f(d)
        assert f.table(256) is f.table(256)
    f.evaluate(d).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = f(d)
        assert (after - before).abs().max() > 1e-4
        torch.testing.assert_close(after, f.evaluate(d), rtol=0, atol=1e-6)


def test_rebuilds_its_table_for_another_state_and_dtype():
    f, other, d = function(knots=64), function(seed=1), distances()
    with torch.no_grad():
        f(d)
        f.load_state_dict(other.state_dict())
        torch.testing.assert_close(f(d), other(d), rtol=0, atol=1e-4)
        single = f.float()(d.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), other(d), rtol=0, atol=1e-4)


def test_trains_through_a_table_as_without():
    f, d = function(), distances(40)
    gradients = []
    for knots in (None, 512):
        with tables(f, knots):
            x = d.clone().requires_grad_()
            (slope,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
            gradients.append(torch.autograd.grad(slope.square().sum(), list(f.parameters())))
    for exact, table in zip(*gradients, strict=True):
        assert (exact - table).abs().max() < 1e-6 * exact.abs().max()


def test_switches_tables_on_and_off_for_a_whole_model():
    model = torch.nn.ModuleList([function(), function(knots=8)])
    with tables(model, 16):
        assert [f.knots for f in model] == [16, 16]
        with tables(model, None):
            assert [f.knots for f in model] == [None, None]
    assert [f.knots for f in model] == ["auto", 8]
    set_tables(model)
    assert [f.knots for f in model] == [512, 512]
    assert "knots=512" in repr(model)


def test_chooses_tables_in_float32_and_no_approximation_in_float64():
    f, d = function(hidden=32, outputs=24), distances(200)
    assert f.knots == "auto"
    with torch.no_grad():
        torch.testing.assert_close(f(d), f.evaluate(d), rtol=0, atol=1e-14)
        single = f.float()(d.float())
        with tables(f, None):
            exact = f(d.float())
    assert 0 < (single - exact).abs().max() < 3e-6 * exact.abs().max()


def test_does_not_choose_a_table_that_is_too_coarse():
    """A function of many wiggles between the knots: read exactly, whatever the dtype."""
    f, d = function("gauss", hidden=32).float().requires_grad_(False), distances(50).float()
    f.basis.coeff.fill_(-1e6)
    assert f._knots_for(d) is None
    torch.testing.assert_close(f(d), f.evaluate(d))


def test_hands_no_subnormal_numbers_to_matrix_products():
    """They are a hundred times slower than others, and Gaussians far from their centres are full of them."""
    network = MLP([32, 8, 4], activate_last=True)
    f = RadialFunction(ExpNormBasis(32, CUTOFF), network, CosineCutoff(CUTOFF), cutoff=CUTOFF).float()
    d = torch.linspace(0.01, CUTOFF, 4000)
    tiny = torch.finfo(torch.float32).tiny
    plain, features = f.basis(d), f._features(d, 1)[0]
    assert ((plain != 0) & (plain.abs() < tiny)).any(), "else this test proves nothing"
    assert not ((features != 0) & (features.abs() < tiny)).any()
    torch.testing.assert_close(features[0], plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_hides_that_a_number_is_none(dtype):
    """Neither a distance nor a weight of the basis that is NaN may come out as a number."""
    f, d = function(knots=None).to(dtype), distances(3).to(dtype)
    d[1] = float("nan")
    for out in (f(d), f(d.clone().requires_grad_())):
        assert out[1].isnan().all()
        assert out[[0, 2]].isfinite().all()
    f.basis.betas.data.fill_(float("nan"))
    assert f(d).isnan().all()


def test_sees_weights_that_are_written_to_behind_autograd():
    """No version counter sees what is done to ``.data``."""
    network = MLP([32, 16, 4])
    envelope = CosineCutoff(CUTOFF)
    function = RadialFunction(ExpNormBasis(32, CUTOFF), network, envelope, cutoff=CUTOFF, knots=64)
    function.float().eval()
    d = torch.linspace(0.5, 0.9 * CUTOFF, 50)
    with torch.no_grad():
        function(d)
        for weight in network.parameters():
            weight.data.mul_(2.0)
        found, expected = function(d), copy.deepcopy(function)(d)
    torch.testing.assert_close(found, expected)
