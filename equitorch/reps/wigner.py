"""Wigner D matrices of any degree, straight from the 3x3 matrix: no angles, no poles, no tables on disk."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.rotation import angles_to_matrix


def wigner_D(l: int, R: Tensor) -> Tensor:
    r"""The matrix by which real harmonics of degree l turn: D_l(R) Y_l(x) = Y_l(R x).

    .. math::

        D^0 = 1, \quad D^1 = R, \quad
        D^l_{ii'} = (2l+1) \sum C_{jki} C_{j'k'i'} D^{l-1}_{jj'} R_{kk'}, \qquad C = 3j(l-1, 1, l)

    A polynomial of degree l in the entries of R: smooth, with finite derivatives of every order, and
    D_l(-R) = (-1)^l D_l(R), so that an improper R acts with the natural parity of the harmonics.

    Args:
        l: the degree, any integer >= 0.
        R: orthogonal matrices; the result follows their dtype and device. Shape (..., 3, 3).

    Shape:
        R: (..., 3, 3) -> (..., 2 l + 1, 2 l + 1)

    Raises:
        ValueError: if l is negative or R does not end in two axes of size 3.

    Source:
        Varshalovich et al. 1988, Quantum Theory of Angular Momentum, section 4.6 (addition of D functions).

    >>> wigner_D(2, torch.eye(3)).shape
    torch.Size([5, 5])
    """
    return wigner_D_all(l, R)[-1]


def wigner_D_all(lmax: int, R: Tensor, *, steps: list[Tensor] | None = None) -> list[Tensor]:
    """The matrices of all degrees 0..lmax, each from the one before: see ``wigner_D``.

    Args:
        lmax: the highest degree.
        R: orthogonal matrices. Shape (..., 3, 3).
        steps: ``wigner_steps(lmax)`` in the dtype and on the device of R, for a module that keeps them as
            buffers; made on the spot if not given.

    Shape:
        R: (..., 3, 3) -> lmax + 1 tensors (..., 2 l + 1, 2 l + 1)

    Raises:
        ValueError: if lmax is negative or R does not end in two axes of size 3.

    >>> [D.shape[-1] for D in wigner_D_all(3, torch.eye(3))]
    [1, 3, 5, 7]
    """
    if lmax < 0 or tuple(R.shape[-2:]) != (3, 3):
        raise ValueError(
            f"wigner_D({lmax}, R) expects l >= 0 and R of shape (..., 3, 3), got R of shape {tuple(R.shape)}"
        )
    if steps is None:
        steps = [step.to(R) for step in wigner_steps(lmax)]
    matrices = [torch.ones_like(R[..., :1, :1]), R]
    for l in range(2, lmax + 1):
        left, right = steps[2 * (l - 2)], steps[2 * (l - 2) + 1]
        turned = matrices[-1] @ right  # (..., j, (k' i'))
        turned = R.unsqueeze(-3) @ turned.unflatten(-1, (3, 2 * l + 1))  # (..., j, k, i')
        matrices.append(left @ turned.flatten(-3, -2))
    return matrices[: lmax + 1]


def wigner_steps(lmax: int) -> list[Tensor]:
    """The constants of the recursion: for each degree 2..lmax a left and a right factor, float64.

    Shape:
        -> 2 (lmax - 1) tensors, (2 l + 1, 3 (2 l - 1)) and (2 l - 1, 3 (2 l + 1)) in turn

    >>> [tuple(step.shape) for step in wigner_steps(2)]
    [(5, 9), (3, 15)]
    """
    return [torch.tensor(factor, device="cpu") for l in range(2, lmax + 1) for factor in _step(l)]


def wigner_D_from_angles(l: int, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """``wigner_D`` of the rotation by Euler angles R_y(alpha) R_x(beta) R_y(gamma), gamma applied first.

    Args:
        l: the degree.
        alpha: angle about y, applied last, radians. Shape (...).
        beta: angle about x. Shape (...).
        gamma: angle about y, applied first. Shape (...).

    Shape:
        -> (..., 2 l + 1, 2 l + 1)

    >>> zero = torch.zeros(2)
    >>> wigner_D_from_angles(1, zero, zero, zero).shape
    torch.Size([2, 3, 3])
    """
    return wigner_D(l, angles_to_matrix(alpha, beta, gamma))


@functools.cache
def _step(l: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    symbol = real_3j(l - 1, 1, l) * math.sqrt(2 * l + 1)  # (j, k, i)
    left = np.ascontiguousarray(symbol.reshape(-1, 2 * l + 1).T)
    return left, symbol.reshape(2 * l - 1, -1)
