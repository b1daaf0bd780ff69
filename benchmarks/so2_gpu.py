"""Time rotations and the SO(2) convolution on a GPU beside published eSCN code as PyTorch writes it.

``python -m benchmarks.so2_gpu`` prints two tables in Markdown. The first has the rotations' kernels alone,
beside the time in which the memory could move what they read and write once, and beside matrices with zeros.
The second has the chain gather, rotate, radial weights, convolve, rotate back, sum: forward; backward by
features, radial weights and matrices, as forces need it; and double backward, by the weights as well, as
training on forces needs it. Each is beside the two times that bound it: that of its arithmetic at the rate of
a large matrix product, and that of memory, if nothing between the ends of the chain were stored. Weights are
real and imaginary ("so3").

All answers are compared first, on a small graph, with the definition in double precision: whatever differs is
not timed. Rotations are made beforehand, as they serve all layers of a model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.convolution_gpu import JOBS, bandwidth, milliseconds
from benchmarks.so2_baseline import BaselineConvolution, DenseRotation, baseline, load, radial_size
from equitorch.layers import SO2Convolution
from equitorch.ops.backend import use_reference
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_in, rotate_out
from equitorch.ops.rotate.reference import WIGNER
from equitorch.reps.order import order_index, order_sizes

DEGREES = ((2, 2), (4, 2), (6, 2), (6, 3))
H200 = "data sheet of an H200: 4800 GB/s, 67 TFLOP/s in fp32, 494 in tf32"
RUNS = {"forward": (1, 2), "backward": (1, 4), "double backward": (4, 10)}  # of the matrices, of a rotation


class Operands(NamedTuple):
    """Features, radial weights and compact matrices, or cotangents of these."""

    x: Tensor
    radial: Tensor
    wigner: Tensor


@dataclass
class Contender:
    """One implementation, on its own matrices and weights."""

    name: str
    call: Callable[[Tensor, Tensor, Tensor], Tensor]
    weights: list[Tensor]
    common: Callable[[list[Tensor]], list[Tensor]]  # weights, or their derivatives -> the published form
    spread: Callable[[Tensor], Tensor] = lambda D: D  # compact matrices -> its own ones
    picked: Callable[[Tensor], Tensor] = lambda D: D


class Chain:
    """A layer and a random graph on a device."""

    def __init__(self, lmax: int, mmax: int, channels: int, edges: int, nodes: int, device: str) -> None:
        torch.manual_seed(0)
        generator = torch.Generator(device).manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, device=device, generator=generator)

        index = torch.randint(nodes, (2, edges), device=device, generator=generator)
        self.edges = torch.stack([index[0], index[1].sort().values])
        self.plan = EdgePlan.build(self.edges, nodes)
        self.vectors, rows = draw(edges, 3), (lmax + 1) ** 2
        self.rotation = EdgeRotation.build(self.vectors, lmax, mmax)
        self.dense = DenseRotation(self.vectors, lmax, mmax)
        start, row, entry, *_ = self.rotation.terms
        kept = order_index(lmax, mmax).to(device).repeat_interleave(start.diff())
        self.places = torch.empty_like(entry).index_copy(0, entry, kept * rows + row)
        shapes = (
            (nodes, rows, channels),
            (edges, radial_size(lmax, mmax), channels),
            self.rotation.wigner.shape,
        )
        self.operands = Operands(draw(*shapes[0]), draw(*shapes[1]), self.rotation.wigner)
        self.directions = Operands(*(draw(*shape) for shape in shapes))
        self.cotangent, self.message = draw(*shapes[0]), draw(edges, self.rotation.kept, channels)
        self.ours = SO2Convolution(lmax, mmax, channels, channels, parity="so3")
        self.theirs = BaselineConvolution(lmax, mmax, channels, channels)
        load(self.theirs, self.ours)
        self.ours, self.theirs = self.ours.to(device), self.theirs.to(device)
        self.sizes, self.channels = order_sizes(lmax, mmax), channels
        self.name = f"({lmax}, {mmax}), {edges} edges"

    def contenders(self) -> list[Contender]:
        ours, theirs = self.ours, self.theirs
        mixing = [ours.m0.weight, *ours.real, *ours.imag]
        return [
            Contender("equitorch", self._ours, mixing, self._joined),
            Contender(
                "published",
                self._published,
                [theirs.m0.weight, *(fc.weight for fc in theirs.fc)],
                lambda ws: ws,
                self.whole,
                lambda D: D.flatten(1)[:, self.places],
            ),
        ]

    def _ours(self, x: Tensor, radial: Tensor, wigner: Tensor) -> Tensor:
        rotation = self.rotation._replace(wigner=wigner)
        message, _ = self.ours(rotate_in(x, rotation, self.plan), radial)
        return rotate_out(message, rotation, self.plan)

    def _published(self, x: Tensor, radial: Tensor, matrix: Tensor) -> Tensor:
        rotation = DenseRotation.__new__(DenseRotation)
        rotation.matrix, rotation.inverse, rotation.mask = matrix, matrix.mT, self.dense.mask
        return baseline(x, radial.flatten(1), self.edges, rotation, self.theirs)

    def _joined(self, weights: list[Tensor]) -> list[Tensor]:
        half = len(weights) // 2
        pairs = zip(weights[1 : half + 1], weights[half + 1 :], strict=True)
        return [weights[0], *(torch.cat(pair) for pair in pairs)]

    def whole(self, wigner: Tensor) -> Tensor:
        """The kept rows of (L + 1)^2 matrices with zeros."""
        rows = self.rotation.rows
        dense = wigner.new_zeros(wigner.shape[0], rows * rows)
        return dense.index_copy(1, self.places, wigner).unflatten(1, (rows, rows))

    def double(self) -> Chain:
        """The same in double precision."""
        wide = Chain.__new__(Chain)
        wide.__dict__.update(self.__dict__)
        wide.operands = Operands(*(t.double() for t in self.operands))
        wide.directions = Operands(*(t.double() for t in self.directions))
        wide.cotangent = self.cotangent.double()
        wide.ours = SO2Convolution(
            self.rotation.lmax, self.rotation.mmax, self.channels, self.channels, parity="so3"
        )
        wide.ours.load_state_dict(self.ours.state_dict())
        wide.ours = wide.ours.to(wide.cotangent)
        return wide

    def arithmetic(self, job: str) -> int:
        """Floating-point operations: a complex matrix has those of four, a rotation those of its entries."""
        k, *more = self.sizes
        mixing = (2 * k * k + sum(8 * size * size for size in more)) * self.channels**2
        turning = 2 * self.rotation.wigner.shape[1] * self.channels
        matrices, rotations = RUNS[job]
        return self.edges.shape[1] * (matrices * mixing + rotations * turning)

    def bytes_moved(self, job: str) -> int:
        """What is given and what comes out, each once; the weights count for nothing."""
        operands, ends = size(self.operands), size([self.cotangent])
        return {"forward": operands, "backward": 2 * operands, "double backward": 3 * operands + ends}[
            job
        ] + ends


def size(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def jobs(chain: Chain, contender: Contender) -> list[Callable[[], list[Tensor]]]:
    """The three jobs, what each needs of the one before computed beforehand."""

    def own(o: Operands) -> list[Tensor]:
        return [o.x, o.radial, contender.spread(o.wigner)]

    leaves = [t.detach().requires_grad_() for t in own(chain.operands)]
    g, h = chain.cotangent.clone().requires_grad_(), own(chain.directions)
    out = contender.call(*leaves)
    slopes = torch.autograd.grad(out, leaves, g, create_graph=True)

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [contender.call(*leaves)]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(out, leaves, g, retain_graph=True))

    def double() -> list[Tensor]:
        return list(torch.autograd.grad(slopes, [*leaves, g, *contender.weights], h, retain_graph=True))

    return [forward, backward, double]


def in_common(contender: Contender, results: list[Tensor]) -> list[Tensor]:
    """Results with compact matrices, and weights as the published code has them."""
    if len(results) == 1:
        return results
    x, radial, matrix, *cotangent = results[:4]
    weights = contender.common(results[4:]) if len(results) > 4 else []
    return [x, radial, contender.picked(matrix), *cotangent, *weights]


def check(chain: Chain) -> None:
    """Refuse to time what is not the definition, to within float32's round-off."""
    wide = chain.double()
    with use_reference():
        exact = [in_common(wide.contenders()[0], job()) for job in jobs(wide, wide.contenders()[0])]
    for contender in chain.contenders():
        for name, job, right in zip(JOBS, jobs(chain, contender), exact, strict=True):
            for slot, (got, want) in enumerate(zip(in_common(contender, job()), right, strict=True)):
                error = ((got - want).abs().max() / want.abs().max()).item()
                if not error < 1e-4:
                    raise SystemExit(
                        f"{contender.name}, {chain.name}, {name}, {slot}: differs by {error:.1e}"
                    )


