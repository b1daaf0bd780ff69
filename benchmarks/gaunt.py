"""Time products of functions on the sphere: every backend, the weighted layers, and e3nn's tensor product.

``python -m benchmarks gaunt`` prints a table in Markdown: 8 points of 128 channels, read up to the degree of
the operands, forward and gradients of both operands, float32 on one thread, seconds of the processor.
The last column of the first table is the smallest time over that of ``auto``; ``ops/gaunt/choice.py`` follows
it. e3nn computes the same paths with the same coefficients ("uuu", without weights).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.ops import agree, in_turns, milliseconds
from equitorch.layers import GauntTensorProduct
from equitorch.ops import gaunt_product
from equitorch.reps import Irreps, to_e3nn
from equitorch.reps.gaunt import gaunt_factor

POINTS, CHANNELS = 8, 128
BACKENDS = {"dense": 4, "grid": 12, "separable": 12, "auto": 12, "fft": 8}  # highest degree timed at
E3NN_UP_TO = 6


def operands(lmax: int, stacks: int = 1) -> list[Tensor]:
    """Two features and a cotangent."""
    rows = stacks * (lmax + 1) ** 2
    x, y, z = (torch.randn(POINTS, rows, CHANNELS) for _ in range(3))
    return [x.requires_grad_(), y.requires_grad_(), z]


def job(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """The product, and its gradients."""
    out = product(x, y)
    return [out.detach(), *torch.autograd.grad(out, (x, y), z)]


def e3nn_irreps(lmax: int) -> Irreps:
    return Irreps([(CHANNELS, ir) for ir in Irreps.spherical_harmonics(lmax).copies])


def e3nn_job(lmax: int, x: Tensor, y: Tensor, z: Tensor) -> Callable[[], list[Tensor]]:
    """e3nn's product of the same paths, on its own layout."""
    from e3nn import o3

    irreps = o3.Irreps([(CHANNELS, (l, (-1) ** l)) for l in range(lmax + 1)])
    degrees = range(lmax + 1)
    paths = [
        (a, b, c, "uuu", False, gaunt_factor(a, b, c) ** 2)
        for a in degrees
        for b in degrees
        for c in degrees
        if gaunt_factor(a, b, c)
    ]
    product = o3.TensorProduct(
        irreps, irreps, irreps, paths, irrep_normalization="none", path_normalization="none"
    )
    flat = [to_e3nn(t.detach(), e3nn_irreps(lmax)) for t in (x, y, z)]
    for t in flat[:2]:
        t.requires_grad_()
    return lambda: job(product, *flat)


def ours(lmax: int, backend: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: gaunt_product(x, y, lmax, backend=backend)


def backends() -> None:
    print(f"| L | {' | '.join(BACKENDS)} | best / auto | e3nn | e3nn / auto |")
    print(f"|{'---|' * (len(BACKENDS) + 4)}")
    for lmax in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12):
        held = operands(lmax)
        expected = job(ours(lmax, "auto"), *held)
        names = [name for name, most in BACKENDS.items() if lmax <= most]
        calls = {name: functools.partial(job, ours(lmax, name), *held) for name in names}
        for name, call in calls.items():
            agree(f"L = {lmax}, {name}", call(), expected)
        times = in_turns(calls)
        best, auto = min(times.values()), times["auto"]
        cells = [f"{times[name]:.2f}" if name in times else "-" for name in BACKENDS]
        cells += [f"{best / auto:.2f}", "-", "-"]
        if lmax <= E3NN_UP_TO:
            theirs = e3nn_job(lmax, *held)
            agree(f"L = {lmax}, e3nn", [to_e3nn(t, e3nn_irreps(lmax)) for t in expected], theirs())
            slow = milliseconds(theirs, 5)
            cells[-2:] = f"{slow:.1f}", f"{slow / auto:.1f}x"
        print(f"| {lmax} | {' | '.join(cells)} |", flush=True)


def layers() -> None:
    print("\n| L | even, ms | odd | full | odd / even | full / even |")
    print("|---|---|---|---|---|---|")
    for lmax in (1, 2, 3, 4, 6, 8, 10, 12):
        calls = {}
        for parity in ("even", "odd", "full"):
            layer = GauntTensorProduct(lmax, lmax, lmax, CHANNELS, parity)
            calls[parity] = functools.partial(job, layer, *operands(lmax, 2 if parity == "full" else 1))
        even, odd, full = in_turns(calls).values()
        cells = f"{even:.2f} | {odd:.2f} | {full:.2f} | {odd / even:.1f} | {full / even:.1f}"
        print(f"| {lmax} | {cells} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("Products without weights, ms:\n")
    backends()
    print('\nLayers; "full" acts on twice as many rows:')
    layers()


if __name__ == "__main__":
    main()
