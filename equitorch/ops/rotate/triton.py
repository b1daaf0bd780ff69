"""``rotate`` in Triton: degree by degree, the matrices number by number, sums in registers, and no atomics.

The lists of the plan that say which entry joins which rows are not read: L and M follow from the sizes, and
all places from L and M while a kernel is compiled. Degrees up to ``JOINT`` share a program, each higher one
has its own: no two degrees have rows in common, so only the indices of edges are read more than once.
"""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.rotate.reference import FEATURE, MESSAGE, fake

_REGISTERS = 144  # of a thread, for rows of channels; addresses and entries need more
_SUMS = 64  # registers of a thread for entries that are summed over channels
_EDGES = 4  # share a warp where entries are summed: the eight threads of an edge take three steps
_JOINT = 2  # degrees 0..2 have 9 rows; those of degree 4 are as many


@triton.constexpr_function
def _top(l, M):
    """The highest order that is kept of a degree."""
    return min(l, M)


@triton.constexpr_function
def _place(l, m, L):
    """The order-major row of degree l and order m."""
    a = abs(m)
    return l if m == 0 else (2 * a - 1) * (L + 1) - a * (a - 1) + l - a + (L + 1 - a if m < 0 else 0)


@triton.constexpr_function
def _entry(l, m, M):
    """Where row m of a degree's matrix begins among the entries."""
    full = min(l, M + 1)
    before = full * (4 * full * full - 1) // 3 + (2 * M + 1) * (l * l - full * full)
    return before + (m + min(l, M)) * (2 * l + 1)


@triton.constexpr_function
def _dims(L, M):
    """Rows of a feature, entries, rows of a message."""
    return (L + 1) ** 2, _entry(L + 1, -min(L + 1, M), M), (2 * M + 1) * (L + 1) - M * (M + 1)


