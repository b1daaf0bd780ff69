"""Time DiagramLinear beside the dense matrix, and beside one diagram after the other.

``python -m benchmarks diagrams`` prints tables in Markdown: float32 on one thread, no gradients, the least
seconds of the processor. "dense" is a product with the layer's own matrix, made beforehand; "one by one"
sums, transposes and spreads x for each diagram of its own, stacks what comes out and mixes channels at the
end, as public code of such layers does. Answers are compared first.
"""

from __future__ import annotations

import functools
import time

import torch
from torch import Tensor

from benchmarks.ops import agree, in_turns
from equitorch.layers import DiagramLinear

LARGEST = 1 << 28  # entries of a dense matrix that fits beside everything else
SMALL = [  # group, n, orders in and out, channels, batch: where a plan has nothing to gain
    ("S", 3, 1, 1, 8, 16),
    ("S", 4, 2, 2, 8, 16),
    ("S", 4, 3, 3, 8, 16),
    ("S", 8, 2, 2, 1, 1),
    ("S", 8, 2, 2, 32, 256),
    ("O", 3, 1, 1, 64, 1000),
    ("O", 3, 2, 2, 8, 8),
    ("O", 3, 2, 2, 32, 256),
    ("O", 3, 3, 3, 8, 16),
    ("O", 3, 4, 4, 8, 16),
    ("O", 8, 2, 2, 8, 16),
    ("SO", 3, 2, 1, 16, 64),
    ("Sp", 4, 2, 2, 8, 16),
    ("Sp", 8, 2, 2, 8, 16),
    ("A", 4, 2, 2, 8, 16),
    ("B", 4, 2, 2, 8, 16),
    ("O(1,3)", 4, 2, 2, 16, 64),
]


class OneByOne:
    """The fifteen maps of matrices that commute with permutations, each on its own."""

    def __init__(self, layer: DiagramLinear) -> None:
        self.blocks, places = zip(*[(blocks, at) for at, blocks in layer.diagrams()], strict=True)
        self.weight = torch.stack([layer.weights[at.name][at.position] for at in places])
        self.bias = layer.dense_bias()

    def __call__(self, x: Tensor) -> Tensor:
        batch, rows, _ = x.shape
        n = round(rows**0.5)
        whole, found = x.view(batch, n, n, -1), []
        for blocks in self.blocks:
            label = {vertex: number for number, block in enumerate(blocks) for vertex in block}
            read = torch.diagonal(whole, dim1=1, dim2=2).mT if label[2] == label[3] else whole
            inner = [label[2]] if label[2] == label[3] else [label[2], label[3]]
            outer = [label[0], label[1]]
            for axis in reversed(range(len(inner))):
                if inner[axis] not in outer:
                    read = read.mean(axis + 1)
            kept = [number for number in inner if number in outer]
            found.append(_spread(read, kept, outer, n))
        mixed = torch.einsum("dbijc,dco->bijo", torch.stack(found), self.weight)
        return mixed.flatten(1, 2) + self.bias


def _spread(z: Tensor, kept: list[int], outer: list[int], n: int) -> Tensor:
    """Entries of z, one axis for each block in ``kept``, where the output's two blocks say."""
    shape = (z.shape[0], n, n, z.shape[-1])
    if outer[0] != outer[1]:
        if kept == [outer[1], outer[0]]:
            return z.transpose(1, 2)
        for axis, number in enumerate(outer, start=1):
            z = z if number in kept else z.unsqueeze(axis)
        return z.expand(shape)
    out = z.new_zeros(shape)
    diagonal = z if kept else z.unsqueeze(1).expand(-1, n, -1)
    torch.diagonal(out, dim1=1, dim2=2).copy_(diagonal.mT)
    return out


def matrices(n: int, channels: int, batch: int) -> None:
    """Matrices under permutations."""
    layer = DiagramLinear.power("S", n, 2, 2, channels, channels)
    x, out = torch.randn(batch, n * n, channels), torch.empty(batch, n * n, channels)
    one_by_one, expected = OneByOne(layer), layer(x)
    agree(f"n = {n}", one_by_one(x), expected)
    calls = {
        "layer": lambda: layer(x),
        "one by one": lambda: one_by_one(x),
        "copy": lambda: (out.copy_(x), out.copy_(expected)),
    }
    if (n * n * channels) ** 2 <= LARGEST:
        calls["dense"] = dense(layer, x)
        agree(f"n = {n}", calls["dense"](), expected)
    times = in_turns(calls)
    ours = times["layer"]
    cells = [f"{ours:.3f}"]
    for name in ("dense", "one by one"):
        cells += [f"{times[name]:.2f}", f"{times[name] / ours:.0f}x"] if name in times else ["-", "-"]
    print(f"| {n} | {channels} | {batch} | {' | '.join(cells)} | {ours / times['copy']:.1f} |", flush=True)


def dense(layer: DiagramLinear, x: Tensor) -> functools.partial[Tensor]:
    """The product with the matrix of a layer, and nothing else."""
    y = layer(x)
    matrix = layer.to_dense().permute(2, 3, 0, 1).flatten(2).flatten(0, 1).contiguous()
    shift = None if layer.bias is None else layer.dense_bias().flatten()
    return functools.partial(_dense, x, matrix, shift, y.shape)


def _dense(x: Tensor, matrix: Tensor, shift: Tensor | None, shape: torch.Size) -> Tensor:
    flat = x.flatten(1)
    return (flat @ matrix if shift is None else torch.addmm(shift, flat, matrix)).view(shape)


def small() -> None:
    print("\n| group, n | orders | channels | batch | layer, ms | dense, ms | layer / (1.1 dense + 10 us) |")
    print("|---|---|---|---|---|---|---|")
    for group, n, k, l, channels, batch in SMALL:
        layer = DiagramLinear.power(group, n, k, l, channels, channels)
        x = torch.randn(batch, n**k, channels)
        product = dense(layer, x)
        agree(f"{group} {n}", product(), layer(x))
        times = in_turns({"layer": functools.partial(layer, x), "dense": product})
        ours, theirs = times.values()
        allowed = 1.1 * theirs + 0.01
        row = f"{group}, {n} | {k} to {l} | {channels} | {batch} | {ours:.3f} | {theirs:.3f}"
        print(f"| {row} | {ours / allowed:.2f} |", flush=True)


def construction() -> None:
    print("\n| construction, ms | n | orders | cold | warm |")
    print("|---|---|---|---|---|")
    for group in ("S", "O", "Sp"):
        for n in (6, 60):
            for k, l in ((1, 1), (2, 2), (3, 3)):
                seconds = []
                for _ in range(2):
                    start = time.process_time()
                    DiagramLinear.power(group, n, k, l, 8, 8)
                    seconds.append(1e3 * (time.process_time() - start))
                print(f"| {group} | {n} | {k} to {l} | {seconds[0]:.1f} | {seconds[1]:.1f} |")


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    construction()
    print("\n| n | channels | batch | layer, ms | dense | speed-up | one by one | speed-up | layer / copy |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n, channels, batch in ((4, 8, 16), (8, 8, 16), (16, 8, 16), (32, 8, 16), (64, 8, 16), (64, 32, 16)):
        matrices(n, channels, batch)
    small()


if __name__ == "__main__":
    main()
