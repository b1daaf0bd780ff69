"""Time harmonics, linear maps, Wigner matrices and functions on the sphere beside e3nn's, on one CPU thread.

``python -m benchmarks.e3nn_basics`` prints tables in Markdown, in milliseconds of the processor, and stops
where the answers disagree. ``--quick`` leaves the large cases out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from equitorch.layers import Linear, S2Activation, ToS2Grid
from equitorch.ops import spherical_harmonics
from equitorch.reps import from_e3nn, rand_matrix, to_e3nn, wigner_D

Call = Callable[[], object]
Row = tuple[str, float, float]
SHARES = "128x0e+128x1o+128x2e"


def milliseconds(call: Call, repeats: int = 7) -> float:
    """The best of some runs, after one that is not counted; fewer runs of what takes long."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
        if sum(times) > 3:
            break
    return 1e3 * min(times[1:] or times)


def agree(name: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """Within float32's round-off, relative to the largest entry."""
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not error <= tolerance:
        raise SystemExit(f"{name}: the answers differ by {error:.1e}")


def orders(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[Callable[[], Tensor]]:
    """The function, with its gradient, and with the gradient of a norm of that, as in a loss on forces."""
    shape = function(x).shape
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def gradient(create_graph: bool = False) -> tuple[Tensor, Tensor]:
        y = x.detach().requires_grad_()
        return torch.autograd.grad(function(y), y, g, create_graph=create_graph)[0], y

    def twice() -> Tensor:
        first, y = gradient(create_graph=True)
        return torch.autograd.grad(first.square().sum(), y)[0]

    yield lambda: function(x)
    yield lambda: gradient()[0]
    yield twice


def compared(name: str, ours: Call, theirs: Call, tolerance: float = 1e-4) -> Row:
    agree(name, ours(), theirs(), tolerance)  # type: ignore[arg-type]
    return name, milliseconds(ours), milliseconds(theirs)


def harmonics(quick: bool) -> Iterator[Row]:
    from e3nn import o3

    for lmax in (1, 2, 3, 4, 5, 6, 8, 10):
        peer = o3.SphericalHarmonics(list(range(lmax + 1)), True, "component")
        for count in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
            x = torch.randn(count, 3)
            mine = orders(partial(spherical_harmonics, lmax), x)
            for kind, ours, theirs in zip(
                ("forward", "+ backward", "double"), mine, orders(peer, x), strict=True
            ):
                yield compared(f"harmonics, l <= {lmax}, {count} vectors: {kind}", ours, theirs, 1e-3)


def linear(quick: bool) -> Iterator[Row]:
    from e3nn import o3

    peer, mine = o3.Linear(SHARES, SHARES), Linear("0e+1o+2e", 128, 128, bias=False)
    mine.load_e3nn(peer.weight)
    for count in (100, 2000):
        x = torch.randn(count, 9 * 128)
        rows = from_e3nn(x, SHARES)
        name = f"Linear 128x(0,1,2), batch {count}"
        agree(name, to_e3nn(mine(rows), SHARES), peer(x))
        for kind, backward in (("forward", False), ("+ backward", True)):
            yield f"{name}: {kind}", *_both((mine, rows), (peer, x), backward)


def _both(
    ours: tuple[nn.Module, Tensor], theirs: tuple[nn.Module, Tensor], backward: bool
) -> tuple[float, float]:
    return milliseconds(lambda: _run(*ours, backward), 15), milliseconds(lambda: _run(*theirs, backward), 15)


def _run(module: nn.Module, x: Tensor, backward: bool) -> object:
    with torch.set_grad_enabled(backward):
        y = module(x.requires_grad_(backward))
    return torch.autograd.grad(y.sum(), [x, *module.parameters()]) if backward else y


def wigner(quick: bool) -> Iterator[Row]:
    from e3nn import o3

    for count in (1, 100, 2000):
        R = rand_matrix(count)
        for l in (1, 2, 3, 4, 6, 8, 10):
            peer = o3.Irrep(l, (-1) ** l)
            name = f"wigner_D, l = {l}, {count} matrices"
            yield compared(name, partial(wigner_D, l, R), partial(peer.D_from_matrix, R), 1e-3)


def sphere(quick: bool) -> Iterator[Row]:
    from e3nn import nn as e3nn_nn
    from e3nn import o3

    for lmax, res, count, channels in ((2, (8, 9), 500, 32), (4, (12, 12), 500, 32), (6, (18, 17), 100, 64)):
        irreps = o3.Irreps([(1, (l, (-1) ** l)) for l in range(lmax + 1)])
        rows = torch.randn(count, (lmax + 1) ** 2, channels)
        flat = rows.transpose(1, 2).contiguous()
        for name, mine, peer in (
            ("ToS2Grid", ToS2Grid(lmax, res), o3.ToS2Grid(lmax, res)),
            (
                "S2Activation",
                S2Activation(str(irreps), torch.tanh, res),
                e3nn_nn.S2Activation(irreps, torch.tanh, res),
            ),
        ):
            title = f"{name}, l <= {lmax}, {res[0]} x {res[1]}, {count} x {channels}"
            agree(title, mine(rows).movedim(-1, 1), peer(flat), 1e-3)
            for kind, backward in (("forward", False), ("+ backward", True)):
                yield f"{title}: {kind}", *_both((mine, rows), (peer, flat), backward)


def errors() -> None:
    """How far float32 matrices are from those of the rotation that was rounded: ours and e3nn's."""
    from e3nn import o3

    print("\n| largest error in float32 | equitorch | e3nn | ratio |\n|---|---|---|---|")
    R = rand_matrix(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for l in (2, 4, 6, 8, 10):
        exact = wigner_D(l, R)
        ours = (wigner_D(l, R.float()) - exact).abs().max().item()
        theirs = (o3.Irrep(l, (-1) ** l).D_from_matrix(R.float()) - exact).abs().max().item()
        print(f"| wigner_D, l = {l} | {ours:.1e} | {theirs:.1e} | {theirs / ours:.0f} |")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| case | equitorch, ms | e3nn, ms | speed-up |\n|---|---|---|---|")
    for table in (harmonics, linear, wigner, sphere):
        for name, ours, theirs in table("--quick" in sys.argv):
            print(f"| {name} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.1f}x |", flush=True)
    errors()


if __name__ == "__main__":
    main()
