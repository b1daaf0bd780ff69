"""Time the equivariant convolution on a GPU beside e3nn's tensor product and cuEquivariance, if it is there.

``python -m benchmarks.convolution_gpu`` prints a table in Markdown: forward, backward and double backward
apart, each beside the time in which the memory could move its operands and results once. All answers are
compared first, on a small graph, with the definition in double precision: whatever differs is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.convolution import Case, flat
from equitorch.layers import EquivariantConvolution
from equitorch.ops.backend import use_reference
from equitorch.ops.edges import EdgePlan

JOBS = ("forward", "backward", "double backward")
Lists = tuple[list[Tensor], list[Tensor], list[Tensor]]  # what the three jobs compute


@dataclass
class Contender:
    """One implementation, on its own layout."""

    name: str
    call: Callable[[Tensor, Tensor, Tensor], Tensor]
    features: Callable[[Tensor], Tensor] = lambda x: x  # our layout -> its own
    weights: Callable[[Tensor], Tensor] = lambda w: w
    results: Callable[[Tensor], Tensor] = lambda g: g

    def operands(self, x: Tensor, y: Tensor, w: Tensor, g: Tensor) -> list[Tensor]:
        return [self.features(x), y, self.weights(w), self.results(g)]


class Graph:
    """A convolution and its operands on a device: those of the form, and as many cotangents."""

    def __init__(self, lmax: int, sh: int, edges: int, nodes: int, channels: int, device: str) -> None:
        case = Case(lmax, sh, edges, channels, nodes=nodes)
        self.name = f"0..{lmax} x 0..{sh}, {len(case.ours.paths)} paths, {edges} edges"
        self.case, self.device = case, device
        case.ours.to(device)
        case.theirs.to(device)
        case.edges = case.edges.to(device)
        generator = torch.Generator(device).manual_seed(1)
        self.plan = EdgePlan.build(case.edges, nodes)
        here = [t.detach().to(device) for t in (*case.inputs, case.cotangent)]
        more = [torch.randn(t.shape, device=device, generator=generator) for t in here[:3]]
        self.operands, self.cotangents = here, more

    def contenders(self) -> list[Contender]:
        case = self.case
        irreps = case.ours.irreps_in, case.ours.irreps_out
        found = [
            Contender("equitorch", lambda x, y, w: case.ours(x, y, w, self.plan)),
            Contender(
                "e3nn",
                case.e3nn,
                lambda x: flat(x, irreps[0]),
                lambda w: w.flatten(1),
                lambda g: flat(g, irreps[1]),
            ),
        ]
        cue = cuequivariance(case.ours, case.edges, case.inputs[0].shape[0])
        return found if cue is None else [*found, cue]

    def bytes_moved(self) -> list[int]:
        """Each operand read and each result written once, for the three jobs."""
        x, y, w, g = (t.numel() * t.element_size() for t in self.operands)
        return [x + y + w + g, 2 * (x + y + w) + g, 3 * (x + y + w) + 2 * g]


def cuequivariance(ours: EquivariantConvolution, edges: Tensor, nodes: int) -> Contender | None:
    """The same coefficients as one of cuEquivariance's polynomials with indices, whose layout is ours."""
    try:
        import cuequivariance as cue
        import cuequivariance_ops_torch  # noqa: F401 (its kernels)
        import cuequivariance_torch as cuet
    except ImportError:
        return None
    rows, filters, results, paths = ours.dims
    product = cue.SegmentedTensorProduct.from_subscripts("u,u,,u")
    wide = (ours.channels,)
    for operand, (count, shape) in enumerate([(paths, wide), (rows, wide), (filters, ()), (results, wide)]):
        for _ in range(count):
            product.add_segment(operand, shape)
    path, row, cell_start, term_row, term_start, filter_row, value = (t.tolist() for t in ours.form[:7])
    for cell in range(len(path)):
        for t in range(cell_start[cell], cell_start[cell + 1]):
            for n in range(term_start[t], term_start[t + 1]):
                product.add_path(path[cell], term_row[t], filter_row[n], row[cell], c=value[n])
    operation = [(cue.Operation([0, 1, 2, 3]), product)]
    polynomial = cue.SegmentedPolynomial(product.operands[:3], product.operands[3:], operation)
    module = cuet.SegmentedPolynomial(polynomial, method="uniform_1d", math_dtype=torch.float32).to(
        edges.device
    )
    like = torch.empty(nodes, 1, device=edges.device)

    def call(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return module([w, x, y], {1: edges[0]}, {0: like}, {0: edges[1]})[0]

    return Contender("cuEquivariance", call, *[lambda t: t.flatten(1)] * 3)


def jobs(
    contender: Contender, operands: list[Tensor], cotangents: list[Tensor]
) -> list[Callable[[], list[Tensor]]]:
    """The three jobs, what each needs of the one before computed beforehand."""
    *leaves, g = (t.detach().requires_grad_() for t in contender.operands(*operands))
    h = contender.operands(*cotangents, operands[3])[:3]
    out = contender.call(*leaves)
    grads = torch.autograd.grad(out, leaves, g, create_graph=True)

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [contender.call(*leaves)]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(out, leaves, g, retain_graph=True))

    def double() -> list[Tensor]:
        return list(torch.autograd.grad(grads, [*leaves, g], h, retain_graph=True))

    return [forward, backward, double]


