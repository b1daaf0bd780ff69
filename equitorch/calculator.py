"""The ASE calculator: any potential as the engine of ASE's dynamics, relaxations and phonons."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray
from torch import Tensor

from equitorch.graph import NeighborList, read_charge
from equitorch.models.potential import Potential

_VOIGT = (0, 4, 8, 5, 2, 1)  # xx, yy, zz, yz, xz, xy among the nine of a 3x3 matrix


class EquitorchCalculator(Calculator):
    """Energies (eV), forces (eV/Å) and stress (eV/Å^3) of ``ase.Atoms``, wherever ASE asks for them.

    One evaluation gives them all. Stress is in ASE's sign (tension positive) and order (xx, yy, zz, yz, xz,
    xy), and exists only where the atoms are periodic in 3-D. The charge is ``atoms.info["charge"]``; changing
    it is noticed. The potential is put into evaluation mode, and copied only where device or dtype differ.

    Args:
        potential: a :class:`Potential`, a file written by its ``save``, or the folder of a run.
        device: by default a potential stays where it is, and a file goes to the GPU if there is one.
        dtype: ``torch.float64`` (or ``"float64"``) for relaxations and phonons; by default as it is.
        skin: Å by which the neighbour list looks further, so as to be kept while atoms move little.

    Raises:
        ValueError: if ``potential`` is none of the three, or a structure or an element is impossible.

    >>> calculator = EquitorchCalculator("runs/demo")  # doctest: +SKIP
    >>> atoms.calc = calculator  # doctest: +SKIP
    >>> atoms.get_forces()  # doctest: +SKIP
    """

    name = "equitorch"
    implemented_properties = ("energy", "free_energy", "energies", "forces", "stress", "stresses", "dipole")

    def __init__(
        self,
        potential: Potential | str | PathLike[str],
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        self.potential = _ready(potential, device, _as_dtype(dtype))
        self.neighbors = NeighborList(
            self.potential.cutoff, skin, dtype=self.potential.dtype, device=self.potential.device
        )

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate the potential and fill ``results``; ASE calls this when something has changed."""
        super().calculate(atoms, properties, system_changes)
        atoms, self.results = self.atoms, {}
        periodic, by_atom = bool(atoms.pbc.all()), "stresses" in properties
        if not periodic and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(
                "EquitorchCalculator gives a stress where pbc is True in all directions, "
                f"got {atoms.pbc.tolist()}"
            )
        out = self.potential(
            self.neighbors.update(atoms), stress=periodic, atomic_virial=by_atom, create_graph=False
        )
        energy = float(out["energy"])
        self.results = {"energy": energy, "free_energy": energy, "forces": _array(out["forces"])}
        if "node_energy" in out:  # a constant of the whole graph is shared equally
            self.results["energies"] = _array(out["node_energy"]) + float(self.potential.offset) / len(atoms)
        if periodic:
            self.results["stress"] = _array(out["stress"]).reshape(9)[list(_VOIGT)]
        if by_atom:
            virials = _array(out["atomic_virial"]).reshape(-1, 9)[:, list(_VOIGT)]
            self.results["stresses"] = virials / atoms.get_volume()
        if "dipole" in out:
            self.results["dipole"] = _array(out["dipole"]).reshape(3)

    def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
        """What has changed since the last evaluation: ASE itself does not look at the charge."""
        changes: list[str] = super().check_state(atoms, tol=tol)
        if self.atoms is not None and read_charge(atoms) != read_charge(self.atoms):
            changes.append("charge")
        return changes


def _ready(
    potential: Potential | str | PathLike[str], device: torch.device | str | None, dtype: torch.dtype | None
) -> Potential:
    if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"EquitorchCalculator expects a device that is here, got {device} without a GPU")
    if isinstance(potential, str | PathLike):
        if device is None and torch.cuda.is_available():
            device = "cuda"
        return Potential.load(potential, device=device, dtype=dtype)
    if not isinstance(potential, Potential):
        raise ValueError(
            f"EquitorchCalculator expects a Potential or the path of one, got {type(potential).__name__}; "
            "wrap a model as Potential(model)"
        )
    wanted = torch.device(device) if device is not None else potential.device
    if potential.device.type != wanted.type or wanted.index not in (None, potential.device.index):
        potential = copy.deepcopy(potential).to(wanted)
    if dtype not in (None, potential.dtype):
        potential = copy.deepcopy(potential).to(dtype)
    return potential.eval()


def _as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and (not isinstance(found, torch.dtype) or not found.is_floating_point):
        raise ValueError(f"EquitorchCalculator expects dtype torch.float32 or torch.float64, got {dtype!r}")
    return found


def _array(x: Tensor) -> NDArray[np.float64]:
    return x.detach().double().cpu().numpy()
