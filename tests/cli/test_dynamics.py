"""Dynamics through ASE: known statistics, and the guard."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import read

from equitorch.cli.dynamics import Settings, run_dynamics, trouble
from equitorch.cli.failure import UserError
from equitorch.cli.report.record import read_columns


class Spring(Calculator):
    """Every atom on its own spring: E = k x² / 2 with k in eV/Å²; negative k explodes."""

    implemented_properties = ("energy", "forces")

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def calculate(
        self, atoms: Atoms | None = None, properties: object = None, system_changes: object = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        pos = self.atoms.positions
        self.results = {"energy": 0.5 * self.k * float((pos**2).sum()), "forces": -self.k * pos}


def test_nve_keeps_the_energy_of_a_spring(tmp_path: Path) -> None:
    atoms = Atoms("Ar8", np.random.default_rng(0).normal(size=(8, 3)) * 0.1)
    atoms.calc = Spring(1.0)
    outcome = run_dynamics(atoms, Settings("nve", 100.0, 200, 1.0), tmp_path, "nve")
    columns = read_columns(outcome.csv)
    total = columns["total_eV"]
    assert np.ptp(total) < 1e-4 * np.ptp(columns["potential_eV"])
    assert columns["time_fs"][-1] == 200.0
    assert not outcome.stopped


def test_nvt_reaches_its_temperature(tmp_path: Path) -> None:
    atoms = Atoms("Ar40", np.zeros((40, 3)))
    atoms.calc = Spring(1.0)
    run_dynamics(atoms, Settings("nvt", 300.0, 1500, 4.0, friction_per_fs=0.02), tmp_path, "nvt")
    late = read_columns(tmp_path / "nvt.csv")["temperature_K"][300:]
    assert late.mean() == pytest.approx(300, rel=0.1)


def test_npt_moves_the_cell(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    before = atoms.get_volume()
    run_dynamics(atoms, Settings("npt", 300.0, 20, 2.0, pressure_GPa=20.0), tmp_path, "npt")
    assert atoms.get_volume() != before
    with pytest.raises(UserError, match="periodic in three directions; use nvt"):
        run_dynamics(Atoms("Ar", calculator=Spring(1.0)), Settings("npt", 300.0, 1), tmp_path, "npt")


def test_stops_before_it_explodes_and_keeps_the_frame(tmp_path: Path) -> None:
    atoms = Atoms("Ar4", np.random.default_rng(0).normal(size=(4, 3)))
    atoms.calc = Spring(-5.0)
    outcome = run_dynamics(atoms, Settings("nve", 300.0, 10_000, 2.0), tmp_path, "nve")
    assert outcome.stopped
    assert outcome.steps < 10_000
    assert outcome.last is not None
    assert len(read(outcome.last)) == 4


def test_the_guard_can_stay_silent_and_can_speak() -> None:
    assert trouble(300.0, 5.0, -1.0, 300.0) == ""
    assert "beyond 100 eV/Å" in trouble(300.0, 101.0, -1.0, 300.0)
    assert "more than 10 times" in trouble(3001.0, 5.0, -1.0, 300.0)
    assert "not a number" in trouble(300.0, 5.0, float("nan"), 300.0)


def test_never_overwrites_an_earlier_run(tmp_path: Path) -> None:
    for _ in range(2):
        run_dynamics(Atoms("Ar2", calculator=Spring(1.0)), Settings("nve", 10.0, 2), tmp_path, "a")
    assert {p.name for p in tmp_path.glob("*.csv")} == {"a.csv", "a_2.csv"}


def test_a_start_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    class Refuses(Spring):
        def calculate(self, *arguments: object, **options: object) -> None:
            raise ValueError("no such element")

    with pytest.raises(ValueError, match="no such element"):
        run_dynamics(Atoms("Ar2", calculator=Refuses(1.0)), Settings("nve", 10.0, 2), tmp_path, "a")
    with pytest.raises(UserError, match="use nvt"):
        run_dynamics(Atoms("Ar2", calculator=Spring(1.0)), Settings("npt", 10.0, 2), tmp_path, "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interruption_keeps_the_last_whole_step(tmp_path: Path, signals: int) -> None:
    class Interrupted(Spring):
        calls = 0

        def calculate(self, *arguments: object, **options: object) -> None:
            self.calls += 1
            if self.calls == 8:
                for _ in range(signals):
                    signal.raise_signal(signal.SIGINT)
            super().calculate(*arguments, **options)  # type: ignore[arg-type]

    atoms = Atoms("Ar2", [[0, 0, 0.1], [0, 0, 1]], calculator=Interrupted(1.0))
    outcome = run_dynamics(atoms, Settings("nve", 50.0, 1000, 0.5), tmp_path, "a", frames=10)
    assert outcome.stopped == "interrupted"
    assert outcome.steps == (7 if signals == 1 else 6)
    frames, table = read(outcome.trajectory, index=":"), read_columns(outcome.csv)
    assert [f.info["time_fs"] for f in frames] == [0.0, outcome.steps * 0.5]
    assert table["step"].tolist() == list(range(outcome.steps + 1))
    assert frames[-1].get_potential_energy() == pytest.approx(0.5 * (frames[-1].positions ** 2).sum())


def test_the_trajectory_holds_energies_forces_and_times(tmp_path: Path) -> None:
    atoms = Atoms("Ar2", [[0, 0, 0.1], [0, 0, 1]], calculator=Spring(1.0))
    outcome = run_dynamics(atoms, Settings("nve", 50.0, 10, 0.5), tmp_path, "a")
    frames = read(outcome.trajectory, index=":")
    assert frames[-1].info["time_fs"] == 5.0
    assert frames[-1].get_potential_energy() == pytest.approx(
        read_columns(outcome.csv)["potential_eV"][-1], rel=1e-8
    )
    assert np.allclose(frames[-1].get_forces(), -frames[-1].positions, atol=1e-7)


def test_says_what_it_expected() -> None:
    with pytest.raises(UserError, match="--ensemble: expected one of nve, nvt, npt, got 'nvp'; did you mean"):
        Settings("nvp")
    with pytest.raises(UserError, match="--steps: expected a number from 1 up, got 0"):
        Settings(steps=0)
