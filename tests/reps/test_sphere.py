"""equitorch/reps/sphere.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import (
    SphereGrid,
    from_grid,
    legendre,
    rand_matrix,
    to_grid,
    waves,
    wigner_3j,
    wigner_D_all,
    xyz_to_angles,
)
from equitorch.reps.angular_momentum import clebsch_gordan


def harmonics(lmax, v):
    """Orthonormal harmonics at points (..., 3)."""
    alpha, beta = xyz_to_angles(v)
    column = [lmax + m for l in range(lmax + 1) for m in range(-l, l + 1)]
    return legendre(lmax, beta) * waves(lmax, alpha)[..., column]


def test_low_degrees_written_out():
    v = torch.nn.functional.normalize(torch.randn(10, 3, dtype=torch.float64), dim=-1)
    x, y, z = v.unbind(-1)
    s = 3**0.5
    second = [s * x * z, s * x * y, y * y - (x * x + z * z) / 2, s * y * z, s / 2 * (z * z - x * x)]
    expected = torch.cat(
        [torch.ones(10, 1).double(), 3**0.5 * v, 5**0.5 * torch.stack(second, dim=-1)], dim=-1
    )
    torch.testing.assert_close(harmonics(2, v) * math.sqrt(4 * math.pi), expected)


@pytest.mark.parametrize("normalization", ["integral", "component", "norm"])
def test_are_the_harmonics_of_e3nn(o3, normalization):
    grid = SphereGrid.exact(7)
    theirs = o3.spherical_harmonics(list(range(9)), grid.points, True, normalization)
    torch.testing.assert_close(to_grid(grid, 8, normalization=normalization), theirs, atol=1e-12, rtol=0)


def test_legendre_functions_of_high_degree():
    special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
    beta = torch.linspace(0, math.pi, 31, dtype=torch.float64)
    table = legendre(40, beta)
    for l, m in [(40, 0), (40, 17), (40, 40), (23, 5)]:
        factor = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m))
        expected = torch.tensor(special.lpmv(m, l, beta.cos().numpy())) * factor * (-1) ** m
        torch.testing.assert_close(table[:, l * l + l + m], expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("lmax", [0, 1, 4, 12])
def test_an_exact_grid_is_exact_and_no_larger_than_needed(lmax):
    def gram(grid):
        return torch.einsum("bai,baj->ij", from_grid(grid, lmax), to_grid(grid, lmax))

    one = torch.eye((lmax + 1) ** 2, dtype=torch.float64)
    torch.testing.assert_close(gram(SphereGrid.exact(2 * lmax)), one, atol=1e-12, rtol=0)
    torch.testing.assert_close(gram(SphereGrid.e3nn(2 * lmax + 2, 2 * lmax + 1)), one, atol=1e-12, rtol=0)
    for fewer in ({"latitudes": lmax}, {"longitudes": 2 * lmax}):
        if lmax:
            assert (gram(SphereGrid.exact(2 * lmax, **fewer)) - one).abs().max() > 1e-2


@pytest.mark.parametrize("grid", [SphereGrid.exact(9), SphereGrid.e3nn(10, 11)], ids=["exact", "e3nn"])
def test_integrates_polynomials(grid):
    """The mean of y^2 is 1/3, that of x^4 is 1/5, that of x^2 y^2 z^4 is 3/945; odd ones vanish."""
    x, y, z = grid.points.unbind(-1)
    weight = grid.weight[:, None] / (4 * math.pi)
    for f, mean in (
        (1 + 0 * x, 1),
        (y**2, 1 / 3),
        (x**4, 1 / 5),
        (x**2 * y**2 * z**4, 3 / 945),
        (x * y**4 * z, 0),
    ):
        torch.testing.assert_close(
            (f * weight).sum(), torch.tensor(float(mean), dtype=torch.float64), atol=1e-13, rtol=0
        )


@pytest.mark.parametrize("normalization", ["component", "norm", "integral"])
def test_is_the_transform_of_e3nn(o3, normalization):
    """Up to its factor of each degree, which ``scale`` takes."""
    lmax = 3
    degrees = torch.arange(lmax + 1, dtype=torch.float64)
    scale = {
        "component": ((2 * degrees + 1) * (lmax + 1)).rsqrt(),
        "norm": ((2 * degrees + 1) / (lmax + 1)).sqrt(),
        "integral": torch.ones(lmax + 1, dtype=torch.float64),
    }[normalization]
    grid = SphereGrid.e3nn(10, 9)
    theirs = o3.ToS2Grid(lmax, (10, 9), normalization, dtype=torch.float64)
    x = torch.randn(16, dtype=torch.float64)
    signal = to_grid(grid, lmax, normalization=normalization, scale=scale) @ x
    torch.testing.assert_close(signal, theirs(x))
    back = o3.FromS2Grid((10, 9), lmax, normalization, dtype=torch.float64)
    ours = torch.einsum("bai,ba->i", from_grid(grid, lmax, normalization=normalization, scale=scale), signal)
    torch.testing.assert_close(ours, back(signal), atol=2e-6, rtol=0)  # its weights are float32


@given(st.integers(0, 2**31 - 1))
def test_a_product_of_functions_is_equivariant(seed):
    """And reads the couplings off the integral of three harmonics, sign included."""
    generator = torch.Generator().manual_seed(seed)
    lmax = 3
    grid = SphereGrid.exact(3 * lmax)
    to, back = to_grid(grid, lmax), from_grid(grid, lmax)
    x, y = torch.randn(2, 16, dtype=torch.float64, generator=generator)
    D = torch.block_diag(*wigner_D_all(lmax, rand_matrix(dtype=torch.float64, generator=generator)))

    def multiply(x, y):
        return torch.einsum("bai,ba->i", back, (to @ x) * (to @ y))

    torch.testing.assert_close(multiply(D @ x, D @ y), D @ multiply(x, y), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("degrees", [(1, 1, 2), (2, 2, 2), (3, 2, 1), (2, 3, 3)])
def test_the_integral_of_three_harmonics_is_a_coupling(degrees):
    grid = SphereGrid.exact(sum(degrees))
    table = to_grid(grid, 3, normalization="integral")
    a, b, c = (table[..., l * l : (l + 1) ** 2] for l in degrees)
    gaunt = torch.einsum("bai,baj,bak,b->ijk", a, b, c, grid.weight)
    l1, l2, l3 = degrees
    at_zero = clebsch_gordan(*degrees)[l1, l2, l3] / math.sqrt(2 * l3 + 1)
    factor = math.sqrt(math.prod(2 * l + 1 for l in degrees) / (4 * math.pi)) * abs(at_zero)
    torch.testing.assert_close(gaunt, factor * wigner_3j(*degrees), atol=1e-13, rtol=0)


def test_legendre_functions_have_gradients():
    beta = torch.tensor([0.0, 0.3, math.pi / 2, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda beta: legendre(4, beta), beta)


def test_says_what_it_expected():
    grid = SphereGrid.exact(2)
    with pytest.raises(ValueError, match="normalization expects one of"):
        to_grid(grid, 1, normalization="unit")
    with pytest.raises(ValueError, match=r"scale expects a factor for each of 2 degrees, got \(3,\)"):
        from_grid(grid, 1, scale=torch.ones(3))
    with pytest.raises(ValueError, match="even number of latitudes, got 5"):
        SphereGrid.e3nn(5, 5)
    with pytest.raises(ValueError, match="degree >= 0, got -1"):
        SphereGrid.exact(-1)
