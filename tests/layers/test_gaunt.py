"""equitorch/layers/gaunt.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import GauntTensorProduct
from equitorch.layers.gaunt import KINDS, sphere_irreps
from equitorch.reps import Irreps, wigner_3j
from equitorch.reps.gaunt import path_factors
from equitorch.testing import assert_equivariant

PARITIES = ["even", "odd", "full"]


def pseudo(lmax):
    return Irreps([(1, (l, -((-1) ** l))) for l in range(lmax + 1)])


def ends(lmax, parity):
    inputs = sphere_irreps(lmax, parity)
    return inputs, pseudo(lmax) if parity == "odd" else inputs


def randomised(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def rows_of(lmax, stacks):
    return [
        (s, l, slice(s * (lmax + 1) ** 2 + l * l, s * (lmax + 1) ** 2 + (l + 1) ** 2))
        for s in range(stacks)
        for l in range(lmax + 1)
    ]


def by_paths(layer, x, y):
    """The definition, path by path, from 3j symbols and the weights."""
    stacks = 2 if layer.parity == "full" else 1
    z = x.new_zeros(*x.shape[:-2], stacks * (layer.lmax_out + 1) ** 2, x.shape[-1])
    for number, kind in enumerate(KINDS[layer.parity]):
        factors = path_factors(*layer.lmaxs, kind)
        last = layer.weight3 * layer.scale3.value
        last = last[:, number] if layer.parity == "full" else last
        for a, (i, l1, one) in enumerate(rows_of(layer.lmax1, stacks)):
            for b, (j, l2, two) in enumerate(rows_of(layer.lmax2, stacks)):
                for c, (k, l3, three) in enumerate(rows_of(layer.lmax_out, stacks)):
                    crossed = kind != "even"
                    if not factors[l1, l2, l3] or (stacks == 2 and (i + j + crossed) % 2 != k):
                        continue
                    weight = (layer.weight1[:, a] * layer.weight2[:, b] * last[:, c]).sum(0)
                    form = wigner_3j(l1, l2, l3).to(x) * factors[l1, l2, l3].item()
                    product = torch.einsum("ijk,...ic,...jc->...kc", form, x[..., one, :], y[..., two, :])
                    z[..., three, :] += weight * product
    return z


@given(
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 4),
    st.sampled_from(PARITIES),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_is_the_sum_over_paths(l1, l2, l3, parity, rank, seed):
    layer = randomised(GauntTensorProduct(l1, l2, l3, 2, parity, rank), seed)
    stacks = 2 if parity == "full" else 1
    x = torch.randn(4, 1, stacks * (l1 + 1) ** 2, 2, dtype=torch.float64)
    y = torch.randn(3, stacks * (l2 + 1) ** 2, 2, dtype=torch.float64)
    expected = by_paths(layer, x.expand(4, 3, -1, -1), y.expand(4, 3, -1, -1))
    torch.testing.assert_close(layer(x, y), expected, rtol=1e-11, atol=1e-11)


def test_odd_vectors_are_a_cross_product():
    layer = GauntTensorProduct(1, 1, 1, 3, "odd").double()
    x, y = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    cross = torch.linalg.cross(x[:, 1:], y[:, 1:], dim=1)
    found = layer(x, y)
    assert not found[:, :1].any()
    torch.testing.assert_close(found[:, 1:], cross / math.sqrt(2))  # of unit variance
    torch.testing.assert_close(layer(x, x), torch.zeros_like(x), rtol=0, atol=1e-14)


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from(PARITIES), st.integers(1, 2))
def test_commutes_with_every_rotation_and_mirror(l1, l2, l3, parity, rank):
    layer = randomised(GauntTensorProduct(l1, l2, l3, 2, parity, rank))
    inputs = [ends(l1, parity)[0], ends(l2, parity)[0]]
    assert_equivariant(layer, inputs, ends(l3, parity)[1], channels=2, atol=1e-10)


@pytest.mark.parametrize("parity", PARITIES)
@pytest.mark.parametrize("rank", [1, 3])
def test_begins_with_unit_variance_in_every_degree(parity, rank):
    torch.manual_seed(0)
    layer = GauntTensorProduct(3, 2, 3, 16, parity, rank)
    stacks = 2 if parity == "full" else 1
    x, y = torch.randn(10_000, 16 * stacks, 16), torch.randn(10_000, 9 * stacks, 16)
    variance = layer(x, y).var(0)
    for _, l, rows in rows_of(3, stacks):
        expected = 0 if parity == "odd" and l == 0 else 1
        assert abs(variance[rows].mean() - expected) < 0.05


def test_doubles_the_variance_without_that_correction():
    layer = GauntTensorProduct(4, 4, 4, 8)
    x = torch.randn(20_000, 25, 8)
    z = layer(x, x) * layer.spread3.value.sum(-1, keepdim=True).reciprocal()
    assert abs(z.var(0)[1:4].mean() / (2 * 1.592) - 1) < 0.05
    assert abs(z.mean(0)[0].mean() - 7.05) < 0.1


def test_the_check_can_fail():
    """Rows of mode full taken for two natural features are not equivariant under mirrors."""
    layer = GauntTensorProduct(1, 1, 1, 2, "full").double()
    with pytest.raises(AssertionError):
        assert_equivariant(layer, ["0e+1o+0e+1o"] * 2, "0e+1o+0e+1o", channels=2)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects parity of even, odd or full, got 'both'"):
        GauntTensorProduct(1, 1, 1, 2, "both")
    with pytest.raises(ValueError, match="expects backend of auto, dense, grid, separable, fft, got 'best'"):
        GauntTensorProduct(2, 2, 2, 4, backend="best")
    with pytest.raises(ValueError, match="expects rank to be a whole number >= 1, got 0"):
        GauntTensorProduct(1, 1, 1, 2, rank=0)
    with pytest.raises(ValueError, match=r"shapes \(..., 8, 2\) and \(..., 8, 2\), got \(5, 4, 2\)"):
        GauntTensorProduct(1, 1, 1, 2, "full")(torch.zeros(5, 4, 2), torch.zeros(5, 8, 2))
    with pytest.raises(ValueError, match=r"expects x of its own dtype, torch\.float32"):
        GauntTensorProduct(1, 1, 1, 2)(torch.zeros(5, 4, 2).double(), torch.zeros(5, 4, 2))


@pytest.mark.parametrize("parity", ["even", "odd", "full"])
@pytest.mark.parametrize("needed", [(0, 1, 2, 3, 4), (0, 4), (1, 2), (3,)])
def test_one_step_is_the_sum_of_its_parts(parity, needed):
    """With leading axes of one length the layer is one step of autograd; with more, several."""
    torch.manual_seed(0)
    layer = GauntTensorProduct(2, 1, 3, 4, parity).double()
    stacks = 2 if parity == "full" else 1
    given = [torch.randn(5, stacks * rows, 4, dtype=torch.float64) for rows in (9, 4)]
    given += list(layer.parameters())
    with torch.no_grad():
        for weight in given[2:]:
            weight.normal_()
    for n, tensor in enumerate(given):
        tensor.requires_grad_(n in needed)
    wanted = [given[n] for n in needed]
    found = []
    for x, y in (given[:2], (given[0][None], given[1][None])):
        z = layer(x, y)
        first = torch.autograd.grad(z.sin().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted)
        found.append([z.reshape(5, stacks * 16, 4), *first, *second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parity", ["even", "odd", "full"])
@pytest.mark.parametrize("rank", [1, 2])
def test_autocast_rounds_no_weights(parity, rank):
    layer = GauntTensorProduct(2, 2, 2, 4, parity, rank)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    x, y = torch.randn(2, 5, 18 if parity == "full" else 9, 4).unbind()
    expected = layer(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x, y), expected)
        mixed = layer(x.bfloat16(), y)
    assert torch.equal(mixed, layer(x.bfloat16().float(), y))
