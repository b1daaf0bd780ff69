"""TensorNet: Cartesian tensors of rank two, as ordinary features 0e + 1o + 2e."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch  # noqa: F401 (for the example)
from torch import Tensor, nn

from equitorch.layers.cutoff import CosineCutoff, PolynomialCutoff
from equitorch.layers.mlp import MLP
from equitorch.layers.radial import RadialFunction
from equitorch.layers.radial_basis import ExpNormBasis, GaussianBasis
from equitorch.layers.readout import TensorReadout, pool
from equitorch.layers.tensornet import ROWS, TensorEmbedding, TensorInteraction, TensorNorms
from equitorch.models.elements import expect_elements
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics
from equitorch.reps import Irreps

BASES: dict[str, type[ExpNormBasis | GaussianBasis]] = {"expnorm": ExpNormBasis, "gauss": GaussianBasis}
_OPTIONS = {
    "basis": tuple(BASES),
    "cutoff_function": ("cosine", "polynomial"),
    "group": ("O(3)", "SO(3)"),
}
_LEAST = {"channels": 2, "layers": 0, "radial": 1, "charges": 1, "max_z": 2}
_PER_GRAPH = {"dipole": "i", "polarizability": "ij=ji"}
_PER_ATOM = {"shielding": "ij"}


class TensorNet(nn.Module):
    r"""Potential energy of molecules and crystals from one 3x3 matrix per atom and channel.

    Matrices are built from the neighbours of each atom, then exchanged and multiplied; their norms give
    the energy of each atom. Exactly invariant under O(3), or under SO(3) where it tells mirror images apart.

    Args:
        channels: matrices per atom.
        layers: rounds of messages; each carries information one cutoff further.
        radial: functions of the distance.
        cutoff: Å.
        lower: where the radial functions start (Å); with a cosine cutoff, closer atoms do not interact.
        basis: "expnorm" or "gauss".
        trainable_basis: learn the radial functions' centres and widths.
        cutoff_function: "cosine" (forces continuous) or "polynomial" (second derivatives too).
        activation: "silu", "tanh", "ssp", ...
        group: "O(3)" or "SO(3)".
        max_z: number of rows of the table of elements.
        outputs: what to predict: "energy"; "dipole", a vector, and "polarizability", a symmetric matrix, of
            each graph; "shielding", a general matrix of each atom (SO(3) only).

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of node_features (atoms, 9, channels) and, as asked for, energy (graphs,) and node_energy
        (atoms,) in eV, dipole (graphs, 3), polarizability (graphs, 3, 3), shielding (atoms, 3, 3).

    Raises:
        ValueError: if an option is not one of those named above, or a number makes no sense.

    Source:
        Simeon, de Fabritiis 2023, arXiv:2306.06482; every detail as in torchmd-net 3.1's PyTorch path.

    >>> model = TensorNet(channels=8, layers=1, outputs=["energy", "dipole"])
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> out = model(torch.tensor([1, 1]), edges, vectors, batch, 1)
    >>> out["energy"].shape, out["dipole"].shape
    (torch.Size([1]), torch.Size([1, 3]))
    """

    def __init__(
        self,
        *,
        channels: int = 128,
        layers: int = 2,
        radial: int = 32,
        cutoff: float = 4.5,
        lower: float = 0.0,
        basis: str = "expnorm",
        trainable_basis: bool = False,
        cutoff_function: str = "cosine",
        activation: str = "silu",
        group: str = "O(3)",
        max_z: int = 128,
        outputs: Sequence[str] = ("energy",),
    ) -> None:
        super().__init__()
        outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_options("TensorNet", basis=basis, cutoff_function=cutoff_function, group=group)
        check_numbers("TensorNet", self.options)
        _check_outputs(outputs, group)
        self.cutoff = float(cutoff)

        def function(network: nn.Module) -> RadialFunction:
            return RadialFunction(self.basis, network, self.envelope, cutoff=cutoff)

        self.basis = BASES[basis](radial, cutoff, lower=lower, trainable=trainable_basis)
        self.envelope = envelope(cutoff_function, cutoff, lower=lower)
        self.embedding = TensorEmbedding(
            channels, function(MLP([radial, 3 * channels])), activation=activation, max_z=max_z
        )
        sizes = [radial, channels, 2 * channels, 3 * channels]
        self.interactions = nn.ModuleList(
            TensorInteraction(channels, function(MLP(sizes, activation, activate_last=True)), group=group)
            for _ in range(layers)
        )
        self.norms = TensorNorms(channels, activation=activation) if "energy" in outputs else None
        self.energy = energy_head(channels, activation) if "energy" in outputs else None
        rows = ROWS if group == "O(3)" else Irreps("0+1+2")
        formulas = {**_PER_GRAPH, **_PER_ATOM}
        self.properties = nn.ModuleDict(
            {name: TensorReadout(rows, channels, formulas[name]) for name in outputs if name != "energy"}
        )

    def forward(
        self,
        atomic_numbers: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        batch: Tensor,
        num_graphs: int,
        *,
        charge: Tensor | None = None,
        edge_reverse: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Energies and other properties of a batch of graphs.

        Args:
            atomic_numbers: shape (atoms,), int64.
            edge_index: neighbour j and centre i of each edge, sorted by centre. Shape (2, edges), int64.
            edge_vectors: from centre to neighbour, shape (edges, 3), Å.
            batch: graph of each atom, shape (atoms,), int64.
            num_graphs: number of graphs.
            charge: of each graph, shape (graphs,), e; None means neutral.
            edge_reverse: index of the edge that leads back, shape (edges,): halves the radial work.
        """
        expect_elements("TensorNet", atomic_numbers, int(self.options["max_z"]))
        plan = EdgePlan.build(edge_index, atomic_numbers.shape[0], edge_reverse=edge_reverse)
        distance = edge_vectors[plan.pair_edge[:, 0]].norm(dim=-1)
        harmonics = spherical_harmonics(2, -edge_vectors, normalization="norm")
        kappa = None if charge is None else (1 + 0.1 * charge.to(edge_vectors.dtype))[batch][:, None, None]
        x = self.embedding(atomic_numbers, distance, harmonics, plan)
        for interaction in self.interactions:
            x = interaction(x, distance, plan, kappa)
        out = {"node_features": x}
        if self.norms is not None and self.energy is not None:
            out["node_invariants"] = self.norms(x)
            out["node_energy"] = self.energy(out["node_invariants"]).squeeze(-1)
            out["energy"] = pool(out["node_energy"], batch, num_graphs)
        for name, readout in self.properties.items():
            out[name] = readout(x) if name in _PER_ATOM else readout(x, batch, num_graphs)
        return out


