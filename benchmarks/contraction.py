"""Time the symmetric contraction beside MACE's algorithm: dense couplings, from the highest degree down.

``python -m benchmarks.contraction`` prints a table in Markdown: 128 channels, 0e+1o+2e+3o -> 0e+1o with
correlation 3 and four species, in float32 on one thread, where the seconds are the processor's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.ops import agree, milliseconds
from equitorch.layers import SymmetricContraction
from equitorch.reps import Irrep, Irreps, wigner_3j

NODES, CHANNELS, SPECIES, CORRELATION = 500, 128, 4, 3
IRREPS_IN, IRREPS_OUT = Irreps("0e+1o+2e+3o"), Irreps("0e+1o")


def couplings(ir: Irrep, degree: int) -> Tensor:
    """All ways to couple the input with itself from the left into ``ir``: (2 l + 1, dim, ..., dim, ways)."""
    one = [
        (own, torch.eye(IRREPS_IN.dim)[s])
        for own, s in zip(IRREPS_IN.copies, IRREPS_IN.slices(), strict=True)
    ]
    found = one
    for step in range(2, degree + 1):
        found = [
            (
                to,
                torch.einsum(
                    "kij,i...,jx->k...x", wigner_3j(to.l, a.l, b.l).float() * to.dim**0.5, left, right
                ),
            )
            for (a, left), (b, right) in itertools.product(found, one)
            for to in a * b
            if step < degree or to == ir
        ]
        found.sort(key=lambda pair: pair[0])
    return torch.stack([form for own, form in found if own == ir], dim=-1)


class Dense:
    """The sum over all products by matrix products: one for each irrep of the output and degree."""

    def __init__(self) -> None:
        degrees = range(1, CORRELATION + 1)
        self.couplings = [[couplings(ir, degree) for degree in degrees] for ir in IRREPS_OUT.copies]

    def weights(self) -> list[list[Tensor]]:
        return [[torch.randn(SPECIES, u.shape[-1], CHANNELS) for u in by] for by in self.couplings]

    def __call__(self, x: Tensor, index: Tensor, weights: list[list[Tensor]]) -> Tensor:
        x, results = x.mT, []
        for by_degree, own in zip(self.couplings, weights, strict=True):
            w = [each.mT[index] for each in own]
            pairs = (x.unsqueeze(-1) * w[-1].unsqueeze(-2)).flatten(-2)
            out = (pairs @ by_degree[-1].flatten(-2).flatten(0, -2).T).unflatten(-1, by_degree[-1].shape[:-2])
            for u, weight in zip(by_degree[-2::-1], w[-2::-1], strict=True):
                out = out + (weight @ u.flatten(0, -2).T).unflatten(-1, u.shape[:-1])
                out = torch.einsum("nc...i,nci->nc...", out, x)
            results.append(out)
        return torch.cat(results, dim=-1).mT


def jobs(
    function: Callable[..., Tensor], x: Tensor, weights: list[Tensor]
) -> list[Callable[[], list[Tensor]]]:
    """Forward; with the gradients of the features and weights; with those of a loss of forces."""

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [function(x)]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(function(x).square().sum(), [x, *weights]))

    def double() -> list[Tensor]:
        (force,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return list(torch.autograd.grad(force.square().sum(), [x, *weights]))

    return [forward, backward, double]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dense, x = Dense(), (torch.randn(NODES, IRREPS_IN.dim, CHANNELS) / 2).requires_grad_()
    index, by_degree = torch.randint(0, SPECIES, (NODES,)), dense.weights()
    ours = SymmetricContraction(IRREPS_IN, IRREPS_OUT, CHANNELS, correlation=CORRELATION, species=SPECIES)
    ours.load_mace(by_degree)
    flat = [w.requires_grad_() for each in by_degree for w in each]
    fast = jobs(lambda x: ours(x, index), x, [ours.weight])
    slow = jobs(lambda x: dense(x, index, by_degree), x, flat)
    columns = sum(w.shape[1] for w in flat)
    print(f"{NODES} nodes, {CHANNELS} channels, {columns} columns reduced to {len(ours.paths)}\n")
    print("| symmetric contraction | fused, ms | dense einsum, ms | speed-up |")
    print("|---|---|---|---|")
    names = "forward", "forward, backward", "force, its backward"
    for name, one, other in zip(names, fast, slow, strict=True):
        agree(name, one()[0], other()[0])
        a, b = milliseconds(one), milliseconds(other, 1)
        print(f"| {name} | {a:.2f} | {b:.0f} | {b / a:.0f}x |", flush=True)


if __name__ == "__main__":
    main()
