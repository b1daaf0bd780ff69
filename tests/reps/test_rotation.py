"""equitorch/reps/rotation.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch import reps
from tests.strategies import seeds

CONVERSIONS = [
    "angles_to_matrix",
    "angles_to_quaternion",
    "angles_to_axis_angle",
    "matrix_to_angles",
    "matrix_to_quaternion",
    "matrix_to_axis_angle",
    "quaternion_to_angles",
    "quaternion_to_matrix",
    "quaternion_to_axis_angle",
    "axis_angle_to_angles",
    "axis_angle_to_matrix",
    "axis_angle_to_quaternion",
]


def draw(kind, seed, count=10):
    options = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(seed)}
    made = {"angles": reps.rand_angles, "matrix": reps.rand_matrix, "quaternion": reps.rand_quaternion}
    value = made.get(kind, reps.rand_axis_angle)(count, **options)
    return value if isinstance(value, tuple) else (value,)


def as_matrix(kind, value):
    value = value if isinstance(value, tuple) else (value,)
    return value[0] if kind == "matrix" else getattr(reps, f"{kind}_to_matrix")(*value)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_keep_the_rotation(name):
    source, target = name.split("_to_")
    value = draw(source, 0)
    torch.testing.assert_close(as_matrix(target, getattr(reps, name)(*value)), as_matrix(source, value))


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_are_those_of_e3nn(o3, name):
    source, target = name.split("_to_")
    value = draw(source, 1)
    theirs = as_matrix(target, getattr(o3, name)(*value))
    torch.testing.assert_close(as_matrix(target, getattr(reps, name)(*value)), theirs, atol=1e-6, rtol=0)


def test_a_quarter_turn_about_z_takes_x_to_y():
    x = torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(reps.matrix_z(torch.tensor(math.pi / 2)) @ x, torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(reps.matrix_x(torch.tensor(math.pi / 2)) @ x, x)
    torch.testing.assert_close(reps.matrix_y(torch.tensor(math.pi / 2)) @ x, torch.tensor([0.0, 0.0, -1.0]))


@given(seeds)
def test_composition_is_the_product_of_matrices(seed):
    for kind in ("angles", "quaternion", "axis_angle"):
        a, b = draw(kind, seed), draw(kind, seed + 1)
        together = getattr(reps, f"compose_{kind}")(*a, *b)
        torch.testing.assert_close(as_matrix(kind, together), as_matrix(kind, a) @ as_matrix(kind, b))


def test_inverses_and_identities():
    q, angles = draw("quaternion", 2), draw("angles", 2)
    torch.testing.assert_close(
        as_matrix("quaternion", reps.inverse_quaternion(*q)), as_matrix("quaternion", q).mT
    )
    torch.testing.assert_close(
        as_matrix("angles", reps.inverse_angles(*angles)), as_matrix("angles", angles).mT
    )
    one = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(as_matrix("quaternion", reps.identity_quaternion(2)), one)
    torch.testing.assert_close(as_matrix("angles", reps.identity_angles(2)), one)


@given(st.sampled_from([0.0, 1e-13, 1e-7, math.pi - 1e-7, math.pi - 1e-13, math.pi]), seeds)
def test_survives_the_angles_where_an_axis_is_hard_to_find(angle, seed):
    axis = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    R = reps.axis_angle_to_matrix(axis, torch.tensor(angle, dtype=torch.float64))
    for kind in ("quaternion", "axis_angle", "angles"):
        back = as_matrix(kind, getattr(reps, f"matrix_to_{kind}")(R))
        torch.testing.assert_close(back, R, atol=1e-12, rtol=0)


def test_angles_about_an_axis_are_at_most_a_half_turn():
    _, angle = reps.quaternion_to_axis_angle(*draw("quaternion", 5, count=100))
    assert angle.min() >= 0
    assert angle.max() <= math.pi


def test_matrix_to_quaternion_has_finite_gradients():
    R = torch.eye(3, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(reps.matrix_to_quaternion(R).sum(), R)
    assert grad.isfinite().all()


@given(seeds)
def test_points_and_angles(seed):
    v = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit = v / v.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(reps.angles_to_xyz(*reps.xyz_to_angles(v)), unit)
    alpha, beta = reps.xyz_to_angles(v)
    pole = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(reps.angles_to_matrix(alpha, beta, torch.zeros_like(beta)) @ pole, unit)


def test_random_rotations_are_uniform():
    R = reps.rand_matrix(20000, generator=torch.Generator().manual_seed(0))
    assert R.mean(dim=0).abs().max() < 0.02
    assert torch.linalg.det(R).min() > 0.99
    assert R.square().mean(dim=0).sub(1 / 3).abs().max() < 0.02
    assert reps.rand_matrix(requires_grad=True).requires_grad
    angles = reps.rand_angles(20000, generator=torch.Generator().manual_seed(0))
    assert reps.angles_to_matrix(*angles).mean(dim=0).abs().max() < 0.02


def test_the_check_can_fail():
    """Swapping alpha and gamma gives another rotation: the comparisons above would see it."""
    alpha, beta, gamma = draw("angles", 3)
    assert (
        reps.angles_to_matrix(gamma, beta, alpha) - reps.angles_to_matrix(alpha, beta, gamma)
    ).abs().max() > 0.1
