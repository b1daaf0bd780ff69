"""``convolution`` on the CPU: one walk over the edges of each node; an edge's operands fit the first cache.

Loops over channels start at zero and do several terms at once, for the reason given in ``bilinear``'s kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numba import prange
from torch import Tensor

from equitorch.ops.convolution.form import LISTS
from equitorch.ops.convolution.reference import (
    FEATURE,
    FILTER,
    LATENT,
    PROJECTION,
    RESULT,
    WALKS,
    WEIGHT,
    fake,
    projected_fake,
)
from equitorch.ops.numba_jit import array, jit_pair, jit_part

_CHUNK = 1 << 20  # bytes of weights that exist at a time, for each thread: half of a second-level cache


def convolution(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.convolution``; operands of half precision are widened first."""
    wide = _wide(operands[0])
    out = fake(open_slot, operands, plan, sizes)
    if out.numel() == 0:
        return out
    dtype, out = out.dtype, out.to(wide)
    arrays = [array(x.to(wide)) for x in operands]
    source, target, row_ptr, receiver_edge, sender_ptr, sender_edge, pair, pair_edge = map(
        array, plan[:WALKS]
    )
    transposed = open_slot == FEATURE
    lists = plan[WALKS + LISTS :] if transposed else plan[WALKS : WALKS + LISTS]
    form = [*map(array, lists[:-1]), array(lists[-1].to(wide))]
    work = 2 * source.size * form[3].size * operands[-1].shape[-1]
    if open_slot == RESULT:
        x, y, w = arrays
        _gather(x, y, w, source, row_ptr, receiver_edge, pair, *form, array(out), work=work)
    elif open_slot == FEATURE:
        y, w, g = arrays
        _gather(g, y, w, target, sender_ptr, sender_edge, pair, *form, array(out), work=work)
    elif open_slot == WEIGHT:
        x, y, g = arrays
        _weights(x, y, g, source, target, pair_edge, *form, array(out), work=work)
    else:
        x, w, g = arrays
        _filters(x, w, g, source, target, pair, *form, array(out), work=2 * work)
    return out.to(dtype)


def _wide(x: Tensor) -> torch.dtype:
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


