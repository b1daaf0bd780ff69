"""Tables by atomic number, and elements by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

PerElement = float | Mapping[int, float]

_ROWS = 119  # of every table: all elements that have a name, more only for a model's own types


def element_names(numbers: Iterable[int]) -> str:
    """Atomic numbers as chemists write them.

    >>> element_names([1, 6, 17])
    'H, C, Cl'
    """
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}" for z in numbers)


def known_species(
    species: Sequence[int] | None, tables: Iterable[PerElement], model: nn.Module
) -> tuple[int, ...]:
    """The atomic numbers asked for, or the keys of the tables, or all that the model has rows for.

    Raises:
        ValueError: if nothing is left, or a number is no whole number from 1 on (0 for a model's own types).
    """
    if species is None:
        keys = {z for table in tables if isinstance(table, Mapping) for z in table}
        options = getattr(model, "options", {})
        top = int(options.get("max_z", _ROWS)) if isinstance(options, Mapping) else _ROWS
        species = sorted(keys) or range(1, min(top, _ROWS))
    numbers = sorted({int(z) for z in species})
    if not numbers or numbers[0] < 0:
        raise ValueError(
            f"Potential expects species as atomic numbers such as [1, 6, 8], got {list(species)}"
        )
    return tuple(numbers)


def table_by_number(name: str, value: PerElement, species: Sequence[int]) -> Tensor:
    """One float64 number for each atomic number; zero where the potential does not know the element.

    Shape:
        (rows,), with at least 119 rows

    Raises:
        ValueError: if a mapping lacks one of the species, or a value is not finite.

    >>> table_by_number("shift", {1: -0.5, 8: 2.0}, [1, 8])[[1, 2, 8]]
    tensor([-0.5000,  0.0000,  2.0000], dtype=torch.float64)
    """
    table = torch.zeros(max(_ROWS, max(species) + 1), dtype=torch.float64)
    if isinstance(value, Mapping):
        missing = [z for z in species if z not in value]
        if missing:
            raise ValueError(
                f"{name} has no value for {element_names(missing)}; "
                f"give one for each of {element_names(species)}"
            )
        values = [float(value[z]) for z in species]
    else:
        values = [float(value)] * len(species)
    table[list(species)] = torch.tensor(values, dtype=torch.float64)
    if not bool(table.isfinite().all()):
        raise ValueError(f"{name} must be finite for every element, got {values}")
    return table
