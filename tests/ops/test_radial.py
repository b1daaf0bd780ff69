"""equitorch/ops/radial"""

import pytest
import torch

from equitorch.ops.radial import interpolate
from equitorch.ops.radial.reference import blend as reference

op = torch.ops.equitorch.radial_blend


def polynomial_table(knots, spacing, dtype=torch.float64):
    """x^5 - 2 x^2 + 1 and its double: a quintic is reproduced exactly."""
    x = torch.arange(knots, dtype=dtype) * spacing
    value, slope, curvature = x**5 - 2 * x**2 + 1, 5 * x**4 - 4 * x, 20 * x**3 - 4
    table = torch.stack([value, spacing * slope, spacing**2 * curvature], dim=1)
    return torch.stack([table, 2 * table], dim=-1)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_reproduces_a_quintic_and_its_derivatives(order):
    d = torch.linspace(0, 2, 41, dtype=torch.float64)
    got = interpolate(polynomial_table(5, 0.5), d, 0.5, order=order)[:, 0]
    want = [d**5 - 2 * d**2 + 1, 5 * d**4 - 4 * d, 20 * d**3 - 4, 60 * d**2][order]
    torch.testing.assert_close(got, want)


def test_a_coarser_polynomial_is_not_reproduced():
    """Degree six is beyond a quintic: the test above can fail."""
    x = torch.arange(5, dtype=torch.float64) * 0.5
    table = torch.stack([x**6, 0.5 * 6 * x**5, 0.25 * 30 * x**4], dim=1)[..., None]
    d = torch.tensor([0.25], dtype=torch.float64)
    assert (interpolate(table, d, 0.5)[:, 0] - d**6).abs() > 1e-5


@pytest.mark.parametrize("points", [0, 1, 3, 129])
@pytest.mark.parametrize("knots", [2, 3, 33])
@pytest.mark.parametrize("columns", [1, 17])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_agrees_with_the_reference(points, knots, columns, order, dtype):
    torch.manual_seed(points)
    place = torch.rand(points, dtype=dtype) * knots  # some lie beyond the last knot
    place[: points // 8] = place[: points // 8].floor()
    for slot, filled in enumerate(operands(points, knots, columns, dtype)):
        got = op(filled, slot, [place], [order, knots])
        tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {}
        torch.testing.assert_close(got, reference(slot, filled, [place], [order, knots]), **tolerance)


@pytest.mark.parametrize("order", [0, 1, 2, 6])
@pytest.mark.parametrize(("points", "knots", "columns"), [(0, 3, 1), (1, 2, 129), (3, 33, 17), (29, 3, 1)])
def test_triton_agrees_with_the_reference(points, knots, columns, order):
    """On a GPU the compiled kernel; elsewhere the same source in Triton's interpreter."""
    kernel = pytest.importorskip("equitorch.ops.radial.triton", reason="Triton is not installed")
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        torch.manual_seed(points)
        place = torch.rand(points, dtype=dtype) * knots
        place[: points // 8] = place[: points // 8].floor()
        for slot, filled in enumerate(operands(points, knots, columns, dtype)):
            got, want = (f(slot, filled, [place], [order, knots]) for f in (kernel.blend, reference))
            torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)


def test_triton_is_zero_beyond_the_last_knot_and_keeps_nan():
    kernel = pytest.importorskip("equitorch.ops.radial.triton", reason="Triton is not installed")
    place = torch.tensor([3.1, 1e20, float("inf"), float("nan")], dtype=torch.float64)
    for slot, filled in enumerate(operands(4, 4, 3)):
        out = kernel.blend(slot, filled, [place], [0, 4])
        assert out[:3].eq(0).all() if slot else out.eq(0).all()
        assert not slot or out[3].isnan().all()


def operands(points, knots, columns, dtype=torch.float64):
    """For each open slot the two that are filled, strided."""
    table = torch.randn(3, columns, knots, dtype=dtype).permute(2, 0, 1)
    column, point = torch.randn(columns, points, dtype=dtype).mT, torch.randn(points, 2, dtype=dtype)[:, 0]
    return [column, point], [table, point], [table, column]


def test_is_zero_beyond_the_last_knot_and_keeps_nan():
    table = torch.randn(4, 3, 2)
    out = interpolate(table, torch.tensor([1.6, 100.0, float("nan")]), 0.5)
    assert out[:2].eq(0).all()
    assert out[2].isnan().all()


def test_differentiates_three_times_in_the_table_and_the_distance():
    table = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    d = torch.tensor([0.1, 0.7, 1.2], dtype=torch.float64, requires_grad=True)

    def call(table, d):
        return interpolate(table, d, 0.5)

    def force(table, d):
        return torch.autograd.grad(call(table, d).square().sum(), d, create_graph=True)[0]

    assert torch.autograd.gradcheck(call, (table, d))
    assert torch.autograd.gradgradcheck(call, (table, d))
    assert torch.autograd.gradgradcheck(force, (table, d))


def test_is_a_well_formed_operator():
    place = torch.rand(5) * 4
    for slot, filled in enumerate(operands(5, 4, 2)):
        torch.library.opcheck(
            op.default, ([x.requires_grad_() for x in filled], slot, [place.double()], [1, 4])
        )


def test_compiles_to_one_graph():
    table = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    d = torch.rand(5, dtype=torch.float64).requires_grad_()
    whole = torch.compile(lambda t, d: interpolate(t, d, 0.5), fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(f(table, d).square().sum(), (table, d))
        for f in (whole, lambda t, d: interpolate(t, d, 0.5))
    ]
    torch.testing.assert_close(*grads)


def test_same_bits_twice():
    place = torch.rand(500) * 4
    for slot, filled in enumerate(operands(500, 4, 7, torch.float32)):
        assert torch.equal(op(filled, slot, [place], [0, 4]), op(filled, slot, [place], [0, 4]))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects a table of shape \(knots >= 2, 3, functions\)"):
        interpolate(torch.randn(4, 2, 2), torch.rand(3), 0.5)
