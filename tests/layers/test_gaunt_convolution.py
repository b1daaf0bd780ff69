"""equitorch/layers/gaunt_convolution.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import GauntConvolution, GauntSO2Convolution, GauntTensorProduct, SO2Convolution
from equitorch.layers.gaunt import sphere_irreps
from equitorch.layers.gaunt_convolution import Latitudes, _blocks
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation
from equitorch.reps import Irreps, wigner_D
from equitorch.reps.gaunt import gaunt_coupling
from equitorch.reps.order import order_index, order_rows
from equitorch.reps.sphere import harmonics_at

PARITIES = ["even", "odd", "full"]


def graph(nodes=4, edges=9, seed=0):
    torch.manual_seed(seed)
    index = torch.randint(0, nodes, (2, edges))
    index[1] = index[1].sort().values
    return EdgePlan.build(index, nodes), torch.randn(edges, 3, dtype=torch.float64)


def operands(lmax, lmax_filter, parity, channels=2, nodes=4, edges=9):
    rows = (lmax + 1) ** 2 * (2 if parity == "full" else 1)
    x = torch.randn(nodes, rows, channels, dtype=torch.float64)
    return x, torch.randn(edges, lmax_filter + 1, channels, dtype=torch.float64)


def by_edges(x, g, vectors, plan, lmax, parity):
    """The product of every edge with harmonics of its direction."""
    lmax_filter = g.shape[1] - 1
    directions = torch.nn.functional.normalize(vectors, dim=-1)
    harmonics = harmonics_at(lmax_filter, directions)[..., None] * math.sqrt(4 * math.pi)
    y = harmonics * g.repeat_interleave(torch.arange(1, 2 * lmax_filter + 2, 2), dim=1)
    product = GauntTensorProduct(lmax, lmax_filter, lmax, x.shape[2], parity).double()
    if parity == "full":  # a natural filter meets half of the pairs
        y, factor = torch.cat([y, torch.zeros_like(y)], dim=1), math.sqrt(2)
    else:
        factor = 1
    return torch.zeros_like(x).index_add(0, plan.target, factor * product(x[plan.source], y))


@given(st.integers(0, 4), st.integers(0, 4), st.sampled_from(PARITIES), st.integers(0, 9))
def test_is_the_sum_of_products_with_harmonics_of_the_edge(lmax, lmax_filter, parity, seed):
    plan, vectors = graph(seed=seed)
    x, g = operands(lmax, lmax_filter, parity)
    conv = GauntConvolution(lmax, lmax_filter, 2, parity=parity).double()
    found = conv(x, g, EdgeRotation.build(vectors, lmax, lmax), plan)
    torch.testing.assert_close(found, by_edges(x, g, vectors, plan, lmax, parity), rtol=1e-10, atol=1e-10)


def test_aligned_filters_are_the_contraction_with_their_axial_rows():
    """W_m and M_m against all Gaunt coefficients of rows m = 0 of the filter."""
    lmax, lmax_filter = 3, 4
    table = Latitudes.exact(lmax, lmax_filter, lmax)
    blocks = _blocks(table, torch.ones(2, lmax + 1, dtype=torch.float64))
    axial = [f * f + f for f in range(lmax_filter + 1)]
    norms = (2 * torch.arange(lmax_filter + 1, dtype=torch.float64) + 1).sqrt()
    even, odd = (gaunt_coupling(lmax, lmax_filter, lmax, p).dense()[:, axial] for p in ("even", "odd"))
    for m, block in enumerate(blocks):
        plus, minus = ([l * l + l + s * m for l in range(m, lmax + 1)] for s in (1, -1))
        for rows in (plus, minus):
            expected = even[rows][:, :, rows].permute(2, 0, 1) * norms
            torch.testing.assert_close(block[0], expected, rtol=0, atol=1e-12)
        expected = odd[plus][:, :, minus].permute(2, 0, 1) * norms
        torch.testing.assert_close(block[1], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(odd[minus][:, :, plus].permute(2, 0, 1) * norms, -expected)


@pytest.mark.parametrize("parity", PARITIES)
@pytest.mark.parametrize("mmax", [2, 1])
def test_commutes_with_every_rotation_and_mirror(parity, mmax):
    plan, vectors = graph()
    x, g = operands(2, 2, parity)
    conv = GauntConvolution(2, 2, 2, parity=parity, mmax=mmax).double()
    inputs = sphere_irreps(2, parity)
    output = Irreps("0o+1e+2o") if parity == "odd" else inputs
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]

    def matrix(irreps, R):
        proper = R * torch.linalg.det(R)
        mirrored = torch.linalg.det(R) < 0
        blocks = [wigner_D(ir.l, proper) * (ir.p if mirrored else 1) for ir in irreps.copies]
        return torch.block_diag(*blocks)

    z = conv(x, g, EdgeRotation.build(vectors, 2, mmax), plan)
    for R in (turn, -turn):
        turned = EdgeRotation.build(vectors @ R.mT, 2, mmax)
        found = conv(matrix(inputs, R) @ x, g, turned, plan)
        torch.testing.assert_close(found, matrix(output, R) @ z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parity", PARITIES)
def test_has_right_derivatives(parity):
    plan, vectors = graph(3, 4)
    x, g = operands(2, 1, parity, 1, 3, 4)
    conv = GauntConvolution(2, 1, 1, parity=parity).double()

    def energy(x, g, v):
        return conv(x, g, EdgeRotation.build(v, 2, 2), plan)

    xs = [t.requires_grad_() for t in (x, g, vectors)]
    assert torch.autograd.gradcheck(energy, xs, fast_mode=True)
    assert torch.autograd.gradgradcheck(energy, xs, fast_mode=True)


def test_evaluates_pieces_of_the_edges(monkeypatch):
    from equitorch.layers import gaunt_convolution

    plan, vectors = graph(5, 40)
    x, g = operands(2, 2, "even", 2, 5, 40)
    conv, rotation = GauntConvolution(2, 2, 2).double(), EdgeRotation.build(vectors, 2, 2)
    whole = conv(x, g, rotation, plan)
    monkeypatch.setitem(gaunt_convolution._PIECE, "cpu", 1 << 8)
    torch.testing.assert_close(conv(x, g, rotation, plan), whole)


def test_takes_no_edges_and_no_channels():
    plan, vectors = EdgePlan.build(torch.zeros(2, 0, dtype=torch.int64), 3), torch.zeros(0, 3)
    for channels in (0, 2):
        conv = GauntConvolution(1, 2, channels)
        out = conv(
            torch.randn(3, 4, channels), torch.zeros(0, 3, channels), EdgeRotation.build(vectors, 1, 1), plan
        )
        assert out.shape == (3, 4, channels)
        assert not out.any()


@pytest.mark.parametrize("parity", ["natural", "so3"])
@pytest.mark.parametrize("mmax", [3, 1])
def test_shared_filters_are_weights_of_an_so2_convolution(parity, mmax):
    ours = GauntSO2Convolution(3, 2, 2, 4, mmax=mmax, parity=parity).double()
    other = SO2Convolution(3, mmax, 2, 4, parity=parity).double()
    with torch.no_grad():
        other.m0.bias.zero_()
        other.m0.weight.copy_(ours.matrices()[0])
        for m, matrix in enumerate(ours.matrices()[1:]):
            if parity == "so3":
                other.real[m].copy_(matrix[0])
                other.imag[m].copy_(matrix[1])
            else:
                other.real[m].copy_(matrix)
    y = torch.randn(5, ours.rows, 2, dtype=torch.float64)
    torch.testing.assert_close(ours(y), other(y)[0])


def test_shared_filters_are_products_with_a_function():
    """One channel, natural: the product of the rows with the axial rows of the filter."""
    ours = GauntSO2Convolution(3, 2, 1, 1).double()
    product = GauntTensorProduct(3, 2, 3, 1).double()
    x, axial = torch.randn(5, 16, 1, dtype=torch.float64), torch.zeros(5, 9, 1, dtype=torch.float64)
    for l in range(3):
        axial[:, l * l + l] = ours.weight.detach()[0, l] * math.sqrt(2 * l + 1)
    index = order_index(3, 3)
    torch.testing.assert_close(ours(x[:, index]), product(x, axial)[:, index])


@pytest.mark.parametrize("parity", ["natural", "so3"])
def test_shared_filters_begin_with_unit_variance(parity):
    torch.manual_seed(0)
    conv = GauntSO2Convolution(3, 4, 16, 512, parity=parity)
    square = conv(torch.randn(500, 16, 16)).square().mean((0, 2))
    degree = torch.tensor([l for l, _ in order_rows(3, 3)])
    for l in range(4):
        assert abs(square[degree == l].mean() - 1) < 0.05


def test_the_check_can_fail():
    """A latitude less, and the products alias."""
    lmax = 2
    plan, vectors = graph()
    x, g = operands(lmax, 2, "even")
    conv = GauntConvolution(lmax, 2, 2).double()
    conv.filter.value = conv.filter.value[:-1]
    for polar in conv.polar:
        polar.value = polar.value[:-1]
    found = conv(x, g, EdgeRotation.build(vectors, lmax, lmax), plan)
    assert (found - by_edges(x, g, vectors, plan, lmax, "even")).abs().max() > 1e-2


def test_says_what_it_expected():
    plan, vectors = graph()
    x, g = operands(2, 1, "even")
    conv = GauntConvolution(2, 1, 2).double()
    with pytest.raises(ValueError, match=r"expects x of shape \(4, 9, 2\) and g of shape \(9, 2, 2\) here"):
        conv(x, g[:3], EdgeRotation.build(vectors, 2, 2), plan)
    with pytest.raises(ValueError, match="expects frames built for lmax=2 and mmax=2, got 2 and 1"):
        conv(x, g, EdgeRotation.build(vectors, 2, 1), plan)
    with pytest.raises(ValueError, match="expects parity of natural or so3, got 'both'"):
        GauntSO2Convolution(2, 1, 2, 2, parity="both")
    with pytest.raises(ValueError, match="0 <= mmax <= lmax, got 2, 1, 2, 2 and mmax=3"):
        GauntSO2Convolution(2, 1, 2, 2, mmax=3)
    with pytest.raises(ValueError, match="got 2, -1, 2 and mmax=None"):
        GauntConvolution(2, -1, 2)
    with pytest.raises(
        ValueError, match=r"^GauntSO2Convolution\(2, 3, 4 -> 6, .*\) expects y of shape .* \(1, 8, 4\)$"
    ):
        GauntSO2Convolution(2, 3, 4, 6)(torch.zeros(1, 8, 4))
