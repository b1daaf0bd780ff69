"""The linear maps between two representations that commute with the group: how many, and which."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from equitorch.reps.diagrams import count_diagrams, diagram_tensor, diagrams
from equitorch.reps.frame import MOST_MAPS, frame_of, is_small, require_small
from equitorch.reps.irreps import Irreps
from equitorch.reps.multiplicity import count_maps
from equitorch.reps.rep import DirectSum, Rep, common_group, intertwiners, kron
from equitorch.reps.tensor_power import Outer, TensorPower

_LARGEST = 2048  # entries of a map that the null space of the generators is solved for
_DEPENDENT = 1e-8  # a map is a sum of others if no more than this part of it is left beside them


def hom_dim(rep_in: Rep, rep_out: Rep) -> int:
    """The number of linearly independent equivariant maps.

    By a formula for tensor powers, symmetric ones too, by Schur's lemma for irreps, and from their parts for
    sums and products: at once, whatever the sizes. For other representations it is the length of
    ``hom_basis``.

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
    common_group([rep_in, rep_out])
    count = count_maps(rep_in, rep_out)
    return len(hom_basis(rep_in, rep_out)) if count is None else count


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
        ValueError: if the groups differ, if the maps have more entries than memory should hold, or the null
            space is needed and the sizes are too large for it.

    Shape:
        -> (count, rep_out.dim, rep_in.dim), float64

    >>> hom_basis(TensorPower("S", 2, 1), TensorPower("S", 2, 1)).tolist()
    [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]
    """
    if basis not in ("minimal", "spanning"):
        raise ValueError(f"hom_basis expects basis to be minimal or spanning, got {basis!r}")
    common_group([rep_in, rep_out])
    known = count_maps(rep_in, rep_out) if basis == "minimal" else None
    require_small(rep_in, rep_out, 1 if known is None else known)
    x, y = frame_of(rep_in), frame_of(rep_out)
    if basis == "minimal" and rep_in.dim * rep_out.dim <= _LARGEST and not is_small(x.rep, y.rep):
        return intertwiners(rep_in, rep_out)
    maps = _maps(x.rep, y.rep, basis)
    maps = maps if y.down is None else y.down @ maps
    maps = maps if x.up is None else maps @ x.up
    if x.is_whole and y.is_whole:
        return maps
    maps[maps.flatten(1).norm(dim=1) < _DEPENDENT] = 0  # diagrams that say nothing of the part that is left
    if basis == "minimal":
        maps = maps[independent_maps(maps, known)]
    return maps


def _parts(rep: Rep) -> tuple[Rep, ...]:
    return rep.reps if isinstance(rep, DirectSum) else (rep,)


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
    spanning = count_diagrams(group.family, group.n, y.order, x.order)
    if basis == "spanning" or spanning > MOST_MAPS:  # minimal sets are found among all diagrams
        require_small(x, y, spanning)
    found = diagrams(group.family, group.n, y.order, x.order, basis=basis)
    maps = torch.empty(len(found), y.dim, x.dim, dtype=torch.float64, device="cpu")
    for row, diagram in zip(maps, found, strict=True):
        row.copy_(torch.from_numpy(diagram_tensor(diagram, group.n, y.order, form).reshape(y.dim, x.dim)))
    return maps


def _orbit_maps(x: TensorPower, y: TensorPower) -> Tensor:
    group = x.matrix_group.permutations
    if group is None:
        raise ValueError(f"{x} expects permutations")
    count = group.count_orbits((1,) * (x.order + y.order))
    require_small(x, y, 1 if count is None else count)
    orbit = torch.tensor(group.orbits(x.order + y.order), device="cpu").reshape(1, y.dim, x.dim)
    maps = torch.zeros(int(orbit.max()) + 1, y.dim, x.dim, dtype=torch.float64, device="cpu")
    return maps.scatter_(0, orbit, 1.0)


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


def independent_maps(maps: Tensor, count: int | None = None) -> list[int]:
    """The first linearly independent maps, ``count`` of them if that is known, by Gram and Schmidt."""
    flat = maps.flatten(1)
    most = min(flat.shape) if count is None else count
    kept: list[int] = []
    found = flat.new_zeros(most, flat.shape[1])
    for number in flat.norm(dim=1).gt(_DEPENDENT).nonzero()[:, 0].tolist():
        if len(kept) == most:
            break
        row, before = flat[number], found[: len(kept)]
        rest = row - (before @ row) @ before
        rest = rest - (before @ rest) @ before
        if rest.norm() > _DEPENDENT * max(1.0, float(row.norm())):  # diagrams have norms of 1 or more
            found[len(kept)] = rest / rest.norm()
            kept.append(number)
    return kept
