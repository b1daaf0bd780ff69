"""The groups that have diagrams, each by its name, its generators and the form it leaves alone."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.automorphism import Automorphism

_SYMBOL = re.compile(r"(S|A|B|O|SO|Sp)\((\d+)(?:,\s*(\d+|interleaved))?\)")
_KNOWN = "S, A, B (signed permutations), O, SO, Sp, O(p,q), SO(p,q) or an Automorphism(graph)"


@dataclass(frozen=True)
class MatrixGroup:
    """A group of real n x n matrices.

    Attributes:
        family: "S" permutations, "A" even ones, "B" signed ones, "O" and "SO" orthogonal matrices,
            "Sp" symplectic ones, "Aut" some permutations.
        n: size of the matrices.
        negative: how many axes of negative square O and SO have: q in O(p,q), the last ones.
        interleaved: whether the form of Sp pairs rows 2 i and 2 i + 1, instead of i and n / 2 + i.
        permutations: of "Aut".

    >>> MatrixGroup.named("O(1,3)", 4).symbol
    'O(1,3)'
    """

    family: str
    n: int
    negative: int = 0
    interleaved: bool = False
    permutations: Automorphism | None = None

    @staticmethod
    def named(name: str | Automorphism, n: int, form: str = "block") -> MatrixGroup:
        """The group that is called so, with its dimension.

        Args:
            name: "S", "A", "B", "O", "SO", "Sp", "O(p,q)", "SO(p,q)", a ``symbol``, or some permutations.
            n: dimension; p + q for "O(p,q)".
            form: of Sp: "block" or "interleaved".

        Raises:
            ValueError: if there is no such group of this dimension.
        """
        if isinstance(name, Automorphism):
            group = MatrixGroup("Aut", name.n, permutations=name)
        elif isinstance(name, str) and name in ("S", "A", "B", "O", "SO", "Sp"):
            group = MatrixGroup(name, n, interleaved=name == "Sp" and form == "interleaved")
        elif isinstance(name, str) and (_SYMBOL.fullmatch(name) or name.startswith("Aut(")):
            group = MatrixGroup.of_symbol(name)
            group = replace(group, interleaved=True) if name == f"Sp({n})" and form != "block" else group
        else:
            raise ValueError(f"TensorPower expects a group {_KNOWN}, got {name!r}")
        if group.n != n or n < 1:
            raise ValueError(
                f"{name} acts on n = {group.n if group.n > 0 else '1 or more'} dimensions, got {n}"
            )
        if form not in ("block", "interleaved") or (group.family == "Sp" and n % 2):
            raise ValueError(
                f"Sp expects an even n and a form block or interleaved, got n = {n} and {form!r}"
            )
        return group

    @staticmethod
    def of_symbol(symbol: str) -> MatrixGroup:
        """The group with this ``symbol``.

        >>> MatrixGroup.of_symbol("SO(2,1)").form
        tensor([[ 1.,  0.,  0.],
                [ 0.,  1.,  0.],
                [ 0.,  0., -1.]], dtype=torch.float64)
        """
        if symbol.startswith("Aut("):
            permutations = Automorphism.of_symbol(symbol)
            return MatrixGroup("Aut", permutations.n, permutations=permutations)
        found = _SYMBOL.fullmatch(symbol)
        allowed = ("Sp",) if found and found[3] == "interleaved" else ("O", "SO")
        if found is None or (found[3] and found[1] not in allowed):
            raise ValueError(f"expected the symbol of a group such as S(5), O(1,3) or Sp(4), got {symbol!r}")
        if found[1] == "Sp":
            return MatrixGroup.named("Sp", int(found[2]), found[3] or "block")
        p, q = int(found[2]), int(found[3] or 0)
        if q and not p:
            raise ValueError(f"{symbol} has no axis of positive square; write {found[1]}({q})")
        return MatrixGroup(found[1], p + q, q)

    @property
    def symbol(self) -> str:
        """E.g. "S(5)", "O(1,3)", "Sp(4)", "Sp(4,interleaved)"."""
        if self.permutations is not None:
            return self.permutations.symbol
        inside = f"{self.n - self.negative},{self.negative}" if self.negative else str(self.n)
        return f"{self.family}({inside}{',interleaved' * self.interleaved})"

    @property
    def is_orthogonal(self) -> bool:
        """Whether its matrices are orthogonal."""
        return self.family != "Sp" and not self.negative

    @property
    def form(self) -> Tensor:
        """The matrix F with g^T F g == F for every g. Shape (n, n), float64."""
        return torch.tensor(_form(self), device="cpu")

    def lie_generators(self) -> Tensor:
        """Infinitesimal elements. Shape (a, n, n), float64; those of SO(3) turn about x, y, z."""
        return torch.tensor(_lie_generators(self), device="cpu")

    def discrete_generators(self) -> Tensor:
        """What generates the group beside them; for O(n), n odd, the inversion. Shape (b, n, n), float64."""
        return torch.tensor(_discrete_generators(self), device="cpu")


@functools.cache
def _form(group: MatrixGroup) -> NDArray[np.float64]:
    n, half = group.n, group.n // 2
    if group.family != "Sp":
        return np.diag([1.0] * (n - group.negative) + [-1.0] * group.negative)
    cell = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.kron(np.eye(half), cell) if group.interleaved else np.kron(cell, np.eye(half))


@functools.cache
def _lie_generators(group: MatrixGroup) -> NDArray[np.float64]:
    n = group.n
    if group.family not in ("O", "SO", "Sp"):
        return np.zeros((0, n, n))
    unit = np.eye(n * n).reshape(n, n, n, n)
    inverse = np.linalg.inv(_form(group))
    if group.family == "Sp":
        pairs = itertools.combinations_with_replacement(range(n), 2)
        made = [inverse @ (unit[i, j] + unit[j, i]) for i, j in pairs]
    else:
        about = [(2, 1), (0, 2), (1, 0)] if n == 3 else itertools.combinations(range(n), 2)
        made = [inverse @ (unit[i, j] - unit[j, i]) for i, j in about]
    return np.array(made).reshape(-1, n, n)


@functools.cache
def _discrete_generators(group: MatrixGroup) -> NDArray[np.float64]:
    n, p = group.n, group.n - group.negative
    one = np.eye(n)
    if group.family in ("S", "B"):
        images = [[1, 0, *range(2, n)]] * (n > 1) + [[*range(1, n), 0]] * (n > 2)
    elif group.family == "A":
        images = [[1, i, *range(2, i), 0, *range(i + 1, n)] for i in range(2, n)]
    else:
        images = [list(g) for g in group.permutations.generators] if group.permutations else []
    made = [one[:, image] for image in images]  # takes the axis i to image[i]
    mirror = [one * np.where(np.arange(n) == axis, -1, 1) for axis in (0, p % n)]
    if group.family == "B":
        made.append(mirror[0])
    elif group.negative:
        made += mirror if group.family == "O" else [mirror[0] @ mirror[1]]
    elif group.family == "O":
        made.append(-one if n % 2 else mirror[0])
    return np.array(made).reshape(-1, n, n)
