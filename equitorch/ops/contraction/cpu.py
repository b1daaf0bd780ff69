"""Programs on the CPU: all rows of one node and a block of channels in the nearest caches."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numba import prange
from torch import Tensor

from equitorch.ops.contraction.program import Program
from equitorch.ops.numba_jit import array, jit_pair

LANES = 64  # channels of one block; the last block is filled up with zeros
NODES = 64  # most nodes of one task: they share a species, whose rows are read once


def run(program: Program, nodes: list[Tensor], species: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    """Same contract as ``reference.run``."""
    x, w = torch.cat(nodes, dim=1), torch.cat(species, dim=1)
    out = x.new_empty(x.shape[0], len(program.node_out), x.shape[2])
    order, begin, kind = _tasks(array(index), w.shape[0])
    sums = x.new_empty(len(kind), len(program.species_out), x.shape[2])
    steps = _steps(program, x.dtype)
    work = 2 * x.shape[0] * x.shape[2] * len(program.left)
    _run(array(x), array(w), order, begin, kind, *steps, array(out), array(sums), work=work)
    total = w.new_zeros(w.shape[0], *sums.shape[1:])
    return out, total.index_add_(0, torch.from_numpy(kind), sums) if sums.numel() else total


def _tasks(index, species: int):
    """Nodes ordered by species, where each task begins among them, and its species."""
    order = np.argsort(index, kind="stable")
    count = np.bincount(index, minlength=species)
    parts = -(-count // NODES)
    kind = np.repeat(np.arange(species), parts)
    number = np.arange(len(kind)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = np.append((np.cumsum(count) - count)[kind] + number * NODES, len(index))
    return order, begin, kind


@functools.cache
def _steps(program: Program, dtype: torch.dtype):
    """The products in groups of four, filled up with products of a row that is always zero."""
    zero = program.given + len(program.start) - 1
    count = np.diff(program.start)
    groups = np.maximum(-(-count // 4), 1)
    start = np.append(0, np.cumsum(groups))
    to = (
        4 * np.repeat(start[:-1], count) + np.arange(len(program.left)) - np.repeat(program.start[:-1], count)
    )
    left, right = np.full((2, 4 * start[-1]), zero, np.uint32)
    value = np.zeros(4 * start[-1], array(torch.empty(0, dtype=dtype)).dtype)
    left[to], right[to], value[to] = program.left, program.right, program.value
    return start.astype(np.uint32), left, right, value, program.node_out, program.species_out


@jit_pair
def _run(x, w, order, begin, kind, start, left, right, value, node_out, species_out, out, sums):
    channels, given, weights = x.shape[2], x.shape[1], w.shape[1]
    blocks = (channels + LANES - 1) // LANES
    for task in prange(kind.shape[0] * blocks):
        part, low = task // blocks, task % blocks * LANES
        width = min(LANES, channels - low)
        r = np.zeros((given + weights + start.shape[0], LANES), x.dtype)
        total = np.zeros((species_out.shape[0], LANES), x.dtype)
        for row in range(weights):
            for c in range(width):
                r[given + row, c] = w[kind[part], row, low + c]
        for at in range(begin[part], begin[part + 1]):
            n = order[at]
            for row in range(given):
                for c in range(width):
                    r[row, c] = x[n, row, low + c]
            for row in range(start.shape[0] - 1):
                o, t = given + weights + row, 4 * start[row]
                a0, a1, a2, a3 = left[t], left[t + 1], left[t + 2], left[t + 3]
                b0, b1, b2, b3 = right[t], right[t + 1], right[t + 2], right[t + 3]
                v0, v1, v2, v3 = value[t], value[t + 1], value[t + 2], value[t + 3]
                for c in range(LANES):
                    r[o, c] = (
                        v0 * r[a0, c] * r[b0, c]
                        + v1 * r[a1, c] * r[b1, c]
                        + v2 * r[a2, c] * r[b2, c]
                        + v3 * r[a3, c] * r[b3, c]
                    )
                for group in range(start[row] + 1, start[row + 1]):
                    t = 4 * group
                    a0, a1, a2, a3 = left[t], left[t + 1], left[t + 2], left[t + 3]
                    b0, b1, b2, b3 = right[t], right[t + 1], right[t + 2], right[t + 3]
                    v0, v1, v2, v3 = value[t], value[t + 1], value[t + 2], value[t + 3]
                    for c in range(LANES):
                        r[o, c] += (
                            v0 * r[a0, c] * r[b0, c]
                            + v1 * r[a1, c] * r[b1, c]
                            + v2 * r[a2, c] * r[b2, c]
                            + v3 * r[a3, c] * r[b3, c]
                        )
            for row in range(node_out.shape[0]):
                for c in range(width):
                    out[n, row, low + c] = r[node_out[row], c]
            for row in range(species_out.shape[0]):
                for c in range(LANES):
                    total[row, c] += r[species_out[row], c]
        for row in range(species_out.shape[0]):
            for c in range(width):
                sums[part, row, low + c] = total[row, c]
