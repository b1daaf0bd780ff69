"""equitorch/reps/halves.py and diagram_plan.py"""

import itertools
import math

import numpy as np
import pytest

from equitorch.reps.diagram_plan import analysis_plan, plan_of_key
from equitorch.reps.diagrams import Diagram, diagram_tensor
from equitorch.reps.halves import (
    Sector,
    count_halves,
    halves,
    join_halves,
    sector_pairs,
    sectors,
)
from equitorch.reps.partitions import bell, sign_values, stirling2
from equitorch.testing import symplectic_form

SIZES = [(l, k) for l in range(5) for k in range(5) if l + k <= 5]


def metric(p, q):
    return np.diag([1.0] * p + [-1.0] * q)


CASES = [
    ("S", 3, None),
    ("A", 2, None),
    ("A", 3, None),
    ("A", 4, None),
    ("B", 3, None),
    ("O", 3, None),
    ("SO", 2, None),
    ("SO", 3, None),
    ("Sp", 4, symplectic_form(4).numpy()),
    ("O", 3, metric(1, 2)),
    ("SO", 3, metric(1, 2)),
]


def analyse(plan, x, form):
    """All halves of a tensor, by the plan and numpy."""
    buffers = [x]
    for source, labels in plan.reductions:
        summed = [axis for axis, label in enumerate(labels) if label < 0]
        if form is None:
            named = [50 if label < 0 else label for label in labels]
            kept = sorted(set(named) - {50})
            buffers.append(np.einsum(buffers[source], named, kept))
        else:
            named = [
                50 + summed.index(axis) if axis in summed else label for axis, label in enumerate(labels)
            ]
            kept = sorted(set(named) - {50, 51})
            buffers.append(np.einsum(buffers[source], named, form, [50, 51], kept))
    return [
        [np.einsum(buffers[source], list(labels), sorted(set(labels))) for source, labels in group]
        for group in plan.views
    ]


def synthesise(plan, zs, n, form):
    """The transpose of ``analyse``."""
    buffers = [np.zeros((n,) * rank) for rank in plan.ranks()]

    def diagonal(array, labels, count):
        strides = [
            sum(s for s, label in zip(array.strides, labels, strict=True) if label == a) for a in range(count)
        ]
        return np.lib.stride_tricks.as_strided(array, (n,) * count, strides)

    for group, views in zip(zs, plan.views, strict=True):
        for z, (source, labels) in zip(group, views, strict=True):
            diagonal(buffers[source], labels, z.ndim)[...] += z
    for r in range(len(plan.reductions) - 1, -1, -1):
        source, labels = plan.reductions[r]
        count = buffers[r + 1].ndim
        summed = [axis for axis, label in enumerate(labels) if label < 0]
        if form is None:
            whole = diagonal(buffers[source], [count if v < 0 else v for v in labels], count + 1)
            whole += buffers[r + 1][..., None]
        else:
            order = list(np.argsort([99 if v < 0 else v for v in labels], kind="stable"))
            buffers[source].transpose(order)[...] += np.multiply.outer(buffers[r + 1], form)
            assert order[-2:] == summed
    return buffers[0]


def mixed(upper, sigma, lower, z, sectors_, n, form):
    """What one diagram makes of its lower half."""
    top, bottom = sectors_
    d = top.rank
    z = z.transpose([*sigma, *range(d, z.ndim)])
    through, up, low = (
        list(range(s, s + c)) for s, c in ((0, d), (20, top.alternating), (40, bottom.alternating))
    )
    if top.kind == "free":
        raised = sign_values(n, n)
        for axis in range(top.alternating):
            raised = np.moveaxis(
                np.tensordot(np.eye(n) if form is None else form, raised, (1, axis)), 0, axis
            )
        return np.einsum(raised, up + low, z, through + low, through + up)
    if top.kind == "sign":
        symbol = sign_values(n, n)
        every = through + up + low
        if len(every) == n - 1:
            symbol = symbol.sum(-1)
        return upper.parity * np.einsum(symbol, every, z, through + low, through + up)
    return z


@pytest.mark.parametrize(("group", "n", "form"), CASES)
@pytest.mark.parametrize(("l", "k"), SIZES)
def test_plans_compute_every_diagram(group, n, form, l, k):
    """One random number for each diagram; the sum of dense matrices against three short routines."""
    rng = np.random.default_rng(0)
    x, dense = rng.normal(size=(n,) * k), np.zeros((n,) * (l + k))
    pairs = sector_pairs(group, n, l, k)
    below = analysis_plan(k, tuple(dict.fromkeys(lower for _, lower in pairs)))
    above = analysis_plan(l, tuple(dict.fromkeys(upper for upper, _ in pairs)))
    inner = np.eye(n) if form is None and group in ("O", "SO") else form
    found = analyse(below, x, inner)
    y = [
        [np.zeros((n,) * (s.rank + s.alternating)) for _ in hs]
        for s, hs in zip(above.sectors, above.halves, strict=True)
    ]
    for top, bottom in pairs:
        a, b = above.sectors.index(top), below.sectors.index(bottom)
        for sigma in top.permutations:
            for i, upper in enumerate(above.halves[a]):
                for j, lower in enumerate(below.halves[b]):
                    weight = rng.normal()
                    y[a][i] += weight * mixed(upper, sigma, lower, found[b][j], (top, bottom), n, form)
                    diagram = Diagram(top.kind.replace("even", "partition"), join_halves(upper, sigma, lower))
                    dense += weight * diagram_tensor(diagram, n, l, form)
    result = synthesise(above, y, n, inner)
    expected = dense.reshape(n**l, n**k) @ x.reshape(n**k)
    np.testing.assert_allclose(result.reshape(-1), expected, atol=1e-11)


