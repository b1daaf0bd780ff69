"""Time the equivariant convolution beside e3nn's tensor product with gather and scatter.

``python -m benchmarks.convolution`` prints a table in Markdown: forward; with backward; and the derivative of
that derivative, which training on forces needs. One thread, seconds of the processor, same weights, answers
compared first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from e3nn import o3
from torch import Tensor

from equitorch.layers import EquivariantConvolution
from equitorch.reps import Irreps

JOBS = ("forward", "+ backward", "double backward")
Inputs = tuple[Tensor, Tensor, Tensor]


class Case:
    """One convolution, ours and e3nn's, on the same random graph."""

    def __init__(self, lmax: int, sh: int, edges: int, channels: int, *, nodes: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        natural = Irreps.spherical_harmonics
        nodes = nodes or max(edges // 16, 4)
        self.name = f"0..{lmax} x 0..{sh} -> 0..{max(lmax, sh)}, {edges} edges"
        self.ours = EquivariantConvolution(natural(lmax), natural(sh), natural(max(lmax, sh)), channels)
        target = torch.randint(nodes, (edges,), generator=generator).sort().values
        self.edges = torch.stack([torch.randint(nodes, (edges,), generator=generator), target])
        shapes = (
            (nodes, (lmax + 1) ** 2, channels),
            (edges, (sh + 1) ** 2),
            (edges, self.ours.dims[3], channels),
        )
        x, y, w = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
        self.inputs: Inputs = (x, y, w)
        self.cotangent = torch.randn(nodes, self.ours.irreps_out.dim, channels, generator=generator)
        self.theirs = _e3nn(self.ours)

    def equitorch(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return self.ours(x, y, w, self.edges)

    def e3nn(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """On e3nn's own layout: x is flat already, and so is the result."""
        message = self.theirs(x[self.edges[0]], y, w)
        return message.new_zeros(x.shape[0], message.shape[1]).index_add(0, self.edges[1], message)


def _e3nn(ours: EquivariantConvolution) -> o3.TensorProduct:
    ends = [
        o3.Irreps([(mul, (ir.l, ir.p)) for ir in irreps.copies])
        for mul, irreps in (
            (ours.channels, ours.irreps_in),
            (1, ours.irreps_filter),
            (ours.channels, ours.irreps_out),
        )
    ]
    instructions = [(i, j, k, "uvu", True) for i, j, k in ours.path_copies]
    return o3.TensorProduct(*ends, instructions, shared_weights=False, internal_weights=False)


def flat(x: Tensor, irreps: Irreps) -> Tensor:
    """Our rows and channels in e3nn's order."""
    blocks = x.split([ir.dim for ir in irreps.copies], dim=-2)
    return torch.cat([block.mT.flatten(-2) for block in blocks], dim=-1)


def jobs(
    call: Callable[..., Tensor], inputs: Sequence[Tensor], cotangent: Tensor
) -> Iterator[Callable[[], list[Tensor]]]:
    """The three jobs, each giving what it computed."""
    leaves = [t.detach().requires_grad_() for t in inputs]

    def forward() -> list[Tensor]:
        return [call(*[t.detach() for t in leaves])]

    def backward() -> list[Tensor]:
        return list(torch.autograd.grad(call(*leaves), leaves, cotangent))

    def double() -> list[Tensor]:
        grads = torch.autograd.grad(call(*leaves), leaves, cotangent, create_graph=True)
        return list(torch.autograd.grad(sum((g * g.detach()).sum() for g in grads), leaves))

    yield from (forward, backward, double)


def seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times[1:])


def compare(case: Case) -> None:
    """Refuse to time two things that are not the same."""
    x, y, w = (t.detach() for t in case.inputs)
    theirs = case.e3nn(flat(x, case.ours.irreps_in), y, w.flatten(1))
    error = (flat(case.equitorch(x, y, w), case.ours.irreps_out) - theirs).abs().max() / theirs.abs().max()
    if error > 1e-5:
        raise SystemExit(f"{case.name}: the answers differ by {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--edges", type=int, nargs="+", default=[100, 1000, 4000])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| case | {' | '.join(f'{job}: e3nn, ms | equitorch, ms | speed-up' for job in JOBS)} |")
    print("|---|" + "---|" * 9)
    for lmax, sh in ((2, 2), (2, 3), (3, 3)):
        for edges in options.edges:
            case = Case(lmax, sh, edges, options.channels)
            compare(case)
            x, y, w = case.inputs
            theirs = jobs(
                case.e3nn,
                [flat(x, case.ours.irreps_in), y, w.flatten(1)],
                flat(case.cotangent, case.ours.irreps_out),
            )
            cells = []
            for mine, other in zip(jobs(case.equitorch, case.inputs, case.cotangent), theirs, strict=True):
                a, b = seconds(mine, options.repeats), seconds(other, max(1, options.repeats // 2))
                cells += [f"{1e3 * b:.1f}", f"{1e3 * a:.2f}", f"{b / a:.1f}x"]
            print(f"| {case.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
