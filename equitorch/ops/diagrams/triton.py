"""Maps by diagrams in Triton: each entry of a result adds up what belongs to it, and is written once.

One kernel follows the jobs of ``jobs.py``, its index arithmetic unrolled while it is compiled, n being known
only when it runs. Another reads a tensor once for its sums over two or three axes: a warp has a box of
entries, adds up one axis in registers, the others within each slice; where boxes are shorter than the axes,
sums come in parts, which the first kernel adds up. No atomics: the same bits every time.
"""

# In Triton's language a tuple grows:
# mypy: disable-error-code="assignment"
from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from equitorch.ops.diagrams import reference
from equitorch.ops.diagrams.jobs import (
    AxisSums,
    Launches,
    Level,
    analysis_launches,
    evaluate,
    synthesis_launches,
)
from equitorch.ops.diagrams.reference import form_entries, reading

_ENTRIES = 1024  # of a tile
_CHANNELS = 128  # of a tile, at most
_SUMMANDS = 16  # of a tile, at most, where it is summed over an index
_BOX = 512  # entries of a slice of a box
_TERMS = 256  # halves and sums of a plan that is compiled
_FAR = 1 << 31
_KINDS = torch.float32, torch.float64, torch.bfloat16, torch.float16


@triton.jit
def _power(n, P: tl.constexpr):
    value = n * 0 + 1
    for _ in tl.static_range(P):
        value *= n
    return value


@triton.jit
def _polynomial(n, COEFFICIENTS: tl.constexpr):
    value = n * 0 + COEFFICIENTS[0]
    for p in tl.static_range(1, len(COEFFICIENTS)):
        if COEFFICIENTS[p] != 0:
            value += COEFFICIENTS[p] * _power(n, p)
    return value