@pytest.mark.parametrize(("l", "k"), [(l, k) for l in range(5) for k in range(5)])
def test_halves_count_diagrams(l, k):
    """Bell's numbers and odd factorials, known from outside, and P(k, d) = sum_j S2(k, j) C(j, d)."""
    for group, whole in (("S", bell(l + k)), ("O", math.prod(range(l + k - 1, 0, -2)) * ((l + k) % 2 == 0))):
        found = sum(
            math.factorial(s.rank) * count_halves(l, s) * count_halves(k, s)
            for s, _ in sector_pairs(group, 99, l, k)
        )
        assert found == whole
    for d in range(k + 1):
        assert len(halves(k, Sector("partition", (d,)))) == sum(
            stirling2(k, j) * math.comb(j, d) for j in range(k + 1)
        )


@pytest.mark.parametrize(("group", "n"), [("S", 5), ("A", 3), ("B", 3), ("SO", 3), ("SO", 4), ("Sp", 4)])
def test_each_diagram_comes_once(group, n):
    for l, k in SIZES:
        found = [
            (top.kind, join_halves(upper, sigma, lower))
            for top, bottom in sector_pairs(group, n, l, k)
            for sigma in top.permutations
            for upper in halves(l, top)
            for lower in halves(k, bottom)
        ]
        assert len(found) == len(set(found))
        for top, bottom in sector_pairs(group, n, l, k):
            assert count_halves(l, top) == len(halves(l, top))
            assert count_halves(k, bottom) == len(halves(k, bottom))


def test_reads_as_little_as_it_can():
    """The numbers of sums by size read, worked out by hand for small orders."""
    for kind, order, expected in [
        ("partition", 2, {2: 2, 1: 2}),
        ("partition", 3, {3: 3, 2: 6, 1: 5}),
        ("partition", 4, {4: 4, 3: 12, 2: 20, 1: 15}),
        ("pairing", 2, {1: 1}),
        ("pairing", 3, {2: 3}),
        ("pairing", 4, {3: 6, 1: 3}),
    ]:
        plan = analysis_plan(order, sectors(kind, order))
        reads = [1 + max(labels, default=-1) + 1 for _, labels in plan.reductions]
        assert {size: reads.count(size) for size in sorted(set(reads), reverse=True)} == expected
        assert plan_of_key(plan.key) is plan


def test_order_never_changes():
    """Checkpoints hold weights in this order."""
    table = [(half.through, half.closed) for half in halves(3, Sector("partition", (1,)))]
    assert table == [
        (((0, 1, 2),), ()),
        (((2,),), ((0, 1),)),
        (((0, 1),), ((2,),)),
        (((1,),), ((0, 2),)),
        (((0, 2),), ((1,),)),
        (((1, 2),), ((0,),)),
        (((0,),), ((1, 2),)),
        (((2,),), ((0,), (1,))),
        (((1,),), ((0,), (2,))),
        (((0,),), ((1,), (2,))),
    ]
    for kind, order in itertools.product(("partition", "even", "pairing"), range(6)):
        for sector in sectors(kind, order):
            found = halves(order, sector)
            marks = [(h.partition, [b in h.through for b in sorted(h.through + h.closed)]) for h in found]
            assert marks == sorted(marks)
    assert Sector("even", (2, 2)).permutations == ((0, 1, 2, 3), (0, 1, 3, 2), (1, 0, 2, 3), (1, 0, 3, 2))
    assert [h.through for h in halves(3, Sector("even", (1, 1)))] == [
        ((2,), (0, 1)),
        ((1,), (0, 2)),
        ((0,), (1, 2)),
    ]


def test_the_check_can_fail():
    """A plan with two axes exchanged computes something else."""
    plan = analysis_plan(2, sectors("partition", 2))
    x = np.random.default_rng(0).normal(size=(3, 3))
    wrong = plan._replace(reductions=tuple(r._replace(labels=r.labels[::-1]) for r in plan.reductions))
    assert not np.allclose(analyse(plan, x, None)[1][1], analyse(wrong, x, None)[1][1])


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="sector_pairs knows S, A, B, O, SO, Sp, got 'GL'"):
        sector_pairs("GL", 3, 1, 1)
    with pytest.raises(ValueError, match=r"halves knows partition, .*, got 'brauer'"):
        halves(2, Sector("brauer", (0,)))
