"""Charge and labels of an ase.Atoms: where they may be, and which key was used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_PREFIX = r"(?:(?:ref|reference|dft|qm|target|label|true|xtb|vasp|ccsd)[_-])?"
_SUFFIX = r"(?:[_-](?:ref|dft|qm))?"
_NAMES = {
    "energy": re.compile(rf"{_PREFIX}(?:(?:total|potential)[_-]?)?energy{_SUFFIX}", re.IGNORECASE),
    "forces": re.compile(rf"{_PREFIX}forces?{_SUFFIX}", re.IGNORECASE),
    "stress": re.compile(rf"{_PREFIX}(?:stress|virials?){_SUFFIX}", re.IGNORECASE),
}
_CHARGES = ("charge", "total_charge", "net_charge", "totalcharge")
_VOIGT = (0, 5, 4, 5, 1, 3, 4, 3, 2)


class Labels(NamedTuple):
    """What a frame is labelled with, in eV, eV/Angstrom and eV/Angstrom^3, and the key of each label.

    Shape:
        forces: (atoms, 3)
        stress: (3, 3)
    """

    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None
    keys: dict[str, str]

    def tensors(self) -> dict[str, Tensor | None]:
        """The labels as fields of a graph of one structure, float64."""
        return {
            "energy": None if self.energy is None else torch.tensor([self.energy], dtype=torch.float64),
            "forces": None if self.forces is None else torch.from_numpy(self.forces),
            "stress": None if self.stress is None else torch.from_numpy(self.stress)[None],
        }


def read_labels(atoms: Any, *, keys: Mapping[str, str] | None = None) -> Labels:
    """Read energy, forces and stress from the calculator's results, then from ``info`` and ``arrays``.

    Forces are the raw ones: constraints do not set them to zero. Names are recognised with the usual prefixes
    (``REF_energy``, ``dft_forces``, ...). ``virial`` means -volume * stress. Results of a calculator that
    belong to other positions are not labels of this frame.

    Args:
        atoms: an ``ase.Atoms``.
        keys: which key holds a label; ``"auto"`` and absent names are searched for, ``"none"`` is not read.

    Raises:
        ValueError: if two keys hold different values, a named key is absent, or a label has the wrong shape.

    >>> import ase
    >>> read_labels(ase.Atoms("H", info={"REF_energy": -13.6})).keys
    {'energy': "info['REF_energy']"}
    """
    keys = dict(keys or {})
    unknown = sorted(set(keys) - set(_NAMES))
    if unknown:
        raise ValueError(f"keys expects the labels {sorted(_NAMES)}, got {unknown[0]!r}")
    found: dict[str, Any] = {"energy": None, "forces": None, "stress": None}
    used: dict[str, str] = {}
    places = list(_places(atoms))
    for name in _NAMES:
        wanted = keys.get(name, "auto")
        if wanted != "none":
            candidates = _candidates(name, wanted, places, atoms)
            if candidates:
                found[name], used[name] = _agree(name, candidates)
    return Labels(**found, keys=used)


def read_charge(atoms: Any) -> float | None:
    """The total charge in e, from ``atoms.info["charge"]`` or an alias; None if nothing is said.

    Raises:
        ValueError: if two aliases disagree, or the charge is not a finite number.
    """
    stated = {name: atoms.info[name] for name in _CHARGES if name in atoms.info}
    values = {}
    for name, value in stated.items():
        number = np.asarray(value)
        if number.size != 1 or number.dtype.kind not in "iufb" or not np.isfinite(number).all():
            raise ValueError(f"atoms.info[{name!r}] expects a total charge in e, got {value!r}")
        values[name] = float(number.reshape(()))
    if len(set(values.values())) > 1:
        raise ValueError(f"atoms.info states different charges: {values}; keep one, atoms.info['charge']")
    return next(iter(values.values()), None)


def _places(atoms: Any) -> Iterator[tuple[str, str, Any]]:
    """Each (place, key, value) where a label may be."""
    calculator = atoms.calc
    results = getattr(calculator, "results", None) or {}
    if results and not _is_stale(calculator, atoms):
        for key, value in results.items():
            yield "calc", key, value
    for key, value in atoms.info.items():
        yield "info", key, value
    for key, value in atoms.arrays.items():
        yield "arrays", key, value


def _is_stale(calculator: Any, atoms: Any) -> bool:
    """Whether the calculator's results belong to another state of the atoms."""
    check = getattr(calculator, "check_state", None)
    return check is not None and getattr(calculator, "atoms", None) is not None and bool(check(atoms))


def _candidates(
    name: str, wanted: str, places: list[tuple[str, str, Any]], atoms: Any
) -> dict[str, np.ndarray | float]:
    """Everything that claims to be this label, by where it is."""
    found: dict[str, np.ndarray | float] = {}
    for place, key, value in places:
        right_home = (place != "info") if name == "forces" else (place != "arrays")
        if key == wanted or (wanted == "auto" and right_home and _NAMES[name].fullmatch(key)):
            value = _convert(name, key, value, atoms)
            if value is not None:
                found[f"{place}[{key!r}]"] = value
    if not found and wanted != "auto":
        present = sorted({key for _, key, _ in places if key not in ("numbers", "positions")})
        raise ValueError(f"keys names {wanted!r} for the {name}, but the frame has only {present}")
    return found


def _agree(name: str, candidates: dict[str, np.ndarray | float]) -> tuple[Any, str]:
    """The one value, or an error if the candidates contradict each other."""
    (place, value), *others = candidates.items()
    for other_place, other in others:
        if not np.allclose(value, other, rtol=1e-6, atol=1e-6, equal_nan=True):
            raise ValueError(
                f"the frame has two different labels for the {name}, {place} and {other_place}; "
                f"name the right one, as in keys={{{name!r}: {other_place.split(chr(39))[1]!r}}}"
            )
    return value, place


def _convert(name: str, key: str, value: Any, atoms: Any) -> Any:
    """The label as a float or an array of the right shape; None where it is empty."""
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the {name} label {key!r} expects numbers, got {value!r}") from None
    if name == "energy":
        if array.size != 1:
            raise ValueError(f"the energy label {key!r} expects one number, got shape {array.shape}")
        energy = float(array.reshape(()))
        return None if np.isnan(energy) else energy
    if name == "forces":
        if array.shape != (len(atoms), 3):
            expected = f"shape ({len(atoms)}, 3)"
            raise ValueError(f"the forces label {key!r} expects {expected}, got {array.shape}")
        return array
    return _stress(key, array, atoms)


def _stress(key: str, array: np.ndarray, atoms: Any) -> np.ndarray | None:
    """A 3x3 stress from 9 numbers or 6 (xx, yy, zz, yz, xz, xy); a virial is divided by -volume."""
    if array.size == 6:
        array = array.reshape(6)[list(_VOIGT)]
    if array.size != 9:
        raise ValueError(f"the stress label {key!r} expects 6 or 9 numbers, got shape {array.shape}")
    stress = array.reshape(3, 3)
    if "virial" in key.lower():
        volume = abs(float(np.linalg.det(atoms.cell.array)))
        if volume < 1e-9:
            return None
        stress = -stress / volume
    return np.ascontiguousarray(stress)
