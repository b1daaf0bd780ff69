"""Foreign units in eV and Angstrom (CODATA 2018)."""

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": 27.211386245988,
    "Ry": 13.605693122994,
    "kcal/mol": 4184 / 96485.33212331,
    "kJ/mol": 1000 / 96485.33212331,
}
LENGTH = {"Angstrom": 1.0, "Bohr": 0.529177210903, "nm": 10.0}


def factors(energy_unit: str, length_unit: str) -> tuple[float, float]:
    """How many eV one unit of energy is, and how many Angstrom one unit of length.

    Raises:
        ValueError: if a unit is not in the tables of this file.

    >>> round(factors("kcal/mol", "Angstrom")[0], 7)
    0.0433641
    """
    for unit, table, what in ((energy_unit, ENERGY, "energy"), (length_unit, LENGTH, "length")):
        if unit not in table:
            raise ValueError(f"{what}_unit expects one of {', '.join(table)}, got {unit!r}")
    return ENERGY[energy_unit], LENGTH[length_unit]
