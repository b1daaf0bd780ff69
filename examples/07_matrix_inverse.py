"""Learn to invert symmetric matrices of sizes 3 to 5, and invert those of sizes 6 to 8.

A network that commutes with O(n) has the same weights at every n. A plain network sees matrices in the corner
of an 8 x 8 one, and has forty times as many weights.

``python examples/07_matrix_inverse.py [--steps 400]``
"""

import argparse
import itertools

import torch
from torch import Tensor, nn

from equitorch.models import DiagramNet

SIZES, UNSEEN, LARGEST = (3, 4, 5), (6, 7, 8), 8


def sample(n: int, count: int) -> tuple[Tensor, Tensor]:
    """Matrices with eigenvalues between 0.5 and 2 in random directions, and their inverses."""
    directions = torch.linalg.qr(torch.randn(count, n, n)).Q
    values = 0.5 + 1.5 * torch.rand(count, 1, n)
    return (directions * values) @ directions.mT, (directions / values) @ directions.mT


class Equivariant(nn.Module):
    """Matrices and invariant numbers in three layers; traces are means, products of matrices are sums."""

    def __init__(self) -> None:
        super().__init__()
        orders, channels = [2, (0, 2), (0, 2), (0, 2), 2], [1, 8, 8, 8, 1]
        self.net = DiagramNet("O", SIZES[0], orders, channels, normalization="mean", products="sum")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1).unsqueeze(-1)).reshape(x.shape)


class Plain(nn.Module):
    """A network of two hidden layers on matrices padded by zeros."""

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        sizes = [LARGEST**2, hidden, hidden, LARGEST**2]
        steps = [[nn.Linear(a, b), nn.SiLU()] for a, b in itertools.pairwise(sizes)]
        self.net = nn.Sequential(*itertools.chain(*steps))[:-1]

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        padded = nn.functional.pad(x, (0, LARGEST - n, 0, LARGEST - n))
        return self.net(padded.flatten(1)).unflatten(1, (LARGEST, LARGEST))[:, :n, :n]


def train(model: nn.Module, steps: int, lr: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps)
    for step in range(steps):
        x, inverse = sample(SIZES[step % len(SIZES)], 64)
        loss = (model(x) - inverse).square().sum((1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def error(model: nn.Module, n: int) -> float:
    x, inverse = sample(n, 500)
    return ((model(x) - inverse).norm() / inverse.norm()).item()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=400)
steps = parser.parse_args().steps
torch.manual_seed(0)
models = {"O(n)": Equivariant(), "plain": Plain()}
train(models["O(n)"], steps, 1e-2)
train(models["plain"], steps, 3e-3)
print("relative error of the inverse")
print("   n", *(f"{name:>8}" for name in models))
for n in SIZES + UNSEEN:
    note = "   never seen" if n in UNSEEN else ""
    print(f"{n:4d}", *(f"{error(model, n):8.3f}" for model in models.values()), note)
print("weights", {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()})
