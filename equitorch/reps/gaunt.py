"""Products of functions on the sphere as couplings of irreps: Gaunt coefficients, even and odd."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.coupling import Coupling

PARITIES = ("even", "odd")


def gaunt_factor(l1: int, l2: int, l3: int) -> float:
    r"""The k in :math:`\int Y_1 Y_2 Y_3 = k\, C`, with C = ``wigner_3j`` and orthonormal harmonics.

    .. math:: k = \sqrt{\frac{(2 l_1 + 1)(2 l_2 + 1)(2 l_3 + 1)}{4 \pi}}
        \left| \begin{pmatrix} l_1 & l_2 & l_3 \\ 0 & 0 & 0 \end{pmatrix} \right|

    Zero if l1 + l2 + l3 is odd or the three do not form a triangle.

    Source:
        Gaunt 1929, Phil. Trans. R. Soc. A 228, 151.

    >>> round(gaunt_factor(0, 0, 0) * math.sqrt(4 * math.pi), 12), gaunt_factor(1, 1, 1)
    (1.0, 0.0)
    """
    if (l1 + l2 + l3) % 2 or not abs(l1 - l2) <= l3 <= l1 + l2:
        return 0.0
    return _density(l1, l2, l3) * abs(_symbol(l1, l2, l3, 0))


def bracket_factor(l1: int, l2: int, l3: int) -> float:
    r"""The h in :math:`\int Y_3 \{Y_1, Y_2\} = h\, C`, where {f, g} = r . (grad f x grad g).

    .. math:: h = \sqrt{\frac{(2 l_1 + 1)(2 l_2 + 1)(2 l_3 + 1)}{4 \pi}\, l_1 (l_1 + 1)\, l_2 (l_2 + 1)}
        \left| \begin{pmatrix} l_1 & l_2 & l_3 \\ 1 & -1 & 0 \end{pmatrix} \right|

    Zero if l1 + l2 + l3 is even or the three do not form a triangle.

    Source:
        Our derivation; held to quadrature of derivatives by the tests.

    >>> round(bracket_factor(1, 1, 1) / math.sqrt(6), 4)  # times the cross product
    0.4886
    """
    if (l1 + l2 + l3) % 2 == 0 or not abs(l1 - l2) <= l3 <= l1 + l2 or not l1 * l2 * l3:
        return 0.0
    angular = math.sqrt(l1 * (l1 + 1) * l2 * (l2 + 1))
    return _density(l1, l2, l3) * angular * abs(_symbol(l1, l2, l3, 1))


def gaunt_coupling(lmax1: int, lmax2: int, lmax_out: int, parity: str = "even") -> Coupling:
    """The product of functions of degrees up to lmax1 and lmax2, read up to lmax_out, as a trilinear form.

    Args:
        lmax1: highest degree of the first function.
        lmax2: highest degree of the second function.
        lmax_out: highest degree of the result; what lies above it is dropped.
        parity: "even" for the product (l1 + l2 + l3 even), "odd" for the bracket of ``bracket_factor``.

    Raises:
        ValueError: if the parity is another, or a degree is negative.

    >>> gaunt_coupling(1, 1, 1)
    Coupling(4 x 4 x 4, 10 entries, 1 path)
    """
    if parity not in PARITIES or min(lmax1, lmax2, lmax_out) < 0:
        raise ValueError(
            "gaunt_coupling expects degrees >= 0 and parity 'even' or 'odd', "
            f"got {lmax1}, {lmax2}, {lmax_out} and {parity!r}"
        )
    factor = gaunt_factor if parity == "even" else bracket_factor
    index, value = [np.zeros((3, 0), dtype=np.int64)], [np.zeros(0)]
    for l1 in range(lmax1 + 1):
        for l2 in range(lmax2 + 1):
            for l3 in range(abs(l1 - l2), min(l1 + l2, lmax_out) + 1):
                k = factor(l1, l2, l3)
                if k:
                    symbol = real_3j(l1, l2, l3)
                    at = np.stack(np.nonzero(symbol))
                    index.append(at + np.array([[l1 * l1], [l2 * l2], [l3 * l3]]))
                    value.append(k * symbol[tuple(at)])
    dims = ((lmax1 + 1) ** 2, (lmax2 + 1) ** 2, (lmax_out + 1) ** 2)
    joined = [torch.tensor(np.concatenate(part, axis=-1), device="cpu") for part in (index, value)]
    return Coupling(dims, *joined)


@functools.lru_cache(maxsize=64)
def path_factors(lmax1: int, lmax2: int, lmax_out: int, kind: str) -> Tensor:
    r"""What stands before ``wigner_3j`` for each triple of degrees in a product of functions.

    Args:
        lmax1: highest degree of the first function.
        lmax2: highest degree of the second function.
        lmax_out: highest degree of the result.
        kind: "even" for k of ``gaunt_factor``; "raw" for h of ``bracket_factor``; "odd" for
            h / sqrt(l1 (l1 + 1) l2 (l2 + 1)), of gradients of unit length.

    Shape:
        -> (lmax1 + 1, lmax2 + 1, lmax_out + 1), float64

    >>> path_factors(1, 1, 1, "even")[1, 1].numpy().round(4).tolist()
    [0.4886, 0.0]
    """
    found = torch.zeros(lmax1 + 1, lmax2 + 1, lmax_out + 1, dtype=torch.float64, device="cpu")
    factor = gaunt_factor if kind == "even" else bracket_factor
    for a in range(lmax1 + 1):
        for b in range(lmax2 + 1):
            for c in range(abs(a - b) + (kind != "even"), min(a + b, lmax_out) + 1, 2):
                found[a, b, c] = factor(a, b, c)
    if kind == "odd":
        found *= gradient_scales(lmax1)[:, None, None] * gradient_scales(lmax2)[:, None]
    return found


@functools.lru_cache(maxsize=64)
def path_powers(lmax1: int, lmax2: int, lmax_out: int, kind: str) -> Tensor:
    r"""What each triple adds to the variance of a row: :math:`f^2 / (2 l_3 + 1)`, f of ``path_factors``.

    Shape:
        -> (lmax1 + 1, lmax2 + 1, lmax_out + 1), float64

    >>> path_powers(2, 2, 2, "even").sum((0, 1)).numpy().round(3).tolist()  # unit-normal operands
    [0.716, 0.477, 0.368]
    """
    sizes = 2 * torch.arange(lmax_out + 1, dtype=torch.float64, device="cpu") + 1
    return path_factors(lmax1, lmax2, lmax_out, kind).square() / sizes


def gradient_scales(lmax: int) -> Tensor:
    """One over the length of the gradient of a harmonic, 1 / sqrt(l (l + 1)); one for a constant.

    Shape:
        -> (lmax + 1,), float64

    >>> gradient_scales(2).square().reciprocal().round().tolist()
    [1.0, 2.0, 6.0]
    """
    l = torch.arange(lmax + 1, dtype=torch.float64, device="cpu")
    return (l * (l + 1)).clamp(min=1).rsqrt()


def _density(l1: int, l2: int, l3: int) -> float:
    return math.sqrt((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1) / (4 * math.pi))


def _symbol(l1: int, l2: int, l3: int, m: int) -> float:
    """The 3j symbol of (l1, m), (l2, -m), (l3, 0), up to its sign, by exact integers."""
    f = math.factorial
    a, b, c = l1 + l2 - l3, l1 - l2 + l3, l2 - l1 + l3
    total = sum(
        (-1) ** k * math.comb(a, k) * math.comb(b, l1 - m - k) * math.comb(c, l2 - m - k)
        for k in range(max(0, l1 - m - b, l2 - m - c), min(a, l1 - m, l2 - m) + 1)
    )
    above = f(l1 + m) * f(l1 - m) * f(l2 + m) * f(l2 - m) * f(l3) ** 2
    return math.sqrt(total**2 * above / (f(l1 + l2 + l3 + 1) * f(a) * f(b) * f(c)))
