"""Learn how heat spreads over the Petersen graph from four measurements, by the symmetry of the graph.

The linear maps that commute with its 120 symmetries have three weights, one for each orbit of pairs of
points: equal, joined, not joined. A map without symmetry has a hundred; one that commutes with all
permutations has two, too few to know of neighbours.

``python examples/09_graph_symmetry.py``
"""

import networkx
import torch
from torch import Tensor, nn

from equitorch.layers import DiagramLinear
from equitorch.reps import Automorphism

GRAPH = networkx.petersen_graph()
N, NOISE = len(GRAPH), 0.01
LAPLACIAN = torch.tensor(networkx.to_numpy_array(GRAPH)).sub(3 * torch.eye(N))
HEAT = torch.matrix_exp(0.3 * LAPLACIAN).float()  # temperatures after some time


def measure(count: int) -> tuple[Tensor, Tensor]:
    """Temperatures of the points, and later. Shape (count, N, 1)."""
    before = torch.randn(count, N, 1)
    return before, HEAT @ before + NOISE * torch.randn(count, N, 1)


class Dense(nn.Linear):
    """Any linear map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.squeeze(-1)).unsqueeze(-1)


def fit(model: nn.Module, before: Tensor, after: Tensor) -> None:
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (model(before) - after).square().mean()
        value.backward()
        return value

    optimizer.step(loss)


torch.manual_seed(0)
symmetries = Automorphism(GRAPH)
data, (x, y) = measure(4), measure(1000)
options = {"order_in": 1, "order_out": 1, "channels_in": 1, "channels_out": 1, "bias": False}
models = {
    f"{symmetries.size} symmetries": DiagramLinear.power(symmetries, N, **options),
    "all permutations": DiagramLinear.power("S", N, **options),
    "no symmetry": Dense(N, N, bias=False),
}
print(f"error of new measurements from {len(data[0])}, noise {NOISE}")
for name, model in models.items():
    fit(model, *data)
    error = (model(x) - y).square().mean().sqrt()
    print(f"{name:20} {sum(p.numel() for p in model.parameters()):3d} weights  {error:.3f}")