def check(graph: Graph) -> None:
    """Refuse to time what is not the definition, to within float32's round-off."""
    wide = [[t.double() for t in ts] for ts in (graph.operands, graph.cotangents)]
    contenders = graph.contenders()
    with use_reference():
        exact = [job() for job in jobs(contenders[0], *wide)]
    for contender in contenders:
        for name, job, want in zip(
            JOBS, jobs(contender, graph.operands, graph.cotangents), exact, strict=True
        ):
            x, y, w = want[:3] if name != "forward" else (None, None, None)
            theirs = (
                [contender.results(want[0])] if x is None else contender.operands(x, y, w, graph.operands[3])
            )
            if name == "double backward":
                theirs[3] = contender.results(want[3])
            for slot, (ours, right) in enumerate(zip(job(), theirs, strict=False)):
                error = (ours - right).abs().max() / right.abs().max()
                if not error < 1e-4:
                    raise SystemExit(
                        f"{contender.name}, {graph.name}, {name}, {slot}: differs by {error:.1e}"
                    )


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median by the GPU's own clock."""
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[3:])


def bandwidth(repeats: int) -> float:
    """Bytes that a plain copy moves in a millisecond."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / milliseconds(lambda: target.copy_(source), repeats)


def measured(graph: Graph, contender: Contender, repeats: int) -> list[float | None]:
    try:
        return [milliseconds(job, repeats) for job in jobs(contender, graph.operands, graph.cotangents)]
    except torch.cuda.OutOfMemoryError:
        return [None] * len(JOBS)
    finally:
        torch.cuda.empty_cache()


def row(graph: Graph, copied: float, repeats: int) -> None:
    times = {c.name: measured(graph, c, repeats) for c in graph.contenders()}
    for n, (name, moved) in enumerate(zip(JOBS, graph.bytes_moved(), strict=True)):
        ours, bound = times["equitorch"][n], moved / copied
        peers = [times.get(peer, [None] * 3)[n] for peer in ("e3nn", "cuEquivariance")]
        cells = [f"{bound:.2f}"]
        cells += (
            ["", "", ""]
            if ours is None
            else [f"{ours:.3f}", f"{moved / ours / 1e6:.0f}", f"{bound / ours:.0%}"]
        )
        cells += ["" if t is None else f"{t:.2f}" for t in peers]
        print(f"| {graph.name}: {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--edges", type=int, nargs="+", default=[100, 160_000])
    parser.add_argument(
        "--nodes", type=int, default=3000, help="of the largest graph; as dense are the others"
    )
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.convolution_gpu needs a CUDA GPU, and PyTorch finds none; "
            "benchmarks.convolution times the CPU"
        )
    copied = bandwidth(options.repeats)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a copy moves {copied / 1e6:.0f} GB/s\n"
    )
    print("| case | memory alone, ms | equitorch, ms | GB/s | of memory | e3nn, ms | cuEquivariance, ms |")
    print("|---|---|---|---|---|---|---|")
    seconds = {}
    for lmax, sh in ((0, 3), (2, 2), (2, 3), (3, 3)):
        start = time.perf_counter()
        check(Graph(lmax, sh, 1000, 50, options.channels, "cuda"))
        seconds[f"0..{lmax} x 0..{sh}"] = time.perf_counter() - start
        for edges in options.edges:
            nodes = max(4, options.nodes * edges // max(options.edges))
            row(Graph(lmax, sh, edges, nodes, options.channels, "cuda"), copied, options.repeats)
    first = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())
    print(f"\nFirst calls and comparison, kernels compiled where they were not in Triton's cache: {first}")


if __name__ == "__main__":
    main()
