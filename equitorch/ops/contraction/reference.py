"""What running a ``Program`` means, in PyTorch. Any device, any dtype, differentiable to any order."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.ops.contraction.program import Program

Level = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], int]


def run(program: Program, nodes: list[Tensor], species: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate a program for every node and channel.

    Args:
        program: what is multiplied.
        nodes: its first rows, in parts. Shapes (nodes, rows, channels).
        species: its next rows, in parts. Shapes (species, rows, channels).
        index: the species of each node. Shape (nodes,).

    Returns:
        The results of each node, shape (nodes, rows, channels), and the sums of results over the nodes of
        each species, shape (species, rows, channels).
    """
    table = torch.cat(species, dim=1)
    rows = torch.cat([*nodes, table.index_select(0, index)], dim=1)
    levels, node_out, species_out = _schedule(program)
    for left, right, value, to, count in levels:
        terms = torch.from_numpy(value).to(rows)[:, None] * _pick(rows, left) * _pick(rows, right)
        new = terms.new_zeros(terms.shape[0], count, terms.shape[2])
        rows = torch.cat([rows, new.index_add(1, _index(to, rows), terms)], dim=1)
    sums = torch.zeros_like(table[:, :1]).expand(-1, len(species_out), -1)
    return _pick(rows, node_out), sums.index_add(0, index, _pick(rows, species_out))


def fake(
    program: Program, nodes: list[Tensor], species: list[Tensor], index: Tensor
) -> tuple[Tensor, Tensor]:
    """Empty tensors of the shapes of the results."""
    x, w = nodes[0], species[0]
    return (
        x.new_empty(x.shape[0], len(program.node_out), x.shape[2]),
        w.new_empty(w.shape[0], len(program.species_out), w.shape[2]),
    )


@functools.cache
def _schedule(program: Program) -> tuple[list[Level], NDArray[np.int64], NDArray[np.int64]]:
    """The products by level, and where the results are, with rows numbered in the order of the levels."""
    groups = program.levels()
    place = np.arange(program.given + len(program.start) - 1)
    place[program.given + np.concatenate([np.zeros(0, np.int64), *groups])] = np.arange(
        program.given, len(place)
    )
    levels = []
    for group in groups:
        begin, end = program.start[group], program.start[group + 1]
        at = np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)])
        to = np.repeat(np.arange(len(group)), end - begin)
        levels.append((place[program.left[at]], place[program.right[at]], program.value[at], to, len(group)))
    return levels, place[program.node_out], place[program.species_out]


def _pick(rows: Tensor, which: NDArray[np.int64]) -> Tensor:
    return rows.index_select(1, _index(which, rows))


def _index(which: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(which).to(like.device)
