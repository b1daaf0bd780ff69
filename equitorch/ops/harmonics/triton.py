"""Spherical harmonics in Triton: one program per block of vectors, one vector per lane."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.harmonics import reference

BLOCK = 128


@triton.jit
def _vector(x, n, mask, ACC: tl.constexpr):
    at = x + n * 3
    return (
        tl.load(at, mask, 0.0).to(ACC),
        tl.load(at + 1, mask, 0.0).to(ACC),
        tl.load(at + 2, mask, 0.0).to(ACC),
    )


@triton.jit
def _inverse_length(x, y, z):
    square = x * x + y * y + z * z
    short = square < 1e-24
    return tl.where(short, 0.0, 1.0 / tl.sqrt(tl.where(short, 1.0, square)))  # NaN is not short


@triton.jit
def _pick(axis, x, y, z):
    return tl.where(axis == 0, x, tl.where(axis == 1, y, z))


@triton.jit
def _harmonics(
    x, out, start, left, axis, value, first, N, LMAX,
    NORMALIZE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    u, v, w = _vector(x, n, mask, ACC)
    if NORMALIZE:
        inverse = _inverse_length(u, v, w)
        u, v, w = u * inverse, v * inverse, w * inverse
    tl.store(out + n, tl.zeros([BLOCK], ACC) + tl.load(first).to(ACC), mask)
    for l in range(1, LMAX + 1):
        tl.debug_barrier()  # degree l reads what other threads may have written of degree l - 1
        for row in range(l * l, (l + 1) * (l + 1)):
            total = tl.zeros([BLOCK], ACC)
            for t in range(tl.load(start + row), tl.load(start + row + 1)):
                below = tl.load(out + tl.load(left + t).to(tl.int64) * N + n, mask, 0.0)
                total += tl.load(value + t) * below * _pick(tl.load(axis + t), u, v, w)
            tl.store(out + tl.cast(row, tl.int64) * N + n, total, mask)


@triton.jit
def _slope(g, y, n, mask, N, ROWS, start, left, axis, slope, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """The cotangent of the direction."""
    p, q, r = tl.zeros([BLOCK], ACC), tl.zeros([BLOCK], ACC), tl.zeros([BLOCK], ACC)
    for row in range(1, ROWS):
        weight = tl.load(g + n * ROWS + row, mask, 0.0).to(ACC)
        for t in range(tl.load(start + row), tl.load(start + row + 1)):
            below = tl.load(y + tl.load(left + t).to(tl.int64) * N + n, mask, 0.0)
            term, k = tl.load(slope + t) * weight * below, tl.load(axis + t)
            p += tl.where(k == 0, term, 0.0)
            q += tl.where(k == 1, term, 0.0)
            r += tl.where(k == 2, term, 0.0)
    return p, q, r


@triton.jit
def _gradient(
    g, x, y, out, start, left, axis, slope, N, ROWS,
    NORMALIZE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    p, q, r = _slope(g, y, n, mask, N, ROWS, start, left, axis, slope, ACC, BLOCK)
    if NORMALIZE:
        u, v, w = _vector(x, n, mask, ACC)
        inverse = _inverse_length(u, v, w)
        u, v, w = u * inverse, v * inverse, w * inverse
        along = p * u + q * v + r * w
        p, q, r = (p - along * u) * inverse, (q - along * v) * inverse, (r - along * w) * inverse
    tl.store(out + n * 3, p, mask)
    tl.store(out + n * 3 + 1, q, mask)
    tl.store(out + n * 3 + 2, r, mask)


@triton.jit
def _second(
    g, x, h, y, grad_g, grad_x, start, left, axis, slope, from_start, from_row, from_axis, from_slope,
    N, ROWS, BELOW, NORMALIZE: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = n < N
    u, v, w = _vector(x, n, mask, ACC)
    hx, hy, hz = _vector(h, n, mask, ACC)
    inverse = _inverse_length(u, v, w)
    u, v, w = u * inverse, v * inverse, w * inverse
    hu = hx * u + hy * v + hz * w
    if NORMALIZE:
        tx, ty, tz = (hx - hu * u) * inverse, (hy - hu * v) * inverse, (hz - hu * w) * inverse
    else:
        tx, ty, tz = hx, hy, hz
    tl.store(grad_g + n * ROWS, tl.zeros([BLOCK], ACC), mask)
    for row in range(1, ROWS):
        total = tl.zeros([BLOCK], ACC)
        for t in range(tl.load(start + row), tl.load(start + row + 1)):
            below = tl.load(y + tl.load(left + t).to(tl.int64) * N + n, mask, 0.0)
            total += tl.load(slope + t) * below * _pick(tl.load(axis + t), tx, ty, tz)
        tl.store(grad_g + n * ROWS + row, total, mask)
    a, b, c = tl.zeros([BLOCK], ACC), tl.zeros([BLOCK], ACC), tl.zeros([BLOCK], ACC)
    for row in range(1, BELOW):
        weight = tl.zeros([BLOCK], ACC)
        for t in range(tl.load(from_start + row), tl.load(from_start + row + 1)):
            above = tl.load(g + n * ROWS + tl.load(from_row + t), mask, 0.0).to(ACC)
            weight += tl.load(from_slope + t) * above * _pick(tl.load(from_axis + t), tx, ty, tz)
        for t in range(tl.load(start + row), tl.load(start + row + 1)):
            below = tl.load(y + tl.load(left + t).to(tl.int64) * N + n, mask, 0.0)
            term, k = tl.load(slope + t) * weight * below, tl.load(axis + t)
            a += tl.where(k == 0, term, 0.0)
            b += tl.where(k == 1, term, 0.0)
            c += tl.where(k == 2, term, 0.0)
    if NORMALIZE:
        p, q, r = _slope(g, y, n, mask, N, ROWS, start, left, axis, slope, ACC, BLOCK)
        su, sh, au = p * u + q * v + r * w, p * hx + q * hy + r * hz, a * u + b * v + c * w
        bend = 3.0 * su * hu - sh
        a = (a - au * u + (bend * u - hu * p - su * hx) * inverse) * inverse
        b = (b - au * v + (bend * v - hu * q - su * hy) * inverse) * inverse
        c = (c - au * w + (bend * w - hu * r - su * hz) * inverse) * inverse
    tl.store(grad_x + n * 3, a, mask)
    tl.store(grad_x + n * 3 + 1, b, mask)
    tl.store(grad_x + n * 3 + 2, c, mask)


def spherical_harmonics(x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """Same contract as the reference; sums in float32, or in float64 for float64 vectors."""
    return _rows(x.contiguous(), lmax, normalize, normalization).T.to(x.dtype).contiguous()


def gradient(g: Tensor, x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """Same contract as the reference."""
    g, x = g.contiguous(), x.contiguous()
    out = torch.zeros_like(x)
    if lmax == 0 or x.shape[0] == 0:
        return out
    y = _rows(x, lmax - 1, normalize, normalization)
    start, left, axis, _, slope = _tables(lmax, normalization, y.dtype, x.device)[:5]
    settings = {"NORMALIZE": normalize, "ACC": _wide(y.dtype), "BLOCK": BLOCK}
    _gradient[_grid(x)](g, x, y, out, start, left, axis, slope, x.shape[0], g.shape[1], **settings)
    return out


def second(
    g: Tensor, x: Tensor, h: Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[Tensor, Tensor]:
    """Same contract as the reference."""
    g, x, h = g.contiguous(), x.contiguous(), h.contiguous()
    grad_g, grad_x = torch.zeros_like(g), torch.zeros_like(x)
    if lmax == 0 or x.shape[0] == 0:
        return grad_g, grad_x
    y = _rows(x, lmax - 1, normalize, normalization)
    start, left, axis, _, slope, *reverse = _tables(lmax, normalization, y.dtype, x.device)
    settings = {"NORMALIZE": normalize, "ACC": _wide(y.dtype), "BLOCK": BLOCK}
    _second[_grid(x)](
        g, x, h, y, grad_g, grad_x, start, left, axis, slope, *reverse, x.shape[0], g.shape[1], y.shape[0],
        **settings,
    )  # fmt: skip
    return grad_g, grad_x


def _rows(x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    """The harmonics with vectors last, ((lmax + 1)**2, n), in the dtype of the sums: coalesced."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = x.new_empty((lmax + 1) ** 2, x.shape[0], dtype=dtype)
    if x.shape[0] == 0:
        return out
    start, left, axis, value = _tables(lmax, normalization, dtype, x.device)[:4]
    first = x.new_full((1,), reference.scale(0, normalization), dtype=dtype)
    settings = {"NORMALIZE": normalize, "ACC": _wide(dtype), "BLOCK": BLOCK}
    _harmonics[_grid(x)](x, out, start, left, axis, value, first, x.shape[0], lmax, **settings)
    return out


@functools.cache
def _tables(lmax: int, normalization: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """``reference.table``, and the same entries grouped by the row they read: start, row, axis, slope."""
    start, left, axis, value, slope = reference.table(lmax, normalization)
    order = torch.argsort(left, stable=True)
    row = torch.arange((lmax + 1) ** 2, dtype=torch.int32, device="cpu").repeat_interleave(start.diff())
    count = torch.bincount(left, minlength=(lmax + 1) ** 2)
    from_start = torch.cat([count.new_zeros(1), count.cumsum(0)]).int()
    tensors = start, left, axis, value, slope, from_start, row[order], axis[order], slope[order]
    return tuple(t.to(device, dtype if t.is_floating_point() else t.dtype).contiguous() for t in tensors)


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.shape[0], BLOCK),)


def _wide(dtype: torch.dtype):
    return tl.float64 if dtype == torch.float64 else tl.float32
