"""Makes the shipped data set: Langevin dynamics of small molecules with GFN2-xTB (needs the package tblite).

Run ``OMP_NUM_THREADS=1 python -m equitorch.datasets.shipped.generate`` to write all files, or name molecules.
Positions are rounded before they are labelled, so that the stored positions are exactly those of the labels.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.build
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.optimize import BFGS

RESOLUTION = 100_000  # stored whole numbers per Angstrom and per eV/Angstrom
TEMPERATURES = (300, 500)  # K
TRAJECTORIES = 4  # independent ones per temperature
TIME_STEP = 1.0  # fs
EQUILIBRATION = 1000  # steps
STRIDE = 30  # steps between frames
FRICTION = 0.02  # 1/fs

# Rough geometries: each is relaxed before anything else happens.
ASPIRIN = """O 1.23 0.55 0.78, O -0.70 -2.71 -0.75, O 0.80 -2.18 0.87, O 1.78 0.81 -1.48, C -0.09 0.61 0.44,
C -0.79 -0.55 0.12, C -0.73 1.85 0.41, C -2.14 -0.47 -0.22, C -2.08 1.92 0.07, C -2.79 0.76 -0.25,
C -0.14 -1.85 0.15, C 2.11 0.67 -0.31, C 3.53 0.60 0.16, H -0.19 2.75 0.66, H -2.72 -1.36 -0.46,
H -2.58 2.89 0.05, H -3.84 0.82 -0.51, H 3.73 1.42 0.86, H 4.20 0.70 -0.69, H 3.71 -0.37 0.64,
H -0.26 -3.59 -0.73"""
MALONALDEHYDE = """C 0 0 0, C -1.2 0.7 0, C 1.2 0.7 0, O -1.25 1.95 0, O 1.25 2.0 0, H 0 -1.08 0,
H -2.15 0.15 0, H 2.15 0.15 0, H 0.35 2.25 0"""


class Recipe(NamedTuple):
    """A molecule and how many frames each of its trajectories gives."""

    start: str
    frames: int
    seed: int


RECIPES = {
    "aspirin": Recipe(ASPIRIN, 125, 11),
    "ethanol": Recipe("CH3CH2OH", 150, 12),
    "malonaldehyde": Recipe(MALONALDEHYDE, 150, 13),
}


def start_structure(text: str) -> ase.Atoms:
    """The atoms of a recipe: a name that ASE knows, or lines of symbol, x, y, z."""
    if "," not in text:
        return ase.build.molecule(text)
    rows = [row.split() for row in text.split(",")]
    return ase.Atoms([row[0] for row in rows], [[float(x) for x in row[1:]] for row in rows])


def calculator() -> Any:
    """GFN2-xTB with tight self-consistency."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)


def trajectory(relaxed: ase.Atoms, temperature: float, frames: int, seed: int) -> list[np.ndarray]:
    """Positions of one Langevin trajectory, in whole numbers of 1/RESOLUTION Angstrom."""
    random = np.random.RandomState(seed)  # the generator that ASE's dynamics take
    atoms = relaxed.copy()
    atoms.calc = calculator()
    spread = np.sqrt(units.kB * temperature * atoms.get_masses())
    atoms.set_momenta(spread[:, None] * random.standard_normal((len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        TIME_STEP * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=random,
    )
    dynamics.run(EQUILIBRATION)
    taken = []
    for _ in range(frames):
        dynamics.run(STRIDE)
        centred = atoms.positions - atoms.get_center_of_mass()
        taken.append(np.rint(centred * RESOLUTION).astype(np.int32))
    return taken


def label(relaxed: ase.Atoms, taken: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Energies (frames,) in eV and forces (frames, atoms, 3) in whole numbers of 1/RESOLUTION eV/Angstrom."""
    atoms = relaxed.copy()
    atoms.calc = calculator()
    energies, forces = [], []
    for whole in taken:
        atoms.positions = whole / RESOLUTION
        energies.append(atoms.get_potential_energy())
        forces.append(np.rint(atoms.get_forces() * RESOLUTION).astype(np.int32))
    return np.array(energies), np.array(forces)


def provenance(name: str, recipe: Recipe) -> dict[str, Any]:
    """What somebody needs to know to use the file, or to make it again."""
    return {
        "name": name,
        "licence": "CC0-1.0",
        "method": "GFN2-xTB (Bannwarth, Ehlert, Grimme 2019, doi:10.1021/acs.jctc.8b01176), accuracy 0.1",
        "dynamics": (
            f"Langevin, {TIME_STEP} fs, friction {FRICTION}/fs, {EQUILIBRATION} steps dropped, "
            f"then every {STRIDE}th step; {TRAJECTORIES} independent trajectories at each of {TEMPERATURES} K"
        ),
        "units": {
            "positions": f"1/{RESOLUTION} Angstrom",
            "energy": "eV, total",
            "forces": f"1/{RESOLUTION} eV/Angstrom",
            "temperature": "K",
        },
        "resolution": RESOLUTION,
        "seed": recipe.seed,
        "generator": "equitorch/datasets/shipped/generate.py",
        "versions": {package: importlib.metadata.version(package) for package in ("tblite", "ase", "numpy")},
    }


def generate(name: str, folder: Path) -> Path:
    """Write the file of one molecule."""
    recipe = RECIPES[name]
    relaxed = start_structure(recipe.start)
    relaxed.calc = calculator()
    BFGS(relaxed, logfile=None).run(fmax=0.005, steps=500)
    taken: list[np.ndarray] = []
    origin = []
    for temperature in TEMPERATURES:
        for index in range(TRAJECTORIES):
            seed = 100_000 * recipe.seed + 10 * temperature + index
            taken += trajectory(relaxed, temperature, recipe.frames, seed)
            origin += [(temperature, index)] * recipe.frames
    energies, forces = label(relaxed, taken)
    path = folder / f"{name}.npz"
    np.savez_compressed(
        path,
        metadata=np.array(json.dumps(provenance(name, recipe))),
        atomic_numbers=relaxed.numbers.astype(np.uint8),
        positions=np.array(taken),
        energy=energies,
        forces=forces,
        temperature=np.array([temperature for temperature, _ in origin], dtype=np.int16),
        trajectory=np.array([index for _, index in origin], dtype=np.int16),
    )
    return path


def main() -> None:
    """Write the files of the molecules named on the command line, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("molecules", nargs="*", default=sorted(RECIPES), help="which ones; default: all")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    for name in arguments.molecules:
        path = generate(name, arguments.folder)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
