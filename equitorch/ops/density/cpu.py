"""``density`` on the CPU: one walk over the edges of each node, all channels of a row side by side."""

from __future__ import annotations

from numba import prange
from torch import Tensor

from equitorch.ops.density.reference import ANGLE, RECEIVER, SPECIES, WEIGHT, fake
from equitorch.ops.numba_jit import array, jit_pair


def density(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.density``."""
    source, target, row_ptr, sender_ptr, sender_edge, pair, pair_edge, degree = map(array, plan)
    filled = [array(x) for x in operands]
    result = fake(open_slot, operands, plan, sizes)
    out, work = array(result), source.size * degree.size * filled[0].shape[-1]
    if open_slot == RECEIVER:
        _receivers(*filled, source, row_ptr, pair, degree, out, work=work)
    elif open_slot == WEIGHT:
        _weights(*filled, source, target, pair_edge, degree, out, work=work)
    elif open_slot == ANGLE:
        _angles(*filled, source, target, pair, degree, out, work=work)
    else:
        assert open_slot == SPECIES, "the form has four slots"
        _species(*filled, target, row_ptr, sender_ptr, sender_edge, pair, degree, out, work=2 * work)
    return result


@jit_pair
def _receivers(weight, species, angle, source, start, pair, degree, out):
    for i in prange(out.shape[0]):
        out[i] = 0
        a = species[0, i]
        for e in range(start[i], start[i + 1]):
            w, b = weight[pair[e]], species[1, source[e]]
            for m in range(out.shape[1]):
                l, y = degree[m], angle[e, m]
                for c in range(out.shape[2]):
                    out[i, m, c] += w[l, c] * (a[c] + b[c]) * y


@jit_pair
def _weights(species, angle, receiver, source, target, pair_edge, degree, out):
    for p in prange(out.shape[0]):
        out[p] = 0
        for side in range(2):
            e = pair_edge[p, side]
            if e >= 0:
                a, b, g = species[0, target[e]], species[1, source[e]], receiver[target[e]]
                for m in range(degree.shape[0]):
                    l, y = degree[m], angle[e, m]
                    for c in range(out.shape[2]):
                        out[p, l, c] += (a[c] + b[c]) * y * g[m, c]


@jit_pair
def _angles(weight, species, receiver, source, target, pair, degree, out):
    for e in prange(out.shape[0]):
        w, g = weight[pair[e]], receiver[target[e]]
        a, b = species[0, target[e]], species[1, source[e]]
        for m in range(out.shape[1]):
            l = degree[m]
            total = g[m, 0] * 0
            for c in range(g.shape[1]):
                total += w[l, c] * (a[c] + b[c]) * g[m, c]
            out[e, m] = total


@jit_pair
def _species(weight, angle, receiver, target, row_ptr, sender_ptr, sender_edge, pair, degree, out):
    for i in prange(out.shape[1]):
        out[:, i] = 0
        g = receiver[i]
        for e in range(row_ptr[i], row_ptr[i + 1]):
            w = weight[pair[e]]
            for m in range(degree.shape[0]):
                l, y = degree[m], angle[e, m]
                for c in range(out.shape[2]):
                    out[0, i, c] += w[l, c] * g[m, c] * y
        for k in range(sender_ptr[i], sender_ptr[i + 1]):
            e = sender_edge[k]
            w, h = weight[pair[e]], receiver[target[e]]
            for m in range(degree.shape[0]):
                l, y = degree[m], angle[e, m]
                for c in range(out.shape[2]):
                    out[1, i, c] += w[l, c] * h[m, c] * y