@triton.constexpr_function
def _piece(l, rows, SUMS):
    """Columns of a degree's matrix that are computed together, pieces being equal and of ``SUMS`` at most."""
    return triton.cdiv(2 * l + 1, triton.cdiv(2 * l + 1, max(1, SUMS // rows)))


@triton.jit
def _held(at, mask, C, COUNT: tl.constexpr, ACC: tl.constexpr):
    """Rows that follow one another, each a vector of channels."""
    rows = ()
    for n in tl.static_range(COUNT):
        rows += (tl.load(at + n * C, mask, 0.0).to(ACC),)
    return rows


@triton.jit
def _into(
    feature, matrix, out, node, C, blocks,
    L: tl.constexpr, M: tl.constexpr, JOINT: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The message of each edge: a feature turned into its frame."""
    e = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    x_at = feature + tl.load(node + e) * _dims(L, M)[0] * C + c
    D_at = matrix + e * _dims(L, M)[1]
    out_at = out + e * _dims(L, M)[2] * C + c
    for l in tl.static_range(L + 1):
        if tl.program_id(1) == max(0, l - JOINT):
            x = _held(x_at + l * l * C, c < C, C, 2 * l + 1, ACC)
            for m in tl.static_range(-_top(l, M), _top(l, M) + 1):
                y = tl.load(D_at + _entry(l, m, M)).to(ACC) * x[0]
                for i in tl.static_range(1, 2 * l + 1):
                    y += tl.load(D_at + _entry(l, m, M) + i).to(ACC) * x[i]
                tl.store(out_at + _place(l, m, L) * C, y, c < C)


@triton.jit
def _turned_back(
    totals, m_at, D_at, mask, C, l: tl.constexpr, L: tl.constexpr, M: tl.constexpr, ACC: tl.constexpr
):
    """The totals of one degree with one message more."""
    held, sums = (), ()
    for m in tl.static_range(-_top(l, M), _top(l, M) + 1):
        held += (tl.load(m_at + _place(l, m, L) * C, mask, 0.0).to(ACC),)
    for i in tl.static_range(2 * l + 1):
        z = totals[i]
        for k in tl.static_range(2 * _top(l, M) + 1):
            z += tl.load(D_at + _entry(l, k - _top(l, M), M) + i).to(ACC) * held[k]
        sums += (z,)
    return sums


@triton.jit
def _back(
    message, matrix, out, start, edge, C, blocks,
    L: tl.constexpr, M: tl.constexpr, JOINT: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The feature of each node: the messages of its edges turned back, and summed in the edges' order."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    for g in tl.static_range(max(0, L - JOINT) + 1):
        if tl.program_id(1) == g:
            low: tl.constexpr = g + JOINT if g > 0 else 0
            high: tl.constexpr = min(g + JOINT, L)
            totals = ()
            for _ in tl.static_range((high + 1) * (high + 1) - low * low):
                totals += (tl.zeros([BLOCK], ACC),)
            for q in range(tl.load(start + n), tl.load(start + n + 1)):
                e = tl.load(edge + q)
                m_at = message + e * _dims(L, M)[2] * C + c
                D_at = matrix + e * _dims(L, M)[1]
                sums = ()
                for l in tl.static_range(low, high + 1):
                    own = totals[l * l - low * low : (l + 1) * (l + 1) - low * low]
                    sums += _turned_back(own, m_at, D_at, c < C, C, l, L, M, ACC)
                totals = sums
            for i in tl.static_range(len(totals)):
                tl.store(out + (n * _dims(L, M)[0] + low * low + i) * C + c, totals[i], c < C)


@triton.jit
def _place_of(m, l: tl.constexpr, L: tl.constexpr):
    """As ``_place``, for a vector of orders."""
    a = tl.abs(m)
    return tl.where(m == 0, l, (2 * a - 1) * (L + 1) - a * (a - 1) + l - a + tl.where(m < 0, L + 1 - a, 0))


@triton.jit
def _columns(
    x_at, m_at, D_at, there, some, c, C, COUNT: tl.constexpr, ROWS: tl.constexpr, ACC: tl.constexpr,
    EDGES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Columns that follow one another; channels that a thread holds are summed at once, the others last."""
    sums = ()
    for _ in tl.static_range(COUNT):
        sums += (tl.zeros([ROWS, EDGES, BLOCK // VECTOR], ACC),)
    for low in range(0, C, BLOCK):
        inside = (low + c < C)[None, None, :]
        y = tl.load(m_at + low, some[:, :, None] & inside, 0.0).to(ACC)
        more = ()
        for i in tl.static_range(COUNT):
            x = tl.load(x_at + i * C + low, there[None, :, None] & inside, 0.0).to(ACC)
            parts = tl.reshape(y * x, [ROWS, EDGES, BLOCK // VECTOR, VECTOR])
            more += (sums[i] + tl.sum(parts, axis=3),)
        sums = more
    for i in tl.static_range(COUNT):
        tl.store(D_at + i, tl.sum(sums[i], axis=2), some)


@triton.jit
def _overlap(
    feature, message, out, node, edges, C,
    L: tl.constexpr, M: tl.constexpr, JOINT: tl.constexpr, SUMS: tl.constexpr, ACC: tl.constexpr,
    EDGES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """The matrices' derivative: rows of messages times rows of features, summed over channels."""
    e = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    there, c = e < edges, tl.arange(0, BLOCK)
    x_at = feature + (tl.load(node + e, there, 0) * _dims(L, M)[0] * C)[None, :, None] + c[None, None, :]
    m_at = message + (e * _dims(L, M)[2] * C)[None, :, None] + c[None, None, :]
    D_at = out + (e * _dims(L, M)[1])[None, :]
    for l in tl.static_range(L + 1):
        if tl.program_id(1) == max(0, l - JOINT):
            top: tl.constexpr = _top(l, M)
            rows: tl.constexpr = triton.next_power_of_2(2 * top + 1)
            m = tl.arange(0, rows) - top
            y_at = m_at + (_place_of(m, l, L) * C)[:, None, None]
            own_at = D_at + (_entry(l, -top, M) + (m + top) * (2 * l + 1))[:, None]
            some = there[None, :] & (m <= top)[:, None]
            size: tl.constexpr = _piece(l, rows, SUMS)
            for first in tl.static_range(0, 2 * l + 1, size):
                _columns(
                    x_at + (l * l + first) * C, y_at, own_at + first, there, some, c, C,
                    min(size, 2 * l + 1 - first), rows, ACC, EDGES, BLOCK, VECTOR,
                )  # fmt: skip


def rotate(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.rotate``; sums in float32, or float64 where an operand is float64."""
    first, second = (x.contiguous() for x in operands)
    out = fake(open_slot, [first, second], plan, sizes)
    if out.numel() == 0:
        return out
    node, start, edge = (index.contiguous() for index in plan[:3])
    lmax, mmax = degrees(sizes)
    double = torch.float64 in (first.dtype, second.dtype)
    settings = {"L": lmax, "M": mmax, "JOINT": _JOINT, "ACC": tl.float64 if double else tl.float32}
    settings["num_warps"], groups = 1, max(0, lmax - _JOINT) + 1
    if open_slot in (FEATURE, MESSAGE):
        channels = out.shape[-1]
        settings["BLOCK"] = block = _block(lmax, mmax, channels, double)
        blocks = triton.cdiv(channels, block)
        grid = out.shape[0] * blocks, groups
        if open_slot == FEATURE:
            _back[grid](second, first, out, start, edge, channels, blocks, **settings)
        else:
            _into[grid](first, second, out, node, channels, blocks, **settings)
        return out
    vector = _vector(mmax, first, second)
    grid = triton.cdiv(out.shape[0], _EDGES), groups
    settings |= {
        "SUMS": _SUMS // (2 if double else 1),
        "EDGES": _EDGES,
        "BLOCK": 8 * vector,
        "VECTOR": vector,
    }
    _overlap[grid](first, second, out, node, out.shape[0], first.shape[-1], **settings)
    return out


def degrees(sizes: list[int]) -> tuple[int, int]:
    """L and M of so many rows, entries and kept rows.

    >>> degrees([25, 115, 19])
    (4, 2)
    """
    lmax = math.isqrt(sizes[0]) - 1
    return lmax, next(m for m in range(lmax + 1) if _dims(lmax, m)[2] == sizes[2])


def _block(lmax: int, mmax: int, channels: int, double: bool) -> int:
    """How many channels a warp holds: one, two or four to a thread, as far as its registers go."""
    held = max((min(lmax, _JOINT) + 1) ** 2, 2 * lmax + 1) + 2 * mmax + 1
    wanted = triton.next_power_of_2(triton.cdiv(channels, 32))
    fit = min(_REGISTERS // (held * (2 if double else 1)), wanted)
    return 128 if fit >= 4 else 64 if fit >= 2 else 32


def _vector(mmax: int, x: Tensor, m: Tensor) -> int:
    """How many neighbouring channels a thread reads: 16 bytes, where addresses and registers allow it."""
    aligned = x.shape[-1] % 16 == 0 and x.data_ptr() % 16 == m.data_ptr() % 16 == 0
    wide = torch.float64 in (x.dtype, m.dtype)
    return (2 if wide else 4) if aligned and mmax < 8 else 1
