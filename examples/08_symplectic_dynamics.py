"""Learn how coupled oscillators move, and predict it in canonical coordinates never seen in training.

Hamilton's equations keep their form in all canonical coordinates: they commute with the group Sp. So does the
network, which is given the state (q, p) and the Hamiltonian as tensors; a plain network must learn that.

``python examples/08_symplectic_dynamics.py [--steps 300]``
"""

import argparse

import torch
from torch import Tensor, nn

from equitorch.models import DiagramNet
from equitorch.testing import random_elements

PAIRS, TIME, SAMPLES = 2, 0.5, 500


def omega(n: int) -> Tensor:
    return torch.kron(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.eye(n // 2))


def oscillators(count: int, pairs: int = PAIRS) -> tuple[Tensor, Tensor]:
    """Random states z = (q, p), and S of the Hamiltonian z S z / 2: springs and inverse masses."""
    springs = torch.randn(count, pairs, pairs)
    springs = springs @ springs.mT / pairs + 0.3 * torch.eye(pairs)
    masses = torch.diag_embed(0.5 + torch.rand(count, pairs))
    s = torch.zeros(count, 2 * pairs, 2 * pairs)
    s[:, :pairs, :pairs], s[:, pairs:, pairs:] = springs, masses
    return torch.randn(count, 2 * pairs), s


def later(z: Tensor, s: Tensor) -> Tensor:
    """The state after some time: exp(t Omega S) z."""
    return (torch.matrix_exp(TIME * omega(z.shape[-1]) @ s) @ z.unsqueeze(-1)).squeeze(-1)


class Equivariant(nn.Module):
    """The state has one index, the Hamiltonian two, which are raised so that both transform alike."""

    def __init__(self) -> None:
        super().__init__()
        orders, channels = [(1, 2), (0, 1, 2), (0, 1, 2), 1], [1, 8, 8, 1]
        self.net = DiagramNet("Sp", 2 * PAIRS, orders, channels, products="sum", normalization="mean")

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        form = omega(z.shape[-1])
        raised = form @ s @ form.mT
        return self.net({1: z.unsqueeze(-1), 2: raised.flatten(1).unsqueeze(-1)}).squeeze(-1)


class Plain(nn.Module):
    """A network of two hidden layers on all numbers."""

    def __init__(self, n: int = 2 * PAIRS, hidden: int = 128) -> None:
        super().__init__()
        first, last = nn.Linear(n + n * n, hidden), nn.Linear(hidden, n)
        self.net = nn.Sequential(first, nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        return self.net(torch.cat([z, s.flatten(1)], dim=1))


def train(model: nn.Module, data: tuple[Tensor, Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
    target = later(*data)
    for _ in range(steps):
        loss = (model(*data) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def error(model: nn.Module, z: Tensor, s: Tensor) -> float:
    return ((model(z, s) - later(z, s)).norm() / later(z, s).norm()).item()


def changed(z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The same oscillators in other canonical coordinates."""
    generator = torch.Generator().manual_seed(1)
    g = torch.stack([random_elements(f"Sp({z.shape[1]})", generator)[0] for _ in z]).float()
    back = torch.linalg.inv(g)
    return (g @ z.unsqueeze(-1)).squeeze(-1), back.mT @ s @ back


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=300)
steps = parser.parse_args().steps
torch.manual_seed(0)
data, test = oscillators(SAMPLES), oscillators(SAMPLES)
models = {"Sp(n)": Equivariant(), "plain": Plain()}
for model in models.values():
    train(model, data, steps)
print("relative error of the state  Sp(n)  plain")
for name, case in {"the same coordinates": test, "new coordinates": changed(*test)}.items():
    print(f"{name:28}", *(f"{error(model, *case):5.3f} " for model in models.values()))
print(f"{'three oscillators':28} {error(models['Sp(n)'], *oscillators(SAMPLES, 3)):5.3f}      -")
