r"""What the real spherical harmonics and their derivatives mean, in PyTorch. Any degree, device and dtype.

Degree by degree, each row of the next degree is a constant bilinear map of the rows before it and of
the vector; the derivative is the same map without the vector, so that higher derivatives need no new rows:

.. math:: Y_{l+1} = M_l(Y_l, x), \qquad dY_{l+1} = (l + 1) \, M_l(Y_l, dx)
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from equitorch.ops.backend import lasting
from equitorch.reps import wigner_3j

NORMALIZATIONS = ("component", "integral", "norm")
SHORTEST = 1e-12  # vectors below this length have no direction: degree 0 only, and no gradient


def spherical_harmonics(x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """All degrees up to ``lmax`` of vectors (..., 3), shape (..., (lmax + 1)**2).

    Source: Unsöld's theorem fixes the norms; the recursion is the coupling of degrees l and 1 into l + 1.
    """
    u = _unit(x)[0] if normalize else x
    rows = [x[..., :0].sum(-1, keepdim=True) + scale(0, normalization)]  # constant, yet part of x's graph
    for step in steps(lmax, normalization):
        rows.append(_pairs(rows[-1], u) @ step.to(u))
    return torch.cat(rows, dim=-1)


def gradient(g: Tensor, x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """Cotangent of the vectors, from that of the harmonics: shape (..., 3)."""
    u, inverse = _unit(x) if normalize else (x, None)
    y = spherical_harmonics(u, lmax, False, normalization)
    slope = _open_vector(g, y, steps(lmax, normalization))
    return slope if inverse is None else _across(slope, u) * inverse


def second(
    g: Tensor, x: Tensor, h: Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[Tensor, Tensor]:
    """Cotangents of ``g`` and ``x``, from the cotangent ``h`` of ``gradient(g, x)``."""
    maps = steps(lmax, normalization)
    u, inverse = _unit(x) if normalize else (x, None)
    y = spherical_harmonics(u, lmax, False, normalization)
    t = h if inverse is None else _across(h, u) * inverse
    grad_g = _open_next(y, t, maps)
    grad_u = _open_vector(_open_rows(g, t, maps), y, maps)
    if inverse is None:
        return grad_g, grad_u
    slope = _open_vector(g, y, maps)
    su, hu, sh = _dot(slope, u), _dot(h, u), _dot(slope, h)
    bend = (3 * su * hu - sh) * u - hu * slope - su * h
    return grad_g, _across(grad_u, u) * inverse + bend * inverse.square()


def scale(l: int, normalization: str) -> float:
    """Length of degree ``l`` on the unit sphere, relative to sqrt(2l + 1)."""
    return {"component": 1.0, "integral": 0.5 / math.sqrt(math.pi), "norm": 1 / math.sqrt(2 * l + 1)}[
        normalization
    ]


@functools.cache
@lasting
def steps(lmax: int, normalization: str) -> tuple[Tensor, ...]:
    """The maps from degree l to l + 1, float64: shape (rows of degree l * axes, 2l + 3)."""
    return tuple(_raising(l) * (scale(l + 1, normalization) / scale(l, normalization)) for l in range(lmax))


@functools.cache
@lasting
def _raising(l: int) -> Tensor:
    coupling = wigner_3j(l + 1, l, 1).permute(1, 2, 0).reshape(3 * (2 * l + 1), 2 * l + 3)
    return coupling.double() * ((2 * l + 3) / math.sqrt(l + 1))


@functools.cache
@lasting
def table(lmax: int, normalization: str) -> tuple[Tensor, ...]:
    """The nonzeros of all steps, grouped by the row they add to: what the kernels loop over.

    Returns:
        start ((lmax + 1)**2 + 1,) int32: where each row begins; left (entries,) int32: the row of the
        degree below; axis (entries,) int32; value (entries,) float64; slope (entries,) float64: value
        times the degree, for the derivative.
    """
    entries = [torch.empty(0, 4, dtype=torch.float64, device="cpu")]
    for l, step in enumerate(steps(lmax, normalization)):
        to, left, axis = step.reshape(2 * l + 1, 3, 2 * l + 3).permute(2, 0, 1).nonzero(as_tuple=True)
        value = step.reshape(2 * l + 1, 3, 2 * l + 3)[left, axis, to]
        entries.append(torch.stack([to + (l + 1) ** 2, left + l * l, axis, value], dim=1))
    row, left, axis, value = torch.cat(entries).unbind(1)
    start = torch.cat([row.new_zeros(1), torch.bincount(row.long(), minlength=(lmax + 1) ** 2).cumsum(0)])
    slope = value * row.sqrt().floor()
    return start.int(), left.int(), axis.int(), value.contiguous(), slope


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Direction and inverse length (..., 1); both zero, with zero derivative, below ``SHORTEST``."""
    square = _dot(x, x)
    short = square < SHORTEST**2
    inverse = torch.where(short, 0.0, torch.where(short, 1.0, square).rsqrt())
    return x * inverse, inverse


def _across(v: Tensor, u: Tensor) -> Tensor:
    return v - _dot(u, v) * u


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _pairs(rows: Tensor, v: Tensor) -> Tensor:
    return (rows.unsqueeze(-1) * v.unsqueeze(-2)).flatten(-2)


def _degree(rows: Tensor, l: int) -> Tensor:
    return rows[..., l * l : (l + 1) ** 2]


def _open_vector(g: Tensor, y: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
    """Sum over l of (l + 1) M_l(y_l, .) . g_{l+1}, shape (..., 3)."""
    total = g.new_zeros((*g.shape[:-1], 3))
    for l, step in enumerate(maps):
        lowered = (_degree(g, l + 1) @ step.to(g).T).unflatten(-1, (-1, 3))
        total = total + (l + 1) * (lowered * _degree(y, l).unsqueeze(-1)).sum(-2)
    return total


def _open_next(y: Tensor, v: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
    """(l + 1) M_l(y_l, v) in degree l + 1, shape of y."""
    rows = [torch.zeros_like(y[..., :1])]
    rows += [(l + 1) * _pairs(_degree(y, l), v) @ step.to(y) for l, step in enumerate(maps)]
    return torch.cat(rows, dim=-1)


def _open_rows(g: Tensor, v: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
    """(l + 1) M_l(., v) . g_{l+1} in degree l, shape of g; zero in the last degree."""
    rows = []
    for l, step in enumerate(maps):
        lowered = (_degree(g, l + 1) @ step.to(g).T).unflatten(-1, (-1, 3))
        rows.append((l + 1) * (lowered * v.unsqueeze(-2)).sum(-1))
    rows.append(torch.zeros_like(_degree(g, len(maps))))
    return torch.cat(rows, dim=-1)
