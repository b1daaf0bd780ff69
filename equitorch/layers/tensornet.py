"""TensorNet's layers: 3x3 matrices per atom and channel, held as rows 0e + 1o + 2e."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.mlp import MLP
from equitorch.layers.radial import RadialFunction
from equitorch.ops.bilinear import Bilinear
from equitorch.ops.density import density
from equitorch.ops.edges import EdgePlan
from equitorch.ops.message import message
from equitorch.ops.squash import squash
from equitorch.reps import Coupling, Irreps

ROWS = Irreps("0e+1o+2e")
_DEGREES = [ir.l for _, ir in ROWS for _ in range(ir.dim)]
# The identity, an antisymmetric matrix [v]x and a symmetric traceless one are orthogonal, not of norm one.
_NORMS = (math.sqrt(3), math.sqrt(2), math.sqrt(2 / 3))

# Coefficients of unit-norm couplings (l1, l2, l3) in the anticommutator and the commutator of two matrices.
_ANTICOMMUTATOR = {
    (0, 0, 0): 2 / math.sqrt(3),
    (0, 1, 1): 2.0,
    (1, 0, 1): 2.0,
    (0, 2, 2): math.sqrt(20 / 3),
    (2, 0, 2): math.sqrt(20 / 3),
    (2, 2, 0): math.sqrt(20 / 3),
    (1, 1, 0): -2.0,
    (1, 1, 2): math.sqrt(5),
    (1, 2, 1): -math.sqrt(5),
    (2, 1, 1): -math.sqrt(5),
    (2, 2, 2): math.sqrt(35 / 3),
}
_COMMUTATOR = {
    (1, 1, 1): math.sqrt(3),
    (1, 2, 2): math.sqrt(15),
    (2, 1, 2): math.sqrt(15),
    (2, 2, 1): -math.sqrt(15),
}


def matrix_product(group: str = "O(3)") -> Coupling:
    """The product of two matrices on rows: YM + MY for O(3), 2 YM for SO(3).

    Inversion transposes TensorNet's matrices, because their antisymmetric part is a polar vector; it
    commutes with the anticommutator but not with the product, which is why only rotations remain there.

    >>> matrix_product("O(3)").dims
    (9, 9, 9)
    """
    table = _ANTICOMMUTATOR if group == "O(3)" else {**_ANTICOMMUTATOR, **_COMMUTATOR}
    rows = Irreps("0+1+2")
    return Coupling.sum(
        [Coupling.from_paths(rows, rows, rows, [(*path, value)]) for path, value in table.items()]
    )


class TensorLinear(nn.Module):
    r"""Mix the channels of each degree: three matrices, no bias.

    .. math:: y_{m o} = \sum_i W^{(l(m))}_{o i} \, x_{m i}

    Shape:
        x: (nodes, 9, channels) -> (nodes, 9, channels)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As ``nn.Linear``."""
        bound = self.weight.shape[-1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        blocks = zip(x.split((1, 3, 5), dim=-2), self.weight.mT, strict=True)
        return torch.cat([block @ weight for block, weight in blocks], dim=-2)


class TensorEmbedding(nn.Module):
    r"""Matrices from the neighbourhood of each atom.

    .. math::
        c_{i m} = \sum_{j} f^{(l(m))}(d_{ij}) \, Z_{ij} \, y_m(u_{ij}), \qquad
        X_i = g_i^{(l)}\big(|c_i|^2\big) \, W^{(l)} c_i

    where the sum includes the atom itself (d = 0, of which only the scalar row sees anything),
    :math:`Z_{ij}` is linear in the embeddings of the two elements, and :math:`u_{ij}` points from the
    neighbour to the atom.

    Args:
        channels: channels per row.
        radial: the distance to 3 x channels weights, cutoff included.
        activation: name of the activation of the gates.
        max_z: number of rows of the table of elements.

    Shape:
        (atoms, 9, channels)

    Source:
        Simeon, de Fabritiis 2023, arXiv:2306.06482.
    """

    degree: Tensor

    def __init__(self, channels: int, radial: RadialFunction, *, activation: str, max_z: int) -> None:
        super().__init__()
        self.channels, self.radial = channels, radial
        self.element = nn.Embedding(max_z, channels)
        self.pair = nn.Linear(2 * channels, channels)
        self.mix = TensorLinear(channels)
        self.norm = nn.LayerNorm(channels)
        self.gate = MLP([channels, 2 * channels, 3 * channels], activation, activate_last=True)
        self.norms = Constant(torch.tensor(_NORMS, dtype=torch.float64, device="cpu"))
        self.register_buffer("degree", torch.tensor(_DEGREES), persistent=False)

    def forward(self, atomic_numbers: Tensor, distance: Tensor, harmonics: Tensor, plan: EdgePlan) -> Tensor:
        """Embed the atoms.

        Args:
            atomic_numbers: shape (atoms,).
            distance: of each undirected pair, shape (pairs,), Å.
            harmonics: degrees 0, 1, 2 of the direction from neighbour to atom, normalised to one. (edges, 9).
            plan: the edges.
        """
        receiver, sender = self.pair.weight.split(self.channels, dim=1)
        by_element = [self.element.weight @ receiver.mT + self.pair.bias, self.element.weight @ sender.mT]
        species = torch.stack([table[atomic_numbers] for table in by_element])
        weight, own = self.radial.with_own(distance)
        weight = weight.unflatten(-1, (3, self.channels))
        norms = self.norms.value
        c = density(weight, species, harmonics * norms[self.degree], self.degree, plan)
        alone = own[: self.channels] * norms[0] * species.sum(0)
        c = c + nn.functional.pad(alone[:, None], (0, 0, 0, 8))
        gates = self.gate(self.norm(c.square().sum(-2))).unflatten(-1, (3, self.channels))
        return self.mix(c) * gates[:, self.degree]


class TensorExchange(nn.Module):
    r"""One round of messages and a product of matrices, for given weights of the edges; abstract.

    .. math::
        X &\leftarrow \frac{X}{|X|^2 + 1}, \quad Y = W_a X, \quad M_i = \sum_{j} f_{ij} \, Y_j, \\
        D &= W_b \, \frac{\kappa J(Y, M)}{|\kappa J(Y, M)|^2 + 1}, \qquad
        X \leftarrow X + D + \tfrac{\kappa}{2} J(D, D)

    with :math:`J(Y, M) = YM + MY` in O(3) and 2 YM (without :math:`\kappa`) in SO(3). The sum includes the
    atom itself. A subclass knows where the weights f come from.

    Args:
        channels: channels per row.
        group: "O(3)" or "SO(3)".

    Source:
        Simeon, de Fabritiis 2023, arXiv:2306.06482; :math:`\kappa` as in torchmd-net 3.1.
    """

    degree: Tensor

    def __init__(self, channels: int, *, group: str) -> None:
        super().__init__()
        self.channels, self.group = channels, group
        self.before, self.after = TensorLinear(channels), TensorLinear(channels)
        self.product = Bilinear(matrix_product(group))
        self.square = Bilinear(matrix_product("O(3)").scaled(0.5))
        self.register_buffer("degree", torch.tensor(_DEGREES), persistent=False)

    def exchange(
        self, x: Tensor, weight: Tensor, own: Tensor, *, plan: EdgePlan, kappa: Tensor | None = None
    ) -> Tensor:
        """Exchange messages and multiply.

        Args:
            x: shape (atoms, 9, channels).
            weight: f of each pair and degree, shape (pairs, 3, channels).
            own: the weight of an atom's message to itself, shape (3, channels) or (atoms, 3, channels).
            plan: the edges.
            kappa: factor of the products of each atom, shape (atoms, 1, 1); None means one.
        """
        x = squash(x)
        y = self.before(x)
        m = message(weight, y, self.degree, plan) + own[..., self.degree, :] * y
        g = self.product(y, m)
        d = self.after(squash(g if kappa is None or self.group != "O(3)" else kappa * g))
        dd = self.square(d, d)
        return x + d + (dd if kappa is None else kappa * dd)


class TensorInteraction(TensorExchange):
    r"""TensorNet's round of messages: :class:`TensorExchange` with weights that depend on the distance.

    Both atoms of a pair use the same weights, and :math:`\kappa = 1 + 0.1 q` for a molecule of charge q.

    Args:
        channels: channels per row.
        radial: the distance to 3 x channels weights, cutoff included.
        group: "O(3)" or "SO(3)".

    Shape:
        x: (atoms, 9, channels) -> (atoms, 9, channels)

    Source:
        Simeon, de Fabritiis 2023, arXiv:2306.06482; charges as in torchmd-net 3.1.
    """

    def __init__(self, channels: int, radial: RadialFunction, *, group: str) -> None:
        super().__init__(channels, group=group)
        self.radial = radial

    def forward(self, x: Tensor, distance: Tensor, plan: EdgePlan, kappa: Tensor | None) -> Tensor:
        weight, own = (w.unflatten(-1, (3, self.channels)) for w in self.radial.with_own(distance))
        return self.exchange(x, weight, own, plan=plan, kappa=kappa)


class TensorNorms(nn.Module):
    r"""The squared norms of the three parts of each matrix, normalised and mixed: invariants of an atom.

    Args:
        channels: channels per row.
        activation: name of the activation.

    Shape:
        x: (atoms, 9, channels) -> (atoms, channels)
    """

    def __init__(self, channels: int, *, activation: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3 * channels)
        self.mix = MLP([3 * channels, channels], activation, activate_last=True)

    def forward(self, x: Tensor) -> Tensor:
        square = x.square()
        parts = [square[..., 0, :], square[..., 1:4, :].sum(-2), square[..., 4:, :].sum(-2)]
        return self.mix(self.norm(torch.cat(parts, dim=-1)))
