"""Time DiagramLinear on a GPU beside its plan in PyTorch, the dense matrix, and one diagram after the other.

``python -m benchmarks.diagrams_gpu`` prints two tables in Markdown, float32. The first has layers: forward,
backward by input and weights, and double backward, each as multiples of the time in which as many bytes as
input and output have are copied. The second has ANALYSIS and SYNTHESIS alone, beside the time in which memory
could move what they read and write once.

All answers are compared first, on few samples, with the definition in double precision: whatever differs is
not timed.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.convolution_gpu import JOBS, bandwidth, milliseconds
from benchmarks.diagrams import LARGEST, OneByOne
from equitorch.layers import DiagramLinear
from equitorch.ops.backend import use_reference
from equitorch.ops.diagrams import diagram_analysis, diagram_synthesis, linear_plan

TOLERANCE = 1e-4  # of the largest error over the largest entry
Call = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    """A group, its dimension, the order on both sides, channels on both sides, and samples."""

    group: str
    n: int
    order: int
    channels: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.group}, n = {self.n}, order {self.order}, {self.channels} channels, batch {self.batch}"

    def draw(self, device: str) -> Tensor:
        generator = torch.Generator(device).manual_seed(0)
        shape = self.batch, self.n**self.order, self.channels
        return torch.randn(shape, device=device, generator=generator)


CASES = (
    Case("S", 64, 2, 32, 16),
    Case("S", 64, 2, 32, 64),
    Case("S", 64, 2, 32, 256),
    Case("S", 16, 2, 32, 256),
    Case("S", 16, 3, 32, 64),
    Case("O", 32, 2, 32, 256),
    Case("O", 3, 4, 32, 4096),
    Case("Sp", 32, 2, 32, 256),
)


def layer_of(case: Case) -> DiagramLinear:
    """The layer, which never multiplies by the whole matrix."""
    sizes = case.order, case.order, case.channels, case.channels
    return DiagramLinear.power(case.group, case.n, *sizes, backend="fused")


def contenders(case: Case, layer: DiagramLinear) -> dict[str, Call]:
    """Ways to compute, by name; the matrix is made beforehand, if it is not too large."""

    def plan(x: Tensor) -> Tensor:
        with use_reference():
            return layer(x)

    found: dict[str, Call] = {"fused": layer, "plan": plan}
    if (case.n**case.order * case.channels) ** 2 <= LARGEST:
        with torch.no_grad():
            size = case.n**case.order * case.channels
            matrix = layer.to_dense().permute(2, 3, 0, 1).reshape(size, size).contiguous()
            shift = layer.dense_bias().flatten()
        found["dense"] = lambda x: torch.addmm(shift, x.flatten(1), matrix).view_as(x)
    if (case.group, case.order) == ("S", 2):
        found["one by one"] = OneByOne(layer)
    return found


def wave(like: Tensor) -> Tensor:
    """Some numbers, the same in any precision."""
    return torch.arange(like.numel(), device=like.device, dtype=torch.float64).sin().to(like).view_as(like)


def jobs(call: Call, leaves: list[Tensor], x: Tensor, most: int) -> list[Callable[[], list[Tensor]]]:
    """The first jobs, ``most`` of them, what each needs of the one before computed beforehand."""
    x = x.detach().requires_grad_()

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [call(x)]

    if most == 1:
        return [forward]
    y = call(x)
    slots = [x, *leaves]
    g = wave(y).requires_grad_()
    slopes = torch.autograd.grad(y, slots, g, create_graph=True)
    directions = [wave(slope) for slope in slopes]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(y, slots, g, retain_graph=True))

    def double() -> list[Tensor]:
        return list(torch.autograd.grad(slopes, [*slots, g], directions, retain_graph=True))

    return [forward, backward, double][:most]


def leaves_of(layer: DiagramLinear, name: str) -> tuple[list[Tensor], int]:
    """What is differentiated by besides the input, and how many jobs are timed."""
    return (list(layer.weights.values()), 3) if name in ("fused", "plan") else ([], 1)


def check(case: Case, device: str) -> None:
    """Refuse to time what is not the definition, to within float32's round-off."""
    few = case._replace(batch=2)
    layer = layer_of(case).to(device)
    exact = copy.deepcopy(layer).double()
    with use_reference():
        x = few.draw(device)
        right = [job() for job in jobs(exact, leaves_of(exact, "plan")[0], x.double(), 3)]
    for name, call in contenders(few, layer).items():
        leaves, most = leaves_of(layer, name)
        for job, got, want in zip(JOBS, jobs(call, leaves, x, most), right, strict=False):
            for slot, (z, wanted) in enumerate(zip(got(), want, strict=True)):
                error = ((z - wanted).abs().max() / wanted.abs().max()).item()
                if not error < TOLERANCE:
                    raise SystemExit(f"{case.name}, {name}, {job}, {slot}: differs by {error:.1e}")