def projected_convolution(
    open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]
) -> Tensor:
    """Same contract as ``reference.projected_convolution``; weights exist for a chunk of edges at a time."""
    wide = _wide(operands[0])
    if operands[0].dtype != wide:
        widened = [x.to(wide) for x in operands]
        return projected_convolution(open_slot, widened, plan, sizes).to(operands[0].dtype)
    out = projected_fake(open_slot, operands, plan, sizes).zero_()
    channels, paths = operands[-1].shape[-1], sizes[3]
    width = channels * paths
    if 0 in (out.numel(), plan[0].numel(), width):
        return out
    operands = [x.contiguous() for x in operands]
    count = max(16, torch.get_num_threads() * _CHUNK // (width * out.element_size()))
    if open_slot in (LATENT, PROJECTION):
        _project_back(open_slot, operands, plan, sizes, count, out)
        return out
    latent, matrix = operands[-3:-1] if open_slot != 4 else operands[-2:]
    matrix, source, target, pair = matrix.flatten(1), plan[0], plan[1], plan[6]
    transposed = open_slot == FEATURE
    lists = plan[WALKS + LISTS :] if transposed else plan[WALKS : WALKS + LISTS]
    form = [*map(array, lists[:-1]), array(lists[-1].to(out.dtype))]
    start, listed = (plan[4], plan[5]) if transposed else (plan[2], plan[3])
    if open_slot == FILTER:
        start, listed = (torch.arange(source.shape[0] + 1), torch.arange(source.shape[0]))
    walk = [(rows, listed[start[rows.start] : start[rows.stop]]) for rows in _pieces(start, count)]
    longest = max(edges.shape[0] for _, edges in walk)
    weights, order = out.new_empty(longest, width), torch.arange(longest)
    for rows, edges in walk:
        s, t, q = source[edges], target[edges], pair[edges]
        weight = torch.mm(latent[q], matrix, out=weights[: s.shape[0]])
        w, local = array(weight.view(-1, paths, channels)), array(order[: s.shape[0]])
        work = 2 * weight.numel() * form[3].size
        if open_slot == FILTER:
            ends = array(s), array(t)
            _filters(
                array(operands[0]), w, array(operands[-1]), *ends, local, *form, array(out[rows]), work=work
            )
            continue
        features, filters, other = (operands[-1], operands[0], t) if transposed else (*operands[:2], s)
        begin = array(start[rows.start : rows.stop + 1] - start[rows.start])
        walked = array(other), begin, local, local
        _gather(array(features), array(filters[edges]), w, *walked, *form, array(out[rows]), work=work)
    return out


def _pieces(start: Tensor, count: int) -> Iterator[slice]:
    """Rows that follow one another and have at most ``count`` edges, or are single."""
    low, rows = 0, start.shape[0] - 1
    while low < rows:
        high = int(torch.searchsorted(start, start[low] + count, right=True)) - 1
        high = min(max(high, low + 1), rows)
        yield slice(low, high)
        low = high


def _project_back(
    open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int], count: int, out: Tensor
) -> None:
    x, y, other, g = operands
    source, target, pair_edge = array(plan[0]), array(plan[1]), plan[7]
    lists = plan[WALKS : WALKS + LISTS]
    form = [*map(array, lists[:-1]), array(lists[-1].to(out.dtype))]
    weights = out.new_empty(min(count, pair_edge.shape[0]), sizes[3], x.shape[2])
    for low in range(0, pair_edge.shape[0], count):
        edges = pair_edge[low : low + count]
        weight = weights[: edges.shape[0]]
        work = 2 * weight.numel() * form[3].size
        _weights(array(x), array(y), array(g), source, target, array(edges), *form, array(weight), work=work)
        if open_slot == LATENT:
            torch.mm(weight.flatten(1), other.flatten(1).T, out=out[low : low + count])
        else:
            out.flatten(1).addmm_(other[low : low + count].T, weight.flatten(1))


@jit_pair
def _gather(
    feature, filters, weight, other, start, edge, pair,
    path, row, cell_start, term_row, term_start, filter_row, value, out,
):  # fmt: skip
    """The result at each node; or, by the sender's walk and the transposed form, the features' derivative."""
    for i in prange(out.shape[0]):
        a = np.empty(term_row.size, out.dtype)
        out[i] = 0
        for n in range(start[i], start[i + 1]):
            e = edge[n]
            j, q = other[e], pair[e]
            _mix(filters, e, term_start, filter_row, value, a)
            for cell in range(path.size):
                p, k = path[cell], row[cell]
                t, stop = cell_start[cell], cell_start[cell + 1]
                while t + 4 <= stop:
                    i0, i1, i2, i3 = term_row[t], term_row[t + 1], term_row[t + 2], term_row[t + 3]
                    a0, a1, a2, a3 = a[t], a[t + 1], a[t + 2], a[t + 3]
                    for c in range(out.shape[2]):
                        out[i, k, c] += weight[q, p, c] * (
                            a0 * feature[j, i0, c]
                            + a1 * feature[j, i1, c]
                            + a2 * feature[j, i2, c]
                            + a3 * feature[j, i3, c]
                        )
                    t += 4
                if t + 3 == stop:
                    i0, i1, i2 = term_row[t], term_row[t + 1], term_row[t + 2]
                    a0, a1, a2 = a[t], a[t + 1], a[t + 2]
                    for c in range(out.shape[2]):
                        out[i, k, c] += weight[q, p, c] * (
                            a0 * feature[j, i0, c] + a1 * feature[j, i1, c] + a2 * feature[j, i2, c]
                        )
                elif t + 2 == stop:
                    i0, i1, a0, a1 = term_row[t], term_row[t + 1], a[t], a[t + 1]
                    for c in range(out.shape[2]):
                        out[i, k, c] += weight[q, p, c] * (a0 * feature[j, i0, c] + a1 * feature[j, i1, c])
                elif t + 1 == stop:
                    i0, a0 = term_row[t], a[t]
                    for c in range(out.shape[2]):
                        out[i, k, c] += weight[q, p, c] * a0 * feature[j, i0, c]


