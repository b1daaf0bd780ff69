"""equitorch/layers/row_grid.py"""

import pytest
import torch
import torch.nn.functional as F

from equitorch.layers import RowGrid, row_grid
from equitorch.layers.row_grid import kept_index
from equitorch.reps import Irreps
from equitorch.reps.sphere import SphereGrid, from_grid, to_grid
from equitorch.testing import assert_equivariant
from tests.equiformer_reference import assert_same, reference

SIZES = {(2, 2): 28, (4, 2): 49, (6, 2): 70, (6, 3): 100}


def product(values):
    u, v = values.chunk(2, dim=-1)
    return u * v


@pytest.mark.parametrize("name", ["L2M2resNone", "L4M2resNone", "L6M2res18", "L6M2resNone", "L6M6res18"])
def test_is_the_grid_of_equiformer(name):
    theirs = reference("escn_primitives")["grids"][name]
    resolution = None if name.endswith("None") else int(name.split("res")[1])
    ours = RowGrid.published(int(name[1]), int(name[3]), rows="degree", resolution=resolution).double()
    assert_same(ours.to_points.value, theirs["to"].flatten(0, 1))
    assert_same(ours.to_rows.value.mT, theirs["frm"].flatten(0, 1))


def test_integral_normalisation_is_that_of_orthonormal_harmonics():
    grid = SphereGrid.e3nn(14, 14)
    ours = RowGrid.published(2, rows="degree", resolution=14, normalization="integral").double()
    torch.testing.assert_close(ours.to_points.value, to_grid(grid, 2, normalization="integral").flatten(0, 1))
    torch.testing.assert_close(
        ours.to_rows.value.mT, from_grid(grid, 2, normalization="integral").flatten(0, 1)
    )


@pytest.mark.parametrize("lmax", [1, 2, 3, 4, 6])
def test_multiplies_exactly_on_nodes_and_not_with_a_circle_less(lmax):
    irreps = Irreps.spherical_harmonics(lmax)
    grid = RowGrid.exact(lmax, rows="degree").double()
    assert grid.shape == (3 * lmax // 2 + 1, 3 * lmax + 1)
    assert_equivariant(lambda x: grid(product, x), [irreps], irreps, atol=1e-13)
    fine = RowGrid(SphereGrid.exact(4 * lmax), lmax, lmax, rows="degree").double()
    x = torch.randn(3, (lmax + 1) ** 2, 4, dtype=torch.float64)
    torch.testing.assert_close(grid(product, x), fine(product, x), rtol=0, atol=1e-13)
    for fewer in ({"latitudes": 3 * lmax // 2}, {"longitudes": 3 * lmax}):
        coarse = RowGrid(SphereGrid.exact(3 * lmax, **fewer), lmax, lmax, rows="degree").double()
        with pytest.raises(AssertionError, match="is off by"):
            assert_equivariant(lambda x: coarse(product, x), [irreps], irreps, atol=1e-2)  # noqa: B023


@pytest.mark.parametrize(("lmax", "mmax"), SIZES)
def test_multiplies_exactly_on_edges_and_not_with_a_circle_less(lmax, mmax):
    """The product, without the orders that an edge leaves out."""
    grid = RowGrid.exact(lmax, mmax).double()
    assert len(grid.to_points.value) == SIZES[lmax, mmax]
    x = torch.randn(3, len(grid.to_rows.value), 4, dtype=torch.float64)
    fine = RowGrid(SphereGrid.exact(4 * lmax), lmax, mmax).double()
    torch.testing.assert_close(grid(product, x), fine(product, x), rtol=0, atol=1e-13)
    for fewer in ({"latitudes": 3 * lmax // 2, "longitudes": 3 * mmax + 1}, {"longitudes": 3 * mmax}):
        coarse = RowGrid(SphereGrid.exact(3 * lmax, **fewer), lmax, mmax).double()
        assert (coarse(product, x) - fine(product, x)).abs().max() > 1e-3


def test_rows_are_sorted_either_way():
    by_order, by_degree = (RowGrid.exact(4, 2, rows=rows).double() for rows in ("order", "degree"))
    x = torch.randn(3, 19, 2, dtype=torch.float64)
    kept = kept_index(4, 2, "degree")
    permutation = [kept.index(i) for i in kept_index(4, 2, "order")]
    torch.testing.assert_close(
        by_order(F.silu, x[:, permutation]), by_degree(F.silu, x)[:, permutation], rtol=0, atol=1e-14
    )


def test_differentiates_in_pieces_as_in_one(monkeypatch):
    grid = RowGrid.exact(2, 1).double()
    x = torch.randn(5, 7, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    function = lambda x, w: grid(lambda v, w: F.silu(product(v) @ w.T), x, w)  # noqa: E731
    whole = function(x, w)
    monkeypatch.setattr(row_grid, "_PIECE", {"cpu": 2 * len(grid.to_points.value) * 4})
    torch.testing.assert_close(function(x, w), whole)
    assert torch.autograd.gradcheck(function, (x, w))
    assert torch.autograd.gradgradcheck(function, (x, w))


def test_takes_any_leading_axes_dtype_and_compiles():
    grid = RowGrid.exact(2, 1)
    for lead in ((), (0,), (1,), (2, 3)):
        assert grid(torch.square, torch.randn(*lead, 7, 4)).shape == (*lead, 7, 4)
    x = torch.randn(5, 7, 4)
    torch.testing.assert_close(grid.double()(product, x.double()).float(), grid.float()(product, x))
    whole = torch.compile(lambda x: grid(product, x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x), grid(product, x))
    assert not dict(grid.state_dict())


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"RowGrid\(l<=2, \|m\|<=1, 4x4 points\) expects x of shape \(\.\.\., 7, channels\)"
    ):
        RowGrid.exact(2, 1)(torch.square, torch.randn(5, 9, 4))
    with pytest.raises(ValueError, match="normalization 'component' or 'integral', got 'norm'"):
        RowGrid.published(2, normalization="norm")
    with pytest.raises(ValueError, match="rows expects 'degree' or 'order', got 'm'"):
        kept_index(2, 2, "m")
