"""``bilinear`` on the CPU: one item at a time, its rows in the nearest caches, channels side by side.

Loops over channels start at zero: Numba cannot tell that another start is not negative, checks every index
for Python's counting from the end, and the loop is no vector loop any more (six times slower).
"""

from __future__ import annotations

from numba import prange
from torch import Tensor

from equitorch.ops.numba_jit import array, jit_pair


def bilinear(open_slot: int, operands: list[Tensor], plan: list[Tensor], sizes: list[int]) -> Tensor:
    """Same contract as ``reference.bilinear``."""
    a, b = operands
    index, value, start = plan[3 * open_slot : 3 * open_slot + 3]
    rows, width = start.shape[0] - 1, max(a.shape[2], b.shape[2])
    out = a.new_empty(a.shape[0], rows, sizes[open_slot])
    if out.numel() == 0:
        return out
    left, right = array(index)
    if a.shape[2] < b.shape[2]:
        a, b, left, right = b, a, right, left
    entries = left, right, array(value.to(a.dtype)), array(start)
    work = 2 * a.shape[0] * value.shape[0] * width
    if width != 1 and out.shape[2] == 1:  # also a sum over no channels at all
        _summed(array(a), array(b), *entries, array(out), work=work)
    elif out.shape[2] > b.shape[2]:
        _scaled(array(a), array(b), *entries, array(out), work=work)
    else:
        _joined(array(a), array(b), *entries, array(out), work=work)
    return out


@jit_pair
def _joined(a, b, left, right, value, start, out):
    """All three with channels; four entries at a time, so that a row of the result is seldom reloaded."""
    for n in prange(out.shape[0]):
        for row in range(out.shape[1]):
            t, stop = start[row], start[row + 1]
            for c in range(out.shape[2]):
                out[n, row, c] = 0
            while t + 4 <= stop:
                i0, i1, i2, i3 = left[t], left[t + 1], left[t + 2], left[t + 3]
                j0, j1, j2, j3 = right[t], right[t + 1], right[t + 2], right[t + 3]
                v0, v1, v2, v3 = value[t], value[t + 1], value[t + 2], value[t + 3]
                for c in range(out.shape[2]):
                    out[n, row, c] += (
                        v0 * a[n, i0, c] * b[n, j0, c]
                        + v1 * a[n, i1, c] * b[n, j1, c]
                        + v2 * a[n, i2, c] * b[n, j2, c]
                        + v3 * a[n, i3, c] * b[n, j3, c]
                    )
                t += 4
            while t < stop:
                i, j, v = left[t], right[t], value[t]
                for c in range(out.shape[2]):
                    out[n, row, c] += v * a[n, i, c] * b[n, j, c]
                t += 1


@jit_pair
def _scaled(a, b, left, right, value, start, out):
    """``b`` has one number per row, for all channels of ``a``."""
    for n in prange(out.shape[0]):
        for row in range(out.shape[1]):
            for c in range(out.shape[2]):
                out[n, row, c] = 0
            for t in range(start[row], start[row + 1]):
                i, v = left[t], value[t] * b[n, right[t], 0]
                for c in range(out.shape[2]):
                    out[n, row, c] += v * a[n, i, c]


@jit_pair
def _summed(a, b, left, right, value, start, out):
    """The open slot has one number per row: channels are summed."""
    for n in prange(out.shape[0]):
        for row in range(out.shape[1]):
            total = a.dtype.type(0)
            for t in range(start[row], start[row + 1]):
                i, j = left[t], right[t]
                dot = a.dtype.type(0)
                for c in range(a.shape[2]):
                    dot += a[n, i, c] * b[n, j, c]
                total += value[t] * dot
            out[n, row, 0] = total
