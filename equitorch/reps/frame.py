"""Representations seen in simpler ones: sums and products of tensor powers and of irreps, in some basis."""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from equitorch.reps.angular_momentum import wigner_3j
from equitorch.reps.cartesian import CartesianTensor
from equitorch.reps.irreps import Irrep, Irreps
from equitorch.reps.multiplicity import count_maps
from equitorch.reps.rep import ChangedBasis, DirectSum, Dual, KroneckerProduct, Rep, block_diagonal, kron
from equitorch.reps.tensor_power import Outer, TensorPower

_MOST_ENTRIES = 1 << 27  # a gigabyte
MOST_MAPS = 200_000


class Frame(NamedTuple):
    """A representation seen in a simpler one: matrix(g) == down @ rep.matrix(g) @ up, and down @ up == 1.

    Attributes:
        rep: a ``TensorPower`` that is not symmetric, ``Irreps``, a ``DirectSum`` or ``Outer`` of such; or
            any other kind that nothing simpler is known of.
        down: the identity, if None.
        up: the identity, if None.
    """

    rep: Rep
    down: Tensor | None = None
    up: Tensor | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing of ``rep`` is lost."""
        return self.down is None or self.down.shape[0] == self.down.shape[1]

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Both, identities written out."""
        one = torch.eye(self.rep.dim, dtype=torch.float64, device="cpu")
        return (one if self.down is None else self.down, one if self.up is None else self.up)

    def seen(self, down: Tensor, up: Tensor) -> Frame:
        """A representation that is seen in this one."""
        return Frame(
            self.rep,
            down if self.down is None else down @ self.down,
            up if self.up is None else self.up @ up,
        )


def require_small(x: Rep, y: Rep, count: int) -> None:
    """Raise a ValueError if so many maps of two representations are too large to write down."""
    if not _fits(x, y, count):
        raise ValueError(
            f"hom_basis from {x} to {y} would hold {count} maps of {y.dim} x {x.dim} entries, "
            f"too many to write down (at most {_MOST_ENTRIES} entries of {MOST_MAPS} maps); "
            "layers.DiagramLinear applies such maps without their matrices"
        )


def is_small(x: Rep, y: Rep) -> bool:
    """Whether all independent maps of two representations can be written down."""
    count = count_maps(x, y)
    return _fits(x, y, 1 if count is None else count)


def _fits(x: Rep, y: Rep, count: int) -> bool:
    return count * x.dim * y.dim <= _MOST_ENTRIES and count <= MOST_MAPS


def frame_of(rep: Rep) -> Frame:
    """The simplest representation that ``rep`` is seen in.

    >>> v = TensorPower("O", 3, 1)
    >>> frame_of(KroneckerProduct((v, DirectSum((v, v))))).rep
    DirectSum(reps=(TensorPower(O(3), order 2), TensorPower(O(3), order 2)))
    """
    if isinstance(rep, TensorPower) and rep.symmetric:
        require_small(rep.with_order(rep.order), rep, 1)
        return Frame(rep.with_order(rep.order), rep.basis, rep.basis.T)
    if isinstance(rep, Irrep):
        return Frame(Irreps([(1, rep)]))
    if isinstance(rep, CartesianTensor):
        return Frame(rep.irreps, rep.change_of_basis.T, rep.change_of_basis)
    if isinstance(rep, ChangedBasis):
        down = rep.basis.to("cpu", torch.float64)
        up = torch.linalg.inv(down) if down.shape[0] == down.shape[1] else down.T
        return frame_of(rep.rep).seen(down, up)
    if isinstance(rep, Dual):
        return _dual(rep)
    if not isinstance(rep, (DirectSum, Outer, KroneckerProduct)):
        return Frame(rep)
    frames = [frame_of(part) for part in rep.reps]
    cores = tuple(frame.rep for frame in frames)
    plain = all(frame.down is None for frame in frames)
    downs, ups = ([], []) if plain else zip(*(frame.matrices() for frame in frames), strict=True)
    if isinstance(rep, DirectSum):
        joined = Frame(DirectSum(cores))
        return joined if plain else joined.seen(block_diagonal(downs), block_diagonal(ups))
    joined = Frame(_flat(cores)) if isinstance(rep, Outer) else _product(cores)
    return joined if plain else joined.seen(functools.reduce(kron, downs), functools.reduce(kron, ups))


def _flat(cores: tuple[Rep, ...]) -> Outer:
    factors = [core.reps if isinstance(core, Outer) else (core,) for core in cores]
    return Outer(*itertools.chain(*factors))


def _product(cores: tuple[Rep, ...]) -> Frame:
    """The Kronecker product of what frames show."""
    powers = [core for core in cores if isinstance(core, TensorPower)]
    if len(powers) == len(cores):
        return Frame(powers[0].with_order(sum(core.order for core in powers)))
    if any(isinstance(core, DirectSum) for core in cores):
        return _distributed(cores)
    outers = [core for core in cores if isinstance(core, Outer)]
    if len(outers) == len(cores):
        return _factorwise(outers)
    irreps = [core for core in cores if isinstance(core, Irreps)]
    if len(irreps) + len(powers) == len(cores):
        return functools.reduce(_coupled, map(_in_irreps, cores))
    return Frame(KroneckerProduct(cores))


