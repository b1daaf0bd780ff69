"""TensorNet2's layers: latent charges of the atoms, and messages that depend on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equitorch.layers.mlp import MLP
from equitorch.layers.readout import pool
from equitorch.layers.tensornet import TensorExchange
from equitorch.ops.edges import EdgePlan


class ChargeHead(nn.Module):
    r"""Latent charges of each atom, which add up to the charge of its molecule in every channel.

    .. math:: q_i = \tilde q_i + \frac{f_i^2}{\sum_k f_k^2 + 10^{-6}} \Big(Q - \sum_k \tilde q_k\Big)

    where a network on the invariants (I, 2 \|v\|^2, \|S\|^2) of the atom's matrices predicts
    :math:`\tilde q` and :math:`f`, and the sums run over its molecule. I itself enters, not its square.

    Args:
        channels: channels per row.
        charges: latent charges per atom.
        activation: name of the activation.

    Shape:
        x: (atoms, 9, channels) -> (atoms, charges), e

    Source:
        Simeon et al. 2026, arXiv:2601.00581; every detail as in torchmd-net 3.1.
    """

    def __init__(self, channels: int, charges: int, *, activation: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3 * channels)
        self.network = MLP([3 * channels, channels, channels, 2 * charges], activation)

    def forward(self, x: Tensor, total: Tensor | None, batch: Tensor, num_graphs: int) -> Tensor:
        """Charges of the atoms.

        Args:
            x: shape (atoms, 9, channels).
            total: charge of each molecule, shape (graphs,), e; None means neutral.
            batch: molecule of each atom, shape (atoms,).
            num_graphs: number of molecules.
        """
        parts = [x[:, 0] / math.sqrt(3), x[:, 1:4].square().sum(1), x[:, 4:].square().sum(1)]
        charge, capacity = self.network(self.norm(torch.cat(parts, dim=-1))).chunk(2, dim=-1)
        capacity = capacity.square()
        sums = pool(torch.cat([charge, capacity], dim=-1), batch, num_graphs)
        charges, capacities = sums.chunk(2, dim=-1)
        missing = (0.0 if total is None else total[:, None]) - charges
        return charge + capacity * (missing / (capacities + 1e-6))[batch]


class ChargedInteraction(TensorExchange):
    r"""TensorNet2's round of messages: an exchange whose weights also see the latent charges of both atoms.

    .. math:: f_{ij} = C(d_{ij}) \, \text{network}\big(e(d_{ij}), q_i, q_j\big)

    so that the weights of the two directions of a pair differ. The rest is
    :class:`~equitorch.layers.tensornet.TensorExchange` with :math:`\kappa = 1`.

    Args:
        channels: channels per row.
        radial: functions of the distance.
        charges: latent charges per atom.
        activation: name of the activation of the network, which follows its last map too.
        group: "O(3)" or "SO(3)".

    Shape:
        x: (atoms, 9, channels) -> (atoms, 9, channels)

    Source:
        Simeon et al. 2026, arXiv:2601.00581.
    """

    def __init__(self, channels: int, radial: int, charges: int, *, activation: str, group: str) -> None:
        super().__init__(channels, group=group)
        sizes = [radial + 2 * charges, channels, 2 * channels, 3 * channels]
        self.network = MLP(sizes, activation, activate_last=True)

    def forward(
        self,
        x: Tensor,
        charges: Tensor,
        edge: tuple[Tensor, Tensor],
        own: tuple[Tensor, Tensor],
        plan: EdgePlan,
    ) -> Tensor:
        """Exchange messages and multiply.

        Args:
            x: shape (atoms, 9, channels).
            charges: of the atoms, shape (atoms, charges).
            edge: basis (edges, radial) and envelope (edges,) at the length of each edge.
            own: the same at distance zero, (1, radial) and (1,): the message of an atom to itself.
            plan: the edges, every one its own pair.
        """
        weight = self._weight(*edge, charges[plan.target], charges[plan.source])
        return self.exchange(x, weight, self._weight(*own, charges, charges), plan=plan)

    def _weight(self, basis: Tensor, envelope: Tensor, receiver: Tensor, sender: Tensor) -> Tensor:
        """Shape (edges, 3, channels)."""
        basis = basis.expand(receiver.shape[0], -1)
        weight = envelope[:, None] * self.network(torch.cat([basis, receiver, sender], dim=-1))
        return weight.unflatten(-1, (3, self.channels))
