"""Rotations of space in their usual coordinates, and the ways between these.

Angles are in radians; Euler angles mean R_y(alpha) R_x(beta) R_y(gamma) with gamma applied first (the polar
axis is y); quaternions are (w, x, y, z) of unit norm, and q and -q are the same rotation; axes need not be
normalised. Names and argument orders are those of e3nn. Results follow the dtype and device of the arguments.
"""

from __future__ import annotations

import math
from typing import TypedDict, Unpack

import torch
from torch import Tensor


class Factory(TypedDict, total=False):
    """How a random or constant rotation is to be made."""

    dtype: torch.dtype | None
    device: torch.device | str | None
    generator: torch.Generator | None
    requires_grad: bool


def rand_matrix(*shape: int, **factory: Unpack[Factory]) -> Tensor:
    """Haar-random rotation matrices: shape (*shape, 3, 3).

    >>> rand_matrix(2, dtype=torch.float64).shape
    torch.Size([2, 3, 3])
    """
    grad = factory.pop("requires_grad", False)
    return quaternion_to_matrix(rand_quaternion(*shape, **factory)).requires_grad_(grad)


def rand_quaternion(*shape: int, **factory: Unpack[Factory]) -> Tensor:
    """Uniform unit quaternions: shape (*shape, 4)."""
    grad = factory.pop("requires_grad", False)
    q = torch.randn(*shape, 4, **factory)
    return (q / q.norm(dim=-1, keepdim=True)).requires_grad_(grad)


def rand_angles(*shape: int, **factory: Unpack[Factory]) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of Haar-random rotations: three tensors of shape (*shape)."""
    grad = factory.pop("requires_grad", False)
    alpha, gamma = (2 * math.pi * torch.rand(shape, **factory) for _ in range(2))
    beta = (2 * torch.rand(shape, **factory) - 1).acos()
    return alpha.requires_grad_(grad), beta.requires_grad_(grad), gamma.requires_grad_(grad)


def rand_axis_angle(*shape: int, **factory: Unpack[Factory]) -> tuple[Tensor, Tensor]:
    """Unit axes and angles of Haar-random rotations: shapes (*shape, 3) and (*shape)."""
    grad = factory.pop("requires_grad", False)
    axis, angle = quaternion_to_axis_angle(rand_quaternion(*shape, **factory))
    return axis.requires_grad_(grad), angle.requires_grad_(grad)


def identity_quaternion(
    *shape: int,
    requires_grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The quaternion of no rotation: shape (*shape, 4)."""
    q = torch.eye(4, dtype=dtype, device=device)[0].repeat(*shape, 1)
    return q.requires_grad_(requires_grad)


