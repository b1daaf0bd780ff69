"""``rotate`` on the CPU: one edge at a time, its rows in the nearest cache; see ``bilinear`` on its loops."""

from __future__ import annotations

from numba import prange
from torch import Tensor

from equitorch.ops.numba_jit import array, jit_pair
from equitorch.ops.rotate.reference import FEATURE, MESSAGE, fake


def rotate(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.rotate``."""
    out = fake(open_slot, operands, plan, sizes)
    if out.numel() == 0:
        return out
    node, node_ptr, node_edge, start, row, entry, back_start, back_kept, back_entry = map(array, plan)
    first, second = map(array, operands)
    work = 2 * node.size * entry.size * max(operands[0].shape[-1], operands[1].shape[-1])
    if open_slot == MESSAGE:
        _into(first, second, node, start, row, entry, array(out), work=work)
    elif open_slot == FEATURE:
        _back(second, first, node_ptr, node_edge, back_start, back_kept, back_entry, array(out), work=work)
    else:
        _overlap(first, second, node, start, row, entry, array(out), work=work)
    return out


@jit_pair
def _into(x, D, node, start, row, entry, out):
    for e in prange(out.shape[0]):
        n = node[e]
        for k in range(out.shape[1]):
            t, stop = start[k], start[k + 1]
            for c in range(out.shape[2]):
                out[e, k, c] = 0
            while t + 4 <= stop:
                i0, i1, i2, i3 = row[t], row[t + 1], row[t + 2], row[t + 3]
                d0, d1, d2, d3 = D[e, entry[t]], D[e, entry[t + 1]], D[e, entry[t + 2]], D[e, entry[t + 3]]
                for c in range(out.shape[2]):
                    out[e, k, c] += d0 * x[n, i0, c] + d1 * x[n, i1, c] + d2 * x[n, i2, c] + d3 * x[n, i3, c]
                t += 4
            while t < stop:
                i0, d0 = row[t], D[e, entry[t]]
                for c in range(out.shape[2]):
                    out[e, k, c] += d0 * x[n, i0, c]
                t += 1


@jit_pair
def _back(m, D, node_ptr, node_edge, start, kept, entry, out):
    for n in prange(out.shape[0]):
        out[n] = 0
        for q in range(node_ptr[n], node_ptr[n + 1]):
            e = node_edge[q]
            for i in range(out.shape[1]):
                t, stop = start[i], start[i + 1]
                while t + 4 <= stop:
                    k0, k1, k2, k3 = kept[t], kept[t + 1], kept[t + 2], kept[t + 3]
                    d0, d1 = D[e, entry[t]], D[e, entry[t + 1]]
                    d2, d3 = D[e, entry[t + 2]], D[e, entry[t + 3]]
                    for c in range(out.shape[2]):
                        out[n, i, c] += (
                            d0 * m[e, k0, c] + d1 * m[e, k1, c] + d2 * m[e, k2, c] + d3 * m[e, k3, c]
                        )
                    t += 4
                while t < stop:
                    k0, d0 = kept[t], D[e, entry[t]]
                    for c in range(out.shape[2]):
                        out[n, i, c] += d0 * m[e, k0, c]
                    t += 1


@jit_pair
def _overlap(x, m, node, start, row, entry, out):
    for e in prange(out.shape[0]):
        n = node[e]
        for k in range(start.size - 1):
            t, stop = start[k], start[k + 1]
            while t + 2 <= stop:
                i0, i1 = row[t], row[t + 1]
                s0, s1 = out.dtype.type(0), out.dtype.type(0)
                for c in range(x.shape[2]):
                    s0 += m[e, k, c] * x[n, i0, c]
                    s1 += m[e, k, c] * x[n, i1, c]
                out[e, entry[t]], out[e, entry[t + 1]] = s0, s1
                t += 2
            if t < stop:
                i0, s0 = row[t], out.dtype.type(0)
                for c in range(x.shape[2]):
                    s0 += m[e, k, c] * x[n, i0, c]
                out[e, entry[t]] = s0
