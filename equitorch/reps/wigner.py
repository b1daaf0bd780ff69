"""Wigner D matrices of any degree, straight from the 3x3 matrix: no poles, no tables on disk.

There are two ways. The recursion from degree to degree is a polynomial in the matrix, with derivatives of
every order. Where nobody asks for derivatives, every degree comes by itself from the rotation's factors about
the axes y, x, y, which is faster the higher the degree: the outer ones are waves, the middle one a sum of
constant matrices times waves. Both agree to round-off on orthogonal matrices.
"""

from __future__ import annotations

import functools
import math
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.angular_momentum import real_3j, so3_generators
from equitorch.reps.rotation import angles_to_matrix

_BY_FACTORS_FROM = 4  # below, the few steps of the recursion are as fast


@overload
def wigner_D(l: int, R: Tensor) -> Tensor: ...
@overload
def wigner_D(l: int, R: Tensor, beta: Tensor, gamma: Tensor) -> Tensor: ...
def wigner_D(l: int, R: Tensor, beta: Tensor | None = None, gamma: Tensor | None = None) -> Tensor:
    r"""The matrix by which real harmonics of degree l turn: D_l(R) Y_l(x) = Y_l(R x).

    .. math::

        D^0 = 1, \quad D^1 = R, \quad
        D^l_{ii'} = (2l+1) \sum C_{jki} C_{j'k'i'} D^{l-1}_{jj'} R_{kk'}, \qquad C = 3j(l-1, 1, l)

    A polynomial of degree l in the entries of R: smooth, with finite derivatives of every order, and
    D_l(-R) = (-1)^l D_l(R), so that an improper R acts with the natural parity of the harmonics.

    Args:
        l: the degree, any integer >= 0.
        R: orthogonal matrices; the result follows their dtype and device. Shape (..., 3, 3).
        beta: with ``gamma``: Euler angles as in e3nn, ``R`` then being alpha; see ``wigner_D_from_angles``.
        gamma: the angle applied first.

    Shape:
        R: (..., 3, 3) -> (..., 2 l + 1, 2 l + 1)

    Raises:
        ValueError: if l is negative or R does not end in two axes of size 3.

    Source:
        Varshalovich et al. 1988, Quantum Theory of Angular Momentum, section 4.6 (addition of D functions).

    >>> wigner_D(2, torch.eye(3)).shape
    torch.Size([5, 5])
    """
    if beta is not None and gamma is not None:
        return wigner_D_from_angles(l, R, beta, gamma)
    if beta is not None or gamma is not None:
        raise ValueError("wigner_D expects a matrix, or the angles alpha, beta and gamma, got two of these")
    _check(l, R)
    if l >= _BY_FACTORS_FROM and _only_values(R):
        return _by_factors([l], R)[0]
    return _by_recursion(l, R)[-1]


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
    _check(lmax, R)
    if steps is None and lmax >= _BY_FACTORS_FROM and _only_values(R):
        low = _by_recursion(_BY_FACTORS_FROM - 1, R)
        return low + _by_factors(list(range(_BY_FACTORS_FROM, lmax + 1)), R)
    return _by_recursion(lmax, R, steps)


def _check(lmax: int, R: Tensor) -> None:
    if lmax < 0 or tuple(R.shape[-2:]) != (3, 3):
        raise ValueError(
            f"wigner_D({lmax}, R) expects l >= 0 and R of shape (..., 3, 3), got R of shape {tuple(R.shape)}"
        )


def _by_recursion(lmax: int, R: Tensor, steps: list[Tensor] | None = None) -> list[Tensor]:
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


def _only_values(R: Tensor) -> bool:
    """Whether no derivative, no transform and no compiler follows what happens to R."""
    return (
        R.dtype in (torch.float32, torch.float64)
        and not (R.requires_grad and torch.is_grad_enabled())
        and not torch.compiler.is_compiling()
        and type(R) in (Tensor, torch.nn.Parameter)
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
        and torch.autograd.forward_ad._current_level < 0
    )


