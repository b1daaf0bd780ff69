"""equitorch/ops/sphere_power/"""

import pytest
import torch

from equitorch.ops.backend import use_reference
from equitorch.ops.sphere_power import grid, sphere_polynomial
from equitorch.reps.sphere import harmonics_at

CASES = [  # lmax in and out, orders, degrees share weights, species
    (2, 2, 3, False, 2),
    (1, 2, 4, False, 1),
    (2, 1, 2, True, 2),
    (2, 1, 3, True, 1),
    (1, 3, 1, False, 2),
    (0, 1, 3, False, 2),
    (2, 0, 1, True, 2),
]


def operands(lmax_in, lmax_out, orders, flat, species, nodes=3, channels=2, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(nodes, (lmax_in + 1) ** 2, channels, dtype=dtype)
    weight = torch.randn(species, orders, 1 if flat else lmax_out + 1, channels, dtype=dtype)
    return x, weight, torch.randint(0, species, (nodes,))


def derivatives(x, weight, index, lmax_out, depth):
    """The value, and what follows from squares of gradients of squares."""
    xs = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    found = [sphere_polynomial(*xs, index, lmax_out)]
    parts = found
    for _ in range(depth):
        parts = torch.autograd.grad(sum(p.square().sum() for p in parts) / 10, xs, create_graph=True)
        found += parts
    return found


def test_powers_are_powers_of_the_function():
    """Untruncated, the result is a function again: its values are the powers of the values of x."""
    x, weight, index = operands(2, 6, 3, False, 2)
    weight[:] = weight[..., :1, :]
    points = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    value = harmonics_at(2, points) @ x
    expected = sum(weight[index, n, :1] * value ** (n + 1) for n in range(3))
    out = sphere_polynomial(x, weight, index, 6)
    torch.testing.assert_close(harmonics_at(6, points) @ out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference_to_third_derivatives(case):
    x, weight, index = operands(*case)
    found = derivatives(x, weight, index, case[1], 3)
    with use_reference():
        expected = derivatives(x, weight, index, case[1], 3)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


@pytest.mark.parametrize("case", CASES)
def test_has_right_derivatives(case):
    x, weight, index = operands(*case)
    xs = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *t: sphere_polynomial(*t, index, case[1]), xs)
    assert torch.autograd.gradgradcheck(lambda *t: sphere_polynomial(*t, index, case[1]), xs, fast_mode=True)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("nodes", "channels"), [(0, 2), (1, 1), (3, 0), (129, 3), (5, 129)])
def test_takes_awkward_sizes_and_pieces(nodes, channels, flat, monkeypatch):
    monkeypatch.setitem(grid._BYTES, "cpu", 1 << 13)  # several pieces
    x, weight, index = operands(2, 1, 3, flat, 3, nodes, channels)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    found = derivatives(strided, weight, index, 1, 2)
    with use_reference():
        expected = derivatives(x, weight, index, 1, 2)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_is_accurate_in_single_precision():
    x, weight, index = operands(3, 2, 3, False, 2, 20, 4)
    exact = sphere_polynomial(x, weight, index, 2)
    rounded = sphere_polynomial(x.float(), weight.float(), index, 2)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 5e-6 * exact.square().mean().sqrt() * 4


@pytest.mark.parametrize("flat", [False, True])
def test_is_registered_as_an_operator(flat):
    x, weight, index = operands(2, 1, 3, flat, 2)
    xs = [x.requires_grad_(), torch.randn_like(x).requires_grad_()]
    z, weight = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True), weight.requires_grad_()
    sizes = [2, 1, 2, 3, weight.shape[2]]
    for opened, rest in ((grid.RESULT, [weight]), (grid.FIELD, [z, weight]), (grid.WEIGHT, [z])):
        for fields in (xs[:1], xs):
            torch.library.opcheck(
                torch.ops.equitorch.sphere_polynomial.default, (fields, rest, index, opened, sizes)
            )


def test_compiles_maps_and_transforms():
    x, weight, index = operands(2, 1, 3, False, 2)
    whole = torch.compile(lambda x, w: sphere_polynomial(x, w, index, 1), fullgraph=True, backend="aot_eager")
    expected = derivatives(x, weight, index, 1, 1)
    xs = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = whole(*xs)
    torch.testing.assert_close(out, expected[0])
    torch.testing.assert_close(torch.autograd.grad(out.square().sum() / 10, xs), tuple(expected[1:]))
    batch = torch.randn(4, *x.shape, dtype=torch.float64)
    each = torch.stack([sphere_polynomial(b, weight, index, 1) for b in batch])
    mapped = torch.func.vmap(lambda b: sphere_polynomial(b, weight, index, 1))
    torch.testing.assert_close(mapped(batch), each)
    op = torch.func.vmap(
        lambda b: torch.ops.equitorch.sphere_polynomial([b], [weight], index, grid.RESULT, [2, 1, 2, 3, 2])
    )
    torch.testing.assert_close(op(batch), each)


def test_the_check_can_fail(monkeypatch):
    """A grid that is exact to a lower degree aliases."""
    from equitorch.ops.sphere_power import reference

    x, weight, index = operands(2, 2, 3, False, 2)
    exact = sphere_polynomial(x, weight, index, 2)
    make = reference.SphereGrid.exact
    monkeypatch.setattr(reference.SphereGrid, "exact", lambda degree: make(degree - 2))
    reference._tables.cache_clear()
    short = sphere_polynomial(x, weight, index, 2)
    reference._tables.cache_clear()
    assert (short - exact).abs().max() > 1e-2


@pytest.mark.parametrize("flat", [True, False])
def test_autocast_lowers_nothing(flat):
    x, weight, index = operands(2, 1, 3, flat, 2, dtype=torch.float32)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(sphere_polynomial(x, weight, index, 1).square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(sphere_polynomial(x, weight, index, 1).square().sum(), x)
        with use_reference():
            plain = sphere_polynomial(x, weight, index, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain, sphere_polynomial(x, weight, index, 1), rtol=1e-4, atol=1e-5)


def test_what_a_transform_or_inference_makes_first_outlives_it():
    from equitorch.ops.sphere_power import reference

    x, weight, index = operands(2, 1, 3, False, 2)

    def square(x):
        return sphere_polynomial(x, weight, index, 1).square().sum()

    reference._tables.cache_clear()
    twice = torch.func.jacrev(torch.func.jacrev(square))
    first = twice(x)
    assert torch.equal(twice(x), first)
    reference._tables.cache_clear()
    with use_reference():
        with torch.inference_mode():
            square(x)
        assert torch.isfinite(torch.autograd.grad(square(x.requires_grad_()), x)[0]).all()


def test_says_what_it_expected():
    x, weight, index = operands(2, 1, 3, False, 2)
    with pytest.raises(ValueError, match=r"weight of shape \(species, orders, 3 or 1, channels\)"):
        sphere_polynomial(x, weight, index, 2)
    with pytest.raises(ValueError, match="expects lmax_out >= 0, got -1"):
        sphere_polynomial(x, weight, index, -1)
    with pytest.raises(ValueError, match="weights of the 2 channels of x, got 1"):
        sphere_polynomial(x, weight[..., :1], index, 1)
    with pytest.raises(ValueError, match="the index of species is expected to hold numbers from 0 to 1"):
        sphere_polynomial(x, weight, index + 2, 1)