def rotations(chain: Chain) -> list[tuple[str, int, Callable[[], object], Callable[[], object]]]:
    """Each kernel alone: its name, bytes that it must move, itself, and the same with whole matrices."""
    x, m, plan, rotation, dense = chain.operands.x, chain.message, chain.plan, chain.rotation, chain.dense
    source, target = chain.edges
    walk = [source, plan.sender_ptr, plan.sender_edge, *rotation.terms]

    def overlap() -> Tensor:
        return torch.ops.equitorch.rotate([x, m], WIGNER, walk, rotation.sizes)

    def summed() -> Tensor:
        return torch.zeros_like(x).index_add_(0, target, dense.back(m))

    moved, made = size([x, rotation.wigner, m]), size([chain.vectors, rotation.wigner])
    vectors, degrees = chain.vectors, (rotation.lmax, rotation.mmax)
    return [
        ("into", moved, lambda: rotate_in(x, rotation, plan), lambda: dense.into(x[source])),
        ("back and sum", moved, lambda: rotate_out(m, rotation, plan), summed),
        ("by the matrices", moved, overlap, lambda: torch.bmm(m, x[source].mT)),
        (
            "the matrices themselves",
            made,
            lambda: EdgeRotation.build(vectors, *degrees),
            lambda: DenseRotation(vectors, *degrees),
        ),
    ]


