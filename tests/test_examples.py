"""examples/: every program runs, on small data"""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    before, sys.argv = sys.argv, [name, *map(str, arguments)]
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before


def test_trains_then_moves(tmp_path, capsys):
    run("01_train_a_potential.py", "--epochs", 1, "--output", tmp_path / "run")
    assert "GFN2-xTB" in capsys.readouterr().out
    run("03_molecular_dynamics.py", tmp_path / "run", "--steps", 20)
    assert "20 steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["02_write_a_layer.py", "04_dipole_and_polarizability.py"])
def test_runs(name, capsys):
    run(name)
    assert capsys.readouterr().out


def test_the_network_learns(capsys):
    run("05_write_a_network.py", "--steps", 21)
    forces = [float(line.split()[-2]) for line in capsys.readouterr().out.splitlines()]
    assert forces[-1] < 0.8 * forces[0]


def test_every_example_is_listed():
    """A new example must be run by this file."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "01_train_a_potential.py",
        "02_write_a_layer.py",
        "03_molecular_dynamics.py",
        "04_dipole_and_polarizability.py",
        "05_write_a_network.py",
    }
