"""Structures that the benchmarks share: made here, the same on every machine."""

from __future__ import annotations

import ase
import numpy as np
from ase.build import molecule

from equitorch.datasets import load_shipped


def water(sides: tuple[int, int, int] = (6, 7, 4), molecules: int = 167, seed: int = 0) -> ase.Atoms:
    """A periodic box of randomly turned water molecules near a grid, at the density of the liquid."""
    random = np.random.default_rng(seed)
    spacing = 3.1
    corners = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"), -1).reshape(-1, 3)[:molecules]
    box = ase.Atoms(cell=np.array(sides) * spacing, pbc=True)
    one = molecule("H2O")
    for corner in corners:
        turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
        place = corner * spacing + random.normal(0, 0.15, 3)
        box += ase.Atoms(one.numbers, one.positions @ turn.T + place)
    return box


def aspirin(copies: int) -> list[ase.Atoms]:
    """As many frames of the shipped aspirin trajectory."""
    frames = load_shipped("aspirin")
    return [frames.to_ase(k) for k in range(copies)]
