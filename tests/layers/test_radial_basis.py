"""equitorch/layers/radial_basis.py"""

import math

import pytest
import torch

from equitorch.layers import (
    BesselBasis,
    ExpNormBasis,
    GaussianBasis,
    bessel,
    soft_one_hot_linspace,
    soft_unit_step,
)
from tests.layers.test_cutoff import derivatives

BASES = [ExpNormBasis(6, 5.0), ExpNormBasis(6, 5.0, lower=0.5), GaussianBasis(6, 5.0), BesselBasis(6, 5.0)]
BASES = [basis.double() for basis in BASES]
KINDS = ["gaussian", "cosine", "smooth_finite", "fourier", "bessel"]


@pytest.mark.parametrize("lower", [0.0, 0.5])
def test_means_the_published_formulas(lower):
    """Point by point in plain Python, with the constants of torchmd-net."""
    k, rc = 5, 4.5
    exp, gauss, bessel = (
        b.double()
        for b in (ExpNormBasis(k, rc, lower=lower), GaussianBasis(k, rc, lower=lower), BesselBasis(k, rc))
    )
    start, alpha = math.exp(-(rc - lower)), 5 / (rc - lower)
    step = (rc - lower) / (k - 1)
    for d in (0.7, 2.0, 4.4):
        at = torch.tensor(d, dtype=torch.float64)
        for n in range(k):
            mean = start + (1 - start) * n / (k - 1)
            beta = (2 / k * (1 - start)) ** -2
            expected = 0.5 * (1 + math.cos(math.pi * d / rc))
            expected *= math.exp(-beta * (math.exp(alpha * (lower - d)) - mean) ** 2)
            assert exp(at)[n].item() == pytest.approx(
                expected, rel=1e-5
            )  # its constants are stored in float32
            expected = math.exp(-0.5 * ((d - lower - n * step) / step) ** 2)
            assert gauss(at)[n].item() == pytest.approx(expected, rel=1e-5)
            expected = math.sqrt(2 / rc) * math.sin((n + 1) * math.pi * d / rc) / d
            assert bessel(at)[n].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_agrees_with_torchmd_net():
    utils = pytest.importorskip("torchmdnet.models.utils")
    d = torch.linspace(0, 5.5, 40, dtype=torch.float64)
    for lower in (0.0, 0.5):
        theirs = utils.ExpNormalSmearing(lower, 5.0, 16, trainable=False, dtype=torch.float64)
        ours = ExpNormBasis(16, 5.0, lower=lower).double()
        ours.load_state_dict({name: theirs.state_dict()[name] for name in ("means", "betas")})
        torch.testing.assert_close(ours(d), theirs(d), rtol=1e-13, atol=1e-15)
        theirs = utils.GaussianSmearing(lower, 5.0, 16, trainable=False, dtype=torch.float64)
        ours = GaussianBasis(16, 5.0, lower=lower).double()
        ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(d), theirs(d), rtol=1e-13, atol=1e-15)


def test_keeps_the_digits_of_a_loaded_checkpoint():
    basis = ExpNormBasis(4, 5.0).double()
    rounded = basis.means.float() + torch.tensor([0, 2e-7, 0, 0])
    basis.load_state_dict({"means": rounded, "betas": basis.betas.float()})
    assert torch.equal(basis.means, rounded.double())
    assert set(GaussianBasis(4, 5.0).state_dict()) == {"offset", "coeff"}
    assert len(list(ExpNormBasis(4, 5.0, trainable=True).parameters())) == 2


@pytest.mark.parametrize("basis", BASES, ids=repr)
def test_has_finite_derivatives_of_any_order_at_zero(basis):
    d = torch.tensor([0.0, 1e-12, 1e-3], dtype=torch.float64)
    for y in derivatives(basis, d, 4):
        assert torch.isfinite(y).all()


