"""Programs in Triton: one warp per few nodes of a species and block of channels, rows in its own scratch."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.contraction.program import Program

PARTS = 1024  # about so many parts are made of the nodes, so that every species has warps enough
BLOCK = 32  # channels of one warp: each thread reads what it has written itself


@triton.jit
def _run(
    x, w, order, begin, start, left, right, value, node_out, species_out, scratch, out, sums,
    J, GIVEN, WEIGHTS, COMPUTED, NODE_OUT, SPECIES_OUT, C, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    c = tl.program_id(1) * BLOCK + lane
    mask = c < C
    rows = part * tl.num_programs(1) + tl.program_id(1)
    r = scratch + rows * (GIVEN + WEIGHTS + COMPUTED) * BLOCK + lane
    for row in range(WEIGHTS):
        weight = tl.load(w + (part // J * WEIGHTS + row) * C + c, mask, 0.0)
        tl.store(r + (GIVEN + row) * BLOCK, weight.to(ACC))
    for row in range(SPECIES_OUT):
        tl.store(sums + (part * SPECIES_OUT + row) * C + c, tl.zeros([BLOCK], ACC), mask)
    for at in range(tl.load(begin + part), tl.load(begin + part + 1)):
        n = tl.load(order + at).to(tl.int64)
        for row in range(GIVEN):
            tl.store(r + row * BLOCK, tl.load(x + (n * GIVEN + row) * C + c, mask, 0.0).to(ACC))
        for row in range(COMPUTED):
            tl.debug_barrier()  # keeps the rows in order
            total = tl.zeros([BLOCK], ACC)
            for t in range(tl.load(start + row), tl.load(start + row + 1)):
                a = tl.load(r + tl.load(left + t) * BLOCK)
                b = tl.load(r + tl.load(right + t) * BLOCK)
                total += tl.load(value + t) * a * b
            tl.store(r + (GIVEN + WEIGHTS + row) * BLOCK, total)
        tl.debug_barrier()
        for row in range(NODE_OUT):
            found = tl.load(r + tl.load(node_out + row) * BLOCK)
            tl.store(out + (n * NODE_OUT + row) * C + c, found, mask)
        for row in range(SPECIES_OUT):
            to = sums + (part * SPECIES_OUT + row) * C + c
            found = tl.load(r + tl.load(species_out + row) * BLOCK)
            tl.store(to, tl.load(to, mask, 0.0) + found, mask)
        tl.debug_barrier()


def run(program: Program, nodes: list[Tensor], species: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    """Same contract as ``reference.run``; sums in float32, or float64 for float64 operands."""
    x, w = torch.cat(nodes, dim=1).contiguous(), torch.cat(species, dim=1).contiguous()
    kinds, channels, wide = w.shape[0], x.shape[2], _wide(x.dtype)
    out = x.new_empty(x.shape[0], len(program.node_out), channels)
    total = w.new_zeros(kinds, len(program.species_out), channels)
    if x.shape[0] == 0 or channels == 0 or out.numel() + total.numel() == 0:
        return out, total
    each = max(1, min(x.shape[0], PARTS // kinds))
    order, begin = _parts(index, kinds, each)
    grid = kinds * each, triton.cdiv(channels, BLOCK)
    size = program.given + len(program.start) - 1
    scratch = x.new_empty(grid[0] * grid[1] * size * BLOCK, dtype=wide)
    sums = x.new_empty(kinds, each, *total.shape[1:], dtype=wide)
    _run[grid](
        x, w, order, begin, *_steps(program, wide, x.device), scratch, out, sums,
        each, x.shape[1], w.shape[1], len(program.start) - 1, out.shape[1], total.shape[1], channels,
        ACC=tl.float64 if wide == torch.float64 else tl.float32, BLOCK=BLOCK, num_warps=1,
    )  # fmt: skip
    return out, sums.sum(1).to(w.dtype)


def _parts(index: Tensor, kinds: int, each: int) -> tuple[Tensor, Tensor]:
    """Nodes ordered by species, and where each part of the nodes of a species begins among them."""
    ordered, order = torch.sort(index, stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(kinds + 1, device=index.device))
    step = torch.arange(each, device=index.device)
    begin = bounds[:-1, None] + bounds.diff()[:, None] * step // each
    return order, torch.cat([begin.flatten(), bounds[-1:]])


@functools.cache
def _steps(program: Program, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    numbers = program.start, program.left, program.right, program.value, program.node_out, program.species_out
    tensors = [torch.from_numpy(each) for each in numbers]
    return tuple(each.to(device, dtype if each.is_floating_point() else each.dtype) for each in tensors)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