def check_options(model: str, **chosen: str) -> None:
    """Refuse words that are no option of TensorNet and its successors.

    Raises:
        ValueError: naming the model, the option and what it may be.

    >>> check_options("TensorNet", basis="expnorm", group="SO(3)")
    """
    for name, value in chosen.items():
        if value not in _OPTIONS[name]:
            known = ", ".join(_OPTIONS[name])
            raise ValueError(f"{model} expects {name} to be one of {known}, got {value!r}")


def check_numbers(model: str, options: Mapping[str, Any]) -> None:
    """Refuse sizes and distances with which TensorNet and its successors cannot be built.

    Raises:
        ValueError: naming the model, the option, what it may be and what it is.

    >>> check_numbers("TensorNet", {"channels": 8, "cutoff": 5.0, "lower": 0.0})
    """
    for name, least in _LEAST.items():
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{model} expects {name} to be a whole number >= {least}, got {value!r}")
    cutoff, lower = options["cutoff"], options["lower"]
    if not 0 < cutoff < math.inf:
        raise ValueError(f"{model} expects cutoff to be a distance > 0 in Å, got {cutoff!r}")
    if not 0 <= lower < cutoff:
        raise ValueError(
            f"{model} expects lower to be a distance from 0 to the cutoff {cutoff:g} Å, got {lower!r}"
        )


def envelope(name: str, cutoff: float, *, lower: float) -> CosineCutoff | PolynomialCutoff:
    """The factor of the distance (Å) that a word stands for; a polynomial has no inner end.

    Shape:
        (...) -> (...)
    """
    return CosineCutoff(cutoff, lower) if name == "cosine" else PolynomialCutoff(cutoff)


def energy_head(channels: int, activation: str) -> MLP:
    """From the invariants of an atom to its energy.

    Shape:
        (..., channels) -> (..., 1)
    """
    head = MLP([channels, channels // 2, 1], activation)
    for name, weight in head.named_parameters():
        nn.init.zeros_(weight) if name.endswith("bias") else nn.init.xavier_uniform_(weight)
    return head


def _check_outputs(outputs: Sequence[str], group: str) -> None:
    known = ("energy", *_PER_GRAPH, *_PER_ATOM)
    if not outputs or any(name not in known for name in outputs):
        raise ValueError(
            f"TensorNet expects outputs from {', '.join(known)}, got {', '.join(outputs) or 'none'}"
        )
    general = [name for name in outputs if name in _PER_ATOM]
    if general and group == "O(3)":
        raise ValueError(
            f"TensorNet in O(3) has no {general[0]}: the antisymmetric part of a matrix is an axial vector "
            "(1e), but its features hold polar ones (1o); write group='SO(3)', or ask for a symmetric matrix"
        )
