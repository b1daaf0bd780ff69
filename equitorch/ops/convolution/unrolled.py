"""A coupling as its Triton kernels unroll it: plain numbers, known when a kernel is compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Term(NamedTuple):
    """Coefficients that multiply one row of the features."""

    at: int  # position among the rows that the segment holds
    filters: tuple[int, ...]
    values: tuple[float, ...]


class Cell(NamedTuple):
    """What one path adds to one row of the result."""

    at: int  # position among the rows of the result: of the group where they are sums, else of the segment
    terms: tuple[Term, ...]


class Path(NamedTuple):
    """What one path adds."""

    number: int
    cells: tuple[Cell, ...]


class Segment(NamedTuple):
    """Paths that share the rows they read."""

    rows: tuple[int, ...]
    result: tuple[int, ...]
    paths: tuple[Path, ...]


class Group(NamedTuple):
    """Rows of the result that belong to one program, and how they come about."""

    rows: tuple[int, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, eq=False)
class Unrolled:
    """A coupling in pieces that fit the registers; equal to another if its numbers are.

    Triton compiles a kernel for each that it meets. It compares them at every launch and writes their names
    into its cache on disk, so both are quick: a digest of the contents.

    Attributes:
        name: digest of the contents.
        dims: rows of the features, of the filters and of the result, and number of paths.
        groups: one for each program along the rows of the result.
        empty_rows: rows of the result that no path reaches.
        empty_paths: paths without coefficients.
        features: the most rows of the features that are held at once.
        results: the most rows of the result that are held at once.
        weights: the most paths of one segment.
    """

    name: str
    dims: tuple[int, int, int, int]
    groups: tuple[Group, ...]
    empty_rows: tuple[int, ...]
    empty_paths: tuple[int, ...]
    features: int
    results: int
    weights: int

    @classmethod
    def build(
        cls, lists: list[Tensor], dims: tuple[int, int, int, int], *, summed: bool, most: int = 24
    ) -> Unrolled:
        """Cut the coupling of ``form_lists`` into pieces.

        Args:
            lists: one half of the plan, on any device; this reads them.
            dims: rows of the features, of the filters and of the result, and number of paths.
            summed: rows of the result are sums over edges and each belongs to one group, with segments that
                limit the rows of the features; else they are read, in one group, and segments limit both.
            most: about so many rows of each kind are held at once; those of one path stay together.
        """
        cells = list(_cells(lists))
        if summed:
            groups = tuple(
                Group(rows, tuple(_segments([c for c in cells if c[1] in rows], most, rows)))
                for rows in _groups(cells, most)
            )
        else:
            groups = (Group((), tuple(_segments(cells, most, None))),) if cells else ()
        segments = [segment for group in groups for segment in group.segments]
        content = repr((dims, groups))
        return cls(
            name=hashlib.sha256(content.encode()).hexdigest()[:32],
            dims=dims,
            groups=groups,
            empty_rows=tuple(sorted(set(range(dims[2])) - {cell[1] for cell in cells})),
            empty_paths=tuple(sorted(set(range(dims[3])) - {cell[0] for cell in cells})),
            features=max((len(s.rows) for s in segments), default=0),
            results=max((len(g.rows) or len(s.result) for g in groups for s in g.segments), default=0),
            weights=max((len(s.paths) for s in segments), default=0),
        )

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unrolled) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


Raw = tuple[int, int, list[tuple[int, tuple[int, ...], tuple[float, ...]]]]


def _cells(lists: list[Tensor]) -> Iterator[Raw]:
    """Path, row of the result and terms of each cell: row of the features, rows of the filter, numbers."""
    path, row, cell_start, term_row, term_start, filter_row, value = (part.tolist() for part in lists)
    for cell in range(len(path)):
        terms = []
        for t in range(cell_start[cell], cell_start[cell + 1]):
            here = slice(term_start[t], term_start[t + 1])
            terms.append((term_row[t], tuple(filter_row[here]), tuple(value[here])))
        yield path[cell], row[cell], terms


def _groups(cells: list[Raw], most: int) -> list[tuple[int, ...]]:
    """Rows of the result, those of a path together, in pieces of at most ``most`` where paths allow it."""
    ends: dict[int, int] = {}
    for number in {cell[0] for cell in cells}:
        rows = [row for path, row, _ in cells if path == number]
        ends[min(rows)] = max(ends.get(min(rows), 0), max(rows))
    live, pieces, reached = {cell[1] for cell in cells}, list[tuple[int, ...]](), -1
    for low, high in sorted(ends.items()):
        new = tuple(row for row in range(max(low, reached + 1), high + 1) if row in live)
        if pieces and (low <= reached or len(pieces[-1]) + len(new) <= most):
            pieces[-1] += new
        else:
            pieces.append(new)
        reached = max(reached, high)
    return pieces


def _segments(cells: list[Raw], most: int, slots: tuple[int, ...] | None) -> Iterator[Segment]:
    """Paths in their order, as many together as read at most ``most`` rows; without slots of either kind."""
    by_path: dict[int, list[Raw]] = {}
    for cell in cells:
        by_path.setdefault(cell[0], []).append(cell)
    together: list[Raw] = []
    for more in by_path.values():
        both = together + more
        held = max(len(_read(both)), 0 if slots else len(_reached(both)))
        if together and held > most:
            yield _segment(together, slots)
            both = more
        together = both
    if together:
        yield _segment(together, slots)


def _segment(cells: list[Raw], slots: tuple[int, ...] | None) -> Segment:
    rows, result = _read(cells), _reached(cells)
    places = result if slots is None else slots
    paths: dict[int, list[Cell]] = {}
    for number, row, terms in cells:
        held = tuple(Term(rows.index(i), filters, values) for i, filters, values in terms)
        paths.setdefault(number, []).append(Cell(places.index(row), held))
    return Segment(rows, result, tuple(Path(number, tuple(cells)) for number, cells in paths.items()))


def _read(cells: list[Raw]) -> tuple[int, ...]:
    return tuple(sorted({term[0] for cell in cells for term in cell[2]}))


def _reached(cells: list[Raw]) -> tuple[int, ...]:
    return tuple(sorted({cell[1] for cell in cells}))
