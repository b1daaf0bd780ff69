"""Neighbour lists: every image of every pair within a cutoff, in one order, each edge knowing its reverse."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_DENSE_ATOMS = 128  # up to this size all pairs of a molecule are cheaper than a cell list
_DENSE_PAIRS = 4_000_000  # pairs looked at together
_VAST = 64.0  # cutoffs; a cell list over more empty space than that wastes memory
_OVERLAP = 1e-3  # Angstrom; no two nuclei are ever this near


class Edges(NamedTuple):
    """Directed edges sorted by centre, then by neighbour.

    Shape:
        edge_index: (2, edges) int64, [source j, target i]
        edge_shift: (edges, 3) whole numbers
        edge_reverse: (edges,) int64, where the edge (i, j, -shift) is
    """

    edge_index: Tensor
    edge_shift: Tensor
    edge_reverse: Tensor


def neighbor_edges(
    pos: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, *, batch: Tensor | None = None
) -> Edges:
    r"""Find all edges with \|r_j - r_i + s C\| < cutoff, both directions of each pair.

    Small molecules are compared pair by pair, all at once; everything else goes through vesin's cell lists.

    Args:
        pos: (atoms, 3) Angstrom; atoms may lie outside the cell.
        cell: (graphs, 3, 3) or (3, 3) Angstrom; rows along directions without periodicity are not used.
        pbc: (graphs, 3) or (3,) bool.
        cutoff: Angstrom.
        batch: (atoms,) graph of each atom, ascending; default: one graph.

    Raises:
        ValueError: if the cutoff is not a positive number, a position is not finite, the cell is singular
            along a periodic direction, or two atoms are nearer than 0.001 Angstrom.

    Source:
        Cell lists: vesin, https://github.com/Luthaf/vesin.

    >>> chain = neighbor_edges(torch.zeros(1, 3), torch.eye(3), torch.tensor([True, False, False]), 1.5)
    >>> chain.edge_shift.tolist(), chain.edge_reverse.tolist()
    ([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], [1, 0])
    """
    if not (isinstance(cutoff, int | float) and math.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"the neighbour list expects a positive cutoff in Angstrom, got {cutoff!r}")
    cell, pbc = cell.reshape(-1, 3, 3), pbc.reshape(-1, 3)
    points, cells = pos.detach().to(torch.float64), cell.detach().to(torch.float64)
    if not bool(torch.isfinite(points).all()):
        raise ValueError("the neighbour list expects finite positions, got NaN or infinity")
    counts = [points.shape[0]] if batch is None else torch.bincount(batch, minlength=cell.shape[0]).tolist()
    periodic = pbc.any(1).tolist()
    parts: list[Edges] = []
    first = start = 0
    while first < len(counts):
        last = _dense_run(counts, periodic, first)
        if last > first:
            stop = start + sum(counts[first:last])
            parts.append(_all_pairs(points[start:stop], counts[first:last], cutoff))
        else:
            last, stop = first + 1, start + counts[first]
            parts.append(_cell_list(points[start:stop], cells[first], pbc[first], cutoff))
        if start:
            parts[-1].edge_index.add_(start)
        first, start = last, stop
    return _join(parts, pos.dtype)


def _join(parts: list[Edges], dtype: torch.dtype) -> Edges:
    """The edges of consecutive atoms, one after the other."""
    if len(parts) == 1:
        return parts[0]._replace(edge_shift=parts[0].edge_shift.to(dtype))
    found = 0
    for part in parts:
        part.edge_reverse.add_(found)
        found += part.edge_reverse.shape[0]
    return Edges(
        torch.cat([part.edge_index for part in parts], 1),
        torch.cat([part.edge_shift.to(dtype) for part in parts]),
        torch.cat([part.edge_reverse for part in parts]),
    )


def _dense_run(counts: list[int], periodic: list[bool], first: int) -> int:
    """Where the run of small molecules that begins at ``first`` ends; ``first`` if there is none."""
    last, widest = first, 0
    while last < len(counts) and not periodic[last] and counts[last] <= _DENSE_ATOMS:
        widest = max(widest, counts[last])
        if last > first and (last + 1 - first) * widest**2 > _DENSE_PAIRS:
            break
        last += 1
    return last


def _all_pairs(points: Tensor, counts: list[int], cutoff: float) -> Edges:
    """Edges of molecules without periodicity, every pair of atoms of a molecule compared."""
    device, widest = points.device, max(counts)
    sizes = torch.tensor(counts, device=device)
    slot = torch.arange(widest, device=device)
    used = slot < sizes[:, None]
    padded = points.new_full((len(counts), widest, 3), torch.inf)
    padded[used] = points
    near = points.new_zeros(len(counts), widest, widest)
    for axis in range(3):
        x = padded[..., axis]
        near += (x[:, None, :] - x[:, :, None]).square_()
    found = near < cutoff**2  # a pair with a padded slot is at infinity or at NaN
    found[:, slot, slot] = False
    graph, centre, other = found.nonzero(as_tuple=True)
    offset = torch.cumsum(sizes, 0) - sizes
    index = torch.stack([offset[graph] + other, offset[graph] + centre])
    _refuse_overlap(near[found].sqrt(), index[1], index[0])
    place = torch.zeros(found.shape, dtype=torch.int64, device=device)
    place[found] = torch.arange(graph.shape[0], device=device)
    return Edges(index, points.new_zeros(graph.shape[0], 3), place[graph, other, centre])


def _cell_list(points: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> Edges:
    """Edges of one structure by vesin: its half list, mirrored."""
    from vesin_torch import NeighborList  # type: ignore[import-untyped, unused-ignore]

    atoms = points.shape[0]
    if atoms == 0:
        return Edges(points.new_empty(2, 0).long(), points.new_empty(0, 3), points.new_empty(0).long())
    vacant, periodic = _cut_vacuum(points, cell, pbc, cutoff)
    box = complete_cell(cell, periodic)
    compact = _close_gaps(points - vacant @ cell, box, periodic, cutoff)
    home = torch.floor(compact @ torch.linalg.inv(box)) * periodic
    compact = compact - home @ box  # vesin is slow for atoms far outside the cell
    on_cpu = points.device.type == "cpu"
    threads = torch.get_num_threads() if on_cpu and atoms > 256 else 1
    search = NeighborList(cutoff, full_list=False, n_threads=threads)
    i, j, shift, distance = search.compute(compact, box, periodic, "ijSd")
    home = home + vacant
    _refuse_overlap(distance, i, j)
    if bool(home.any()):
        home = home.to(shift.dtype)
        shift = shift + home.index_select(0, i) - home.index_select(0, j)
    return mirror(i, j, shift, atoms)


def mirror(i: Tensor, j: Tensor, shift: Tensor, atoms: int) -> Edges:
    """Both directions of each pair (centre i, neighbour j, whole shift), sorted, and where the reverse is.

    >>> mirror(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0, 0, 0]]), 2).edge_index.tolist()
    [[1, 0], [0, 1]]
    """
    target, source = torch.cat([i, j]), torch.cat([j, i])
    order = _order(target, source, atoms)
    pairs = i.shape[0]
    place = torch.empty_like(order)
    place[order] = torch.arange(2 * pairs, device=order.device)
    halves = place.view(2, pairs)
    reverse = torch.cat([halves[1], halves[0]]).index_select(0, order)
    index = torch.stack([source.index_select(0, order), target.index_select(0, order)])
    both = torch.cat([shift, -shift])
    return Edges(index, both.index_select(0, order), reverse)


def _order(target: Tensor, source: Tensor, atoms: int) -> Tensor:
    """The permutation that sorts by centre, then by neighbour, stable for the images of one pair."""
    if target.device.type == "cpu" and atoms < 2**15:  # NumPy sorts 16 bits by radix, several times faster
        by_source = np.argsort(source.numpy().astype(np.int16), kind="stable")
        by_target = np.argsort(target.numpy().astype(np.int16)[by_source], kind="stable")
        return torch.from_numpy(by_source[by_target])
    return torch.argsort(target * atoms + source, stable=True)


def complete_cell(cell: Tensor, pbc: Tensor) -> Tensor:
    """The cell with unit vectors, orthogonal to the periodic ones, in place of those that do not count."""
    rows = cell[pbc]
    lengths = torch.linalg.vector_norm(rows, dim=1)
    if not bool(torch.isfinite(rows).all()) or bool((lengths < 1e-6).any()):
        raise ValueError(
            f"the neighbour list expects a lattice vector along each periodic direction, got cell "
            f"{cell.tolist()} with pbc {pbc.tolist()}; set the cell, or pbc to False"
        )
    if rows.shape[0] == 0:
        return torch.eye(3, dtype=cell.dtype, device=cell.device)
    spread = torch.linalg.svd(rows / lengths[:, None])
    if bool(spread.S[-1] < 1e-6):
        raise ValueError(
            f"the neighbour list expects independent lattice vectors, got the singular cell {cell.tolist()} "
            f"with pbc {pbc.tolist()}"
        )
    whole = cell.clone()
    whole[~pbc] = spread.Vh[rows.shape[0] :]
    return whole


def _cut_vacuum(points: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Lattice vectors to subtract so that vast vacuum need not be periodic, and what still is.

    Where the atoms leave a gap wider than the cutoff, no edge crosses the boundary put into that gap.
    """
    box = complete_cell(cell, pbc)
    inverse = torch.linalg.inv(box)
    vast = (1 / torch.linalg.vector_norm(inverse, dim=0) > _VAST * cutoff) & pbc
    vacant, periodic = torch.zeros_like(points), pbc.clone()
    for axis in vast.nonzero().flatten().tolist():
        height = 1 / float(torch.linalg.vector_norm(inverse[:, axis]))
        along = points @ inverse[:, axis]
        inside = torch.sort(along - torch.floor(along)).values
        gap = inside.diff(prepend=inside[-1:] - 1)
        if float(gap.max()) * height > 2 * cutoff:
            origin = inside[gap.argmax()] - gap.max() / 2
            vacant[:, axis] = torch.floor(along - origin)
            periodic[axis] = False
    return vacant, periodic