@triton.jit
def _partner(j, n, FORM: tl.constexpr):
    """The column of the only entry of a row of the form."""
    if FORM == "block":
        return tl.where(j < n // 2, j + n // 2, j - n // 2)
    if FORM == "interleaved":
        return j ^ 1
    return j


@triton.jit
def _sign(j, n, FORM: tl.constexpr, PLUS: tl.constexpr):
    """That entry."""
    if FORM == "block":
        return tl.where(j < n // 2, 1, -1)
    if FORM == "interleaved":
        return 1 - 2 * (j & 1)
    return tl.where(j < PLUS, 1, -1)


@triton.jit
def _digits(row, n, RANK: tl.constexpr):
    """The indices of an entry, the last axis first."""
    digits = ()
    for _ in tl.static_range(RANK):
        digits += (row % n,)
        row = row // n
    return digits


@triton.jit
def _offset(digits, row, n, AXES: tl.constexpr, RANK: tl.constexpr):
    """Which entry of a buffer it is, as far as the result's indices say."""
    offset = row * 0
    for a in tl.static_range(len(AXES)):
        if AXES[a] >= 0:
            offset += digits[RANK - 1 - AXES[a]] * _power(n, len(AXES) - 1 - a)
    return offset


@triton.jit
def _summand(j, n, AXES: tl.constexpr, FORM: tl.constexpr):
    """How far on the j-th summand is."""
    offset = j * 0
    k = j
    for a in tl.static_range(len(AXES)):
        if AXES[a] < 0:
            offset += k * _power(n, len(AXES) - 1 - a)
            k = _partner(j, n, FORM)
    return offset


@triton.jit
def _factor(scale, P: tl.constexpr, ACC: tl.constexpr):
    value = tl.load(scale).to(ACC)
    factor = value * 0 + 1
    for _ in tl.static_range(P):
        factor *= value
    return factor


@triton.jit
def _sum(
    memory, scale, row, there, c, channels, sample, n, parts, C, TERM: tl.constexpr, RANK: tl.constexpr,
    SIZES: tl.constexpr, FORM: tl.constexpr, PLUS: tl.constexpr, ACC: tl.constexpr,
    BR: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A term that is summed over an index."""
    own = _offset(_digits(row, n, RANK), row, n, TERM.axes, RANK)[:, None, None]
    total = tl.zeros([BR, BJ, BC], ACC)
    if TERM.parts > 0:
        count, rows = parts, _power(n, RANK) * TERM.parts * parts
    else:
        count, rows = n, _polynomial(n, SIZES.rows[TERM.place.memory])
    base = memory[TERM.place.memory] + sample * rows * C + c[None, None, :]
    for start in range(0, count, BJ):
        j = (start + tl.arange(0, BJ))[None, :, None]
        if TERM.parts > 0:
            at = (own * TERM.parts + TERM.place.first[0]) * parts + j
        else:
            at = own + _summand(j, n, TERM.axes, FORM)
            at = _polynomial(n, TERM.place.first) + at * TERM.place.step
        mask = there[:, None, None] & (j < count) & channels[None, None, :]
        x = tl.load(base + at.to(tl.int64) * C, mask, 0.0).to(ACC)
        if FORM != "" and TERM.parts == 0:
            x *= _sign(j, n, FORM, PLUS)
        total += x
    return _factor(scale, TERM.scale, ACC) * tl.sum(total, axis=1)


@triton.jit
def _terms(
    memory, scale, row, there, c, channels, sample, n, C, JOB: tl.constexpr,
    SIZES: tl.constexpr, FORM: tl.constexpr, PLUS: tl.constexpr, ACC: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """All terms of a job, none of which is summed over an index."""
    digits = _digits(row, n, JOB.rank)
    total = tl.zeros([BR, BC], ACC)
    for t in tl.static_range(len(JOB.terms)):
        own = _offset(digits, row, n, JOB.terms[t].axes, JOB.rank)
        at = _polynomial(n, JOB.terms[t].place.first) + own * JOB.terms[t].place.step
        rows = _polynomial(n, SIZES.rows[JOB.terms[t].place.memory])
        mask, sign = there, 1
        for p in tl.static_range(len(JOB.terms[t].equal)):
            a = digits[JOB.rank - 1 - JOB.terms[t].equal[p][0]]
            mask &= a == digits[JOB.rank - 1 - JOB.terms[t].equal[p][1]]
        for p in tl.static_range(len(JOB.terms[t].joined)):
            a = digits[JOB.rank - 1 - JOB.terms[t].joined[p][0]]
            mask &= _partner(a, n, FORM) == digits[JOB.rank - 1 - JOB.terms[t].joined[p][1]]
            if FORM != "":
                sign = sign * _sign(a, n, FORM, PLUS)[:, None]
        base = memory[JOB.terms[t].place.memory] + sample * rows * C + c[None, :]
        z = tl.load(base + at.to(tl.int64)[:, None] * C, mask[:, None] & channels[None, :], 0.0).to(ACC)
        if JOB.terms[t].scale > 0:
            z *= _factor(scale, JOB.terms[t].scale, ACC)
        total += sign * z
    return total


@triton.jit(do_not_specialize=["n", "parts", "blocks", "pieces"])
def _gather(
    memory, scale, n, parts, C, blocks, pieces,
    LEVEL: tl.constexpr, SIZES: tl.constexpr, FORM: tl.constexpr, PLUS: tl.constexpr, ACC: tl.constexpr,
    BR: tl.constexpr, BJ: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A tile of one job's entries: rows and channels."""
    block, piece = tl.program_id(0) % blocks, tl.program_id(0) // blocks % pieces
    sample = (tl.program_id(0) // blocks // pieces).to(tl.int64)
    c = piece * BC + tl.arange(0, BC)
    channels = c < C
    for t in tl.static_range(len(LEVEL.jobs)):
        if tl.program_id(1) == t:
            size = _power(n, LEVEL.jobs[t].rank)
            R: tl.constexpr = BR // BJ if LEVEL.jobs[t].summed else BR
            if block * R < size:
                row = block * R + tl.arange(0, R)
                there = row < size
                if LEVEL.jobs[t].summed:
                    total = _sum(
                        memory, scale, row, there, c, channels, sample, n, parts, C, LEVEL.jobs[t].terms[0],
                        LEVEL.jobs[t].rank, SIZES, FORM, PLUS, ACC, R, BJ, BC,
                    )  # fmt: skip
                else:
                    total = _terms(
                        memory, scale, row, there, c, channels, sample, n, C, LEVEL.jobs[t],
                        SIZES, FORM, PLUS, ACC, R, BC,
                    )  # fmt: skip
                at = _polynomial(n, LEVEL.jobs[t].place.first) + row * LEVEL.jobs[t].place.step
                rows = _polynomial(n, SIZES.rows[LEVEL.jobs[t].place.memory])
                to = memory[LEVEL.jobs[t].place.memory] + sample * rows * C + c[None, :]
                tl.store(to + at.to(tl.int64)[:, None] * C, total, there[:, None] & channels[None, :])


@triton.jit
def _put(
    memory, value, entry, e, mask, sample, part, n, parts, C,
    PLACE: tl.constexpr, ORDER: tl.constexpr, LAST: tl.constexpr, SLOTS: tl.constexpr, SIZES: tl.constexpr,
):  # fmt: skip
    """Sums of the tensor over one axis, or a part of them, for a box of entries; e counts what is behind."""
    c = e if LAST else e % C
    at = entry if LAST else entry + e // C
    if SLOTS > 0:
        at = (at * SLOTS + PLACE.first[0]) * parts + part
        rows = _power(n, ORDER - 1) * SLOTS * parts
    else:
        at = _polynomial(n, PLACE.first) + at * PLACE.step
        rows = _polynomial(n, SIZES.rows[PLACE.memory])
    tl.store(memory[PLACE.memory] + sample * rows * C + at.to(tl.int64) * C + c, value, mask)


@triton.jit(do_not_specialize=["n", "parts", "pieces"])
def _axes(
    memory, scale, n, parts, C, pieces,
    SUMS: tl.constexpr, SLOTS: tl.constexpr, SIZES: tl.constexpr, ACC: tl.constexpr,
    SIDE: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """A box of entries: sums over each of its axes."""
    COUNT: tl.constexpr = len(SUMS.places)
    LAST: tl.constexpr = SUMS.axis + COUNT == SUMS.order
    DEEP: tl.constexpr = SIDE if COUNT == 3 else 1
    behind, length = _power(n, SUMS.order - SUMS.axis - COUNT), tl.cdiv(n, parts)
    rest, low = tl.program_id(0) // parts, tl.program_id(0) % parts * length
    middle = rest * 0
    if COUNT == 3:
        rest, middle = rest // parts, rest % parts
    rest, upper = rest // parts, rest % parts
    piece, rest = rest % pieces, rest // pieces
    outer = rest % _power(n, SUMS.axis)
    sample = (rest // _power(n, SUMS.axis)).to(tl.int64)
    side, deep = tl.arange(0, SIDE)[:, None, None], tl.arange(0, DEEP)[None, :, None]
    i, j = upper * length + side, middle * length + deep
    e = (piece * BE + tl.arange(0, BE))[None, None, :]
    i_there, j_there, e_there = (side < length) & (i < n), (deep < length) & (j < n), e < behind * C
    stride = n if COUNT == 3 else 1  # of i among the results without the last axis
    scaled = _factor(scale, 1, ACC) if SLOTS == 0 else _factor(scale, 0, ACC)
    x_at = memory[0] + sample * _power(n, SUMS.order) * C + e
    total = tl.zeros([SIDE, DEEP, BE], ACC)
    for l in range(low, min(low + length, n)):
        at = outer * _power(n, COUNT) + (i * stride + j) * n + l
        x = tl.load(x_at + (at * behind).to(tl.int64) * C, i_there & j_there & e_there, 0.0).to(ACC)
        total += x
        if SUMS.places[0].memory >= 0:
            entry = (outer * _power(n, COUNT - 1) + j * n + l) * behind
            _put(
                memory, scaled * tl.sum(x, axis=0, keep_dims=True), entry, e, j_there & e_there, sample,
                upper, n, parts, C, SUMS.places[0], SUMS.order, LAST, SLOTS, SIZES,
            )  # fmt: skip
        if COUNT == 3 and SUMS.places[1].memory >= 0:
            entry = (outer * _power(n, 2) + i * n + l) * behind
            _put(
                memory, scaled * tl.sum(x, axis=1, keep_dims=True), entry, e, i_there & e_there, sample,
                middle, n, parts, C, SUMS.places[1], SUMS.order, LAST, SLOTS, SIZES,
            )  # fmt: skip
    if SUMS.places[COUNT - 1].memory >= 0:
        entry = (outer * _power(n, COUNT - 1) + i * stride + j) * behind
        _put(
            memory, scaled * total, entry, e, i_there & j_there & e_there, sample,
            low // length, n, parts, C, SUMS.places[COUNT - 1], SUMS.order, LAST, SLOTS, SIZES,
        )  # fmt: skip


def analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    """Same contract as ``reference.analysis``, by which goes what is not ``supported``."""
    if not supported(x, key, n):
        return reference.analysis(x, key, n, form, scale)
    plan, views = reading(key)
    x = x.contiguous().resolve_neg()
    out = [
        x.new_empty(x.shape[0], n ** (sector.rank + sector.alternating), len(group), x.shape[2])
        for sector, group in zip(plan.sectors, views, strict=True)
    ]
    side = box(plan.order, n, x.shape[2])[0]
    wide = x.dtype in (torch.float32, torch.float64)
    launches = analysis_launches(key, form, n > side, wide)
    _run(launches, x, out, n, form, scale, triton.cdiv(n, side))
    return out


def synthesis(zs: Sequence[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    """Same contract as ``reference.synthesis``, by which goes what is not ``supported``."""
    if not supported(zs[0], key, n) or any(z.dtype != zs[0].dtype for z in zs):
        return reference.synthesis(zs, key, n, form, scale)
    zs = [z.contiguous().resolve_neg() for z in zs]
    launches = synthesis_launches(key, form)
    shape = zs[0].shape[0], n ** int(key.split("|")[0]), zs[0].shape[3]
    y = zs[0].new_empty(shape) if launches.levels else zs[0].new_zeros(shape)
    _run(launches, y, zs, n, form, scale, 1)
    return y


def supported(x: Tensor, key: str, n: int) -> bool:
    """Whether the kernels take these: a plan that is not too long, rows that 32 bits can count."""
    plan, views = reading(key)
    halves = sum(map(len, views))
    rows = n**plan.order * max(plan.order, *map(len, views))
    programs = x.shape[0] * rows * (x.shape[-1] // _CHANNELS + 1) // 8
    small = rows < _FAR and programs < _FAR
    return small and x.dtype in _KINDS and halves + len(plan.reductions) <= _TERMS


def box(order: int, n: int, channels: int) -> tuple[int, int]:
    """Side of boxes for sums over axes, and how many channels, or more numbers, lie behind one another.

    >>> box(2, 64, 32), box(3, 16, 32), box(2, 5, 1)
    ((16, 32), (8, 32), (32, 1))
    """
    behind = n ** (order - 2) if order > 3 else 1
    wide = min(32, triton.next_power_of_2(max(1, channels * behind)))
    return 8 if order in (3, 5) else min(32, _BOX // wide), wide


def constants(form: str) -> dict[str, str | int]:
    """What the kernel knows of a form."""
    signs = re.fullmatch(r"O\((\d+),\s*(\d+)\)", form)
    named = "signs" if signs else form.removeprefix("Sp:") if form.startswith("Sp:") else ""
    return {"FORM": named, "PLUS": int(signs[1]) if signs else 0}


def registers(level: Level, dtype: torch.dtype) -> int | None:
    """How many a thread may have, where the compiler would take fewer than it needs."""
    return 64 if dtype == torch.float32 and any(job.summed for job in level.jobs) else None


def _run(
    launches: Launches, tensor: Tensor, sectors: Sequence[Tensor], n: int, form: str, scale: float, parts: int
) -> None:
    batch, _, channels = tensor.shape
    if tensor.numel() == 0:
        return
    if form.startswith("O("):
        form_entries(form, n)
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    order = len(launches.sizes.rows[0]) - 1
    cut = launches.slots * parts * n ** (order - 1) if launches.slots and parts > 1 else 0
    sizes = [evaluate(launches.sizes.rows[1], n), cut]
    scratch, pieces = (tensor.new_empty(batch * size * channels, dtype=wide) for size in sizes)
    memory = (tensor, scratch, pieces, *sectors)
    factor = _scale(scale, tensor.device, wide)
    common = {"SIZES": launches.sizes, "ACC": tl.float64 if wide == torch.float64 else tl.float32}
    for sums in launches.axes:
        _sum_axes(sums, memory, factor, n, parts, launches.slots if parts > 1 else 0, common)
    width = min(_CHANNELS, triton.next_power_of_2(channels))
    tile = {"BR": _ENTRIES // width, "BJ": min(_SUMMANDS, _ENTRIES // width), "BC": width}
    for level in launches.levels:
        jobs = level.jobs
        each = [triton.cdiv(n**job.rank, tile["BR"] // (tile["BJ"] if job.summed else 1)) for job in jobs]
        blocks, columns = max(each), triton.cdiv(channels, width)
        _gather[batch * blocks * columns, len(jobs)](
            memory, factor, n, parts, channels, blocks, columns,
            LEVEL=level, maxnreg=registers(level, wide), **constants(form), **common, **tile,
        )  # fmt: skip


def _sum_axes(
    sums: AxisSums, memory: tuple[Tensor, ...], factor: Tensor, n: int, parts: int, slots: int,
    common: dict[str, object],
) -> None:  # fmt: skip
    batch, _, channels = memory[0].shape
    side, width = box(sums.order, n, channels)
    count = len(sums.places)
    columns = triton.cdiv(n ** (sums.order - sums.axis - count) * channels, width)
    _axes[(batch * n**sums.axis * columns * parts**count,)](
        memory, factor, n, parts, channels, columns,
        SUMS=sums, SLOTS=slots, SIDE=triton.next_power_of_2(min(side, n)), BE=width, num_warps=1, **common,
    )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _scale(scale: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((1,), scale, device=device, dtype=dtype)
