"""``convolution`` on the CPU: one walk over the edges of each node; an edge's operands fit the first cache.

Loops over channels start at zero and do several terms at once, for the reason given in ``bilinear``'s kernel.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from torch import Tensor

from equitorch.ops.convolution.form import LISTS
from equitorch.ops.convolution.reference import FEATURE, RESULT, WALKS, WEIGHT, fake, weight_dtype
from equitorch.ops.numba_jit import array, jit_pair, jit_part


def convolution(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.convolution``; weights of half precision are widened first."""
    kept = operands[0] if open_slot else operands[1]
    out = fake(open_slot, operands, plan, sizes).to(kept.dtype)
    if out.numel() == 0:
        return out
    arrays = [array(x.to(kept.dtype)) for x in operands]
    source, target, row_ptr, receiver_edge, sender_ptr, sender_edge, pair, pair_edge = map(
        array, plan[:WALKS]
    )
    transposed = open_slot == FEATURE
    lists = plan[WALKS + LISTS :] if transposed else plan[WALKS : WALKS + LISTS]
    form = [*map(array, lists[:-1]), array(lists[-1].to(kept.dtype))]
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
        return out.to(weight_dtype(kept, sizes))
    else:
        x, w, g = arrays
        _filters(x, w, g, source, target, pair, *form, array(out), work=2 * work)
    return out


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
