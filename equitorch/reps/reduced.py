"""Tensor products whose factors may be exchanged as a formula says, reduced to irreps."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.cartesian import index_symmetries, orthonormal_rows
from equitorch.reps.coupling import Coupling
from equitorch.reps.irreps import Irrep, Irreps, IrrepsLike


@dataclass(frozen=True, eq=False)
class Reduced:
    """The irreps in a tensor product of several features with index symmetries.

    Attributes:
        irreps_in: of each factor.
        irreps_out: of the product; sorted, unless there is a single factor.
        change_of_basis: orthonormal tensors that the rows of ``irreps_out`` count. Shape
            (irreps_out.dim, dim of the first factor, dim of the second, ...), float64.
        couplings: the same as products of two: the first two factors, their result and the third, and so on.
    """

    irreps_in: tuple[Irreps, ...]
    irreps_out: Irreps
    change_of_basis: Tensor
    couplings: tuple[Coupling, ...]

    def __repr__(self) -> str:
        return f"Reduced({' x '.join(f'({irreps})' for irreps in self.irreps_in)} -> {self.irreps_out})"


class _Path(NamedTuple):
    """One way to couple the factors so far."""

    ir: Irrep
    left: int  # which path of the factors before
    block: int  # which copy in the last factor


def reduced_tensor_products(
    formula: str,
    filter_ir_out: Iterable[Irrep | str] | None = None,
    filter_ir_mid: Iterable[Irrep | str] | None = None,
    eps: float = 1e-9,
    **irreps: IrrepsLike,
) -> Reduced:
    """The irreps in the tensors that have the index symmetries of a formula; numbers as in e3nn.

    The factors are coupled from the left. Of the combinations of paths into one irrep, those are kept that
    have the symmetries, as an orthonormal basis.

    Args:
        formula: index letters, then equal permutations of them, with a minus where the sign changes, as in
            ``"ij=-ji"`` or ``"ijk=jki"``.
        filter_ir_out: the irreps wanted; all if not given.
        filter_ir_mid: the irreps allowed after each coupling, the last one included; all if not given.
        eps: how far from symmetric a combination of paths may be; matters only with ``filter_ir_mid``.
        **irreps: of each index; one is enough for those that the formula exchanges.

    Raises:
        ValueError: if the formula cannot be read, or an index has no irreps, or two that do not agree.

    Source:
        Conventions: Geiger and Smidt 2022, arXiv:2207.09453.

    >>> reduced_tensor_products("ij=-ji", i="1o")
    Reduced((1x1o) x (1x1o) -> 1x1e)
    >>> reduced_tensor_products("ijkl=jikl=ikjl=ijlk", i="1e").irreps_out
    1x0e+1x2e+1x4e
    """
    indices = formula.replace(" ", "").split("=")[0]
    symmetries = index_symmetries(formula)
    factors = _factors(formula, indices, {letter: Irreps(each) for letter, each in irreps.items()})
    middle = None if filter_ir_mid is None else {Irrep(ir) for ir in filter_ir_mid}
    wanted = None if filter_ir_out is None else {Irrep(ir) for ir in filter_ir_out}
    steps = _coupled(factors, middle)
    kinds = dict.fromkeys(path.ir for path in steps[-1] if wanted is None or path.ir in wanted)
    forms = _forms(factors[:-1], steps[:-1])
    mixes, blocks = [], []
    size = math.prod(f.dim for f in factors)
    for ir in kinds:
        paths = [path for path in steps[-1] if path.ir == ir]
        first = _last_forms(paths, forms, factors[-1], 0)
        mix = _symmetric(first, symmetries, [f.dim for f in factors], exact=middle is None, eps=eps)
        rows = [mix @ _last_forms(paths, forms, factors[-1], k) for k in range(ir.dim)]
        blocks.append(np.stack(rows, axis=1).reshape(len(mix) * ir.dim, size))
        mixes.append((ir, paths, mix))
    basis = torch.from_numpy(np.concatenate([np.zeros((0, size)), *blocks]))
    irreps_out = Irreps([(len(mix), ir) for ir, _, mix in mixes]).simplify()
    couplings = _couplings(factors, steps, mixes) if len(factors) > 1 else ()
    return Reduced(factors, irreps_out, basis.reshape(len(basis), *(f.dim for f in factors)), couplings)


def _factors(formula: str, indices: str, given: dict[str, Irreps]) -> tuple[Irreps, ...]:
    """The irreps of each index: its own, or those of an index that it is exchanged with."""
    for letter in given:
        if letter not in indices or len(letter) != 1:
            raise ValueError(f"the formula {formula!r} has no index {letter!r}; it has {', '.join(indices)}")
    related = {letter: {letter} for letter in indices}
    for other in formula.replace(" ", "").split("=")[1:]:
        for a, b in zip(indices, other.removeprefix("-"), strict=True):
            union = related[a] | related[b]
            related.update(dict.fromkeys(union, union))
    found = []
    for letter in indices:
        choices = {given[other] for other in related[letter] if other in given}
        if len(choices) != 1:
            got = " and ".join(f"'{each}'" for each in choices) or "none"
            raise ValueError(
                f"the formula {formula!r} expects one kind of irreps for index {letter!r} and those that it "
                f"is exchanged with, got {got}; write e.g. {letter}='1o'"
            )
        found.append(choices.pop())
    return tuple(found)


def _coupled(factors: Sequence[Irreps], middle: set[Irrep] | None) -> list[list[_Path]]:
    """All paths after each factor; sorted by irrep from the second one on."""
    steps = [[_Path(ir, -1, block) for block, ir in enumerate(factors[0].copies)]]
    for factor in factors[1:]:
        starts = [0, *itertools.accumulate(mul for mul, _ in factor)]
        paths = [
            _Path(ir, left, start + copy)
            for left, path in enumerate(steps[-1])
            for start, (mul, right) in zip(starts, factor, strict=False)
            for ir in path.ir * right
            for copy in range(mul)
            if middle is None or ir in middle
        ]
        steps.append(sorted(paths, key=lambda path: path.ir))
    return steps


def _forms(factors: Sequence[Irreps], steps: list[list[_Path]]) -> list[tuple[Irrep, NDArray[np.float64]]]:
    """The paths of all factors but the last as orthonormal tensors: irreps, and shapes (2 l + 1, size)."""
    forms: list[tuple[Irrep, NDArray[np.float64]]] = [(Irrep(0, 0), np.ones((1, 1)))]
    for factor, paths in zip(factors, steps, strict=True):
        rows = [[_last_forms([path], forms, factor, k) for k in range(path.ir.dim)] for path in paths]
        forms = [(path.ir, np.concatenate(each)) for path, each in zip(paths, rows, strict=True)]
    return forms


def _last_forms(
    paths: Sequence[_Path], forms: list[tuple[Irrep, NDArray[np.float64]]], factor: Irreps, row: int
) -> NDArray[np.float64]:
    """One row of each path as a tensor. Shape (paths, size of the factors before * factor.dim)."""
    out = np.zeros((len(paths), forms[0][1].shape[1] if forms else 1, factor.dim))
    slices, copies = factor.copy_slices(), factor.copies
    for number, (ir, left, block) in enumerate(paths):
        before, form = forms[max(left, 0)]
        out[number, :, slices[block]] = form.T @ _symbol(before.l, copies[block].l, ir.l)[..., row]
    return out.reshape(len(paths), -1)


@functools.cache
def _symbol(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    return math.sqrt(2 * l3 + 1) * real_3j(l1, l2, l3)


def _symmetric(
    forms: NDArray[np.float64],
    symmetries: frozenset[tuple[int, tuple[int, ...]]],
    dims: list[int],
    *,
    exact: bool,
    eps: float,
) -> NDArray[np.float64]:
    """The combinations of paths that have the symmetries, orthonormal. Shape (combinations, paths)."""
    tensors = forms.reshape(len(forms), *dims)
    total = np.zeros_like(tensors)
    for sign, order in symmetries:
        total += sign * tensors.transpose(0, *(1 + i for i in order))
    projector = forms @ total.reshape(forms.shape).T / max(len(symmetries), 1)
    if not exact:  # the span of fewer paths may lie askew: only what the symmetries leave alone counts
        values, vectors = np.linalg.eigh(projector)
        kept = vectors[:, values > 1 - max(eps, 1e-9)]
        projector = kept @ kept.T
    return np.array(orthonormal_rows(projector)).reshape(-1, len(forms))


def _couplings(
    factors: Sequence[Irreps],
    steps: list[list[_Path]],
    mixes: list[tuple[Irrep, list[_Path], NDArray[np.float64]]],
) -> tuple[Coupling, ...]:
    """The combinations as a chain of products of two; only the paths that they use are computed."""
    products: list[list[tuple[int, Irrep, float, _Path]]] = [[]]  # row, irrep, coefficient, path
    row = 0
    for ir, paths, mix in mixes:
        for each in mix:
            products[0] += [(row, ir, float(c), path) for c, path in zip(each, paths, strict=True) if c]
            row += ir.dim
    sizes = [row]
    couplings: list[Coupling] = []
    for step in range(len(factors) - 1, 0, -1):
        used = sorted({path.left for *_, path in products[-1]})
        if step == 1:
            used = list(range(len(steps[0])))
        before = [steps[step - 1][number] for number in used]
        starts = [0, *itertools.accumulate(path.ir.dim for path in before)]
        place = dict(zip(used, starts, strict=False))
        couplings.append(
            _coupling(products[-1], steps[step - 1], place, factors[step], (starts[-1], sizes[-1]))
        )
        products.append([(place[n], path.ir, 1.0, path) for n, path in zip(used, before, strict=True)])
        sizes.append(starts[-1])
    return tuple(reversed(couplings))


def _coupling(
    products: list[tuple[int, Irrep, float, _Path]],
    left: list[_Path],
    place: dict[int, int],
    factor: Irreps,
    sizes: tuple[int, int],
) -> Coupling:
    """Rows of the paths so far and of the next factor, combined into rows of the result."""
    index, value = [np.zeros((3, 0), np.int64)], [np.zeros(0)]
    slices, copies = factor.copy_slices(), factor.copies
    for row, ir, c, path in products:
        symbol = c * _symbol(left[path.left].ir.l, copies[path.block].l, ir.l)
        at = np.stack(np.nonzero(symbol))
        index.append(at + np.array([[place[path.left]], [slices[path.block].start], [row]]))
        value.append(symbol[tuple(at)])
    joined = torch.from_numpy(np.concatenate(index, axis=1)), torch.from_numpy(np.concatenate(value))
    form = Coupling((sizes[0], factor.dim, sizes[1]), *joined)
    return Coupling.sum([form])
