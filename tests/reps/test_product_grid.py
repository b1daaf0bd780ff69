"""equitorch/reps/product_grid.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.ops import spherical_harmonics
from equitorch.reps.gaunt import gaunt_coupling
from equitorch.reps.product_grid import polar_part, product_grid, table, wave_part

COMPONENTS = ["value", "polar", "azimuthal"]


def weights(grid):
    return grid.weight.repeat_interleave(len(grid.alpha))


def even(grid, lmaxs):
    """Integrals of three harmonics, by the grid."""
    x, y, z = (table(grid, lmax, "value") for lmax in lmaxs)
    return torch.einsum("p,pi,pj,pk->ijk", weights(grid), x, y, z)


def odd(grid, lmaxs):
    """Integrals of a harmonic and the bracket of two, by the grid."""
    (xb, xa), (yb, ya) = ([table(grid, lmax, name) for name in COMPONENTS[1:]] for lmax in lmaxs[:2])
    bracket = xb[:, :, None] * ya[:, None] - xa[:, :, None] * yb[:, None]
    return torch.einsum("p,pij,pk->ijk", weights(grid), bracket, table(grid, lmaxs[2], "value"))


lmaxs = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))


@given(lmaxs)
def test_products_and_brackets_are_exact(lmaxs):
    grid = product_grid(*lmaxs)
    for integrals, parity in ((even, "even"), (odd, "odd")):
        expected = gaunt_coupling(*lmaxs, parity).dense()
        torch.testing.assert_close(integrals(grid, lmaxs), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("lmaxs", [(1, 1, 1), (4, 4, 4), (6, 6, 6), (2, 3, 5), (5, 2, 3), (4, 4, 8)])
@pytest.mark.parametrize("short", ["latitudes", "longitudes"])
def test_one_node_less_is_refused_and_wrong(lmaxs, short):
    least = {"latitudes": sum(lmaxs) // 2 + 1, "longitudes": sum(lmaxs) + 1}
    fewer = least | {short: least[short] - 1}
    wanted = f"{least['latitudes']} x {least['longitudes']} points"
    with pytest.raises(ValueError, match=f"needs {wanted}.*exact=False"):
        product_grid(*lmaxs, **fewer)
    grid = product_grid(*lmaxs, **fewer, exact=False)
    torch.manual_seed(0)
    x, y = (torch.randn(100, (lmax + 1) ** 2, dtype=torch.float64) for lmax in lmaxs[:2])
    found, expected = (
        torch.einsum("ni,nj,ijk->nk", x, y, tensor)
        for tensor in (even(grid, lmaxs), gaunt_coupling(*lmaxs).dense())
    )
    assert (found - expected).norm() > 0.01 * expected.norm()
    torch.testing.assert_close(even(product_grid(*lmaxs, **least), lmaxs), gaunt_coupling(*lmaxs).dense())


def test_more_nodes_are_welcome():
    grid = product_grid(2, 3, 4, latitudes=9, longitudes=16)
    assert grid.points.shape == (9, 16, 3)
    torch.testing.assert_close(even(grid, (2, 3, 4)), gaunt_coupling(2, 3, 4).dense(), atol=1e-13, rtol=0)


@pytest.mark.parametrize(
    ("l", "lmax_out", "size"), [(2, 2, (4, 7)), (4, 4, (7, 13)), (6, 6, (10, 19)), (12, 24, (25, 49))]
)
def test_sizes_of_the_grids(l, lmax_out, size):
    assert product_grid(l, l, lmax_out).points.shape == (*size, 3)


@pytest.mark.parametrize("lmax", [0, 1, 5, 11])
def test_tables_are_the_harmonics_and_their_gradients(lmax):
    """Along the unit vectors of beta and alpha, by PyTorch's derivatives of another implementation."""
    grid = product_grid(lmax, lmax)
    beta, alpha = (a.flatten() for a in torch.meshgrid(grid.beta, grid.alpha, indexing="ij"))
    sb, cb, sa, ca = beta.sin(), beta.cos(), alpha.sin(), alpha.cos()
    along = {"polar": (cb * sa, -sb, cb * ca), "azimuthal": (ca, 0 * sa, -sa)}
    points = grid.points.flatten(0, 1)

    def harmonics(v):
        return spherical_harmonics(lmax, v, normalization="integral")

    torch.testing.assert_close(table(grid, lmax, "value"), harmonics(points), atol=1e-11, rtol=1e-11)
    for name, direction in along.items():
        towards = torch.stack(direction, dim=-1)
        slope = torch.autograd.functional.jvp(harmonics, points, towards)[1]
        torch.testing.assert_close(table(grid, lmax, name), slope, atol=1e-9, rtol=1e-10)


def test_gradients_are_slopes_of_the_values():
    """By finite differences of this module alone, also past the poles, where Fourier series look."""
    beta, alpha, step = (
        torch.tensor([0.3, 1.2, 2.9, 3.7, 5.5]).double(),
        torch.linspace(0, 6, 7).double(),
        1e-6,
    )
    up, down = polar_part(beta + step, 7, "value"), polar_part(beta - step, 7, "value")
    torch.testing.assert_close(polar_part(beta, 7, "polar"), (up - down) / (2 * step), atol=1e-8, rtol=1e-8)
    over = polar_part(beta, 7, "azimuthal") * beta.sin()[:, None]
    torch.testing.assert_close(over, polar_part(beta, 7, "value"))
    up, down = wave_part(alpha + step, 7, "value"), wave_part(alpha - step, 7, "value")
    torch.testing.assert_close(
        wave_part(alpha, 7, "azimuthal"), (up - down) / (2 * step), atol=1e-8, rtol=1e-8
    )


def test_gradients_are_orthogonal_with_the_norm_of_the_laplacian():
    grid = product_grid(6, 6)
    parts = [table(grid, 6, name) for name in COMPONENTS[1:]]
    gram = sum(torch.einsum("p,pi,pj->ij", weights(grid), part, part) for part in parts)
    expected = torch.tensor([l * (l + 1.0) for l in range(7) for _ in range(2 * l + 1)]).double().diag()
    torch.testing.assert_close(gram, expected, atol=1e-11, rtol=0)


def test_the_check_can_fail():
    """A band-limited grid, as activations use it, is far too coarse for a product."""
    coarse = product_grid(4, 4, 4, latitudes=5, longitudes=9, exact=False)
    wrong, right = even(coarse, (4, 4, 4)), gaunt_coupling(4, 4, 4).dense()
    assert (wrong - right).norm() > 0.2 * right.norm()
    assert math.isclose(weights(coarse).sum(), 4 * math.pi, rel_tol=1e-13)


@pytest.mark.parametrize("lmaxs", [(), (2, -1)])
def test_says_what_it_expected(lmaxs):
    with pytest.raises(ValueError, match="product_grid expects a degree >= 0 for each factor, got"):
        product_grid(*lmaxs)
