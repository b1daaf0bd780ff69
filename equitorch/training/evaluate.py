"""Errors of a potential on labelled frames: by quantity, group and element, with counts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equitorch.graph import AtomGraph
from equitorch.models.potential import Potential
from equitorch.training.loss import LABELS
from equitorch.training.metrics import Moments
from equitorch.training.parallel import Processes
from equitorch.training.trainer import Batches, compare

_ELEMENTS = 119
ISOLATED = "isolated atoms"
"""The group of frames that are told apart from the others, because nothing binds them."""
UNITS = {"energy": "eV/atom", "energy_total": "eV", "forces": "eV/Å", "stress": "eV/Å^3"}


@dataclass(frozen=True)
class Evaluation:
    """The errors on one set of frames.

    Attributes:
        by_group: moments of every quantity, one bin a group.
        by_element: moments of the forces, one bin an atomic number.
        groups: names of the groups.
    """

    by_group: dict[str, Moments]
    by_element: Moments
    groups: tuple[str, ...]

    def overall(self) -> dict[str, dict[str, float]]:
        """``{quantity: {count, mae, rmse, r2}}``; quantities without a label are left out.

        Isolated atoms do not count, unless there is nothing else.
        """
        bins = [index for index, group in enumerate(self.groups) if group != ISOLATED] or None
        results = {name: moments.result(bins) for name, moments in self.by_group.items()}
        return {name: result for name, result in results.items() if result["count"]}

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The whole table: one row a quantity, overall, by group where there are several, and by element."""
        return list(self._rows(split))

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        def row(quantity: str, part: str, result: Mapping[str, float]) -> dict[str, Any]:
            return {"split": split, "quantity": quantity, "unit": UNITS[quantity], "part": part, **result}

        for quantity, result in self.overall().items():
            yield row(quantity, "all", result)
        for quantity in self.overall() if len(self.groups) > 1 else ():
            for index, group in enumerate(self.groups):
                if (found := self.by_group[quantity].result(index))["count"]:
                    yield row(quantity, f"group {group}", found)
        from ase.data import chemical_symbols

        for number in range(_ELEMENTS):
            if (found := self.by_element.result(number))["count"]:
                yield row("forces", f"element {chemical_symbols[number]}", found)


def evaluate(potential: Potential, batches: Batches, processes: Processes | None = None) -> Evaluation:
    """Compare a potential with the labels of all frames.

    Energies are compared per atom, and in total as molecular benchmarks do; forces and stress by component.
    Sums run in float64; a missing label is not counted.

    Args:
        potential: what is judged, on its device.
        batches: the frames, with their labels and groups.
        processes: those that share the frames.
    """
    potential.eval()
    names = batches.groups
    device = potential.device
    by_group = {name: Moments(len(names), device) for name in UNITS}
    by_element = Moments(_ELEMENTS, device)
    for batch in batches.epoch(0):
        if batch.graph is None:
            continue
        groups = torch.tensor([batches.group(frame) for frame in batch.frames], device=device)
        _add(potential, batch.graph, groups, by_group, by_element)
    for moments in (*by_group.values(), by_element):
        (processes or Processes()).add(moments.sums)
    return Evaluation(by_group, by_element, tuple(names))


def _add(
    potential: Potential, graph: AtomGraph, groups: Tensor, by_group: dict[str, Moments], by_element: Moments
) -> None:
    """Add one batch to the tables."""
    present = [name for name in LABELS if getattr(graph, name) is not None]
    output = potential(graph, forces="forces" in present, stress="stress" in present, create_graph=False)
    errors = compare(potential, graph, output, present)
    if "energy" in errors:
        atoms = graph.ptr.diff()
        found = errors["energy"]
        by_group["energy"].add_residuals(found, groups)
        by_group["energy_total"].add(found.error * atoms, found.label * atoms, found.mask, groups)
    if "forces" in errors:
        by_group["forces"].add_residuals(errors["forces"], groups[graph.batch].repeat_interleave(3))
        by_element.add_residuals(
            errors["forces"], graph.atomic_numbers.clamp(max=_ELEMENTS - 1).repeat_interleave(3)
        )
    if "stress" in errors:
        by_group["stress"].add_residuals(errors["stress"], groups.repeat_interleave(9))
