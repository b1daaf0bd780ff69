"""All diagrams of a group as explicit matrices, their number, and linearly independent subsets.

For small sizes, for tests and for interpretation: layers use ``equitorch.reps.halves`` and make no matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equitorch.reps.partitions import Partition, blocks_of, partition_tensor, sign_tensor, sign_values

Array = NDArray[np.float64]


class Diagram(NamedTuple):
    """One equivariant map: a partition of outputs and inputs, outputs first, and what its blocks stand for.

    Attributes:
        kind: "partition": indices agree inside each block. "pairing": a form on each pair. "sign": the sign
            of the values of the blocks. "free": a form on each pair, a Levi-Civita symbol on the rest.
        partition: as a restricted growth string.
    """

    kind: str
    partition: Partition


def diagram_tensor(diagram: Diagram, n: int, order_out: int, form: Array | None = None) -> Array:
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
    operands: list[object] = []
    free = [block[0] for block in blocks_of(partition) if len(block) == 1]
    if kind == "free":
        symbol, letters = sign_values(n, n), [len(partition) + i for i in range(n)]
        operands += [symbol, letters]
        for vertex, letter in zip(free, letters, strict=True):
            operands += [np.linalg.inv(form) if vertex < order_out else one, [vertex, letter]]
    for a, b in (block for block in blocks_of(partition) if len(block) == 2):
        operands += [one if a < order_out <= b else form, [a, b]]
    operands += [np.ones(()), []]
    made = np.einsum(*operands, list(range(len(partition))))  # type: ignore[call-overload]
    return np.asarray(made)
