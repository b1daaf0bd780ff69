"""The paths of a tensor product: which blocks couple, how their multiplicities pair, with which factor."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from equitorch.reps import Irreps


class Instruction(NamedTuple):
    """One path; its fields are e3nn's, so that code which reads them keeps working.

    Attributes:
        i_in1: block of the first operand.
        i_in2: block of the second operand.
        i_out: block of the result.
        connection_mode: how multiplicities pair: uvw, uvu, uvv, uuw, uuu, uvuv, uvu<v or u<vw.
        has_weight: whether the path is multiplied by weights.
        path_weight: the factor of the unit-norm coupling, normalisation included.
        path_shape: shape of the weights, if it has any.
    """

    i_in1: int
    i_in2: int
    i_out: int
    connection_mode: str
    has_weight: bool
    path_weight: float
    path_shape: tuple[int, ...]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.path_shape) if self.has_weight else 0


Triple = tuple[Irreps, Irreps, Irreps]
MODES = ("uvw", "uvu", "uvv", "uuw", "uuu", "uvuv", "uvu<v", "u<vw")


def read_instructions(irreps: Triple, instructions: Iterable[Sequence[Any]]) -> list[Instruction]:
    """Check instructions as users write them: (i_in1, i_in2, i_out, mode, has_weight[, path_weight]).

    Args:
        irreps: of the two operands and of the result, multiplicities included.
        instructions: the paths; ``path_weight`` is 1 if left out.

    Raises:
        ValueError: if a path names a block that is not there, irreps that do not couple, an unknown mode,
            or multiplicities that its mode cannot pair.

    >>> one = Irreps("4x1o"), Irreps("1o"), Irreps("4x0e")
    >>> read_instructions(one, [(0, 0, 0, "uvu", True)])[0].path_shape
    (4, 1)
    """
    return [_read(irreps, tuple(given)) for given in instructions]


def _read(irreps: Triple, given: tuple[Any, ...]) -> Instruction:
    if len(given) not in (5, 6):
        raise ValueError(
            "TensorProduct expects instructions (i_in1, i_in2, i_out, mode, has_weight[, path_weight]), "
            f"got {given!r}"
        )
    i1, i2, i3 = (
        _block(given, name, n, own)
        for name, n, own in zip(("irreps_in1", "irreps_in2", "irreps_out"), given[:3], irreps, strict=True)
    )
    mode, weighted, weight = given[3], bool(given[4]), float(given[5]) if len(given) == 6 else 1.0
    if mode not in MODES:
        raise ValueError(f"instruction {given!r} expects a mode of {', '.join(MODES)}, got {mode!r}")
    (m1, a), (m2, b), (m3, c) = irreps[0][i1], irreps[1][i2], irreps[2][i3]
    if c.p != a.p * b.p or not abs(a.l - b.l) <= c.l <= a.l + b.l:
        raise ValueError(f"instruction {given!r} joins {a} and {b} into {c}, which do not couple")
    if not weight >= 0:
        raise ValueError(f"instruction {given!r} expects a path_weight of at least 0, got {weight}")
    _check_multiplicities(given, mode, weighted, (m1, m2, m3))
    return Instruction(i1, i2, i3, mode, weighted, weight, _path_shape(mode, m1, m2, m3))


def _block(given: tuple[Any, ...], name: str, n: Any, irreps: Irreps) -> int:
    try:
        block = operator.index(n)
    except TypeError:
        block = -1
    if not 0 <= block < len(irreps):
        raise ValueError(
            f"instruction {given!r} names block {n!r} of {name} '{irreps}', which has {len(irreps)}"
        )
    return block


def _check_multiplicities(
    given: tuple[Any, ...], mode: str, weighted: bool, muls: tuple[int, int, int]
) -> None:
    m1, m2, m3 = muls
    pairs = m1 * (m1 - 1) // 2
    wanted, fits = {
        "uvw": ("any", True),
        "uvu": ("(u, v, u)", m1 == m3),
        "uvv": ("(u, v, v)", m2 == m3),
        "uuw": ("(u, u, w)" if weighted else "(u, u, 1)", m1 == m2 and (weighted or m3 == 1)),
        "uuu": ("(u, u, u)", m1 == m2 == m3),
        "uvuv": ("(u, v, u * v)", m1 * m2 == m3),
        "uvu<v": ("(u, u, u * (u - 1) / 2)", m1 == m2 and pairs == m3),
        "u<vw": ("(u, u, w)", m1 == m2),
    }[mode]
    if not fits:
        raise ValueError(f"instruction {given!r} expects multiplicities {wanted}, got {muls}")
    if not weighted and mode in ("uvw", "u<vw"):
        raise ValueError(f"instruction {given!r} of mode {mode} expects has_weight=True, got False")


def _path_shape(mode: str, m1: int, m2: int, m3: int) -> tuple[int, ...]:
    pairs = m1 * (m2 - 1) // 2
    return {
        "uvw": (m1, m2, m3),
        "uvu": (m1, m2),
        "uvv": (m1, m2),
        "uuw": (m1, m3),
        "uuu": (m1,),
        "uvuv": (m1, m2),
        "uvu<v": (pairs,),
        "u<vw": (pairs, m3),
    }[mode]


def normalized(
    irreps: Triple,
    instructions: Sequence[Instruction],
    variances: tuple[Sequence[float], Sequence[float], Sequence[float]],
    irrep_normalization: str,
    path_normalization: str,
) -> list[Instruction]:
    r"""The instructions with the factors that keep the variance of each output block.

    .. math:: f = \sqrt{p \, \sigma_\text{out} \, A / x}

    with the path weight p; A = 2 l_out + 1 (component), (2 l_1 + 1)(2 l_2 + 1) (norm) or 1 (none); and x the
    number of terms times their variances: of all paths into the block (element), of this path times the
    number of paths (path), or 1 (none). Where x is 0, nothing is divided.

    Args:
        irreps: of the two operands and of the result.
        instructions: as they were read.
        variances: of each block of the three.
        irrep_normalization: component, norm or none.
        path_normalization: element, path or none.

    Raises:
        ValueError: if a normalisation is none of these.

    Source:
        e3nn 0.6, ``o3.TensorProduct`` (convention).
    """
    for name, value, known in (
        ("irrep_normalization", irrep_normalization, ("component", "norm", "none")),
        ("path_normalization", path_normalization, ("element", "path", "none")),
    ):
        if value not in known:
            raise ValueError(f"TensorProduct expects {name} of {', '.join(known)}, got {value!r}")
    terms = [
        _terms(irreps, path) * variances[0][path.i_in1] * variances[1][path.i_in2] for path in instructions
    ]
    result = []
    for path, own in zip(instructions, terms, strict=True):
        d1, d2, d3 = (irreps[s][n].ir.dim for s, n in enumerate(path[:3]))
        factor = {"component": d3, "norm": d1 * d2, "none": 1}[irrep_normalization]
        into = [t for other, t in zip(instructions, terms, strict=True) if other.i_out == path.i_out]
        x = {"element": sum(into), "path": own * len(into), "none": 1.0}[path_normalization]
        square = path.path_weight * variances[2][path.i_out] * factor / (x if x > 0 else 1)
        result.append(path._replace(path_weight=math.sqrt(square)))
    return result


def _terms(irreps: Triple, path: Instruction) -> int:
    """How many products are summed into each component."""
    m1, m2 = irreps[0][path.i_in1].mul, irreps[1][path.i_in2].mul
    summed = {"uvw": m1 * m2, "uvu": m2, "uvv": m1, "uuw": m1, "u<vw": m1 * (m2 - 1) // 2}
    return summed.get(path.connection_mode, 1)
