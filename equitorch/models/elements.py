"""Tables by atomic number, and elements by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.ops.indices import readable

PerElement = float | Mapping[int, float]

_ROWS = 119  # of every table: all elements that have a name, more only for a model's own types


def element_names(numbers: Iterable[int]) -> str:
    """Atomic numbers as chemists write them.

    >>> element_names([1, 6, 17])
    'H, C, Cl'
    """
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}" for z in numbers)


def element_numbers(model: str, elements: Sequence[int | str]) -> list[int]:
    """The atomic numbers of the elements for which a model has weights, in increasing order.

    Args:
        model: its name.
        elements: atomic numbers or chemical symbols.

    Raises:
        ValueError: if one is unknown or named twice, or none is given.

    >>> element_numbers("MACE", ["O", "H"])
    [1, 8]
    """
    given = [elements] if isinstance(elements, str) else list(elements)
    numbers: list[Any] = [_number(z) if isinstance(z, str) else z for z in given]
    whole = all(not isinstance(z, bool) and isinstance(z, Integral) and int(z) >= 0 for z in numbers)
    if not whole or not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"{model} expects elements to be distinct atomic numbers or chemical symbols, got {given}"
        )
    return sorted(int(z) for z in numbers)


def expect_elements(
    model: str, atomic_numbers: Tensor, max_z: int, elements: Sequence[int] | None = None
) -> None:
    """Refuse atomic numbers for which a model's table of elements has no row, where looking costs no wait.

    Args:
        model: its name.
        atomic_numbers: of all atoms. Shape (atoms,).
        max_z: rows of the table.
        elements: the numbers that have rows, where not all up to ``max_z`` - 1 do.

    Raises:
        ValueError: for another type than integers, or a number that has no row.

    >>> expect_elements("NequIP", torch.tensor([1, 8]), 128)
    """
    if atomic_numbers.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{model} expects atomic_numbers as int64, got {atomic_numbers.dtype}")
    if not readable(atomic_numbers) or not atomic_numbers.numel():
        return
    if elements is not None:
        unknown = sorted(set(atomic_numbers.unique().tolist()) - set(elements))
        if unknown:
            raise ValueError(
                f"{model} has weights for {element_names(elements)}, got {element_names(unknown)}; "
                "build it with these elements, and train it on them"
            )
        return
    low, high = (int(end) for end in atomic_numbers.aminmax())
    if low < 0 or high >= max_z:
        raise ValueError(
            f"{model} expects atomic_numbers from 0 to {max_z - 1}, below its max_z, got {low} to {high}; "
            "give the numbers of the elements, and build the model with a larger max_z if need be"
        )


def known_species(
    species: Sequence[int | str] | None, tables: Iterable[PerElement], model: nn.Module
) -> tuple[int, ...]:
    """The atomic numbers (or chemical symbols) asked for, or the tables' keys, or all rows of the model.

    Raises:
        ValueError: if nothing is left, a symbol is unknown, or a number is no whole number from 1 on (0 for a
            model's own types).
    """
    if species is None:
        keys = {z for table in tables if isinstance(table, Mapping) for z in table}
        options = getattr(model, "options", {})
        options = options if isinstance(options, Mapping) else {}
        top = int(options.get("max_z", _ROWS))
        species = sorted(keys) or options.get("elements") or range(1, min(top, _ROWS))
    numbers = sorted({_number(z) if isinstance(z, str) else int(z) for z in species})
    if not numbers or numbers[0] < 0:
        raise ValueError(
            "Potential expects species as atomic numbers such as [1, 6, 8], or chemical symbols such as "
            f"['H', 'C', 'O'], got {list(species)}"
        )
    return tuple(numbers)


def _number(symbol: str) -> int:
    """The atomic number, -1 if there is none."""
    from ase.data import atomic_numbers

    return int(atomic_numbers.get(symbol, -1))


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
