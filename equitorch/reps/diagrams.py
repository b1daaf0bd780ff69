"""All the diagrams of a group, their number, linearly independent ones among them, and their matrices.

For small sizes, for tests and for interpretation: layers use ``equitorch.reps.halves``, and make no list of
whole diagrams and no matrix.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equitorch.reps.halves import Sector, count_halves, halves, join_halves, sector_pairs
from equitorch.reps.pairings import (
    count_orthogonal,
    count_pseudoscalar,
    count_symplectic,
    free_gram,
    longest_increasing,
    most_crossing,
    orthogonal_gram,
    symplectic_gram,
)
from equitorch.reps.partitions import (
    Partition,
    blocks_of,
    num_blocks,
    partition_gram,
    partition_tensor,
    sign_tensor,
    sign_values,
    stirling2,
)

_PRIME = 2**31 - 1


class Diagram(NamedTuple):
    """One equivariant map: a partition of outputs and inputs, outputs first, and what its blocks stand for.

    Attributes:
        kind: "partition": indices agree inside each block. "pairing": a form on each pair. "sign": the sign
            of the values of the blocks. "free": a form on each pair, a Levi-Civita symbol on the rest.
        partition: as a restricted growth string.
    """

    kind: str
    partition: Partition


def diagrams(
    family: str, n: int, order_out: int, order_in: int, *, basis: str = "spanning"
) -> tuple[Diagram, ...]:
    """The diagrams that span the equivariant maps, in the order in which layers store their weights.

    Args:
        family: "S", "A", "B", "O", "SO" or "Sp"; O(p,q) and SO(p,q) are like O and SO.
        n: dimension.
        order_out: number of outputs.
        order_in: number of inputs.
        basis: "spanning" for all of them, "minimal" for linearly independent ones.

    >>> [diagram.partition for diagram in diagrams("O", 3, 2, 2)]
    [(0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0)]
    """
    if basis not in ("spanning", "minimal"):
        raise ValueError(f"diagrams expects basis to be spanning or minimal, got {basis!r}")
    pairs = sector_pairs(family, n, order_out, order_in)
    found = [diagram for pair in pairs for diagram in weight_diagrams(*pair, order_out, order_in)]
    if basis == "spanning":
        return tuple(found)
    kept = minimal_diagrams(family, n, order_out + order_in)
    return tuple(diagram for diagram in found if diagram in kept)


def count_diagrams(family: str, n: int, order_out: int, order_in: int) -> int:
    """How many ``diagrams`` span the equivariant maps, without a list of them.

    >>> count_diagrams("S", 3, 6, 6)
    4213597
    """
    return sum(
        math.prod(map(math.factorial, upper.through))
        * count_halves(order_out, upper)
        * count_halves(order_in, lower)
        for upper, lower in sector_pairs(family, n, order_out, order_in)
    )


def weight_diagrams(upper: Sector, lower: Sector, order_out: int, order_in: int) -> tuple[Diagram, ...]:
    """The diagrams of the weights (permutation, lower half, upper half) of a pair of sectors, flattened."""
    kind = "partition" if upper.kind == "even" else upper.kind
    return tuple(
        Diagram(kind, join_halves(above, permutation, below))
        for permutation in upper.permutations
        for below in halves(order_in, lower)
        for above in halves(order_out, upper)
    )


def weight_mask(
    family: str, n: int, upper: Sector, lower: Sector, order_out: int, order_in: int
) -> NDArray[np.bool_]:
    """Which weights of a pair of sectors a minimal basis keeps.

    Shape:
        -> (permutations, lower halves, upper halves)
    """
    kept = minimal_diagrams(family, n, order_out + order_in)
    flat = [diagram in kept for diagram in weight_diagrams(upper, lower, order_out, order_in)]
    shape = (len(upper.permutations), len(halves(order_in, lower)), len(halves(order_out, upper)))
    return np.array(flat, dtype=np.bool_).reshape(shape)


def count_invariants(family: str, n: int, m: int) -> int:
    """The dimension of the maps between tensors with m indices together, by formula.

    >>> [count_invariants("S", 3, m) for m in range(7)]
    [1, 1, 2, 5, 14, 41, 122]
    """
    if family in ("S", "A"):
        extra = stirling2(m, n - 1) + stirling2(m, n) if family == "A" and n > 1 else 0
        return extra + sum(stirling2(m, t) for t in range(min(m, n) + 1))
    if family == "B":
        return _count_even(m, n)
    if family == "Sp":
        return count_symplectic(n, m)
    return count_orthogonal(n, m) + (count_pseudoscalar(n, m) if family == "SO" else 0)


@functools.cache
def minimal_diagrams(family: str, n: int, m: int) -> frozenset[Diagram]:
    """Linearly independent diagrams on m vertices that span the same maps as all of them.

    Partitions are kept if they have at most n blocks, sign diagrams always; pairings by the longest
    increasing subsequence (O, SO) or the number of mutually crossing pairs (Sp). The rules for pairings are
    confirmed by the rank of the inner products modulo a prime; should one fail, the first independent
    diagrams are taken instead, with a warning.
    """
    every = diagrams(family, n, m, 0)
    kept = [diagram for diagram in every if _is_kept(family, n, diagram)]
    if family in ("O", "SO", "Sp"):
        expected = count_invariants(family, n, m)
        if len(kept) != expected or len(independent_rows(gram(family, n, kept))) != expected:
            warnings.warn(f"the rule for a basis of {family}({n}) fails for {m} vertices", stacklevel=2)
            kept = [every[i] for i in independent_rows(gram(family, n, every))]
    return frozenset(kept)


def gram(family: str, n: int, found: Sequence[Diagram]) -> NDArray[np.int64]:
    """Inner products modulo 2^31 - 1 of diagrams on one row of vertices, by counting loops."""
    size = len(found)
    table = np.zeros((size, size), dtype=np.int64)
    for i, a in enumerate(found):
        for j, b in enumerate(found[: i + 1]):
            if a.kind == b.kind:
                table[i, j] = table[j, i] = _inner(family, n, a, b) % _PRIME
    return table


def independent_rows(matrix: NDArray[np.int64]) -> list[int]:
    """The first rows that are linearly independent modulo 2^31 - 1.

    >>> independent_rows(np.array([[1, 2], [2, 4], [0, 1]]))
    [0, 2]
    """
    rest, kept = matrix.astype(np.int64) % _PRIME, []
    for row in range(len(rest)):
        nonzero = np.flatnonzero(rest[row])
        if not len(nonzero):
            continue
        kept.append(row)
        column = nonzero[0]
        pivot = rest[row] * pow(int(rest[row, column]), -1, _PRIME) % _PRIME
        below = rest[row + 1 :]
        below[:] = (below - below[:, column : column + 1] * pivot) % _PRIME
    return kept


def diagram_tensor(
    diagram: Diagram, n: int, order_out: int, form: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The map that a diagram stands for, an index for each vertex. Shape (n, ..., n), float64.

    Args:
        diagram: which one.
        n: dimension.
        order_out: how many vertices are outputs.
        form: of pairs of inputs; symmetric or antisymmetric. The identity, if not given. Its inverse raises
            free outputs; pairs of outputs have the form itself, which for eta and Omega is invariant too.

    >>> diagram_tensor(Diagram("pairing", (0, 1, 0, 1)), 2, 2).reshape(4, 4).tolist()[1]
    [0.0, 1.0, 0.0, 0.0]
    """
    kind, partition = diagram
    if kind == "partition":
        return partition_tensor(partition, n)
    if kind == "sign":
        return sign_tensor(partition, n)
    one = np.eye(n)
    form = one if form is None else form
    product, vertices = np.ones(()), [block[0] for block in blocks_of(partition) if len(block) == 1]
    if kind == "free":
        product = sign_values(n, n)
        for axis in range(sum(vertex < order_out for vertex in vertices)):
            product = np.moveaxis(np.tensordot(np.linalg.inv(form), product, (1, axis)), 0, axis)
    for a, b in (block for block in blocks_of(partition) if len(block) == 2):
        product = np.multiply.outer(product, one if a < order_out <= b else form)
        vertices += [a, b]
    return np.array(product.transpose(np.argsort(vertices)), order="C")


def _is_kept(family: str, n: int, diagram: Diagram) -> bool:
    if diagram.kind == "sign":
        return True
    if diagram.kind == "partition":
        return num_blocks(diagram.partition) <= n
    if family == "Sp":
        return most_crossing(diagram.partition) <= n // 2
    return longest_increasing(diagram.partition) <= n


def _inner(family: str, n: int, a: Diagram, b: Diagram) -> int:
    p, q = a.partition, b.partition
    if a.kind == "partition":
        return partition_gram(p, q, n)
    if a.kind == "sign":
        return math.factorial(n) * (p == q)
    if a.kind == "free":
        return free_gram(p, q, n)
    return symplectic_gram(p, q, n) if family == "Sp" else orthogonal_gram(p, q, n)


@functools.cache
def _count_even(m: int, largest: int) -> int:
    """Partitions of m vertices into at most ``largest`` blocks, all of even size."""
    if m == 0 or largest == 0:
        return int(m == 0)
    return sum(math.comb(m - 1, size - 1) * _count_even(m - size, largest - 1) for size in range(2, m + 1, 2))