@jit_pair
def _weights(
    feature, filters, result, source, target, pair_edge,
    path, row, cell_start, term_row, term_start, filter_row, value, out,
):  # fmt: skip
    """The same terms, summed over rows of the result instead of over edges."""
    for q in prange(out.shape[0]):
        a = np.empty(term_row.size, out.dtype)
        out[q] = 0
        for side in range(2):
            e = pair_edge[q, side]
            if e < 0:
                continue
            j, i = source[e], target[e]
            _mix(filters, e, term_start, filter_row, value, a)
            for cell in range(path.size):
                p, k = path[cell], row[cell]
                t, stop = cell_start[cell], cell_start[cell + 1]
                while t + 4 <= stop:
                    i0, i1, i2, i3 = term_row[t], term_row[t + 1], term_row[t + 2], term_row[t + 3]
                    a0, a1, a2, a3 = a[t], a[t + 1], a[t + 2], a[t + 3]
                    for c in range(out.shape[2]):
                        out[q, p, c] += result[i, k, c] * (
                            a0 * feature[j, i0, c]
                            + a1 * feature[j, i1, c]
                            + a2 * feature[j, i2, c]
                            + a3 * feature[j, i3, c]
                        )
                    t += 4
                if t + 3 == stop:
                    i0, i1, i2 = term_row[t], term_row[t + 1], term_row[t + 2]
                    a0, a1, a2 = a[t], a[t + 1], a[t + 2]
                    for c in range(out.shape[2]):
                        out[q, p, c] += result[i, k, c] * (
                            a0 * feature[j, i0, c] + a1 * feature[j, i1, c] + a2 * feature[j, i2, c]
                        )
                elif t + 2 == stop:
                    i0, i1, a0, a1 = term_row[t], term_row[t + 1], a[t], a[t + 1]
                    for c in range(out.shape[2]):
                        out[q, p, c] += result[i, k, c] * (a0 * feature[j, i0, c] + a1 * feature[j, i1, c])
                elif t + 1 == stop:
                    i0, a0 = term_row[t], a[t]
                    for c in range(out.shape[2]):
                        out[q, p, c] += result[i, k, c] * a0 * feature[j, i0, c]


@jit_pair
def _filters(
    feature, weight, result, source, target, pair,
    path, row, cell_start, term_row, term_start, filter_row, value, out,
):  # fmt: skip
    """A sum over channels for each term, then the coefficients."""
    for e in prange(out.shape[0]):
        a, below = np.empty(term_row.size, out.dtype), np.empty(feature.shape[2], out.dtype)
        j, i, q = source[e], target[e], pair[e]
        for cell in range(path.size):
            p, k = path[cell], row[cell]
            t, stop = cell_start[cell], cell_start[cell + 1]
            for c in range(below.size):
                below[c] = weight[q, p, c] * result[i, k, c]
            while t + 2 <= stop:
                i0, i1 = term_row[t], term_row[t + 1]
                s0, s1 = out.dtype.type(0), out.dtype.type(0)
                for c in range(below.size):
                    s0 += below[c] * feature[j, i0, c]
                    s1 += below[c] * feature[j, i1, c]
                a[t], a[t + 1] = s0, s1
                t += 2
            if t < stop:
                i0, s0 = term_row[t], out.dtype.type(0)
                for c in range(below.size):
                    s0 += below[c] * feature[j, i0, c]
                a[t] = s0
        out[e] = 0
        for t in range(term_row.size):
            for n in range(term_start[t], term_start[t + 1]):
                out[e, filter_row[n]] += value[n] * a[t]


@jit_part
def _mix(filters, e, term_start, filter_row, value, a):
    """The numbers A of one edge, one for each term."""
    for t in range(a.size):
        total = a.dtype.type(0)
        for n in range(term_start[t], term_start[t + 1]):
            total += value[n] * filters[e, filter_row[n]]
        a[t] = total
