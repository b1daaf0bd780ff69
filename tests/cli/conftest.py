"""A tiny trained-looking run, and the command line called in this process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from equitorch.cli import main
from equitorch.models.potential import Potential
from equitorch.models.tensornet import TensorNet


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


Command = Callable[..., Answer]


@pytest.fixture(scope="session", autouse=True)
def _first_call() -> None:
    """Let PyTorch import what warns of its own deprecated parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        small_potential().predict(waters(1))


@pytest.fixture
def equitorch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Call a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


def small_potential(seed: int = 0) -> Potential:
    """A TensorNet of a few hundred weights, untrained, for H and O."""
    torch.manual_seed(seed)
    model = TensorNet(channels=4, layers=1, radial=6, cutoff=3.0, max_z=10)
    return Potential(model, species=[1, 8], reference_energies={1: -13.0, 8: -430.0}, scale=0.1).eval()


def waters(frames: int, seed: int = 0) -> list[Atoms]:
    """Shaken water molecules with the energies and forces of a made-up force field, in two groups."""
    rng, found = np.random.default_rng(seed), []
    for i in range(frames):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.04, size=(3, 3))
        atoms.calc = LennardJones(epsilon=0.2, sigma=0.9, rc=4.0)
        energy, forces = atoms.get_potential_energy() - 456.0, atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        atoms.info["config_type"] = "cold" if i % 2 else "hot"
        found.append(atoms)
    return found


@pytest.fixture
def water_file(tmp_path: Path) -> Path:
    """Twelve labelled frames."""
    path = tmp_path / "water.xyz"
    write(path, waters(12), format="extxyz")
    return path


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A folder with a model, as a training leaves it."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    small_potential().save(folder / "model.eqt", metadata={"metrics": {"epoch": 3, "valid_forces_mae": 0.02}})
    return folder