def _distributed(cores: tuple[Rep, ...]) -> Frame:
    """A product of sums as the sum of the products."""
    rows = torch.arange(math.prod(core.dim for core in cores), device="cpu")
    grid = rows.reshape([core.dim for core in cores])
    parts = [core.reps if isinstance(core, DirectSum) else (core,) for core in cores]
    starts = [list(itertools.accumulate((part.dim for part in several), initial=0)) for several in parts]
    terms, order = [], []
    for chosen in itertools.product(*(range(len(several)) for several in parts)):
        terms.append(KroneckerProduct(tuple(several[i] for several, i in zip(parts, chosen, strict=True))))
        where = tuple(slice(start[i], start[i + 1]) for start, i in zip(starts, chosen, strict=True))
        order.append(grid[where].reshape(-1))
    return _sorted(frame_of(DirectSum(tuple(terms))), torch.cat(order))


def _factorwise(cores: list[Outer]) -> Frame:
    """A product of outer products as the outer product of products."""
    count, factors = len(cores), len(cores[0].reps)
    rows = torch.arange(math.prod(core.dim for core in cores), device="cpu")
    grid = rows.reshape([part.dim for core in cores for part in core.reps])
    order = [i * factors + j for j in range(factors) for i in range(count)]
    joined = Outer(*(KroneckerProduct(several) for several in zip(*(c.reps for c in cores), strict=True)))
    return _sorted(frame_of(joined), grid.permute(order).reshape(-1))


def _sorted(inner: Frame, order: Tensor) -> Frame:
    """Rows moved: row i of ``inner`` becomes row order[i]."""
    require_small(inner.rep, inner.rep, 1)
    one = torch.eye(len(order), dtype=torch.float64, device="cpu")
    return inner.seen(one[order.argsort()], one[order])


def _in_irreps(core: Rep) -> Frame:
    if isinstance(core, TensorPower):
        return Frame(core.irreps, core.change_of_basis.T, core.change_of_basis)
    return Frame(core)


def _coupled(x: Frame, y: Frame) -> Frame:
    """The product of two features of irreps, as irreps."""
    a, b = x.rep, y.rep
    if not (isinstance(a, Irreps) and isinstance(b, Irreps)):
        return Frame(KroneckerProduct((a, b)))
    require_small(a, KroneckerProduct((a, b, b)), 1)
    found, blocks = [], [torch.zeros(0, a.dim, b.dim, dtype=torch.float64, device="cpu")]
    for left, i in zip(a.copies, _starts(a), strict=True):
        for right, j in zip(b.copies, _starts(b), strict=True):
            for ir in left * right:
                block = torch.zeros(ir.dim, a.dim, b.dim, dtype=torch.float64, device="cpu")
                symbol = wigner_3j(left.l, right.l, ir.l).movedim(2, 0)
                block[:, i : i + left.dim, j : j + right.dim] = ir.dim**0.5 * symbol
                found.append((1, ir))
                blocks.append(block)
    up = torch.cat(blocks).flatten(1)
    coupled = Frame(Irreps(found), up.T, up)
    if x.down is None and y.down is None:
        return coupled
    (down_x, up_x), (down_y, up_y) = x.matrices(), y.matrices()
    return coupled.seen(kron(down_x, down_y), kron(up_x, up_y))


def _starts(irreps: Irreps) -> list[int]:
    return list(itertools.accumulate((ir.dim for ir in irreps.copies), initial=0))[:-1]


def _dual(rep: Dual) -> Frame:
    """Inverse transposes, by the form that makes a representation its own dual."""
    inner = frame_of(rep.rep)
    if _is_orthogonal(inner.rep):
        return inner if inner.down is None or inner.up is None else Frame(inner.rep, inner.up.T, inner.down.T)
    require_small(inner.rep, inner.rep, 1)
    form = _form(inner.rep)
    if form is None:
        return Frame(rep)
    down, up = inner.matrices()
    return Frame(inner.rep, up.T @ form, torch.linalg.inv(form) @ down.T)


def _is_orthogonal(rep: Rep) -> bool:
    """Whether the matrices of a representation are known to be orthogonal."""
    if isinstance(rep, (DirectSum, Outer)):
        return all(map(_is_orthogonal, rep.reps))
    return isinstance(rep, Irreps) or (isinstance(rep, TensorPower) and rep.matrix_group.is_orthogonal)


def _form(rep: Rep) -> Tensor | None:
    """A matrix F with rep.matrix(g) inverse transposed == F rep.matrix(g) F^-1, if it is known."""
    if isinstance(rep, Irreps):
        return torch.eye(rep.dim, dtype=torch.float64, device="cpu")
    if isinstance(rep, TensorPower):
        one = torch.ones(1, 1, dtype=torch.float64, device="cpu")
        return functools.reduce(kron, [rep.matrix_group.form] * rep.order, one)
    if isinstance(rep, (DirectSum, Outer)):
        forms = [_form(part) for part in rep.reps]
        known = [form for form in forms if form is not None]
        if len(known) == len(forms):
            return block_diagonal(known) if isinstance(rep, DirectSum) else functools.reduce(kron, known)
    return None
