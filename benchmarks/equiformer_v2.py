"""Time EquiformerV2 at its published widths beside the published model as PyTorch writes it.

``python -m benchmarks.equiformer_v2`` prints a table in Markdown: energies and direct forces of 80 random
atoms with 20 neighbours each, from vectors to results, in float32 on one thread; seconds of the processor,
the best of several. "compat" has the baseline's weights and its answers, which are compared first. "exact"
has the same widths and other nonlinearities (gates, or products on exact grids), real weights only, and fewer
Gaussians: it is another function, whose energies keep their value under rotations and reflections.
``--layers 2`` leaves blocks out and changes no width.

Memory is what PyTorch's allocator holds at most over what it held before, for each edge, in a forward pass
without derivatives and in one that keeps what derivatives by all weights need.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.equiformer_v2_baseline import BaselineEquiformerV2
from equitorch.interop import fairchem
from equitorch.models.equiformer_v2 import EquiformerV2

Graph = tuple[Tensor, Tensor, Tensor, Tensor, int]
Job = Callable[[], dict[str, Tensor]]
SIZES = {"31M": EquiformerV2.base_31M, "83M": EquiformerV2.base_83M, "153M": EquiformerV2.base_153M}


def random_graph(atoms: int, neighbors: int) -> Graph:
    """Atoms at random in a cube, 25 A^3 for each, with edges from the nearest ones."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(atoms, 3, generator=generator) * (25.0 * atoms) ** (1 / 3)
    distance = torch.cdist(positions, positions).fill_diagonal_(torch.inf)
    source = distance.topk(neighbors, largest=False).indices.flatten()
    target = torch.arange(atoms).repeat_interleave(neighbors)
    numbers = torch.randint(1, 80, (atoms,), generator=generator)
    vectors = positions[source] - positions[target]
    return numbers, torch.stack([source, target]), vectors, torch.zeros(atoms, dtype=torch.long), 1


def models(size: str, layers: int | None) -> tuple[BaselineEquiformerV2, dict[str, nn.Module]]:
    """The baseline, and ours by the names of their columns."""
    given = {} if layers is None else {"layers": layers}
    compat = SIZES[size](**given).eval()
    baseline = BaselineEquiformerV2(
        fairchem.parameters(compat),
        compat.lmax,
        compat.mmax,
        resolution=compat.settings["grid_resolution"],
        cutoff=compat.cutoff,
    )
    found: dict[str, nn.Module] = {"compat": compat}
    other = {"mode": "exact", "grid_resolution": None, "max_neighbors": None}
    for kind in ("gate", "product"):
        own = given | other | {"activation": kind, "feed_forward": kind}
        found[f"exact, {kind}"] = SIZES[size](**own).eval()
    return baseline, found


def compare(baseline: nn.Module, ours: nn.Module, graph: Graph) -> float:
    """The largest difference of energies and forces; refuse to time two things that are not the same."""
    with torch.no_grad():
        wanted, found = baseline(*graph), ours(*graph)
    errors = [
        ((found[k] - wanted[k]).abs().max() / wanted[k].abs().max()).item() for k in ("energy", "forces")
    ]
    if not max(errors) < 1e-4:
        raise SystemExit(f"the answers differ by {max(errors):.1e}")
    return max(errors)


def seconds(jobs: dict[str, Job], repeats: int) -> dict[str, float]:
    """The best of several, taken in turn so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            times[name].append(time.process_time() - start)
    return {name: min(found[1:]) for name, found in times.items()}


def peak_bytes(job: Job) -> int:
    """The most that the allocator holds on top of what it held."""
    job()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        job()
    held = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def forward(model: nn.Module, graph: Graph, *, grad: bool = False) -> Job:
    def job() -> dict[str, Tensor]:
        with torch.set_grad_enabled(grad):
            out: dict[str, Tensor] = model(*graph)
        return out

    return job


def table(size: str, layers: int | None, graph: Graph, repeats: int, *, with_memory: bool) -> None:
    baseline, ours = models(size, layers)
    error = compare(baseline, ours["compat"], graph)
    every = {"baseline": baseline, **ours}
    taken = seconds({name: forward(model, graph) for name, model in every.items()}, repeats)
    edges = graph[1].shape[1]
    shape = f"{size}: L={baseline.lmax}, M={baseline.mmax}, {baseline.layers} blocks, {edges} edges"
    for name, model in every.items():
        same = f"{error:.0e}" if name == "compat" else ""
        jobs = [forward(model, graph, grad=grad) for grad in (False, True)]
        memory = [f"{peak_bytes(job) / edges / 1e3:.0f}" for job in jobs] if with_memory else ["", ""]
        cells = [shape, name, f"{1e3 * taken[name]:.0f}", f"{taken['baseline'] / taken[name]:.2f}x", same]
        print(f"| {' | '.join(cells + memory)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["31M", "83M"])
    parser.add_argument("--layers", type=int, help="blocks, if not all of them")
    parser.add_argument("--atoms", type=int, default=80)
    parser.add_argument("--neighbors", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # models say that compat mode and direct forces are inexact
    names = ("model", "", "forward, ms", "speed-up", "difference", "kB/edge", "kB/edge with tape")
    print(f"| {' | '.join(names)} |")
    print("|---|" + "---|" * (len(names) - 1))
    for size in options.sizes:
        graph = random_graph(options.atoms, options.neighbors)
        table(size, options.layers, graph, options.repeats, with_memory=not options.no_memory)


if __name__ == "__main__":
    main()
