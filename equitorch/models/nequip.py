"""NequIP: features of every degree and parity, exchanged by equivariant convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.embedding import ElementEmbedding
from equitorch.layers.nequip import GatedConvolution, SmoothBessel, scalar_network
from equitorch.layers.readout import TensorReadout, pool
from equitorch.models.elements import expect_elements
from equitorch.ops.backend import fused, traced
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics
from equitorch.reps import Irrep, Irreps

_LEAST = {"channels": 1, "layers": 1, "lmax": 0, "radial": 1, "power": 1, "max_z": 2}
_FORMULAS = {"dipole": "i", "polarizability": "ij=ji", "shielding": "ij"}
_IRREPS = {"energy": "0e", "dipole": "1o", "polarizability": "0e + 2e", "shielding": "0e + 1e + 2e"}
_PER_ATOM = ("shielding",)


class NequIP(nn.Module):
    r"""Potential energy of molecules and crystals from equivariant messages between neighbours.

    Each atom starts as a vector of its element. In every layer it receives the features of its neighbours,
    coupled with the spherical harmonics of their directions; the even scalars of the last layer give its
    energy. Exactly invariant under rotations and reflections, and zero for an atom alone. Irreps that no
    path reaches, or from which none leads to the result, are left out; that changes no result.

    Args:
        channels: copies of every irrep.
        layers: rounds of messages; each carries information one cutoff further.
        lmax: highest degree of features and harmonics.
        parity: have features of both parities; otherwise those of the harmonics only (0e, 1o, 2e, ...).
        radial: Bessel functions of the distance.
        hidden: channels of the radial networks' hidden layers.
        cutoff: Å.
        power: of the polynomial envelope.
        trainable_basis: learn the frequencies of the Bessel functions.
        average_neighbors: by whose root sums over neighbours are divided; None for no division, for which
            training takes the mean of its frames.
        activation: "silu", "tanh", "ssp", ...; odd scalars go through tanh.
        max_z: number of rows of the table of elements.
        outputs: what to predict: "energy"; "dipole", a vector, and "polarizability", a symmetric matrix, of
            each graph; "shielding", a general matrix of each atom.

    Shape:
        atomic_numbers (atoms,), edge_index (2, edges), edge_vectors (edges, 3), batch (atoms,) ->
        dict of node_features (atoms, irreps_out.dim, channels) and, as asked for, energy (graphs,) and
        node_energy (atoms,) in eV, dipole (graphs, 3), polarizability (graphs, 3, 3), shielding
        (atoms, 3, 3).

    Attributes:
        irreps_out: how the rows of ``node_features`` transform.
        sees_charge: False: graphs that differ in their charge only have equal energies.

    Raises:
        ValueError: if an option is not one of those named above, a number makes no sense, or the layers
            cannot make the irreps of an output.

    Source:
        Batzner et al. 2022, arXiv:2101.03164; every detail as in nequip 0.19, whose edges point the same way.

    >>> model = NequIP(channels=8, layers=2, outputs=["energy", "dipole"])
    >>> edges, batch = torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 0])
    >>> vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> out = model(torch.tensor([1, 1]), edges, vectors, batch, 1)
    >>> out["energy"].shape, out["dipole"].shape
    (torch.Size([1]), torch.Size([1, 3]))
    """

    sees_charge = False

    def __init__(
        self,
        *,
        channels: int = 32,
        layers: int = 4,
        lmax: int = 1,
        parity: bool = True,
        radial: int = 8,
        hidden: Sequence[int] = (64, 64),
        cutoff: float = 5.0,
        power: int = 6,
        trainable_basis: bool = False,
        average_neighbors: float | None = None,
        activation: str = "silu",
        max_z: int = 128,
        outputs: Sequence[str] = ("energy",),
    ) -> None:
        super().__init__()
        outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        hidden = list(hidden)
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_numbers("NequIP", self.options, _LEAST)
        _check_outputs(outputs)
        features = reachable_irreps(layers, lmax, parity=parity, outputs=outputs)
        self.cutoff, self.lmax, self.irreps_out = float(cutoff), lmax, features[-1]
        self.embedding = ElementEmbedding(channels, max_atomic_number=max_z - 1)
        basis = SmoothBessel(radial, cutoff, p=power, trainable=trainable_basis)
        self.layers = nn.ModuleList(
            GatedConvolution(
                features[k],
                channels,
                features[k + 1],
                lmax=lmax,
                basis=basis,
                hidden=hidden,
                elements=channels if k else None,  # an atom alone then stays zero
                activation=activation,
                average_neighbors=average_neighbors or 1.0,
            )
            for k in range(layers)
        )
        self.energy = scalar_network([channels, 1]) if "energy" in outputs else None
        self.properties = nn.ModuleDict(
            {
                name: TensorReadout(self.irreps_out, channels, _FORMULAS[name])
                for name in outputs
                if name != "energy"
            }
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
            charge: of each graph, shape (graphs,), e; makes no difference to this model.
            edge_reverse: index of the edge that leads back, shape (edges,): halves the radial work.
        """
        expect_elements("NequIP", atomic_numbers, self.embedding.weight.shape[0])
        plan = EdgePlan.build(edge_index, atomic_numbers.shape[0], edge_reverse=edge_reverse)
        distance = edge_vectors[plan.pair_edge[:, 0]].norm(dim=-1)
        harmonics = spherical_harmonics(self.lmax, edge_vectors)
        vectors, kind = self._elements(atomic_numbers)
        x = vectors[kind].unsqueeze(-2)
        for layer in self.layers:
            x = layer(x, harmonics, distance, plan, vectors, kind)
        out = {"node_features": x}
        if self.energy is not None:
            first = int(self.irreps_out.rows("0e")[0])
            out["node_energy"] = self.energy(x[:, first]).squeeze(-1)
            out["energy"] = pool(out["node_energy"], batch, num_graphs)
        for name, readout in self.properties.items():
            out[name] = readout(x) if name in _PER_ATOM else readout(x, batch, num_graphs)
        return out

    def _elements(self, atomic_numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the elements that occur, where counting them does not wait, and which one is whose."""
        table: Tensor = self.embedding.weight
        counts = table.device.type == "cpu" and fused(table) and not traced(table, atomic_numbers)
        if not counts or atomic_numbers.shape[0] == 0:
            return table, atomic_numbers
        present, kind = torch.unique(atomic_numbers, return_inverse=True)
        return self.embedding(present), kind


def reachable_irreps(layers: int, lmax: int, *, parity: bool, outputs: Sequence[str]) -> list[Irreps]:
    """The irreps of the features before, between and after the layers.

    Only those that some path reaches from scalars, and from which some path leads to an output; each once.

    Raises:
        ValueError: if the layers cannot make the irreps of an output.

    >>> reachable_irreps(4, 1, parity=True, outputs=["energy"])[1:4]
    [1x0e+1x1o, 1x0e+1x1o+1x1e, 1x0e+1x1o]
    """
    harmonics = Irreps.spherical_harmonics(lmax).copies
    hidden = [Irrep(l, p) for l in range(lmax + 1) for p in ((-1, 1) if parity else ((-1) ** l,))]
    reached = [{Irrep(0, 1)}]
    for _ in range(layers):
        reached.append({c for a in reached[-1] for b in harmonics for c in a * b if c in hidden})
    for name in outputs:
        missing = [ir for ir in Irreps(_IRREPS[name]).copies if ir not in reached[-1]]
        if missing:
            raise ValueError(
                f"NequIP with lmax {lmax}, parity {parity} and {layers} layers has no {name}: it is made of "
                f"{', '.join(map(str, missing))}, which its features lack; {_remedy(missing[0], lmax)}"
            )
    live = [{ir for name in outputs for ir in Irreps(_IRREPS[name]).copies}]
    for before in reversed(reached[1:-1]):
        into = live[0] | {Irrep(0, 1)}  # gates are scalars
        live.insert(0, {a for a in before if a in into or any(c in into for b in harmonics for c in a * b)})
    return [Irreps([(1, ir) for ir in sorted(irreps)]) for irreps in [reached[0], *live]]


def _remedy(missing: Irrep, lmax: int) -> str:
    if missing.l > lmax:
        return f"set lmax to {missing.l} or more"
    return "set parity to true, and layers to 2 or more"


def check_numbers(model: str, options: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Refuse sizes and distances with which models of messages along edges cannot be built.

    Args:
        model: its name.
        options: its constructor's keywords.
        least: what each whole number among them must be at least.

    Raises:
        ValueError: naming the model, the option, what it may be and what it is.

    >>> options = {"layers": 2, "hidden": [64], "cutoff": 5.0, "average_neighbors": None}
    >>> check_numbers("NequIP", options, {"layers": 1})
    """
    for name, low in least.items():
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            raise ValueError(f"{model} expects {name} to be a whole number >= {low}, got {value!r}")
    hidden = options["hidden"]
    if any(isinstance(n, bool) or not isinstance(n, Integral) or n < 1 for n in hidden):
        raise ValueError(f"{model} expects hidden to be whole numbers >= 1, got {hidden!r}")
    for name, unit in (("cutoff", "a distance > 0 in Å"), ("average_neighbors", "a number > 0, or None")):
        number = options[name]
        if number is None and name == "average_neighbors":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            raise ValueError(f"{model} expects {name} to be {unit}, got {number!r}")


def _check_outputs(outputs: Sequence[str]) -> None:
    if not outputs or any(name not in _IRREPS for name in outputs):
        raise ValueError(
            f"NequIP expects outputs from {', '.join(_IRREPS)}, got {', '.join(map(str, outputs)) or 'none'}"
        )
