"""equitorch/layers/instructions.py; wrong instructions are tested with TensorProduct"""

import math

import numpy as np
import pytest

from equitorch.layers.instructions import normalized, read_instructions
from equitorch.reps import Irreps

IRREPS = Irreps("4x0e+4x1o"), Irreps("1x0e+1x1o"), Irreps("4x1o")
PATHS = [(0, 1, 0, "uvu", True), (1, 0, 0, "uvw", True, 2.0)]
ONES = [1.0, 1.0], [1.0, 1.0], [1.0]


@pytest.mark.parametrize(
    ("irrep", "path", "squares"),
    [
        ("component", "element", [3 / 5, 2 * 3 / 5]),  # 1 and 4 terms
        ("component", "path", [3 / 2, 2 * 3 / 8]),
        ("norm", "none", [3, 2 * 3]),
        ("none", "none", [1, 2]),
    ],
)
def test_factors_are_those_worked_out_by_hand(irrep, path, squares):
    found = normalized(IRREPS, read_instructions(IRREPS, PATHS), ONES, irrep, path)
    assert [p.path_weight**2 for p in found] == pytest.approx(squares)


def test_variances_scale_the_factors():
    paths = read_instructions(IRREPS, PATHS[:1])
    (plain,) = normalized(IRREPS, paths, ONES, "component", "element")
    (scaled,) = normalized(IRREPS, paths, ([2.0, 1.0], [1.0, 8.0], [4.0]), "component", "element")
    assert scaled.path_weight == pytest.approx(plain.path_weight * math.sqrt(4 / 16))


def test_nothing_is_divided_where_nothing_is_summed():
    irreps = Irreps("0x1o"), Irreps("2x1o"), Irreps("2x0e")
    (path,) = normalized(
        irreps, read_instructions(irreps, [(0, 0, 0, "uvv", True)]), ([1.0], [1.0], [1.0]), "norm", "path"
    )
    assert path.path_weight == 3
    assert path.weights == 0


def test_reads_numbers_of_other_libraries():
    (path,) = read_instructions(IRREPS, [(np.int64(0), np.int64(1), 0, "uvu", 1, 1)])
    assert path[:5] == (0, 1, 0, "uvu", True)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects a path_weight of at least 0, got -1\.0"):
        read_instructions(IRREPS, [(0, 1, 0, "uvu", True, -1)])
    with pytest.raises(ValueError, match=r"names block 1\.5 of irreps_in1"):
        read_instructions(IRREPS, [(1.5, 1, 0, "uvu", True)])
