"""``message`` on the CPU: one walk over the edges of each node, all channels of a row side by side."""

from __future__ import annotations

from numba import prange
from torch import Tensor

from equitorch.ops.message.reference import RECEIVER, WEIGHT
from equitorch.ops.numba_jit import array, jit_pair


def message(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.message``."""
    source, target, row_ptr, sender_ptr, sender_edge, pair, pair_edge, degree = map(array, plan)
    first, second = operands
    rows, channels = second.shape[1:]
    work = source.size * rows * channels
    if open_slot == WEIGHT:
        out = second.new_empty(pair_edge.shape[0], sizes[0], channels)
        _weights(array(first), array(second), source, target, pair_edge, degree, array(out), work=work)
        return out
    out = second.new_empty(row_ptr.size - 1, rows, channels)
    if open_slot == RECEIVER:
        _gather(array(first), array(second), source, row_ptr, pair, degree, array(out), work=work)
    else:
        walk = target, sender_ptr, sender_edge, pair
        _gather_through(array(first), array(second), *walk, degree, array(out), work=work)
    return out


@jit_pair
def _gather(weight, feature, source, start, pair, degree, out):
    for i in prange(out.shape[0]):
        out[i] = 0
        for e in range(start[i], start[i + 1]):
            w, x = weight[pair[e]], feature[source[e]]
            for m in range(out.shape[1]):
                l = degree[m]
                for c in range(out.shape[2]):
                    out[i, m, c] += w[l, c] * x[m, c]


@jit_pair
def _gather_through(weight, feature, other, start, edge, pair, degree, out):
    """The same for edges listed by ``edge``: from the sender's side."""
    for j in prange(out.shape[0]):
        out[j] = 0
        for k in range(start[j], start[j + 1]):
            e = edge[k]
            w, x = weight[pair[e]], feature[other[e]]
            for m in range(out.shape[1]):
                l = degree[m]
                for c in range(out.shape[2]):
                    out[j, m, c] += w[l, c] * x[m, c]


@jit_pair
def _weights(sender, receiver, source, target, pair_edge, degree, out):
    for p in prange(out.shape[0]):
        out[p] = 0
        for side in range(2):
            e = pair_edge[p, side]
            if e >= 0:
                x, g = sender[source[e]], receiver[target[e]]
                for m in range(degree.shape[0]):
                    l = degree[m]
                    for c in range(out.shape[2]):
                        out[p, l, c] += x[m, c] * g[m, c]
