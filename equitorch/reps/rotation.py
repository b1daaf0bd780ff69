"""Rotations of space in their usual coordinates, and the ways between these.

Angles are in radians; Euler angles mean R_y(alpha) R_x(beta) R_y(gamma) with gamma applied first (the polar
axis is y); quaternions are (w, x, y, z) of unit norm, and q and -q are the same rotation.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def _matrix_about(axis: int, angle: Tensor) -> Tensor:
    """Write cos and sin into the plane of the two other axes, in cyclic order."""
    one, zero, c, s = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    entries = [[zero] * 3 for _ in range(3)]
    a, b = (axis + 1) % 3, (axis + 2) % 3
    entries[axis][axis], entries[a][a], entries[b][b] = one, c, c
    entries[a][b], entries[b][a] = -s, s
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)
