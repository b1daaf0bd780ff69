"""Many graphs side by side, and back: the fields of AtomGraph as plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_CONCATENATED = ("atomic_numbers", "pos", "cell", "pbc", "edge_shift")
_LABELS = ("energy", "forces", "stress")


def collate(graphs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Concatenate the fields of graphs, moving their atom and edge indices along.

    Raises:
        ValueError: if the cutoffs differ, or only some graphs state their charge.
    """
    cutoffs = {graph["cutoff"] for graph in graphs}
    if len(cutoffs) > 1:
        raise ValueError(f"AtomGraph.batch expects graphs of one cutoff, got {sorted(cutoffs, key=str)}")
    merged: dict[str, Any] = {name: torch.cat([graph[name] for graph in graphs]) for name in _CONCATENATED}
    device = merged["pos"].device
    atoms = torch.tensor([graph["atomic_numbers"].shape[0] for graph in graphs])
    members = torch.tensor([graph["cell"].shape[0] for graph in graphs])
    edges = torch.tensor([graph["edge_index"].shape[1] for graph in graphs])
    merged["edge_index"] = torch.cat([g["edge_index"] for g in graphs], 1) + _offsets(atoms, edges, device)
    merged["batch"] = torch.cat([g["batch"] for g in graphs]) + _offsets(members, atoms, device)
    merged["edge_reverse"] = None
    if all(graph["edge_reverse"] is not None for graph in graphs):
        reverse = torch.cat([graph["edge_reverse"] for graph in graphs])
        merged["edge_reverse"] = reverse + _offsets(edges, edges, device)
    merged["cutoff"] = graphs[0]["cutoff"]
    merged["charge"] = _charges([graph["charge"] for graph in graphs])
    for name in _LABELS:
        merged[name] = _labels(name, graphs)
    return merged


def split(fields: dict[str, Any], ptr: Tensor) -> list[dict[str, Any]]:
    """Undo ``collate``: the fields of each graph, labels that are wholly NaN again None."""
    bounds = ptr.tolist()
    edge_bounds = torch.searchsorted(fields["edge_index"][1].contiguous(), ptr).tolist()
    return [
        _one(fields, g, slice(*bounds[g : g + 2]), slice(*edge_bounds[g : g + 2]))
        for g in range(len(bounds) - 1)
    ]


def _one(fields: dict[str, Any], g: int, atoms: slice, edges: slice) -> dict[str, Any]:
    """The fields of graph g, which owns these atoms and edges."""
    one: dict[str, Any] = {"cutoff": fields["cutoff"]}
    for name in ("atomic_numbers", "pos", "forces"):
        one[name] = None if fields[name] is None else fields[name][atoms]
    for name in ("cell", "pbc", "charge", "energy", "stress"):
        one[name] = None if fields[name] is None else fields[name][g : g + 1]
    for name in _LABELS:
        if one[name] is not None and bool(torch.isnan(one[name]).all()):
            one[name] = None
    one["batch"] = torch.zeros_like(one["atomic_numbers"])
    one["edge_index"] = fields["edge_index"][:, edges] - atoms.start
    one["edge_shift"] = fields["edge_shift"][edges]
    reverse = fields["edge_reverse"]
    one["edge_reverse"] = None if reverse is None else reverse[edges] - edges.start
    return one


def _offsets(sizes: Tensor, repeats: Tensor, device: torch.device) -> Tensor:
    """For each item of each graph, how many items (of the kind counted by sizes) came before that graph."""
    return (sizes.cumsum(0) - sizes).repeat_interleave(repeats).to(device, non_blocking=True)


def _charges(charges: list[Tensor | None]) -> Tensor | None:
    """All charges, or None if no graph has one."""
    known = [charge for charge in charges if charge is not None]
    if not known:
        return None
    if len(known) < len(charges):
        missing = charges.index(None)
        raise ValueError(
            f"AtomGraph.batch expects a charge on every graph or on none, but graph {missing} of "
            f"{len(charges)} has none; write atoms.info['charge'] = 0 on the neutral ones"
        )
    return torch.cat(known)


def _labels(name: str, graphs: Sequence[dict[str, Any]]) -> Tensor | None:
    """One label of all graphs, NaN where a graph lacks it, or None if all do."""
    known = next((graph[name] for graph in graphs if graph[name] is not None), None)
    if known is None:
        return None
    filled = []
    for graph in graphs:
        rows = graph["pos"].shape[0] if name == "forces" else graph["cell"].shape[0]
        missing = known.new_full((rows, *known.shape[1:]), torch.nan)
        filled.append(missing if graph[name] is None else graph[name])
    return torch.cat(filled)
