"""The linear maps between two representations that commute with the group: how many, and which."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equitorch.reps.cartesian import CartesianTensor
from equitorch.reps.diagrams import count_invariants, diagram_tensor, diagrams
from equitorch.reps.irreps import Irrep, Irreps
from equitorch.reps.rep import (
    ChangedBasis,
    DirectSum,
    Dual,
    KroneckerProduct,
    Rep,
    block_diagonal,
    intertwiners,
    kron,
)
from equitorch.reps.tensor_power import Outer, TensorPower

_LARGEST = 2048  # entries of a map that the null space of the generators is solved for
_DEPENDENT = 1e-8  # a map is a sum of others if no more than this part of it is left beside them


def hom_dim(rep_in: Rep, rep_out: Rep) -> int:
    """The number of linearly independent equivariant maps.

    By a formula for tensor powers and by Schur's lemma for irreps; for sums and outer products from their
    parts; for symmetric tensors by the rank of the projected diagrams; otherwise by the null space of the
    generators, for small sizes.

    Args:
        rep_in: of the argument.
        rep_out: of the value.

    Raises:
        ValueError: if the groups differ, or the null space is needed and the sizes are too large for it.

    >>> hom_dim(TensorPower("S", 8, 2), TensorPower("S", 8, 2))
    15
    >>> hom_dim(TensorPower("O", 3, 2), Irreps("2x0e+1e+2o"))
    3
    """
    x, y = _frames(rep_in, rep_out)
    if x.is_whole and y.is_whole:
        return _count(x.rep, y.rep)
    return len(hom_basis(rep_in, rep_out))


def hom_basis(rep_in: Rep, rep_out: Rep, *, basis: str = "minimal") -> Tensor:
    """The equivariant maps themselves, as matrices in C order of the tensor indices; for small sizes.

    For tensor powers these are the diagrams of the group, in the order in which layers store their weights;
    for an ``Automorphism`` the indicators of the orbits of index tuples. For symmetric tensors diagrams are
    projected. The null space of the generators stands in where nothing better is known; it is orthonormal.

    Args:
        rep_in: of the argument.
        rep_out: of the value.
        basis: "minimal" for linearly independent maps, ``hom_dim`` of them; "spanning" for all diagrams.

    Raises:
        ValueError: if the groups differ, or the null space is needed and the sizes are too large for it.

    Shape:
        -> (count, rep_out.dim, rep_in.dim), float64

    >>> hom_basis(TensorPower("S", 2, 1), TensorPower("S", 2, 1)).tolist()
    [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    """
    if basis not in ("minimal", "spanning"):
        raise ValueError(f"hom_basis expects basis to be minimal or spanning, got {basis!r}")
    x, y = _frames(rep_in, rep_out)
    maps = _maps(x.rep, y.rep, basis)
    maps = maps if y.down is None else y.down @ maps
    maps = maps if x.up is None else maps @ x.up
    if basis == "minimal" and not (x.is_whole and y.is_whole):
        maps = maps[independent_maps(maps)]
    return maps


class _Frame(NamedTuple):
    """A representation seen in a simpler one: matrix(g) == down @ rep.matrix(g) @ up, and down @ up == 1."""

    rep: Rep
    down: Tensor | None = None  # the identity, where there is none
    up: Tensor | None = None

    @property
    def is_whole(self) -> bool:
        return self.down is None or self.down.shape[0] == self.down.shape[1]

    def matrices(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(self.rep.dim, dtype=torch.float64, device="cpu")
        return (one if self.down is None else self.down, one if self.up is None else self.up)


def _frames(rep_in: Rep, rep_out: Rep) -> tuple[_Frame, _Frame]:
    if rep_in.group != rep_out.group:
        raise ValueError(
            f"equivariant maps need one group, got {rep_in} of {rep_in.group} "
            f"and {rep_out} of {rep_out.group}"
        )
    return _frame(rep_in), _frame(rep_out)


def _frame(rep: Rep) -> _Frame:
    if isinstance(rep, TensorPower) and rep.symmetric:
        return _Frame(rep.with_order(rep.order), rep.basis, rep.basis.T)
    if isinstance(rep, Irrep):
        return _Frame(Irreps([(1, rep)]))
    if isinstance(rep, CartesianTensor):
        return _Frame(rep.irreps, rep.change_of_basis.T, rep.change_of_basis)
    if isinstance(rep, ChangedBasis):
        inner, matrix = _frame(rep.rep), rep.basis.to(torch.float64)
        down, up = inner.matrices()
        back = torch.linalg.inv(matrix) if matrix.shape[0] == matrix.shape[1] else matrix.T
        return _Frame(inner.rep, matrix @ down, up @ back)
    if isinstance(rep, Dual):
        return _dual(rep)
    if isinstance(rep, (DirectSum, Outer, KroneckerProduct)):
        return _joined(rep)
    return _Frame(rep)


def _joined(rep: DirectSum | Outer | KroneckerProduct) -> _Frame:
    frames = [_frame(part) for part in rep.reps]
    cores = [frame.rep for frame in frames]
    joined: Rep
    if isinstance(rep, DirectSum):
        joined = DirectSum(tuple(cores))
    elif isinstance(rep, Outer):
        joined = Outer(*cores)
    else:
        powers = [core for core in cores if isinstance(core, TensorPower)]
        if len(powers) < len(cores):
            return _Frame(rep)
        joined = powers[0].with_order(sum(core.order for core in powers))
    if all(frame.down is None for frame in frames):
        return _Frame(joined)
    downs, ups = zip(*(frame.matrices() for frame in frames), strict=True)
    if isinstance(rep, DirectSum):
        return _Frame(joined, block_diagonal(downs), block_diagonal(ups))
    return _Frame(joined, functools.reduce(kron, downs), functools.reduce(kron, ups))


def _dual(rep: Dual) -> _Frame:
    """Inverse transposes, by the form that makes a representation its own dual."""
    inner = _frame(rep.rep)
    form = _form(inner.rep)
    if form is None:
        return _Frame(rep)
    down, up = inner.matrices()
    return _Frame(inner.rep, up.T @ form, torch.linalg.inv(form) @ down.T)


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


def _parts(rep: Rep) -> tuple[Rep, ...]:
    return rep.reps if isinstance(rep, DirectSum) else (rep,)


def _count(x: Rep, y: Rep) -> int:
    if isinstance(x, DirectSum) or isinstance(y, DirectSum):
        return sum(hom_dim(a, b) for b in _parts(y) for a in _parts(x))
    if isinstance(x, Outer) and isinstance(y, Outer):
        return math.prod(hom_dim(a, b) for a, b in zip(x.reps, y.reps, strict=True))
    if isinstance(x, TensorPower) and isinstance(y, TensorPower):
        group, m = x.matrix_group, x.order + y.order
        if group.permutations is not None:
            return int(group.permutations.orbits(m).max()) + 1
        return count_invariants(group.family, group.n, m)
    if isinstance(x, (Irreps, TensorPower)) and isinstance(y, (Irreps, TensorPower)):
        x, y = (rep.irreps if isinstance(rep, TensorPower) else rep for rep in (x, y))
        return sum(x.count(ir) * y.count(ir) for ir in {ir for _, ir in x})
    return len(_null_space(x, y))


def _maps(x: Rep, y: Rep, basis: str) -> Tensor:
    if isinstance(x, DirectSum) or isinstance(y, DirectSum):
        return _blocks(_parts(x), _parts(y), basis)
    if isinstance(x, Outer) and isinstance(y, Outer):
        factors = [hom_basis(a, b, basis=basis) for a, b in zip(x.reps, y.reps, strict=True)]
        return functools.reduce(lambda a, b: kron(a[:, None], b[None]).flatten(0, 1), factors)
    if isinstance(x, TensorPower) and isinstance(y, TensorPower):
        return _orbit_maps(x, y) if x.family == "Aut" else _diagram_maps(x, y, basis)
    if isinstance(x, TensorPower) and isinstance(y, Irreps):
        return _schur(x.irreps, y) @ x.change_of_basis
    if isinstance(x, Irreps) and isinstance(y, TensorPower):
        return y.change_of_basis.T @ _schur(x, y.irreps)
    if isinstance(x, Irreps) and isinstance(y, Irreps):
        return _schur(x, y)
    return _null_space(x, y)


def _blocks(xs: tuple[Rep, ...], ys: tuple[Rep, ...], basis: str) -> Tensor:
    """Maps between direct sums: those between two parts, one pair after the other."""
    width, height = (sum(rep.dim for rep in reps) for reps in (xs, ys))
    made, top = [], 0
    for b in ys:
        left = 0
        for a in xs:
            block = hom_basis(a, b, basis=basis)
            around = (left, width - left - a.dim, top, height - top - b.dim)
            made.append(torch.nn.functional.pad(block, around))
            left += a.dim
        top += b.dim
    return torch.cat(made)


def _diagram_maps(x: TensorPower, y: TensorPower, basis: str) -> Tensor:
    group, form = x.matrix_group, x.matrix_group.form.numpy()
    found = diagrams(group.family, group.n, y.order, x.order, basis=basis)
    maps = [diagram_tensor(d, group.n, y.order, form).reshape(y.dim, x.dim) for d in found]
    return torch.tensor(np.array(maps).reshape(-1, y.dim, x.dim), device="cpu")


def _orbit_maps(x: TensorPower, y: TensorPower) -> Tensor:
    group = x.matrix_group.permutations
    if group is None:
        raise ValueError(f"{x} expects permutations")
    orbit = torch.tensor(group.orbits(x.order + y.order), device="cpu").reshape(y.dim, x.dim)
    number = torch.arange(int(orbit.max()) + 1, device="cpu")
    return (orbit == number[:, None, None]).to(torch.float64)


def _schur(x: Irreps, y: Irreps) -> Tensor:
    """The identity between each copy of an irrep and each copy of the same."""
    starts = [torch.tensor([0, *(ir.dim for ir in rep.copies)], device="cpu").cumsum(0) for rep in (x, y)]
    made = [torch.zeros(0, y.dim, x.dim, dtype=torch.float64, device="cpu")]
    for b, row in zip(y.copies, starts[1].tolist(), strict=False):
        for a, column in zip(x.copies, starts[0].tolist(), strict=False):
            if a == b:
                block = torch.zeros(1, y.dim, x.dim, dtype=torch.float64, device="cpu")
                block[0, row : row + b.dim, column : column + a.dim].fill_diagonal_(1)
                made.append(block)
    return torch.cat(made)


def _null_space(x: Rep, y: Rep) -> Tensor:
    if x.dim * y.dim > _LARGEST:
        raise ValueError(
            f"no diagrams are known for maps from {x} to {y}, "
            f"and {y.dim} x {x.dim} entries are too many to solve for (at most {_LARGEST})"
        )
    return intertwiners(x, y)


def independent_maps(maps: Tensor) -> list[int]:
    """The first linearly independent maps, by Gram and Schmidt."""
    flat = maps.flatten(1)
    kept: list[int] = []
    found = flat[:0]
    for number, row in enumerate(flat):
        rest = row - (row @ found.T) @ found
        rest = rest - (rest @ found.T) @ found
        if rest.norm() > _DEPENDENT * max(1.0, float(row.norm())):  # diagrams have norms of 1 or more
            kept.append(number)
            found = torch.cat([found, rest[None] / rest.norm()])
    return kept