def identity_angles(
    *shape: int,
    requires_grad: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The Euler angles of no rotation: three zeros of shape (*shape)."""
    alpha, beta, gamma = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(3))
    return (
        alpha.requires_grad_(requires_grad),
        beta.requires_grad_(requires_grad),
        gamma.requires_grad_(requires_grad),
    )


def compose_angles(
    a1: Tensor, b1: Tensor, c1: Tensor, a2: Tensor, b2: Tensor, c2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of rotation 1 after rotation 2."""
    return matrix_to_angles(angles_to_matrix(a1, b1, c1) @ angles_to_matrix(a2, b2, c2))


def compose_quaternion(q1: Tensor, q2: Tensor) -> Tensor:
    """The Hamilton product: rotation 1 after rotation 2. Shape (..., 4)."""
    q1, q2 = torch.broadcast_tensors(q1, q2)
    w1, v1, w2, v2 = q1[..., :1], q1[..., 1:], q2[..., :1], q2[..., 1:]
    real = w1 * w2 - (v1 * v2).sum(dim=-1, keepdim=True)
    return torch.cat([real, w1 * v2 + w2 * v1 + torch.linalg.cross(v1, v2)], dim=-1)


def compose_axis_angle(axis1: Tensor, angle1: Tensor, axis2: Tensor, angle2: Tensor) -> tuple[Tensor, Tensor]:
    """Axis and angle of rotation 1 after rotation 2."""
    q1, q2 = axis_angle_to_quaternion(axis1, angle1), axis_angle_to_quaternion(axis2, angle2)
    return quaternion_to_axis_angle(compose_quaternion(q1, q2))


def inverse_angles(alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of the inverse rotation."""
    return -gamma, -beta, -alpha


def inverse_quaternion(q: Tensor) -> Tensor:
    """The quaternion of the inverse rotation. Shape (..., 4)."""
    return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)


def matrix_x(angle: Tensor) -> Tensor:
    """Matrix of the rotation about x: shape (...) -> (..., 3, 3)."""
    return _matrix_about(0, angle)


def matrix_y(angle: Tensor) -> Tensor:
    """Matrix of the rotation about y: shape (...) -> (..., 3, 3)."""
    return _matrix_about(1, angle)


def matrix_z(angle: Tensor) -> Tensor:
    """Matrix of the rotation about z: shape (...) -> (..., 3, 3)."""
    return _matrix_about(2, angle)


def angles_to_matrix(alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Matrix R_y(alpha) R_x(beta) R_y(gamma): three shapes (...) -> (..., 3, 3)."""
    alpha, beta, gamma = torch.broadcast_tensors(alpha, beta, gamma)
    return matrix_y(alpha) @ matrix_x(beta) @ matrix_y(gamma)


def angles_to_quaternion(alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Quaternion of the rotation by Euler angles. Shape (..., 4)."""
    alpha, beta, gamma = torch.broadcast_tensors(alpha, beta, gamma)
    first, tilt, last = (_quaternion_about(axis, a) for axis, a in ((1, gamma), (0, beta), (1, alpha)))
    return compose_quaternion(last, compose_quaternion(tilt, first))


def angles_to_axis_angle(alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Axis and angle of the rotation by Euler angles."""
    return quaternion_to_axis_angle(angles_to_quaternion(alpha, beta, gamma))


def matrix_to_angles(R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of rotation matrices (..., 3, 3); where beta is 0 or pi, gamma takes what alpha leaves."""
    alpha, beta = xyz_to_angles(R[..., :, 1])
    rest = angles_to_matrix(alpha, beta, torch.zeros_like(alpha)).mT @ R
    return alpha, beta, torch.atan2(rest[..., 0, 2], rest[..., 0, 0])


def matrix_to_quaternion(R: Tensor) -> Tensor:
    """Quaternion of rotation matrices, (..., 3, 3) -> (..., 4): the best conditioned column of 4 q q^T."""
    trace = R.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    skew = torch.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1
    )
    one = torch.eye(3, dtype=R.dtype, device=R.device)
    top = torch.cat([(1 + trace)[..., None], skew], dim=-1)[..., None, :]
    below = torch.cat([skew[..., :, None], R + R.mT + (1 - trace)[..., None, None] * one], dim=-1)
    square = torch.cat([top, below], dim=-2)
    best = square.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None]
    q = square.take_along_dim(best, dim=-2).squeeze(-2)
    return q / q.norm(dim=-1, keepdim=True)


def matrix_to_axis_angle(R: Tensor) -> tuple[Tensor, Tensor]:
    """Unit axis and angle of rotation matrices (..., 3, 3)."""
    return quaternion_to_axis_angle(matrix_to_quaternion(R))


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Rotation matrices of unit quaternions: (..., 4) -> (..., 3, 3)."""
    w, v = q[..., 0, None, None], q[..., 1:]
    one = torch.eye(3, dtype=q.dtype, device=q.device)
    spin = torch.linalg.cross(v[..., None, :].expand(*v.shape, 3), one.expand(*v.shape, 3)).mT
    return one + 2 * (w * spin + spin @ spin)


def quaternion_to_angles(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of unit quaternions (..., 4)."""
    return matrix_to_angles(quaternion_to_matrix(q))


def quaternion_to_axis_angle(q: Tensor) -> tuple[Tensor, Tensor]:
    """Unit axis and angle in [0, pi] of unit quaternions (..., 4); no rotation has the axis (1, 0, 0)."""
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = torch.linalg.vector_norm(q[..., 1:], dim=-1)
    still = (sine == 0)[..., None]
    anywhere = torch.eye(3, dtype=q.dtype, device=q.device)[0]
    axis = torch.where(still, anywhere, q[..., 1:] / torch.where(still, 1.0, sine[..., None]))
    return axis, 2 * torch.atan2(sine, q[..., 0])


def axis_angle_to_matrix(axis: Tensor, angle: Tensor) -> Tensor:
    """Matrices of rotations about axes (..., 3) by angles (...)."""
    return quaternion_to_matrix(axis_angle_to_quaternion(axis, angle))


def axis_angle_to_quaternion(axis: Tensor, angle: Tensor) -> Tensor:
    """Quaternions of rotations about axes (..., 3) by angles (...)."""
    unit = torch.nn.functional.normalize(axis, dim=-1)
    half = (angle / 2)[..., None]
    vector = unit * half.sin()
    return torch.cat([half.cos().expand(*vector.shape[:-1], 1), vector], dim=-1)


def axis_angle_to_angles(axis: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of rotations about axes (..., 3) by angles (...)."""
    return matrix_to_angles(axis_angle_to_matrix(axis, angle))


def angles_to_xyz(alpha: Tensor, beta: Tensor) -> Tensor:
    """The point of the unit sphere that R_y(alpha) R_x(beta) makes of the pole y: shape (..., 3).

    >>> angles_to_xyz(torch.tensor(0.0), torch.tensor(0.0))
    tensor([0., 1., 0.])
    """
    alpha, beta = torch.broadcast_tensors(alpha, beta)
    return torch.stack([beta.sin() * alpha.sin(), beta.cos(), beta.sin() * alpha.cos()], dim=-1)


def xyz_to_angles(xyz: Tensor) -> tuple[Tensor, Tensor]:
    """The angles (alpha, beta) of directions (..., 3) of any length."""
    x, y, z = xyz.unbind(dim=-1)
    return torch.atan2(x, z), torch.atan2(torch.hypot(x, z), y)


def _matrix_about(axis: int, angle: Tensor) -> Tensor:
    """Write cos and sin into the plane of the two other axes, in cyclic order."""
    one, zero, c, s = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    entries = [[zero] * 3 for _ in range(3)]
    a, b = (axis + 1) % 3, (axis + 2) % 3
    entries[axis][axis], entries[a][a], entries[b][b] = one, c, c
    entries[a][b], entries[b][a] = -s, s
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)


def _quaternion_about(axis: int, angle: Tensor) -> Tensor:
    parts = [(angle / 2).cos()] + [torch.zeros_like(angle)] * 3
    parts[1 + axis] = (angle / 2).sin()
    return torch.stack(parts, dim=-1)
