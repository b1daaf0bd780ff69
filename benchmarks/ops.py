"""Time every op's fused kernel beside its definition in PyTorch, and the harmonics beside e3nn's.

``python -m benchmarks.ops`` prints a table in Markdown: forward, and forward with backward. One thread on the
CPU, where the seconds are the processor's; on a GPU, if there is one, they are the clock's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.systems import water
from equitorch.graph import AtomGraph
from equitorch.layers.tensornet import matrix_product
from equitorch.ops import Bilinear, spherical_harmonics
from equitorch.ops.backend import use_reference
from equitorch.ops.density import density
from equitorch.ops.edges import EdgePlan
from equitorch.ops.message import message
from equitorch.ops.radial import interpolate
from equitorch.ops.squash import squash

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHANNELS = 128
Case = tuple[str, Callable[..., Tensor], list[Tensor], Callable[..., Tensor] | None]


def cases() -> Iterator[Case]:
    """Name, function, operands and a peer: the sizes of 501 atoms of water, 5 Å, 128 channels."""
    graph = AtomGraph.from_ase(water(), 5.0, dtype=torch.float32).to(DEVICE)
    plan = EdgePlan.build(graph.edge_index, graph.num_atoms, edge_reverse=graph.edge_reverse)
    degree = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2], device=DEVICE)
    edges, pairs, atoms = plan.source.shape[0], plan.num_pairs, graph.num_atoms

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=DEVICE, requires_grad=True)

    weight, x, y = random(pairs, 3, CHANNELS), random(atoms, 9, CHANNELS), random(atoms, 9, CHANNELS)
    product = Bilinear(matrix_product()).to(DEVICE)
    yield "message", lambda w, x: message(w, x, degree, plan), [weight, x], None
    yield (
        "density",
        lambda w, h, a: density(w, h, a, degree, plan),
        [weight, random(2, atoms, CHANNELS), random(edges, 9)],
        None,
    )
    yield "bilinear, 9 x 9 -> 9", product, [x, y], None
    yield "squash", squash, [x], None
    d = (torch.rand(pairs, device=DEVICE) * 5).requires_grad_()
    yield (
        "radial table, 384 functions",
        lambda t, d: interpolate(t, d, 5 / 256),
        [random(257, 3, 384), d],
        None,
    )
    vectors = random(10_000, 3)
    for lmax in (1, 2, 3, 6):
        yield f"harmonics, l <= {lmax}", lambda v, l=lmax: spherical_harmonics(l, v), [vectors], _e3nn(lmax)


def _e3nn(lmax: int) -> Callable[[Tensor], Tensor] | None:
    try:
        from e3nn import o3
    except ImportError:
        return None
    return lambda v: o3.spherical_harmonics(list(range(lmax + 1)), v, True, "component")


def milliseconds(call: Callable[[], object], repeats: int = 7) -> float:
    clock, times = time.process_time if DEVICE == "cpu" else time.perf_counter, []
    for _ in range(repeats + 1):
        start = clock()
        call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return 1e3 * min(times[1:])


def in_turns(calls: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """The least milliseconds of each, all of them measured in the same noise."""
    times = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] = min(times[name], milliseconds(call, 3))
    return times


def agree(name: str, ours: Tensor | list[Tensor], theirs: Tensor | list[Tensor]) -> None:
    """Within float32's round-off, relative to the largest entry."""
    pairs = [(ours, theirs)] if isinstance(ours, Tensor) else zip(ours, theirs, strict=True)
    for x, y in pairs:
        if (x - y).abs().max() > 1e-4 * y.abs().max():
            raise SystemExit(f"{name}: the answers differ by {(x - y).abs().max() / y.abs().max():.1e}")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| op | fused, ms | definition, ms | speed-up | e3nn, ms | speed-up |")
    print("|---|---|---|---|---|---|")
    for name, function, operands, peer in cases():

        def forward(f: Callable[..., Tensor] = function, xs: list[Tensor] = operands) -> Tensor:
            return f(*[x.detach() for x in xs])

        def backward(f: Callable[..., Tensor] = function, xs: list[Tensor] = operands) -> list[Tensor]:
            return list(torch.autograd.grad(f(*xs).sin().sum(), xs))

        for job, call in (("forward", forward), ("forward, backward", backward)):
            fused = milliseconds(call)
            ours = call()
            with use_reference():
                definition, theirs = milliseconds(call), call()
            agree(name, ours, theirs)
            cells = [f"{fused:.2f}", f"{definition:.1f}", f"{definition / fused:.1f}x", "", ""]
            if peer is not None:
                agree(name, function(*operands), peer(*operands))
                other = milliseconds(lambda c=call, p=peer: c(p))
                cells[3:] = [f"{other:.2f}", f"{other / fused:.1f}x"]
            print(f"| {name}: {job} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
