"""Time the SO(2) convolution beside published eSCN code as PyTorch writes it, and beside e3nn.

``python -m benchmarks.so2`` prints a table in Markdown: gather, rotate, radial weights, convolve, rotate back
and sum, forward and backward, for all gradients; one thread, seconds of the processor. Rotations are made
beforehand on both sides, as they serve all layers of a model. Weights are the same ("so3": real and imaginary
ones), and answers and gradients are compared first. e3nn's convolution has irreps of the same degrees and
channels, with a weight for each path; its paths keep parity, so the convolution with parity "natural" does
the same job, and "so3" a larger one.

Memory is what PyTorch's allocator holds at most during forward and backward over what it held before, for
each edge, without the gradients that come out; both sides' inputs and rotations are not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from e3nn import o3
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.so2_baseline import (
    BaselineConvolution,
    DenseRotation,
    DepthwiseConvolution,
    baseline,
    load,
    radial_size,
)
from equitorch.layers import SO2Convolution
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation, rotate_in, rotate_out

Job = Callable[[], Sequence[Tensor]]


class Case:
    """One layer, ours and the others', on the same random graph."""

    def __init__(self, lmax: int, mmax: int, channels: int, edges: int) -> None:
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        nodes = max(edges // 20, 1)
        target = torch.randint(nodes, (edges,), generator=generator).sort().values
        self.edges = torch.stack([torch.randint(nodes, (edges,), generator=generator), target])
        self.vectors = torch.randn(edges, 3, generator=generator)
        self.lmax, self.channels = lmax, channels
        self.x = torch.randn(nodes, (lmax + 1) ** 2, channels, generator=generator).requires_grad_()
        self.radial = torch.randn(edges, radial_size(lmax, mmax), channels, generator=generator)
        self.radial.requires_grad_()
        self.cotangent = torch.randn(self.x.shape, generator=generator)
        self.plan = EdgePlan.build(self.edges, nodes)
        self.rotation = EdgeRotation.build(self.vectors, lmax, mmax)
        self.dense = DenseRotation(self.vectors, lmax, mmax)
        sizes = lmax, mmax, channels, channels
        self.so3, self.natural = (SO2Convolution(*sizes, parity=p) for p in ("so3", "natural"))
        self.baseline = BaselineConvolution(*sizes)
        load(self.baseline, self.so3)

    def ours(self, conv: SO2Convolution) -> tuple[Tensor, list[Tensor]]:
        """The result, and what it is to be differentiated by."""
        y = rotate_in(self.x, self.rotation, self.plan)
        message, _ = conv(y, self.radial)
        return rotate_out(message, self.rotation, self.plan), [self.x, self.radial, *conv.parameters()]

    def published(self) -> tuple[Tensor, list[Tensor]]:
        conv = self.baseline
        out = baseline(self.x, self.radial.flatten(1), self.edges, self.dense, conv)
        return out, [self.x, self.radial, *conv.parameters()]

    def e3nn(self) -> Callable[[], tuple[Tensor, list[Tensor]]]:
        """Rows times channels in e3nn's own order, and a weight for each path and channel."""
        conv = DepthwiseConvolution(self.lmax, self.channels)
        harmonics = o3.spherical_harmonics(conv.filters, self.vectors, True)
        weight = torch.randn(self.edges.shape[1], conv.product.weight_numel).requires_grad_()
        x = self.x.detach().flatten(1).requires_grad_()
        wanted = [x, weight, *[p for p in conv.parameters() if p.numel()]]
        return lambda: (conv(x, harmonics, weight, self.edges), wanted)


def both_ways(call: Callable[[], tuple[Tensor, list[Tensor]]], cotangent: Tensor) -> Job:
    def job() -> Sequence[Tensor]:
        out, wanted = call()
        return out.detach(), *torch.autograd.grad(out, wanted, cotangent.view_as(out))

    return job


def compare(case: Case) -> None:
    """Refuse to time two things that are not the same."""
    results = [both_ways(call, case.cotangent)() for call in (lambda: case.ours(case.so3), case.published)]
    (out, x, radial, m0, bias, *weights), (out2, x2, radial2, m02, bias2, *theirs) = results
    half = len(weights) // 2
    pairs = zip(weights[:half], weights[half:], strict=True)
    ours = [out, x, radial, m0, bias, *(torch.cat(pair) for pair in pairs)]
    for a, b in zip(ours, [out2, x2, radial2, m02, bias2, *theirs], strict=True):
        error = ((a - b).abs().max() / b.abs().max()).item()
        if not error < 1e-5:
            raise SystemExit(f"L={case.lmax}: the answers differ by {error:.1e}")


def seconds(job: Job, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        job()
        times.append(time.process_time() - start)
    return min(times[1:])


def peak_bytes(job: Job) -> int:
    """The most that the allocator holds on top of what it held, without what is returned."""
    job()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        results = job()
    held = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most - sum(x.numel() * x.element_size() for x in results[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--lmax", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--mmax", type=int, default=2)
    parser.add_argument("--edges", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-e3nn", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ("published, ms", "so3, ms", "speed-up", "natural, ms", "e3nn, ms", "over so3", "over natural")
    memory = ("published, kB/edge", "so3, kB/edge")
    print(f"| L, M, channels | {' | '.join(names + memory)} |")
    print("|---|" + "---|" * (len(names) + len(memory)))
    for channels in options.channels:
        for lmax in options.lmax:
            case = Case(lmax, min(options.mmax, lmax), channels, options.edges)
            print(row(case, options.repeats, not options.no_e3nn), flush=True)


def row(case: Case, repeats: int, e3nn: bool) -> str:
    compare(case)
    calls = (case.published, lambda: case.ours(case.so3), lambda: case.ours(case.natural))
    jobs = [both_ways(call, case.cotangent) for call in calls]
    published, so3, natural = (1e3 * seconds(job, repeats) for job in jobs)
    cells = [f"{published:.1f}", f"{so3:.1f}", f"{published / so3:.2f}x", f"{natural:.1f}"]
    if e3nn:
        theirs = 1e3 * seconds(both_ways(case.e3nn(), case.cotangent), 2)
        cells += [f"{theirs:.0f}", f"{theirs / so3:.1f}x", f"{theirs / natural:.1f}x"]
    else:
        cells += ["", "", ""]
    cells += [f"{peak_bytes(job) / len(case.vectors) / 1e3:.0f}" for job in jobs[:2]]
    return f"| {case.lmax}, {case.rotation.mmax}, {case.channels} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
