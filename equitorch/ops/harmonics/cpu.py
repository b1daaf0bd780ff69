"""Spherical harmonics on the CPU: blocks of vectors side by side, so that every loop is a vector loop."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numba import prange
from torch import Tensor

from equitorch.ops.harmonics import reference
from equitorch.ops.numba_jit import array, jit_pair, jit_part

LANES = 64  # vectors of one block; the last block is filled up with zeros


def spherical_harmonics(x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    out = x.new_empty(x.shape[0], (lmax + 1) ** 2)
    start, left, axis, value, _, first = _table(lmax, normalization, x.dtype)
    if lmax == 1:
        _vectors(array(x), first, value, normalize, array(out), work=20 * x.shape[0])
        return out
    _harmonics(array(x), start, left, axis, value, first, normalize, array(out), work=_work(x, left))
    return out


def gradient(g: Tensor, x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    table = _table(lmax, normalization, x.dtype)
    if lmax == 1:
        _vectors_gradient(array(g), array(x), table[5], table[3], normalize, array(out), work=30 * x.shape[0])
        return out
    _gradient(array(g), array(x), *table, normalize, array(out), work=2 * _work(x, table[1]))
    return out


def second(
    g: Tensor, x: Tensor, h: Tensor, lmax: int, normalize: bool, normalization: str
) -> tuple[Tensor, Tensor]:
    grad_g = torch.empty_like(g, memory_format=torch.contiguous_format)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    table = _table(lmax, normalization, x.dtype)
    results = array(grad_g), array(grad_x)
    _second(array(g), array(x), array(h), *table, normalize, *results, work=4 * _work(x, table[1]))
    return grad_g, grad_x


@functools.cache
def _table(lmax: int, normalization: str, dtype: torch.dtype):
    start, left, axis, value, slope = reference.table(lmax, normalization)
    first = array(torch.tensor([reference.scale(0, normalization)], dtype=dtype))
    return (*map(array, (start, left, axis, value.to(dtype), slope.to(dtype))), first)


def _work(x: Tensor, left) -> int:
    return 2 * x.shape[0] * (left.size + 16)


@jit_pair
def _vectors(x, first, value, normalize, out):
    """Degrees 0 and 1, where moving numbers about is all the work: no blocks."""
    size, shortest = first[0] * value[0], x.dtype.type(1e-24)
    for i in prange(x.shape[0]):
        a, b, c, scale = x[i, 0], x[i, 1], x[i, 2], size
        if normalize:
            square = a * a + b * b + c * c
            scale = x.dtype.type(0) if square < shortest else size / np.sqrt(square)
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = first[0], scale * a, scale * b, scale * c


@jit_pair
def _vectors_gradient(g, x, first, value, normalize, out):
    size, shortest = first[0] * value[0], x.dtype.type(1e-24)
    for i in prange(x.shape[0]):
        a, b, c, scale, along = x[i, 0], x[i, 1], x[i, 2], size, x.dtype.type(0)
        if normalize:
            square = a * a + b * b + c * c
            short = square < shortest
            along = x.dtype.type(0) if short else (a * g[i, 1] + b * g[i, 2] + c * g[i, 3]) / square
            scale = x.dtype.type(0) if short else size / np.sqrt(square)
        out[i, 0] = scale * (g[i, 1] - along * a)
        out[i, 1] = scale * (g[i, 2] - along * b)
        out[i, 2] = scale * (g[i, 3] - along * c)


@jit_pair
def _harmonics(x, start, left, axis, value, first, normalize, out):
    rows = out.shape[1]
    for block in prange((x.shape[0] + LANES - 1) // LANES):
        u, length = np.zeros((3, LANES), x.dtype), np.empty(LANES, x.dtype)
        y = np.empty((rows, LANES), x.dtype)
        _load(x, block, u)
        if normalize:
            _unit(u, length)
        _rise(u, start, left, axis, value, first, y)
        _store(y, block, out)


@jit_pair
def _gradient(g, x, start, left, axis, value, slope, first, normalize, out):
    rows = g.shape[1]
    below = max(rows - 2 * int(np.sqrt(rows)) + 1, 1)  # rows of all degrees but the last
    for block in prange((x.shape[0] + LANES - 1) // LANES):
        u, length = np.zeros((3, LANES), x.dtype), np.empty(LANES, x.dtype)
        y, gl = np.empty((below, LANES), x.dtype), np.zeros((rows, LANES), x.dtype)
        gu = np.zeros((3, LANES), x.dtype)
        _load(x, block, u)
        _load(g, block, gl)
        if normalize:
            _unit(u, length)
        _rise(u, start, left, axis, value, first, y)
        _open_vector(gl, y, start, left, axis, slope, gu)
        if normalize:
            _across(gu, u, length)
        _store(gu, block, out)


@jit_pair
def _second(g, x, h, start, left, axis, value, slope, first, normalize, grad_g, grad_x):
    rows = g.shape[1]
    below = max(rows - 2 * int(np.sqrt(rows)) + 1, 1)
    for block in prange((x.shape[0] + LANES - 1) // LANES):
        u, length = np.zeros((3, LANES), x.dtype), np.empty(LANES, x.dtype)
        y, gl = np.empty((below, LANES), x.dtype), np.zeros((rows, LANES), x.dtype)
        hl, t = np.zeros((3, LANES), x.dtype), np.zeros((3, LANES), x.dtype)
        z, raised = np.zeros((below, LANES), x.dtype), np.zeros((rows, LANES), x.dtype)
        gu, du = np.zeros((3, LANES), x.dtype), np.zeros((3, LANES), x.dtype)
        _load(x, block, u)
        _load(g, block, gl)
        _load(h, block, hl)
        _load(h, block, t)
        if normalize:
            _unit(u, length)
            _across(t, u, length)
        _rise(u, start, left, axis, value, first, y)
        _open_both(gl, y, t, start, left, axis, slope, raised, z)
        _open_vector(z, y, start, left, axis, slope, du)
        if normalize:
            _open_vector(gl, y, start, left, axis, slope, gu)
            _across(du, u, length)
            _bend(gu, hl, u, length, du)
        _store(raised, block, grad_g)
        _store(du, block, grad_x)


@jit_part
def _load(source, block, target):
    begin = block * LANES
    for b in range(min(LANES, source.shape[0] - begin)):
        for row in range(source.shape[1]):
            target[row, b] = source[begin + b, row]


@jit_part
def _store(source, block, target):
    begin = block * LANES
    for b in range(min(LANES, target.shape[0] - begin)):
        for row in range(target.shape[1]):
            target[begin + b, row] = source[row, b]


@jit_part
def _unit(u, length):
    """Directions in place of ``u``, inverse lengths; NaN stays NaN."""
    shortest = u.dtype.type(1e-24)
    for b in range(LANES):
        square = u[0, b] * u[0, b] + u[1, b] * u[1, b] + u[2, b] * u[2, b]
        length[b] = u.dtype.type(0) if square < shortest else u.dtype.type(1) / np.sqrt(square)
    for k in range(3):
        for b in range(LANES):
            u[k, b] *= length[b]


@jit_part
def _across(v, u, length):
    for b in range(LANES):
        along = u[0, b] * v[0, b] + u[1, b] * v[1, b] + u[2, b] * v[2, b]
        for k in range(3):
            v[k, b] = (v[k, b] - along * u[k, b]) * length[b]


@jit_part
def _bend(gu, h, u, length, du):
    """Add what the curvature of the sphere contributes to the second derivative."""
    for b in range(LANES):
        su = gu[0, b] * u[0, b] + gu[1, b] * u[1, b] + gu[2, b] * u[2, b]
        hu = h[0, b] * u[0, b] + h[1, b] * u[1, b] + h[2, b] * u[2, b]
        sh = gu[0, b] * h[0, b] + gu[1, b] * h[1, b] + gu[2, b] * h[2, b]
        along = u.dtype.type(3) * su * hu - sh
        for k in range(3):
            du[k, b] += (along * u[k, b] - hu * gu[k, b] - su * h[k, b]) * length[b] * length[b]


@jit_part
def _rise(u, start, left, axis, value, first, y):
    for b in range(LANES):
        y[0, b] = first[0]
    for row in range(1, y.shape[0]):
        for b in range(LANES):
            y[row, b] = 0
        for t in range(start[row], start[row + 1]):
            j, k, c = left[t], axis[t], value[t]
            for b in range(LANES):
                y[row, b] += c * y[j, b] * u[k, b]


@jit_part
def _open_vector(g, y, start, left, axis, slope, out):
    for row in range(1, g.shape[0]):
        for t in range(start[row], start[row + 1]):
            j, k, c = left[t], axis[t], slope[t]
            for b in range(LANES):
                out[k, b] += c * g[row, b] * y[j, b]


@jit_part
def _open_both(g, y, v, start, left, axis, slope, raised, z):
    for row in range(1, g.shape[0]):
        for t in range(start[row], start[row + 1]):
            j, k, c = left[t], axis[t], slope[t]
            for b in range(LANES):
                w = c * v[k, b]
                raised[row, b] += w * y[j, b]
                z[j, b] += w * g[row, b]