def test_bessel_is_smooth_where_its_two_formulas_meet():
    """Derivatives of sin(w d) / d from its power series, beside the ones that autograd finds."""
    basis = BesselBasis(1, math.pi).double()
    d = torch.tensor([0.0, 0.1, 0.4999, 0.5001, 1.0], dtype=torch.float64)
    basis.frequency = torch.tensor([math.pi], dtype=torch.float64)
    for order, y in enumerate(derivatives(lambda x: basis(x)[..., 0], d, 4)):
        series = torch.zeros_like(d)
        for k in range((order + 1) // 2, 20):
            power = 2 * k - order
            factor = math.perm(2 * k, order) * (-1) ** k / math.factorial(2 * k + 1)
            series += factor * d**power if power else factor
        torch.testing.assert_close(y, math.sqrt(2 / math.pi) * series, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("basis", BASES, ids=repr)
def test_differentiates_twice(basis):
    d = torch.tensor([0.0, 0.05, 1.3, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(basis, d)
    assert torch.autograd.gradgradcheck(basis, d)


@pytest.mark.parametrize("basis", BASES[:2], ids=repr)
def test_vanishes_at_the_cutoff(basis):
    for y in derivatives(basis, torch.tensor([5.0, 6.0], dtype=torch.float64), 1):
        assert (y == 0).all()


@pytest.mark.parametrize("basis", BASES, ids=repr)
def test_compiles_to_one_graph(basis):
    d = torch.linspace(0, 6, 12, dtype=torch.float64).view(3, 4)
    whole = torch.compile(basis, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(d), basis(d))
    assert basis(d).shape == (3, 4, 6)
    assert basis(d[:0]).shape == (0, 4, 6)


@pytest.mark.parametrize("cutoff", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_soft_one_hot_agrees_with_e3nn(kind, cutoff):
    math_ = pytest.importorskip("e3nn.math")
    x = torch.linspace(-0.4001, 2.6, 61, dtype=torch.float64)
    ours = soft_one_hot_linspace(x, 0.2, 2.1, 5, kind, cutoff)
    torch.set_default_dtype(torch.float64)  # e3nn has a constant in the default dtype
    try:
        theirs = math_.soft_one_hot_linspace(x, 0.2, 2.1, 5, basis=kind, cutoff=cutoff)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("n", [1, 4])
def test_bessel_is_e3nns(n):
    math_ = pytest.importorskip("e3nn.math")
    x = torch.linspace(0, 3, 13, dtype=torch.float64).view(1, 13)
    torch.testing.assert_close(bessel(x, n, 2.5), math_.bessel(x, n, 2.5), rtol=1e-12, atol=1e-13)
    assert bessel(x[:, :0], n).shape == (1, 0, n)
    with pytest.raises(ValueError, match=r"bessel expects count >= 1 .* got count=0"):
        bessel(x, 0)


@pytest.mark.parametrize("cutoff", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_soft_one_hot_is_finite_at_its_ends(kind, cutoff):
    ends = torch.tensor([0.0, 2.0], dtype=torch.float64)
    for y in derivatives(lambda x: soft_one_hot_linspace(x, 0.0, 2.0, 3, kind, cutoff), ends, 3):
        assert torch.isfinite(y).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_soft_step_never_divides_by_zero(dtype):
    x = torch.tensor([0.0, 1e-30, 1e-3, 1.4e-3, 0.011, 0.5], dtype=dtype)
    for y in derivatives(soft_unit_step, x, 4):
        assert torch.isfinite(y).all()
    assert soft_unit_step(x)[-1].item() == pytest.approx(math.exp(-2))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects count >= 2 and 0 <= lower < cutoff, got count=1"):
        GaussianBasis(1, 5.0)
    with pytest.raises(ValueError, match=r"one of gaussian, cosine, .*, got 'fourrier'"):
        soft_one_hot_linspace(torch.ones(1), 0.0, 1.0, 3, "fourrier", True)
    with pytest.raises(ValueError, match=r"at least 2 functions for 'gaussian', got start=0.0"):
        soft_one_hot_linspace(torch.ones(1), 0.0, 1.0, 1, "gaussian", False)
