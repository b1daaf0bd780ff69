"""What turns a model into a potential: units, reference energies, forces, stress, Hessians; once for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from equitorch.graph import AtomGraph
from equitorch.models.derivatives import (
    atomic_virials,
    edge_forces,
    edge_virials,
    frozen,
    gradient_of,
    stress_of,
    sum_by,
)
from equitorch.models.elements import PerElement, element_names, known_species, table_by_number

Prediction: TypeAlias = dict[str, float | NDArray[np.float64]]

_REDUCE = ("sum", "mean", "torchmdnet_mean")
_BY_ATOM = ("node_energy", "forces", "direct_forces", "atomic_virial")


class Potential(nn.Module):
    r"""A model with all that makes its number an energy in eV: elements, references, scale, shift, cutoff.

    .. math::
        E = \text{offset} + w \sum_i \big( \text{scale}_{z_i} e_i + \text{shift}_{z_i} + E^0_{z_i} \big),
        \qquad F_i = -\frac{\partial E}{\partial r_i}, \qquad
        \sigma = \frac1V \frac{\partial E}{\partial \varepsilon}

    with w = 1 for ``reduce="sum"``. The sums run in float64 whatever the dtype of the model. Forces and
    stress come from one backward pass to the edge vectors r: with g = dE/dr, forces gather g and the stress
    is the symmetric part of sum r (x) g over the volume (eV/Å^3, tension positive). They are exact
    derivatives, and differentiable in turn when ``create_graph`` is on.

    Args:
        model: called as ``model(atomic_numbers, edge_index, edge_vectors, batch, num_graphs, charge=...,
            edge_reverse=...)``; returns a dict with ``"energy"`` and, where that is a sum over atoms,
            ``"node_energy"``. It states its ``cutoff`` (Å) and, to be saved, its ``options``. Where it also
            returns ``"forces"`` from a head of their own, these come out as ``"direct_forces"``: they are no
            gradient of the energy and conserve nothing.
        species: the atomic numbers, or chemical symbols, that the potential knows; by default the keys of
            the mappings below, or else all that the model's ``max_z`` allows.
        reference_energies: energy of each isolated atom (eV) by atomic number; others are ignored.
        scale: factor of the model's energies (eV), one for all or by atomic number.
        shift: constant per atom (eV), one for all or by atomic number.
        offset: constant per graph (eV).
        reduce: ``"sum"``; ``"mean"`` over atoms; ``"torchmdnet_mean"``, which divides by atoms + 1 as that
            package's checkpoints need.

    Raises:
        ValueError: if ``reduce`` or a species is unknown, or a mapping lacks one of the species.
    """

    scale: Tensor
    shift: Tensor
    reference_energies: Tensor
    offset: Tensor
    known: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        species: Sequence[int | str] | None = None,
        reference_energies: Mapping[int, float] | None = None,
        scale: PerElement = 1.0,
        shift: PerElement = 0.0,
        offset: float = 0.0,
        reduce: str = "sum",
    ) -> None:
        super().__init__()
        if reduce not in _REDUCE:
            raise ValueError(f"Potential expects reduce to be one of {', '.join(_REDUCE)}, got {reduce!r}")
        self.model, self.reduce = model, reduce
        references: PerElement = 0.0 if reference_energies is None else reference_energies
        self.species = known_species(species, (references, scale, shift), model)
        self.scales_by_element = isinstance(scale, Mapping)
        for name, value in (("scale", scale), ("shift", shift), ("reference_energies", references)):
            self.register_buffer(name, table_by_number(name, value, self.species))
        self.register_buffer("offset", torch.tensor(float(offset), dtype=torch.float64))
        self.register_buffer("known", torch.tensor(self.species), persistent=False)
        self._checked: tuple[Tensor, int] | None = None
        self._weights: tuple[nn.Parameter, ...] | None = None

    @property
    def cutoff(self) -> float:
        """How far an atom sees in one step (Å)."""
        return float(cast(float, self.model.cutoff))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights, in which everything but the energy sums is computed."""
        return next((p.dtype for p in self.model.parameters()), torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """Where the potential lives, and where graphs are taken."""
        return self.scale.device

    def forward(
        self,
        graph: AtomGraph | Any,
        *,
        forces: bool = True,
        stress: bool = False,
        atomic_virial: bool = False,
        create_graph: bool | None = None,
    ) -> dict[str, Tensor]:
        """Energies and their derivatives, for every graph of a batch.

        Args:
            graph: an :class:`AtomGraph`, or a PyG ``Data`` or ``Batch``, whose edges are built anew.
            forces: add ``"forces"`` (eV/Å).
            stress: add ``"stress"`` (eV/Å^3, tension positive); NaN for a graph that is not periodic in 3-D.
            atomic_virial: add ``"atomic_virial"`` (eV), each edge's virial shared by its two atoms; their sum
                over a graph is volume times stress.
            create_graph: leave the results differentiable; by default in training mode, or when positions or
                cell require a gradient. Otherwise they are detached and no gradient of a weight is computed.

        Shape:
            energy (graphs,) float64; node_energy (atoms,) float64; forces (atoms, 3); stress (graphs, 3, 3);
            atomic_virial (atoms, 3, 3); and what else the model returns.

        Raises:
            ValueError: if an element is unknown or the graph's cutoff is too short.
        """
        graph = self._prepare(graph)
        if create_graph is None:
            wanted = self.training or graph.pos.requires_grad or graph.cell.requires_grad
            create_graph = wanted and torch.is_grad_enabled()
        if create_graph:
            return self._evaluate(graph, forces, stress, atomic_virial, create_graph=True)
        with frozen(self._parameters_of_model()):
            out = self._evaluate(graph, forces, stress, atomic_virial, create_graph=False)
        return {key: value.detach() for key, value in out.items()}

    def _evaluate(
        self, graph: AtomGraph, forces: bool, stress: bool, atomic_virial: bool, *, create_graph: bool
    ) -> dict[str, Tensor]:
        derive, atoms = forces or stress or atomic_virial, graph.num_atoms
        with torch.inference_mode(False), torch.set_grad_enabled(derive or create_graph):
            vectors = graph.edge_vectors()
            if not vectors.requires_grad:
                vectors = vectors.detach().requires_grad_(derive)
            out = self._energies(graph, vectors)
            if not derive:
                return out
            gradient = gradient_of(out["energy"].sum(), vectors, create_graph=create_graph)
            if forces:
                out["forces"] = edge_forces(gradient, graph.edge_index, atoms)
            if stress or atomic_virial:
                virials = edge_virials(vectors, gradient)
            if stress:
                virial = sum_by(virials, graph.batch[graph.edge_index[1]], graph.num_graphs)
                out["stress"] = stress_of(virial, graph.cell, graph.pbc)
            if atomic_virial:
                out["atomic_virial"] = atomic_virials(virials, graph.edge_index, atoms)
        return out

    def _energies(self, graph: AtomGraph, vectors: Tensor) -> dict[str, Tensor]:
        z, batch = graph.atomic_numbers, graph.batch
        out: dict[str, Tensor] = self.model(
            z,
            graph.edge_index,
            vectors,
            batch,
            graph.num_graphs,
            charge=graph.charge,
            edge_reverse=graph.edge_reverse,
        )
        if "energy" not in out:
            raise ValueError(f"Potential needs a model that returns 'energy', got {', '.join(sorted(out))}")
        out = {key: value for key, value in out.items() if isinstance(value, Tensor)}
        if "forces" in out:  # of a head of their own: no gradient of the energy
            out["direct_forces"] = self.scale[z].unsqueeze(-1) * out.pop("forces")
        node = (self.shift + self.reference_energies)[z]
        if "node_energy" in out:
            node = self.scale[z] * out["node_energy"].double() + node
            total = sum_by(node, batch, graph.num_graphs)
        elif self.scales_by_element:
            raise ValueError("Potential with a scale by element needs a model that returns 'node_energy'")
        else:
            scaled = self.scale[self.species[0]] * out["energy"].double()
            total = scaled + sum_by(node, batch, graph.num_graphs)
        if self.reduce != "sum":
            atoms = sum_by(torch.ones_like(batch), batch, graph.num_graphs)
            divisor = atoms + (self.reduce == "torchmdnet_mean")
            total, node = total / divisor, node / divisor[batch]
        if "node_energy" in out:
            out["node_energy"] = node
        return out | {"energy": total + self.offset}

    def _prepare(self, graph: Any) -> AtomGraph:
        if not isinstance(graph, AtomGraph):
            graph = AtomGraph.from_pyg(graph, self.cutoff, dtype=self.dtype)
        if graph.cutoff is None or graph.cutoff < self.cutoff - 1e-9:
            got = "without edges" if graph.cutoff is None else f"with cutoff {graph.cutoff:g} Å"
            raise ValueError(
                f"Potential expects a graph with edges up to {self.cutoff:g} Å, got one {got}; "
                f"use graph.with_edges({self.cutoff:g})"
            )
        self._check_species(graph.atomic_numbers)
        if (graph.pos.device, graph.pos.dtype) != (self.device, self.dtype):
            graph = graph.to(self.device, self.dtype)
        return _normal(graph) if graph.pos.is_inference() else graph

    def _check_species(self, z: Tensor) -> None:
        """Look at the values of ``z`` once per tensor: on a GPU the look waits for the device."""
        version = -1 if z.is_inference() else z._version
        if self._checked is not None and self._checked[0] is z and self._checked[1] == version:
            return
        if not bool(torch.isin(z, self.known.to(z.device)).all()):
            unknown = sorted(set(z.tolist()) - set(self.species))
            raise ValueError(
                f"Potential knows {element_names(self.species)}, got {element_names(unknown)}; "
                "train it on these elements"
            )
        self._checked = (z, version)

    def _parameters_of_model(self) -> tuple[nn.Parameter, ...]:
        """Found once: to walk through all modules at every step takes 0.1 ms."""
        if self._weights is None:
            self._weights = tuple(self.model.parameters())
        return self._weights

    def hessian_vector_product(self, graph: AtomGraph, v: Tensor) -> Tensor:
        r"""The second derivative of the energy along ``v``.

        .. math:: \sum_j \frac{\partial^2 E}{\partial r_i \partial r_j} v_j

        Costs about two evaluations of the forces. Exact where the model is twice differentiable: a cosine
        cutoff is not, for pairs at the cutoff.

        Shape:
            v: (atoms, 3) -> (atoms, 3), eV/Å^2 times the unit of v

        Raises:
            ValueError: if ``v`` has another shape.
        """
        forces, pos = self._forces_of_positions(graph)
        if v.shape != forces.shape:
            raise ValueError(
                f"hessian_vector_product expects v of shape {tuple(forces.shape)}, got {tuple(v.shape)}"
            )
        return -gradient_of((forces * v.to(forces)).sum(), pos).detach()

    def hessian(self, graph: AtomGraph) -> Tensor:
        """All second derivatives of the energy (eV/Å^2), one row after the other.

        Shape:
            (atoms, 3, atoms, 3), symmetric; the rows of one atom sum to zero over the others
        """
        forces, pos = self._forces_of_positions(graph)
        rows = [gradient_of(f, pos, retain_graph=True).detach() for f in forces.reshape(-1)]
        return -torch.stack(rows).reshape(*pos.shape, *pos.shape)

    def _forces_of_positions(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        graph = self._prepare(graph)
        with frozen(self._parameters_of_model()), torch.inference_mode(False):
            pos = graph.pos.detach().clone().requires_grad_()
            out = self._evaluate(graph.replace(pos=pos), True, False, False, create_graph=True)
        return out["forces"], pos

    def predict(
        self, structures: Sequence[Any], *, batch_size: int = 32, forces: bool = True, stress: bool = False
    ) -> list[Prediction]:
        """Energies (eV), forces and stress of many structures, ``batch_size`` at a time.

        Args:
            structures: ``ase.Atoms`` or one-frame :class:`AtomGraph` objects.
            batch_size: how many structures share one call of the model.
            forces: add ``"forces"`` (atoms, 3).
            stress: add ``"stress"`` (3, 3); NaN where a structure is not periodic in 3-D.

        Returns:
            one dict of a float and NumPy arrays per structure, in order.
        """
        if batch_size < 1:
            raise ValueError(f"predict expects batch_size >= 1, got {batch_size}")
        results: list[Prediction] = []
        for start in range(0, len(structures), batch_size):
            chunk = [self._graph(structure) for structure in structures[start : start + batch_size]]
            out = self(AtomGraph.batch(chunk), forces=forces, stress=stress, create_graph=False)
            results.extend(_split(out, [graph.num_atoms for graph in chunk]))
        return results

    def _graph(self, structure: Any) -> AtomGraph:
        if isinstance(structure, AtomGraph):
            return structure
        return AtomGraph.from_ase(structure, self.cutoff, dtype=self.dtype, labels=False)

    def save(
        self,
        path: str | PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        data_hash: str | None = None,
    ) -> None:
        """Write everything into one file, atomically. See :mod:`equitorch.models.checkpoint`."""
        from equitorch.models.checkpoint import save_potential

        save_potential(self, path, metadata=metadata, data_hash=data_hash)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Read a file written by :meth:`save`, or a run's folder; ready for evaluation. It runs no code."""
        from equitorch.models.checkpoint import load_potential

        return cast(Self, load_potential(path, device=device, dtype=dtype))

    def extra_repr(self) -> str:
        return f"species={element_names(self.species)}, cutoff={self.cutoff:g} Å, reduce={self.reduce}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_checked": None, "_weights": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the module, but stay float64: E0s of -1e4 eV leave no digits in float32."""
        tables = {k: v for k, v in self._buffers.items() if v is not None and v.is_floating_point()}
        super()._apply(fn, recurse)
        self._weights = None
        for name, before in tables.items():
            after = cast(Tensor, self._buffers[name])
            self._buffers[name] = before.to(after.device) if after.dtype != before.dtype else after
        return self


def _split(out: dict[str, Tensor], atoms: list[int]) -> list[Prediction]:
    frames: list[Prediction] = [{} for _ in atoms]
    for key, value in out.items():
        rows = value.cpu().double()
        if key in _BY_ATOM:
            parts: Sequence[Tensor] = rows.split(atoms)
        elif not key.startswith("node_") and rows.shape[:1] == (len(atoms),):
            parts = rows.unbind()
        else:
            continue  # the model's features, for those who call it themselves
        for frame, part in zip(frames, parts, strict=True):
            frame[key] = float(part) if part.ndim == 0 else part.numpy().copy()
    return frames


def _normal(graph: AtomGraph) -> AtomGraph:
    """A copy without inference tensors, which autograd refuses to save."""
    with torch.inference_mode(False):
        copies: dict[str, Any] = {k: v.clone() for k, v in graph.fields().items() if isinstance(v, Tensor)}
        return graph.replace(**copies)
