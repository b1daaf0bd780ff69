"""Sparse equivariant trilinear forms: how two features combine into a third."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from equitorch.reps.angular_momentum import real_3j
from equitorch.reps.angular_momentum import wigner_3j as wigner_3j
from equitorch.reps.irreps import Irrep, Irreps, IrrepsLike
from equitorch.reps.rep import KroneckerProduct, Rep, invariants


@dataclass(frozen=True, eq=False)
class Coupling:
    r"""A trilinear form, kept by its nonzero coefficients.

    .. math:: T(x, y, z) = \sum_t v_t \, x_{i_t} \, y_{j_t} \, z_{k_t}

    Clebsch-Gordan, Gaunt, matrix and geometric products are all of this kind. Its derivatives are the same
    form with another slot left open, which is why one kernel serves all of them.

    Attributes:
        dims: sizes of the three slots.
        index: rows addressed by each entry. Shape (3, entries), int64.
        value: coefficients. Shape (entries,), float64.
        path: which path an entry belongs to, for products that weight their paths. Shape (entries,), int64;
            all zero if not given.

    >>> Coupling.between(Irreps("1o"), Irreps("1o"), Irreps("1e"))  # the cross product, up to 6**0.5
    Coupling(3 x 3 x 3, 6 entries, 1 path)
    """

    dims: tuple[int, int, int]
    index: Tensor
    value: Tensor
    path: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64, device="cpu"))

    def __post_init__(self) -> None:
        entries, path = self.value.numel(), self.path
        if not path.numel():
            path = torch.zeros(entries, dtype=torch.int64, device=self.value.device)
            object.__setattr__(self, "path", path)
        if tuple(self.index.shape) != (3, entries) or path.shape != (entries,) or self.value.ndim != 1:
            raise ValueError(
                "Coupling expects index of shape (3, entries), value and path of shape (entries,), "
                f"got {tuple(self.index.shape)}, {tuple(self.value.shape)} and {tuple(path.shape)}"
            )

    def __repr__(self) -> str:
        paths = f"{self.num_paths} path{'s' * (self.num_paths != 1)}"
        return f"Coupling({' x '.join(map(str, self.dims))}, {self.value.numel()} entries, {paths})"

    @staticmethod
    def between(x: Rep, y: Rep, z: Rep) -> Coupling:
        """The unit-norm coupling of ``x`` and ``y`` into ``z``, where there is exactly one.

        For irreps this is the closed form ``wigner_3j``; for other representations it is solved from the
        generators, and its largest coefficient made positive.

        Raises:
            ValueError: if there is not exactly one independent coupling.
        """
        known = [Irreps(rep) for rep in (x, y, z) if isinstance(rep, (Irrep, Irreps))]
        if len(known) == 3:
            one, two, three = known
            forms = [Coupling.from_paths(one, two, three, [path]) for path in Coupling.paths(one, two, three)]
        else:
            basis = invariants(KroneckerProduct((x, y, z)))
            forms = [_with_sign(form.reshape(x.dim, y.dim, z.dim)) for form in basis]
        if len(forms) != 1:
            raise ValueError(
                f"{x} and {y} couple into {z} in {len(forms)} independent ways, expected 1; "
                "choose among them with Coupling.from_paths"
            )
        return forms[0]

    @staticmethod
    def paths(irreps1: IrrepsLike, irreps2: IrrepsLike, irreps3: IrrepsLike) -> list[tuple[int, int, int]]:
        """All triples of copies that couple: positions in ``Irreps.copies``, in lexicographic order.

        >>> Coupling.paths("0e + 1o", "1o", "0e + 1o")
        [(0, 0, 1), (1, 0, 0)]
        """
        one, two, three = (Irreps(irreps).copies for irreps in (irreps1, irreps2, irreps3))
        return [
            (i, j, k)
            for i, a in enumerate(one)
            for j, b in enumerate(two)
            for k, c in enumerate(three)
            if c.p == a.p * b.p and abs(a.l - b.l) <= c.l <= a.l + b.l
        ]

    @staticmethod
    def from_paths(
        irreps1: IrrepsLike, irreps2: IrrepsLike, irreps3: IrrepsLike, paths: Iterable[Sequence[float]]
    ) -> Coupling:
        """A sum of couplings of single irreps, each with its coefficient.

        Args:
            irreps1: rows of the first slot.
            irreps2: rows of the second slot.
            irreps3: rows of the third slot.
            paths: (i, j, k) or (i, j, k, coefficient): copies i, j, k of the three, counted as in
                ``Irreps.copies``, coupled by ``coefficient`` times the unit-norm ``wigner_3j``.

        Raises:
            ValueError: if a path joins irreps that do not couple.

        >>> Coupling.from_paths("0e + 1o", "0e + 1o", "0e", [(0, 0, 0, 1.0), (1, 1, 0, 3**0.5)]).num_paths
        2
        """
        slots = [Irreps(irreps) for irreps in (irreps1, irreps2, irreps3)]
        starts = [[s.start for s in irreps.copy_slices()] for irreps in slots]
        index, value, path = [np.zeros((3, 0), dtype=np.int64)], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
        for number, (i, j, k, *coefficient) in enumerate(paths):
            which = [_position(n, irreps) for n, irreps in zip((i, j, k), slots, strict=True)]
            a, b, c = (irreps.copies[n] for n, irreps in zip(which, slots, strict=True))
            if c.p != a.p * b.p or not abs(a.l - b.l) <= c.l <= a.l + b.l:
                raise ValueError(f"path ({i}, {j}, {k}) joins {a} and {b} into {c}, which do not couple")
            symbol = real_3j(a.l, b.l, c.l)
            at = np.stack(np.nonzero(symbol))
            index.append(at + np.array([[start[n]] for n, start in zip(which, starts, strict=True)]))
            value.append(symbol[tuple(at)] * (coefficient[0] if coefficient else 1.0))
            path.append(np.full(at.shape[1], number))
        joined = [torch.tensor(np.concatenate(part, axis=-1), device="cpu") for part in (index, value, path)]
        dim1, dim2, dim3 = (irreps.dim for irreps in slots)
        return Coupling((dim1, dim2, dim3), *joined)

    @staticmethod
    def from_dense(form: Tensor, tolerance: float = 1e-10) -> Coupling:
        """Keep the entries of a dense form of shape (I, J, K) that exceed ``tolerance``."""
        if form.ndim != 3:
            raise ValueError(
                f"Coupling.from_dense expects a form of shape (I, J, K), got {tuple(form.shape)}"
            )
        form = form.detach().to(device="cpu", dtype=torch.float64)
        index = torch.nonzero(form.abs() > tolerance).T.contiguous()
        i, j, k = form.shape
        return Coupling((i, j, k), index, form[tuple(index)])

    @staticmethod
    def matrix_product(size: int = 3) -> Coupling:
        """The product of two square matrices, whose entries are rows in row-major order: z = x @ y.

        >>> Coupling.matrix_product(3).dims
        (9, 9, 9)
        """
        one = torch.eye(size, dtype=torch.float64, device="cpu")
        form = torch.einsum("ad,be,cf->abcdef", one, one, one).permute(0, 1, 4, 2, 3, 5)
        return Coupling.from_dense(form.reshape(size**2, size**2, size**2))

    @staticmethod
    def sum(couplings: Sequence[Coupling]) -> Coupling:
        """The sum of forms of equal sizes, entries at the same place added; the result is one path."""
        dims = {coupling.dims for coupling in couplings}
        if len(dims) != 1:
            raise ValueError(f"Coupling.sum expects forms of one size, got {sorted(dims)}")
        parts = [(c.index, c.value) for c in couplings]
        index, value = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
        place, back = torch.unique(index, dim=1, return_inverse=True)
        total = torch.zeros(place.shape[1], dtype=torch.float64, device="cpu").index_add(0, back, value)
        kept = total != 0
        return Coupling(dims.pop(), place[:, kept], total[kept])

    @property
    def num_paths(self) -> int:
        """Number of paths, the last one being the last that has entries."""
        return int(self.path.max()) + 1 if self.path.numel() else 0

    def dense(self) -> Tensor:
        """The form as a tensor of shape ``dims``, float64."""
        form = torch.zeros(self.dims, dtype=torch.float64, device="cpu")
        return form.index_put(tuple(self.index), self.value, accumulate=True)

    def scaled(self, factor: float) -> Coupling:
        """The form times a number."""
        return replace(self, value=self.value * factor)

    def permuted(self, order: tuple[int, int, int]) -> Coupling:
        """The form with its slots in another order: slot n of the result is slot ``order[n]`` of this one."""
        i, j, k = (self.dims[slot] for slot in order)
        return replace(self, dims=(i, j, k), index=self.index[list(order)])

    def placed(self, dims: tuple[int, int, int], offsets: tuple[int, int, int]) -> Coupling:
        """The form on the rows from ``offsets`` on of larger slots of sizes ``dims``."""
        if any(o < 0 or o + own > size for own, size, o in zip(self.dims, dims, offsets, strict=True)):
            raise ValueError(
                f"Coupling of sizes {self.dims} at offsets {offsets} does not fit into sizes {dims}"
            )
        return replace(self, dims=dims, index=self.index + self.index.new_tensor(offsets)[:, None])

    def in_basis(self, first: Tensor, second: Tensor, third: Tensor) -> Coupling:
        """The form in other coordinates: y = basis @ x in each slot, with orthonormal bases (new, old)."""
        bases = [basis.to(device="cpu", dtype=torch.float64) for basis in (first, second, third)]
        return Coupling.from_dense(torch.einsum("ijk,ai,bj,ck->abc", self.dense(), *bases))

    def plan(self) -> list[Tensor]:
        """Entries grouped by each slot in turn, for a kernel that leaves that slot open.

        Returns:
            For open slots 0, 1, 2: the rows of the two filled slots, shape (2, entries),
            int32; the coefficients, shape (entries,), float64; and where each open row
            begins, shape (dim + 1,), int32. Nine tensors in all.
        """
        tensors: list[Tensor] = []
        for slot, dim in enumerate(self.dims):
            order = torch.argsort(self.index[slot], stable=True)
            filled = [s for s in range(3) if s != slot]
            count = torch.bincount(self.index[slot], minlength=dim)
            start = torch.cat([count.new_zeros(1), count.cumsum(0)])
            tensors += [self.index[filled][:, order].int(), self.value[order], start.int()]
        return [t.contiguous() for t in tensors]

    def path_plan(self) -> list[Tensor]:
        """The path of each entry, in the three orders of ``plan``: three tensors (entries,), int32."""
        return [self.path[torch.argsort(self.index[slot], stable=True)].int() for slot in range(3)]


def _position(n: float, irreps: Irreps) -> int:
    if n != int(n) or not 0 <= n < irreps.num_irreps:
        raise ValueError(f"a path names copy {n} of irreps '{irreps}', which has {irreps.num_irreps}")
    return int(n)


def _with_sign(form: Tensor) -> Coupling:
    """A null vector has no sign of its own: make its largest entry positive."""
    largest = form.flatten()[form.abs().argmax()]
    return Coupling.from_dense(form * largest.sign())