def _by_factors(ls: list[int], R: Tensor) -> list[Tensor]:
    """The matrices of some degrees, R = R_y(alpha) R_x(beta) R_y(gamma) taken apart in float64."""
    top, batch = max(ls), R.shape[:-2]
    turns = R.detach().reshape(-1, 3, 3).to(torch.float64)
    rows = turns.unbind(1)
    sign = (torch.linalg.cross(rows[0], rows[1]) * rows[2]).sum(1, keepdim=True).sign_()  # of the determinant
    angles = torch.stack(_angles((turns.flatten(1) * sign).unbind(1)))
    phase = angles.unsqueeze(2) * _orders(top, R.device)
    sine = phase.sin()
    alpha, beta, gamma = torch.cat([phase.cos_(), sine, -sine], dim=2).to(R.dtype).unbind(0)
    results = []
    for l in ls:
        middle, inner, left, right = _factor_tables(l, top, R.dtype, R.device)
        about_x = beta.index_select(1, inner)
        about_x = about_x.mul_(sign.to(R.dtype)) if l % 2 else about_x
        D = torch.mm(about_x, middle).view(-1, 2, 2 * l + 1, 2 * l + 1)
        D.mul_(alpha.index_select(1, left).view(-1, 2, 2 * l + 1, 1))
        D.mul_(gamma.index_select(1, right).view(-1, 2, 1, 2 * l + 1))
        results.append((D[:, 0] + D[:, 1]).view(*batch, 2 * l + 1, 2 * l + 1))
    return results


def _angles(entries: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles of rotations by rows. At the poles alpha is 0; near them gamma makes up for its error."""
    r00, r01, r02, _, r11, _, r20, r21, r22 = entries
    alpha = torch.atan2(r01, r21)
    c, s = alpha.cos(), alpha.sin()
    beta = torch.atan2(torch.hypot(r01, r21), r11)
    gamma = torch.atan2((c * r02).addcmul_(s, r22, value=-1), (c * r00).addcmul_(s, r20, value=-1))
    return alpha, beta, gamma


@functools.lru_cache(maxsize=64)
def _orders(top: int, device: torch.device) -> Tensor:
    return torch.from_numpy(np.arange(top + 1.0)).to(device)


@functools.lru_cache(maxsize=256)
def _factor_tables(l: int, top: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    r"""What turns waves into D_l: constant matrices for beta, and which waves of all three angles to take.

    With rows and columns by sign of the order, a rotation about x is block diagonal, E for m >= 0 and O for
    m < 0, and :math:`D_{ij} = p_i E_{|i||j|} q_j + r_i O_{|i||j|} s_j` with waves p, r of alpha and q, s of
    gamma. The waves are laid out as cos(m angle), sin(m angle), -sin(m angle), each for m = 0..top.
    """
    order = np.arange(-l, l + 1)
    m = np.abs(order)
    to_x = torch.tensor(
        [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64, device="cpu"
    )
    turn, about_y = _by_recursion(l, to_x)[-1].numpy(), so3_generators(l)[1].numpy()
    even = [turn @ np.diag((m == k) * 1.0) @ turn.T for k in range(l + 1)]
    odd = [turn @ (about_y * (m == k)[:, None] / k) @ turn.T for k in range(1, l + 1)]
    about_x = np.stack(even + odd)
    plus = about_x[:, l + m][:, :, l + m]
    minus = about_x[:, l - m][:, :, l - m] * ((m > 0)[:, None] & (m > 0))
    middle = np.concatenate([plus.reshape(2 * l + 1, -1), minus.reshape(2 * l + 1, -1)], axis=1)
    cosine, sine, negative = m, top + 1 + m, 2 * (top + 1) + m
    below = order < 0
    inner = np.concatenate([np.arange(l + 1), top + 1 + np.arange(1, l + 1)])
    left = np.concatenate([np.where(below, sine, cosine), np.where(below, cosine, negative)])
    right = np.concatenate([np.where(below, negative, cosine), np.where(below, cosine, sine)])
    tables = [torch.from_numpy(middle).to(dtype), *map(torch.from_numpy, (inner, left, right))]
    return [table.to(device) for table in tables]