def _close_gaps(points: Tensor, box: Tensor, pbc: Tensor, cutoff: float) -> Tensor:
    """Move fragments that are far apart along an open direction nearer, but never within the cutoff.

    No neighbour is gained or lost.
    """
    open_axes = box[~pbc]
    for axis in open_axes:
        along = points @ axis
        low, high = torch.aminmax(along)
        if float(high - low) <= _VAST * cutoff:
            continue
        height, order = torch.sort(along)
        gap = height.diff(prepend=height[:1])
        surplus = torch.where(gap > 2 * cutoff, gap - 2 * cutoff, 0.0).cumsum(0)
        moved = torch.empty_like(along)
        moved[order] = surplus + low
        points = points - moved[:, None] * axis
    return points


def _refuse_overlap(distance: Tensor, centre: Tensor, neighbour: Tensor) -> None:
    """Say which two atoms lie on one another."""
    if distance.numel() and float(distance.min()) < _OVERLAP:
        e = int(distance.argmin())
        a, b = sorted((int(centre[e]), int(neighbour[e])))
        who = f"atom {a} and its own image are" if a == b else f"atoms {a} and {b} are"
        raise ValueError(
            f"the neighbour list expects atoms apart from one another, but {who} "
            f"{float(distance[e]):.2g} Angstrom apart; "
            "remove the duplicate, or check the cell and the unit of the positions"
        )
