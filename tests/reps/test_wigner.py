"""equitorch/reps/wigner.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import (
    angles_to_matrix,
    axis_angle_to_matrix,
    matrix_x,
    matrix_y,
    rand_matrix,
    wigner_D,
    wigner_D_all,
    wigner_D_from_angles,
    wigner_steps,
)
from tests.strategies import seeds

HALF_TURNS = [
    torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1])
]
SPECIAL = [torch.eye(3, dtype=torch.float64), *HALF_TURNS]


def rotations(count, seed=0, dtype=torch.float64):
    return rand_matrix(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(seeds)
def test_degree_two_is_in_e3nn_order(seed):
    """The quadratic harmonics as e3nn lists them, written out: polar axis y, unit norm."""

    def harmonics(v):
        x, y, z = v.unbind(-1)
        r2 = x * x + z * z
        return torch.stack([x * z, x * y, (2 * y * y - r2) / 12**0.5, y * z, (z * z - x * x) / 2], dim=-1)

    v = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    R = rotations(1, seed)[0]
    torch.testing.assert_close(harmonics(v @ R.T), harmonics(v) @ wigner_D(2, R).T)


@pytest.mark.parametrize("l", range(9))
def test_turns_the_harmonics_of_e3nn(o3, l):
    v = torch.randn(20, 3, dtype=torch.float64)
    R = rotations(1, l)[0]
    before, after = (o3.spherical_harmonics(l, r, normalize=True) for r in (v, v @ R.T))
    torch.testing.assert_close(after, before @ wigner_D(l, R).T, atol=1e-13, rtol=1e-11)


@pytest.mark.parametrize("l", [0, 1, 2, 5, 8, 12])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-7), (torch.float64, 1e-13)])
def test_is_an_orthogonal_homomorphism(l, dtype, bound):
    bound = bound * (3 + l) if dtype == torch.float32 else bound
    a, b = (rotations(200, seed, dtype) for seed in (0, 1))
    one = torch.eye(2 * l + 1, dtype=dtype)
    assert (wigner_D(l, a) @ wigner_D(l, a).mT - one).abs().max() <= bound
    assert (wigner_D(l, a) @ wigner_D(l, b) - wigner_D(l, a @ b)).abs().max() <= bound


def test_float32_is_close_to_float64():
    R = rotations(500, 2, torch.float32)
    assert (wigner_D(10, R) - wigner_D(10, R.double())).abs().max() <= 1e-6


@given(st.integers(0, 6), seeds)
def test_a_mirrored_rotation_has_natural_parity(l, seed):
    R = rotations(3, seed)
    torch.testing.assert_close(wigner_D(l, -R), (-1) ** l * wigner_D(l, R), atol=0, rtol=0)


@pytest.mark.parametrize("R", SPECIAL)
@pytest.mark.parametrize("l", [1, 3, 10])
def test_has_finite_gradients_everywhere(R, l):
    R = R.clone().requires_grad_()
    (grad,) = torch.autograd.grad(wigner_D(l, R).square().sum(), R)
    assert grad.isfinite().all()


@pytest.mark.parametrize("R", SPECIAL)
def test_differentiates_twice(R):
    R = R.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda R: wigner_D(3, R), R)
    assert torch.autograd.gradgradcheck(lambda R: wigner_D(3, R), R)


def test_has_the_derivative_of_its_generators():
    from equitorch.reps import so3_generators

    angle = torch.tensor(0.0, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda a: wigner_D(4, matrix_x(a)), angle)
    torch.testing.assert_close(slope, so3_generators(4)[0], atol=1e-13, rtol=0)


def test_about_the_polar_axis_only_signs_of_m_mix():
    D = wigner_D(3, matrix_y(torch.tensor(0.3, dtype=torch.float64)))
    for m in range(1, 4):
        c, s = math.cos(0.3 * m), math.sin(0.3 * m)
        block = D[[3 - m, 3 + m]][:, [3 - m, 3 + m]]
        torch.testing.assert_close(block, torch.tensor([[c, s], [-s, c]], dtype=torch.float64))
    assert (D.abs() > 1e-15).sum() <= 13


def test_takes_angles_and_any_batch():
    alpha, beta, gamma = torch.rand(3, 2, 5, dtype=torch.float64)
    R = angles_to_matrix(alpha, beta, gamma)
    torch.testing.assert_close(wigner_D_from_angles(4, alpha, beta, gamma), wigner_D(4, R))
    assert wigner_D(3, R[:0]).shape == (0, 5, 7, 7)
    torch.testing.assert_close(torch.vmap(lambda R: wigner_D(3, R))(R), wigner_D(3, R))


def test_all_degrees_at_once_with_kept_constants():
    R = rotations(2, dtype=torch.float32)
    steps = [step.float() for step in wigner_steps(6)]
    for l, D in enumerate(wigner_D_all(6, R, steps=steps)):
        torch.testing.assert_close(D, wigner_D(l, R))
    assert len(wigner_D_all(0, R)) == 1


def test_compiles_to_one_graph():
    steps = wigner_steps(3)
    whole = torch.compile(lambda R: wigner_D_all(3, R, steps=steps)[-1], fullgraph=True, backend="eager")
    R = rotations(2)
    torch.testing.assert_close(whole(R), wigner_D(3, R))


def test_the_check_can_fail():
    """A matrix that is no rotation gives no orthogonal D: the property above is about something."""
    stretched = torch.diag(torch.tensor([1.0, 1.0, 1.1], dtype=torch.float64))
    D = wigner_D(2, stretched)
    assert (D @ D.mT - torch.eye(5, dtype=torch.float64)).abs().max() > 1e-2


def test_turns_about_any_axis():
    axis = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    D = wigner_D(5, axis_angle_to_matrix(axis, torch.tensor(2 * math.pi / 5, dtype=torch.float64)))
    torch.testing.assert_close(torch.linalg.matrix_power(D, 5), torch.eye(11, dtype=torch.float64))


@pytest.mark.parametrize(("l", "shape"), [(-1, (3, 3)), (2, (3,)), (2, (4, 4))])
def test_says_what_it_expected(l, shape):
    with pytest.raises(ValueError, match=r"expects l >= 0 and R of shape \(\.\.\., 3, 3\)"):
        wigner_D(l, torch.ones(shape))
    with pytest.raises(ValueError, match="the angles alpha, beta and gamma, got two of these"):
        wigner_D(1, torch.eye(3), torch.tensor(0.5))


def near_the_poles(dtype=torch.float64):
    """Rotations whose tilt is nothing, tiny, or all but upside down; and their mirror images."""
    tilt = torch.tensor([0.0, 1e-300, 1e-12, 1e-8, 1e-4, 0.5], dtype=torch.float64)
    tilt = torch.cat([tilt, math.pi - tilt])[:, None]
    alpha, gamma = torch.randn(2, 1, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    R = torch.cat([angles_to_matrix(alpha, tilt, gamma).flatten(0, 1), torch.stack(SPECIAL)])
    return torch.cat([R, -R]).to(dtype)


@pytest.mark.parametrize("l", [4, 7, 12])
def test_has_the_same_values_with_and_without_derivatives(l):
    """Those of the polynomial, and those by the factors of the rotation."""
    for R in (near_the_poles(), rotations(50).view(5, 10, 3, 3), rotations(1)[0], rotations(0)):
        by_recursion = wigner_D(l, R.clone().requires_grad_()).detach()
        torch.testing.assert_close(wigner_D(l, R), by_recursion, atol=1e-13, rtol=0)
        for low, high in zip(wigner_D_all(l, R), wigner_D_all(l, R.clone().requires_grad_()), strict=True):
            torch.testing.assert_close(low, high.detach(), atol=1e-13, rtol=0)


@pytest.mark.parametrize("l", [4, 7, 10])
def test_float32_is_forty_times_closer_than_e3nn(o3, l):
    R = torch.cat([rotations(300, 3), near_the_poles()[:40]])
    exact = wigner_D(l, R)
    R = R.float()
    theirs = (o3.Irrep(l, (-1) ** l).D_from_matrix(R) - exact).abs().max()
    assert (wigner_D(l, R) - exact).abs().max() <= min(1e-6, theirs / 40)


def test_strided_matrices_and_device_modes():
    R = rotations(6).mT
    torch.testing.assert_close(wigner_D(5, R), wigner_D(5, R.contiguous()))
    with torch.inference_mode():
        wigner_D(9, R)
    torch.testing.assert_close(wigner_D(9, R), wigner_D(9, R.clone().requires_grad_()).detach())
    torch.testing.assert_close(torch.func.vmap(lambda r: wigner_D(5, r))(R), wigner_D(5, R))


@pytest.mark.parametrize("l", [0, 1, 2, 5])
def test_takes_angles_as_e3nn_does(o3, l):
    angles = torch.randn(3, 4, dtype=torch.float64)
    theirs = o3.wigner_D(l, *angles).double()  # its generators are in the default dtype
    torch.testing.assert_close(wigner_D(l, *angles), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(wigner_D(l, *angles), wigner_D_from_angles(l, *angles))
