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


def numbers(line):
    """The numbers in what an example prints about one case."""
    return [float(word) for word in line.split() if word.replace(".", "", 1).isdigit()]


def test_the_network_of_tensors_tells_graphs_apart(capsys):
    run("06_graphs_beyond_1wl.py", "--steps", 15)
    lines = capsys.readouterr().out.splitlines()
    accuracy = {line[:34].strip(): numbers(line[34:])[0] for line in lines}
    assert accuracy == {
        "message passing": 50,
        "order 2": 50,
        "order 2, products": 50,
        "order 2, products, neighbourhoods": 100,
        "order 4": 100,
    }


def test_the_inverse_is_the_same_at_every_size(capsys):
    run("07_matrix_inverse.py", "--steps", 60)
    rows = [numbers(line) for line in capsys.readouterr().out.splitlines()[2:-1]]
    errors = {int(n): (equivariant, plain) for n, equivariant, plain in rows}
    assert set(errors) == {3, 4, 5, 6, 7, 8}
    assert all(errors[n][0] < 1.2 * errors[3][0] < errors[n][1] for n in errors)


def test_the_dynamics_is_the_same_in_all_coordinates(capsys):
    run("08_symplectic_dynamics.py", "--steps", 60)
    same, new, more = [numbers(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert new[0] < 1.3 * same[0] < same[1] < new[1]
    assert more[0] < 1.3 * same[0]


def test_the_symmetry_of_the_graph_saves_weights(capsys):
    run("09_graph_symmetry.py")
    rows = [numbers(line)[-2:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [weights for weights, _ in rows] == [3, 2, 100]
    errors = [error for _, error in rows]
    assert errors[0] < 0.02 < 0.1 < errors[1] < errors[2]


def test_every_example_is_listed():
    """A new example must be run by this file."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "01_train_a_potential.py",
        "02_write_a_layer.py",
        "03_molecular_dynamics.py",
        "04_dipole_and_polarizability.py",
        "05_write_a_network.py",
        "06_graphs_beyond_1wl.py",
        "07_matrix_inverse.py",
        "08_symplectic_dynamics.py",
        "09_graph_symmetry.py",
    }
