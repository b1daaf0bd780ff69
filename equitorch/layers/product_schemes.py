"""The ways to compute one path of a tensor product, and what they cost.

Every path is linear in its two operands, its weights and its result, so the weights can be contracted with
any of the other three first. What remains is a coupling of rows that carry channels: of both operands, or of
one operand with single numbers of the other, or with matrices that are made of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from equitorch.layers.instructions import Instruction, Triple


class Use(NamedTuple):
    """Weights of a path, as a matrix; ``swapped``: with the first two of their axes exchanged."""

    path: int
    swapped: bool


class Role(NamedTuple):
    """What becomes of one operand, or of the result, on the way.

    Attributes:
        kind: of an operand with multiplicities u: ``block``, rows with u channels as they are; ``weighted``,
            the same times the weights; ``mixed``, channels multiplied by a matrix of weights; ``repeated`` or
            ``tiled``, channels (u, v) for all v of the partner; ``first`` or ``second`` of all pairs of
            channels; ``scaled``, as they are, and weights follow; ``single``, every number by itself;
            ``columns``, one column of coefficients for each u.
            Of the result: ``sum``, the block itself; ``mix``, to be multiplied by a matrix of weights.
        extra: how many numbers of another multiplicity stand beside each component.
        use: the weights.
    """

    kind: str
    extra: int = 1
    use: Use | None = None


class Scheme(NamedTuple):
    """One way to compute a path, on so many channels; ``cost`` in nanoseconds for one point."""

    channels: int
    left: Role
    right: Role
    result: Role
    cost: float = 0.0

    @property
    def roles(self) -> tuple[Role, Role, Role]:
        """Of the first operand, the second, and the result."""
        return self.left, self.right, self.result

    @property
    def kinds(self) -> tuple[str, str, str]:
        """What the three are."""
        return self.left.kind, self.right.kind, self.result.kind


BLOCK, SINGLE, SUM = Role("block"), Role("single"), Role("sum")


def schemes(p: int, path: Instruction, irreps: Triple, *, shared: bool) -> list[Scheme]:
    """The ways to compute a path.

    Args:
        p: number of the path, by which its weights are found.
        path: the path.
        irreps: of both operands and of the result.
        shared: whether one set of weights serves all points.
    """
    (u, a), (v, b), (w, c) = irreps[0][path.i_in1], irreps[1][path.i_in2], irreps[2][path.i_out]
    mode, use = path.connection_mode, Use(p, False) if path.has_weight else None
    if mode == "uvw":
        found = list(_fully_connected(p, (u, v, w), (a.dim, b.dim, c.dim), shared))
    elif mode == "uvu":
        left, right = _channelwise(use, v, Use(p, True))
        found = [Scheme(u, left, right, SUM)]
    elif mode == "uvv":
        right, left = _channelwise(use, u, Use(p, False))
        found = [Scheme(v, left, right, SUM)]
    elif mode == "uvuv":
        found = [Scheme(u * v, Role("repeated", 1, use), Role("tiled"), SUM)]
    elif mode == "uuw" and use is None:
        found = [Scheme(1, Role("single", u), Role("single", u), SUM)]
    elif mode in ("uuu", "uuw"):
        weighted = BLOCK if use is None or mode == "uuw" else Role("weighted", 1, use)
        found = [Scheme(u, weighted, BLOCK, Role("mix", 1, use) if mode == "uuw" else SUM)]
    else:
        first = Role("first", 1, use if mode == "uvu<v" else None)
        result = Role("mix", 1, use) if mode == "u<vw" else SUM
        found = [Scheme(u * (u - 1) // 2, first, Role("second"), result)]
    return [_simpler(scheme) for scheme in found]


def _channelwise(use: Use | None, other: int, matrix: Use) -> tuple[Role, Role]:
    """An operand that keeps its channels, and one whose ``other`` channels are summed with weights."""
    if use is None:
        return BLOCK, Role("single", other)
    if other == 1:
        return Role("scaled", 1, use), SINGLE
    return BLOCK, Role("mixed", 1, matrix)


def _simpler(scheme: Scheme) -> Scheme:
    """A block of one channel is read number by number, from where it lies."""
    if scheme.channels != 1:
        return scheme
    plain = {"block": SINGLE, "repeated": SINGLE, "tiled": SINGLE}
    left, right = (role if role.use else plain.get(role.kind, role) for role in scheme.roles[:2])
    return scheme._replace(left=left, right=right)


_PRODUCT, _SMALL = 1 / 70, 1 / 20  # nanoseconds for a multiplication in a large and in many small products
_ROW, _ENTRY, _MOVE = 7.0, 0.06, 0.6  # for an entry of a coupling, the same for each channel, a number moved
_CALL, _MATRICES = 120.0, 500.0  # for a call, and for one with matrices from columns
_WASTE = 3  # so many times more products in matrices for several paths than in those for one


def _fully_connected(
    p: int, muls: tuple[int, int, int], dims: tuple[int, int, int], shared: bool
) -> Iterator[Scheme]:
    (u, v, w), (d1, d2, d3) = muls, dims
    use, swapped, matrix = Use(p, False), Use(p, True), u * v * w * _PRODUCT
    entries = 2 * d1 * min(d2, d3)  # about so many

    def joined(kept: int, many: int, channels: int, products: int, numbers: int) -> float:
        """Rows with channels and single numbers, coupled entry by entry or by matrices."""
        sparse = entries * many * (_ROW + channels * _ENTRY)
        dense = _WASTE * products * many * (channels * _SMALL + numbers * _PRODUCT)
        return kept * many * channels * _MOVE + min(sparse, dense)

    first, second = Role("mixed", v, use), Role("mixed", u, swapped)
    if shared or v == 1:
        cost = d3 * matrix + joined(d3, v, u, d3 * d1, v * d2)
        yield Scheme(u, BLOCK, Role("single", v), Role("mix", v, swapped), cost)
    if shared or v > 1:
        cost = d3 * matrix + joined(d3, u, v, d3 * d2, u * d1)
        yield Scheme(v, Role("single", u), BLOCK, Role("mix", u, use), cost)
    yield Scheme(w, first, Role("single", v), SUM, d1 * matrix + joined(d1, v, w, d3 * d1, v * d2))
    if shared or u == 1:
        yield Scheme(w, Role("single", u), second, SUM, d2 * matrix + joined(d2, u, w, d3 * d2, u * d1))
    if u > 1 and v > 1:
        yield Scheme(w, first, Role("columns", v), SUM, d1 * (matrix + v * w * (_MOVE + 2 * d3 * _SMALL)))
        if shared:
            cost = d2 * (matrix + u * w * (_MOVE + 2 * d3 * _SMALL))
            yield Scheme(w, Role("columns", u), second, SUM, cost)
        both, cost = u * v, d3 * matrix + (d1 + d2 + d3) * u * v * _MOVE + entries * (_ROW + u * v * _ENTRY)
        yield Scheme(both, Role("repeated"), Role("tiled"), Role("mix", 1, use), cost)


def cheapest(options: dict[int, list[Scheme]]) -> dict[int, Scheme]:
    """A scheme for every path. Few kinds of schemes make few calls, so mixtures must be worth it."""
    kinds = sorted({s.kinds for found in options.values() for s in found if len(found) > 1})
    best: tuple[float, dict[int, Scheme]] | None = None
    for count in range(1, len(kinds) + 1):
        for allowed in combinations(kinds, count):
            chosen = {p: _best(found, allowed) for p, found in options.items()}
            calls = {(scheme.channels, scheme.kinds) for scheme in chosen.values()}
            fixed = sum(_MATRICES if "columns" in kinds else _CALL for _, kinds in calls)
            cost = sum(scheme.cost for scheme in chosen.values()) + fixed
            if best is None or cost < best[0]:
                best = cost, chosen
    return best[1] if best else {p: found[0] for p, found in options.items()}


def _best(found: Sequence[Scheme], allowed: Sequence[tuple[str, str, str]]) -> Scheme:
    return min(found, key=lambda scheme: (scheme.kinds not in allowed, scheme.cost))


def dense_is_cheaper(rows: int, out: int, channels: int, numbers: int, entries: int) -> bool:
    """Whether small dense matrices beat a sparse coupling of an operand with single numbers.

    Args:
        rows: of the operand with channels.
        out: rows of the result.
        channels: of both.
        numbers: how many single numbers there are.
        entries: nonzeros of the coupling.
    """
    dense = rows * out * (channels * _SMALL + numbers * _PRODUCT)
    return dense < entries * (_ROW + channels * 2 * _ENTRY)
