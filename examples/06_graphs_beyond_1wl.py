"""Tell two graphs apart that look the same to all pairs of points: Shrikhande's graph and the rook's.

Both have 16 points with 6 neighbours each, and any two points have 2 neighbours in common: message passing, a
network of order 2, and even one with matrix products (as strong as 2-FWL) find the same numbers in both.
The neighbours of a point form a hexagon or two triangles, which order 2 with products can tell when it sees
one neighbourhood at a time; and only the rook's graph has 4-cliques, which order 4 can count.

``python examples/06_graphs_beyond_1wl.py [--steps 40]``
"""

import argparse
import itertools

import torch
from torch import Tensor, nn

from equitorch.models import DiagramNet

POINTS = list(itertools.product(range(4), repeat=2))
STEPS_OF_SHRIKHANDE = {(0, 1), (0, 3), (1, 0), (3, 0), (1, 1), (3, 3)}


def adjacency(joined) -> Tensor:
    return torch.tensor([[joined((a - c) % 4, (b - d) % 4) for c, d in POINTS] for a, b in POINTS]).double()


ROOK = adjacency(lambda x, y: (x == 0) != (y == 0))
SHRIKHANDE = adjacency(lambda x, y: (x, y) in STEPS_OF_SHRIKHANDE)


def sample(count: int) -> tuple[Tensor, Tensor]:
    """As many of both, the points in random order."""
    labels = torch.arange(count) % 2
    orders = torch.rand(count, 16).argsort(dim=1)
    graphs = torch.stack([ROOK, SHRIKHANDE])[labels]
    return torch.stack([g[p][:, p] for g, p in zip(graphs, orders, strict=True)]), labels.to(graphs.dtype)


class MessagePassing(nn.Module):
    """Each point adds up what its neighbours say, three times."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.own, self.heard = (
            nn.ModuleList(nn.Linear(1 if k == 0 else channels, channels) for k in range(3)) for _ in range(2)
        )

    def forward(self, graph: Tensor) -> Tensor:
        x = torch.ones_like(graph[..., :1])
        for own, heard in zip(self.own, self.heard, strict=True):
            x = (own(x) + heard(graph @ x / 6)).relu()
        return x.mean(1)


class Tensors(nn.Module):
    """Tensors that permutations act on: of the graph, or of the neighbourhood of each of its points."""

    def __init__(self, orders, channels, *, neighbourhoods: bool = False, **options) -> None:
        super().__init__()
        self.neighbourhoods = neighbourhoods
        self.net = DiagramNet("S", 16, [2, *orders, 0], [1, *channels, 16], activation="relu", **options)

    def forward(self, graph: Tensor) -> Tensor:
        x = graph.flatten(1).unsqueeze(-1)
        if not self.neighbourhoods:
            return self.net(x).squeeze(1)
        copies = x.repeat_interleave(16, dim=0)  # one for each point, with its neighbours as the only points
        return self.net(copies, mask=graph.flatten(0, 1) > 0).reshape(-1, 16, 16).mean(1)


def accuracy(model: nn.Module, steps: int) -> float:
    """On graphs that it was not trained with, from its invariants, standardised over the batch."""
    spread = nn.BatchNorm1d(16, eps=1e-16, track_running_stats=False)  # far above the round-off of sums
    classify = nn.Sequential(model, spread, nn.Linear(16, 1), nn.Flatten(0)).double()
    optimizer = torch.optim.Adam(classify.parameters(), lr=1e-2)
    for _ in range(steps):
        graphs, labels = sample(8)
        loss = nn.functional.binary_cross_entropy_with_logits(classify(graphs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    graphs, labels = sample(40)
    return ((classify(graphs) > 0) == labels.bool()).double().mean().item()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=40)
steps = parser.parse_args().steps
torch.manual_seed(0)
pairs, wide = [(1, 2), (1, 2)], [8, 8]
models = {
    "message passing": MessagePassing(),
    "order 2": Tensors(pairs, wide),
    "order 2, products": Tensors(pairs, wide, products="mean"),
    "order 2, products, neighbourhoods": Tensors(pairs, wide, products="mean", neighbourhoods=True),
    "order 4": Tensors([4], [4]),
}
for name, model in models.items():
    print(f"{name:34} {100 * accuracy(model, steps):4.0f} % right")
