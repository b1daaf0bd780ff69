"""Time products of functions on the sphere on a GPU: coefficients, cuBLAS on a grid, and the fused kernel.

``python -m benchmarks.gaunt_gpu`` prints a table in Markdown for L = 1..8: forward, backward and double
backward, each beside the time in which the memory could move operands and results once. The fused kernel runs
in exact single precision and in three passes of TF32, whose errors are those of the forward pass, largest
over root mean square. "Extra" is what forward and backward hold beside operands, results and gradients.

All answers are compared first, on fewer rows, with the contraction in double precision: whatever differs is
not timed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.convolution_gpu import JOBS, bandwidth, milliseconds
from equitorch.ops.gaunt import gaunt_product
from equitorch.ops.gaunt.form import Form
from equitorch.reps.gaunt import gaunt_coupling

TOLERANCE = 2e-5  # of the largest error over the root mean square, in any of the jobs


class Contender(NamedTuple):
    """One way to compute, by the options of the op."""

    name: str
    backend: str
    precision: str = "ieee"


CONTENDERS = (
    Contender("dense", "dense"),
    Contender("cuBLAS grid", "grid"),
    Contender("fused", "auto"),
    Contender("fused, tf32x3", "auto", "tf32x3"),
)


class Case(NamedTuple):
    """Degrees of the factors and of the result, parity and numbers of columns."""

    lmax: int
    lmax_out: int
    parity: str
    items: int
    channels: int

    def draw(self) -> list[Tensor]:
        """Two factors, a cotangent of the result, and directions for the gradients' derivative."""
        generator = torch.Generator("cuda").manual_seed(0)
        rows = [(l + 1) ** 2 for l in (self.lmax, self.lmax, self.lmax_out, self.lmax, self.lmax)]
        shape = self.items, self.channels
        return [
            torch.randn(shape[0], n, shape[1], device="cuda", generator=generator) / self.channels**0.5
            for n in rows
        ]

    def bytes_moved(self, job: str) -> int:
        """Each operand read and each result written once."""
        x, z = (4 * self.items * self.channels * (l + 1) ** 2 for l in (self.lmax, self.lmax_out))
        return {"forward": 2 * x + z, "backward": 4 * x + z, "double backward": 6 * x + 2 * z}[job]


def jobs(
    product: Callable[[Tensor, Tensor], Tensor], tensors: list[Tensor]
) -> list[Callable[[], list[Tensor]]]:
    """The three jobs, what each needs of the one before computed beforehand."""
    x, y, g = (t.detach().requires_grad_() for t in tensors[:3])
    z = product(x, y)
    slopes = torch.autograd.grad(z, (x, y), g, create_graph=True)

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [product(x, y)]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(z, (x, y), g, retain_graph=True))

    def double() -> list[Tensor]:
        return list(torch.autograd.grad(slopes, (x, y, g), tensors[3:], retain_graph=True))

    return [forward, backward, double]


def product_of(contender: Contender, case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    def product(x: Tensor, y: Tensor) -> Tensor:
        return gaunt_product(
            x,
            y,
            case.lmax_out,
            parity=case.parity,
            backend=contender.backend,
            precision=contender.precision,
        )

    return product


def errors(contender: Contender, case: Case) -> list[float]:
    """Of each job, against the definition: largest over root mean square."""
    coefficients = gaunt_coupling(case.lmax, case.lmax, case.lmax_out, case.parity).dense().to("cuda")

    def exact(x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("ijk,nic,njc->nkc", coefficients, x, y)

    tensors = case.draw()
    right = [job() for job in jobs(exact, [t.double() for t in tensors])]
    found = [job() for job in jobs(product_of(contender, case), tensors)]
    return [
        max(((a - b).abs().max() / b.square().mean().sqrt()).item() for a, b in zip(got, want, strict=True))
        for got, want in zip(found, right, strict=True)
    ]


def extra(contender: Contender, case: Case) -> int:
    """Bytes that forward and backward hold at most, beside operands, results and gradients."""
    x, y, g = (t.requires_grad_() for t in case.draw()[:3])
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.autograd.grad(product_of(contender, case)(x, y), (x, y), g)
    peak = torch.cuda.max_memory_allocated() - held
    return max(0, peak - sum(t.numel() * t.element_size() for t in (x, y, g)))


def fused(case: Case) -> bool:
    """Whether the kernel takes these degrees; others go over a grid, which has a row of its own."""
    from equitorch.ops.gaunt.triton import supported

    form = Form(case.lmax, case.lmax, case.lmax_out, case.parity)
    return supported(form, [torch.empty(0, device="cuda")])


def row(case: Case, contender: Contender, copied: float, repeats: int) -> None:
    """Times and shares of the memory's limit, or why there are none."""
    if contender.backend == "auto" and not fused(case):
        return
    off = errors(contender, case._replace(items=4))
    name = f"{case.lmax}, {case.lmax_out}, {case.parity}: {contender.name}"
    if not max(off) < TOLERANCE:
        print(f"| {name} | refused: differs by {max(off):.1e} |", flush=True)
        return
    try:
        calls = jobs(product_of(contender, case), case.draw())
        times = [milliseconds(call, repeats) for call in calls]
        spare = f"{extra(contender, case) / 2**20:.0f}"
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        print(f"| {name} | out of memory |", flush=True)
        return
    cells = []
    for job, spent in zip(JOBS, times, strict=True):
        cells += [f"{spent:.3f}", f"{case.bytes_moved(job) / copied / spent:.0%}"]
    print(f"| {name} | {' | '.join([*cells, spare, f'{off[0]:.1e}'])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--parity", choices=("even", "odd"), default="even")
    parser.add_argument("--full", action="store_true", help="read products up to twice the degree of factors")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.gaunt_gpu needs a CUDA GPU, and PyTorch finds none; "
            "python -m benchmarks gaunt times the CPU"
        )
    copied = statistics.median(bandwidth(options.repeats) for _ in range(3))
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
        f"{options.items} items of {options.channels} channels; a copy moves {copied / 1e6:.0f} GB/s"
    )
    head = [f"{job}, ms | of memory" for job in JOBS]
    print(f"\n| L, L out | {' | '.join(head)} | extra, MiB | error |\n|{'---|' * 9}")
    for lmax in range(1, 9):
        out = 2 * lmax if options.full else lmax
        case = Case(lmax, out, options.parity, options.items, options.channels)
        for contender in CONTENDERS:
            row(case, contender, copied, options.repeats)


if __name__ == "__main__":
    main()