def layers(case: Case, copied: float, repeats: int, device: str) -> None:
    """A row of the first table for each contender."""
    check(case, device)
    layer, x = layer_of(case).to(device), case.draw(device)
    bound = 4 * x.numel() * x.element_size() / copied
    for name, call in contenders(case, layer).items():
        leaves, most = leaves_of(layer, name)
        try:
            times = [milliseconds(job, repeats) for job in jobs(call, leaves, x, most)]
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            print(f"| {case.name} | {name} | out of memory |", flush=True)
            continue
        cells = [f"{spent:.3f} | {spent / bound:.1f}" for spent in times] + ["- | -"] * (3 - most)
        print(f"| {case.name} | {name} | {bound:.3f} | {' | '.join(cells)} |", flush=True)


def kernels(case: Case, copied: float, repeats: int, device: str) -> None:
    """A row of the second table for each of the two."""
    form = {"S": "", "O": "O", "Sp": "Sp:block"}[case.group]
    size = {"channels_in": case.channels, "channels_out": case.channels}
    plan = linear_plan(case.group, case.n, [case.order], [case.order], form, **size)
    lower, upper, x = plan.keys_in[0], plan.keys_out[0], case.draw(device)
    zs = [z.contiguous() for z in diagram_analysis(x, upper, case.n, form, 1 / case.n)]
    runs: dict[str, tuple[Callable[[], object], int]] = {
        "analysis": (functools.partial(diagram_analysis, x, lower, case.n, form, 1 / case.n), 0),
        "synthesis": (
            functools.partial(diagram_synthesis, zs, upper, case.n, form),
            sum(map(Tensor.numel, zs)),
        ),
    }
    for name, (call, more) in runs.items():
        bound = 4 * (x.numel() + more) / copied
        spent = milliseconds(call, repeats)
        with use_reference():
            theirs = milliseconds(call, repeats)
        row = f"{spent:.3f} | {bound / spent:.0%} | {theirs:.3f} | {theirs / spent:.1f}x"
        print(f"| {case.name} | {name} | {bound:.3f} | {row} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.diagrams_gpu needs a CUDA GPU, and PyTorch finds none; "
            "python -m benchmarks diagrams times the CPU"
        )
    torch.manual_seed(0)
    copied = statistics.median(bandwidth(options.repeats) for _ in range(3))
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a copy moves {copied / 1e6:.0f} GB/s\n"
    )
    head = [f"{job}, ms | of copying" for job in JOBS]
    print(f"| case | way | copy of x and y, ms | {' | '.join(head)} |\n|{'---|' * 9}")
    for case in CASES:
        layers(case, copied, options.repeats, "cuda")
    print(f"\n| case | kernel | memory alone, ms | ms | of memory | PyTorch, ms | ratio |\n|{'---|' * 7}")
    for case in CASES:
        kernels(case, copied, options.repeats, "cuda")


if __name__ == "__main__":
    main()