@torch.no_grad()
def rotation_rows(chain: Chain, copied: float, repeats: int) -> None:
    for name, moved, ours, theirs in rotations(chain):
        times = [timed(job, repeats) for job in (ours, theirs)]
        cells = [
            f"{moved / copied:.3f}",
            text(times[0], ".3f"),
            *rates(moved / 1e6, moved / copied, times[0]),
        ]
        print(f"| {chain.name}: {name} | {' | '.join([*cells, text(times[1], '.3f')])} |", flush=True)


def chain_rows(chain: Chain, copied: float, multiplied: float, repeats: int) -> None:
    """One line for each job; memory is the most that the allocator holds in all three over their inputs."""
    found = {}
    for contender in chain.contenders():
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        try:
            times = [timed(job, repeats) for job in jobs(chain, contender)]
        except torch.cuda.OutOfMemoryError:
            times = [None] * len(JOBS)
        peak = (torch.cuda.max_memory_allocated() - held) / chain.edges.shape[1] / 1e3
        torch.cuda.empty_cache()
        found[contender.name] = times, peak
    (ours, peak), (theirs, other) = found["equitorch"], found["published"]
    for name, mine, yours in zip(JOBS, ours, theirs, strict=True):
        work, moved = chain.arithmetic(name), chain.bytes_moved(name)
        bounds = work / multiplied, moved / copied
        cells = [f"{bound:.2f}" for bound in bounds]
        cells += [text(mine, ".2f"), *rates(work / 1e9, max(bounds), mine), text(yours, ".2f")]
        cells += [f"{yours / mine:.2f}x" if mine and yours else "", f"{peak:.0f}", f"{other:.0f}"]
        print(f"| {chain.name}: {name} | {' | '.join(cells)} |", flush=True)


def timed(job: Callable[[], object], repeats: int) -> float | None:
    try:
        return milliseconds(job, repeats)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def rates(work: float, bound: float, spent: float | None) -> list[str]:
    """Work in a millisecond, and the share of what was possible."""
    return ["", ""] if spent is None else [f"{work / spent:.4g}", f"{bound / spent:.0%}"]


def multiplication(repeats: int) -> float:
    """Operations of a large matrix product in a millisecond."""
    a, b = (torch.randn(8192, 8192, device="cuda") for _ in range(2))
    return 2 * 8192**3 / milliseconds(lambda: a @ b, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--edges", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tf32", action="store_true", help="matrix products with 10 bits after the point")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.so2_gpu needs a CUDA GPU, and PyTorch finds none; benchmarks.so2 times the CPU"
        )
    seconds = {}
    for degrees in DEGREES:
        start = time.perf_counter()
        check(Chain(*degrees, options.channels, edges=1000, nodes=50, device="cuda"))
        seconds[degrees] = time.perf_counter() - start
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    copied, multiplied = bandwidth(options.repeats), multiplication(options.repeats)
    kind = "tf32" if options.tf32 else "fp32"
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.channels} channels, {kind}")
    print(
        f"A copy moves {copied / 1e6:.0f} GB/s, a matrix product does {multiplied / 1e9:.1f} TFLOP/s ({H200})"
    )
    head = "memory alone, ms", "equitorch, ms", "GB/s", "of memory", "whole matrices, ms"
    print(f"\n| rotation | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    for degrees in DEGREES:
        chain = Chain(*degrees, options.channels, options.edges, options.nodes, "cuda")
        rotation_rows(chain, copied, options.repeats)
    head = "arithmetic alone, ms", "memory alone, ms", "equitorch, ms", "TFLOP/s", "of the larger"
    head += "published, ms", "speed-up", "kB/edge", "published, kB/edge"
    print(f"\n| chain | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    for degrees in DEGREES:
        chain = Chain(*degrees, options.channels, options.edges, options.nodes, "cuda")
        chain_rows(chain, copied, multiplied, options.repeats)
    first = ", ".join(f"{degrees} {spent:.0f} s" for degrees, spent in seconds.items())
    print(f"\nFirst calls and comparison, kernels compiled where they were not in Triton's cache: {first}")


if __name__ == "__main__":
    main()
