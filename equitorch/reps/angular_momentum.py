"""Angular momentum in numbers: generators, Clebsch-Gordan coefficients and the real 3j symbols.

Everything is computed from exact integers when first asked for, kept in memory as NumPy arrays (which no
autograd, inference or device mode can touch), and handed out as fresh tensors.
"""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SMALL = 1e-12  # what is left of an exact zero after the change to the real basis


def wigner_3j(
    l1: int,
    l2: int,
    l3: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = "cpu",
) -> Tensor:
    r"""The invariant of three real irreps of SO(3): e3nn's real 3j symbol, sign included.

    .. math::

        C_{lmn} = \sum_{ijk} C_{ijk} D_{il} D_{jm} D_{kn} \text{ for all rotations}, \qquad \sum C_{ijk}^2 = 1

    Exchanging the first two degrees gives a factor (-1)^(l1 + l2 + l3).

    Args:
        l1: degree of the first slot.
        l2: degree of the second slot.
        l3: degree of the third slot, between abs(l1 - l2) and l1 + l2.
        dtype: of the result; the computation is exact up to the last rounding in float64.
        device: of the result.

    Shape:
        -> (2 l1 + 1, 2 l2 + 1, 2 l3 + 1)

    Raises:
        ValueError: if the three degrees do not satisfy the triangle inequality.

    Source:
        Racah 1942, Phys. Rev. 62, 438 (closed form of the SU(2) coefficients).

    >>> wigner_3j(1, 1, 0)[:, :, 0].diagonal()  # 3**-0.5
    tensor([0.5774, 0.5774, 0.5774], dtype=torch.float64)
    """
    l1, l2, l3 = (operator.index(l) for l in (l1, l2, l3))
    if min(l1, l2, l3) < 0 or not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(
            f"wigner_3j({l1}, {l2}, {l3}) expects degrees >= 0 with |l1 - l2| <= l3 <= l1 + l2, "
            "got a triple that has no invariant"
        )
    return torch.tensor(real_3j(l1, l2, l3), dtype=dtype, device=device)


def su2_generators(l: int) -> Tensor:
    """Infinitesimal rotations about x, y, z in the complex basis m = -l..l, diagonal about the polar axis y.

    Shape:
        -> (3, 2 l + 1, 2 l + 1), complex128

    >>> su2_generators(1)[1].diagonal().imag
    tensor([-1., 0., 1.], dtype=torch.float64)
    """
    return torch.tensor(_complex_generators(l), device="cpu")


def change_basis_real_to_complex(
    l: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = "cpu"
) -> Tensor:
    r"""The unitary matrix that turns real components of degree l into complex ones: z = Q x.

    Includes the phase :math:`(-i)^l`, which makes all 3j symbols real.

    Args:
        l: the degree.
        dtype: of the real and imaginary parts.
        device: of the result.

    Shape:
        -> (2 l + 1, 2 l + 1), complex

    >>> Q = change_basis_real_to_complex(2)
    >>> torch.allclose(Q.conj().T @ Q, torch.eye(5, dtype=Q.dtype))
    True
    """
    return torch.tensor(_real_to_complex(l), dtype=dtype.to_complex(), device=device)


def so3_generators(l: int) -> Tensor:
    """Infinitesimal rotations about x, y, z of the real irrep of degree l.

    Shape:
        -> (3, 2 l + 1, 2 l + 1), float64; antisymmetric

    >>> so3_generators(1)[2].int()  # about z: x to y, y to -x
    tensor([[ 0, -1,  0],
            [ 1,  0,  0],
            [ 0,  0,  0]], dtype=torch.int32)
    """
    return torch.tensor(_real_generators(l), device="cpu")


@functools.cache
def real_3j(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    """``wigner_3j`` as a read-only array, without its checks."""
    q1, q2, q3 = _real_to_complex(l1), _real_to_complex(l2), _real_to_complex(l3)
    mixed = np.tensordot(clebsch_gordan(l1, l2, l3), q3.conj(), axes=(2, 0))
    mixed = np.tensordot(q2, mixed, axes=(0, 1)).swapaxes(0, 1)
    full = np.tensordot(q1, mixed, axes=(0, 0))
    assert np.abs(full.imag).max() < 1e-9, "the phases of the real basis must make the 3j symbols real"
    real = full.real / np.linalg.norm(full.real)
    real[np.abs(real) < _SMALL] = 0.0
    real.flags.writeable = False
    return real


def clebsch_gordan(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    """The SU(2) coefficients <l1 m1 l2 m2 | l3 m3> with Condon-Shortley phases, by exact integers.

    Shape:
        -> (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), indexed by l + m
    """
    table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    f = math.factorial
    a, b, c = l1 + l2 - l3, l1 - l2 + l3, l2 - l1 + l3
    below = f(l1 + l2 + l3 + 1) * f(a) * f(b) * f(c)
    weight = [[f(l + m) * f(l - m) for m in range(-l, l + 1)] for l in (l1, l2, l3)]
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            first, last = max(0, l1 - m1 - b, l2 + m2 - c), min(a, l1 - m1, l2 + m2)
            terms = (
                (-1) ** k * math.comb(a, k) * math.comb(b, l1 - m1 - k) * math.comb(c, l2 + m2 - k)
                for k in range(first, last + 1)
            )
            total = sum(terms)
            m3 = m1 + m2
            above = (2 * l3 + 1) * weight[0][l1 + m1] * weight[1][l2 + m2] * weight[2][l3 + m3]
            value = math.sqrt(total * total * above / below)
            table[l1 + m1, l2 + m2, l3 + m3] = value if total >= 0 else -value
    return table


@functools.cache
def _real_to_complex(l: int) -> NDArray[np.complex128]:
    matrix = np.zeros((2 * l + 1, 2 * l + 1), dtype=np.complex128)
    matrix[l, l] = 1
    for m in range(1, l + 1):
        matrix[l - m, [l + m, l - m]] = 1, -1j
        matrix[l + m, [l + m, l - m]] = (-1) ** m, 1j * (-1) ** m
    off = np.arange(2 * l + 1) != l
    matrix[off] *= math.sqrt(0.5)
    return matrix * (1, -1j, -1, 1j)[l % 4]


def _complex_generators(l: int) -> NDArray[np.complex128]:
    m = np.arange(-l, l)
    ladder = np.diag(np.sqrt(l * (l + 1) - m * (m + 1.0)), -1)
    about_y = np.diag(1j * np.arange(-l, l + 1))
    return np.stack([(ladder.T - ladder) / 2, about_y, 0.5j * (ladder + ladder.T)])


@functools.cache
def _real_generators(l: int) -> NDArray[np.float64]:
    basis = _real_to_complex(l)
    full = basis.conj().T @ _complex_generators(l) @ basis
    assert np.abs(full.imag).max() < 1e-10 * (l + 1), "the real basis must make the generators real"
    return np.ascontiguousarray(full.real)
