"""Direct sums of irreducible representations of O(3) or SO(3), in e3nn's notation."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, overload

import torch
from torch import Tensor

from equitorch.reps.irrep import WORD, IrrepLike, TurnsBy, degree_and_parity
from equitorch.reps.irrep import Irrep as Irrep
from equitorch.reps.rep import block_diagonal
from equitorch.reps.wigner import wigner_D_all

IrrepsLike: TypeAlias = "Irreps | Irrep | MulIr | str | Iterable[Any] | None"


class MulIr(NamedTuple):
    """``mul`` copies of the irrep ``ir``: one entry of an ``Irreps``."""

    mul: int
    ir: Irrep

    @property
    def dim(self) -> int:
        return self.mul * self.ir.dim

    def __repr__(self) -> str:
        return f"{self.mul}x{self.ir}"


class Sorted(NamedTuple):
    """Sorted irreps; ``p[old] = new`` and ``inv[new] = old`` are positions of entries."""

    irreps: Irreps
    p: tuple[int, ...]
    inv: tuple[int, ...]


@dataclass(frozen=True, init=False, repr=False)
class Irreps(TurnsBy):
    """A direct sum of irreps, laid out along the rows of a feature in the order written.

    Channels are another axis: a feature of ``Irreps("0e+1o")`` with 64 channels is a tensor of shape
    (..., 4, 64), and ``Irreps("16x0e")`` has 16 rows. Reads e3nn's whole grammar, and e3nn's own objects.

    Args:
        spec: ``"16x0e + 4x1o"``, ``""``, a list such as ``[(16, (0, 1)), (4, "1o")]``, an irrep, irreps.

    Raises:
        ValueError: if a word cannot be read, or irreps of O(3) and SO(3) are mixed.

    >>> Irreps("2x0e + 1o"), Irreps("2x0e + 1o").dim
    (2x0e+1x1o, 5)
    >>> Irreps("2x0 + 1").group
    'SO(3)'
    """

    entries: tuple[MulIr, ...]

    def __init__(self, spec: IrrepsLike = None) -> None:
        entries = _read_irreps(spec)
        groups = {ir.group for _, ir in entries}
        if len(groups) > 1:
            raise ValueError(f"irreps {spec!r} mix O(3) and SO(3); write every irrep with a parity, or none")
        object.__setattr__(self, "entries", entries)

    @staticmethod
    def spherical_harmonics(lmax: int, p: int = -1) -> Irreps:
        """Harmonics of degree 0..lmax: p = -1 of a polar vector, 1 of an axial one, 0 for SO(3).

        >>> Irreps.spherical_harmonics(2), Irreps.spherical_harmonics(2, p=0)
        (1x0e+1x1o+1x2e, 1x0+1x1+1x2)
        """
        return Irreps([(1, Irrep(l, p**l if p else 0)) for l in range(lmax + 1)])

    def __repr__(self) -> str:
        return "+".join(map(repr, self.entries))

    def __iter__(self) -> Iterator[MulIr]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, i: int) -> MulIr: ...
    @overload
    def __getitem__(self, i: slice) -> Irreps: ...
    def __getitem__(self, i: int | slice) -> MulIr | Irreps:
        return Irreps(self.entries[i]) if isinstance(i, slice) else self.entries[i]

    def __contains__(self, ir: IrrepLike) -> bool:
        ir = Irrep(ir)
        return any(ir == own for _, own in self)

    def __add__(self, other: IrrepsLike) -> Irreps:
        return Irreps(self.entries + Irreps(other).entries)

    def __radd__(self, other: IrrepsLike) -> Irreps:
        return Irreps(other) + self

    def __mul__(self, times: int) -> Irreps:
        """The list of entries, repeated."""
        if not isinstance(times, int):
            raise ValueError(
                f"({self}) * {times!r}: irreps repeat a whole number of times; "
                "for a tensor product write KroneckerProduct((a, b)) or a TensorProduct layer"
            )
        return Irreps(self.entries * times)

    __rmul__ = __mul__

    @property
    def group(self) -> str:
        return self.entries[0].ir.group if self.entries else "O(3)"

    @property
    def dim(self) -> int:
        return sum(entry.dim for entry in self)

    @property
    def num_irreps(self) -> int:
        """Number of irreps, copies counted."""
        return sum(mul for mul, _ in self)

    @property
    def copies(self) -> tuple[Irrep, ...]:
        """Every irrep, copy after copy."""
        return tuple(ir for mul, ir in self for _ in range(mul))

    @property
    def ls(self) -> list[int]:
        """The degree of every copy."""
        return [ir.l for ir in self.copies]

    @property
    def lmax(self) -> int:
        """The highest degree present."""
        if not self.num_irreps:
            raise ValueError(f"irreps '{self}' have no highest degree, because they are empty")
        return max(self.ls)

    def count(self, ir: IrrepLike) -> int:
        """How many copies of ``ir`` there are."""
        ir = Irrep(ir)
        return sum(mul for mul, own in self if own == ir)

    def slices(self) -> list[slice]:
        """The rows of each entry."""
        ends = list(itertools.accumulate(entry.dim for entry in self))
        return [slice(end - entry.dim, end) for end, entry in zip(ends, self, strict=True)]

    def copy_slices(self) -> list[slice]:
        """The rows of each copy, in the order of ``copies``."""
        return Irreps(self.copies).slices()

    def rows(self, ir: IrrepLike) -> Tensor:
        """The rows that belong to ``ir``, copy after copy. Shape (count * ir.dim,), int64."""
        ir = Irrep(ir)
        spans = [range(s.start, s.stop) for s, (_, own) in zip(self.slices(), self, strict=True) if own == ir]
        return torch.tensor([row for span in spans for row in span], dtype=torch.int64, device="cpu")

    @property
    def slice_by_mul(self) -> _SliceByMul:
        """``irreps.slice_by_mul[a:b]``: copies a to b, counted over all entries.

        >>> Irreps("2x0e + 3x1o").slice_by_mul[1:3]
        1x0e+1x1o
        """
        return _SliceByMul(self)

    def remove_zero_multiplicities(self) -> Irreps:
        """Without the entries that have no copies."""
        return Irreps([entry for entry in self if entry.mul])

    def simplify(self) -> Irreps:
        """Neighbouring entries of one irrep merged, entries without copies dropped; not sorted.

        >>> Irreps("1e + 1e + 0x2e + 0e + 1e").simplify()
        2x1e+1x0e+1x1e
        """
        groups = itertools.groupby(self.remove_zero_multiplicities(), key=lambda entry: entry.ir)
        return Irreps([(sum(mul for mul, _ in same), ir) for ir, same in groups])

    def sort(self) -> Sorted:
        """Entries ordered by (l, p), equal ones left in their order.

        >>> Irreps("2o + 1e + 0e + 1e").sort()
        Sorted(irreps=1x0e+1x1e+1x1e+1x2o, p=(3, 1, 0, 2), inv=(2, 1, 3, 0))
        """
        inv = tuple(sorted(range(len(self)), key=lambda i: self[i].ir))
        p = tuple(sorted(range(len(inv)), key=inv.__getitem__))
        return Sorted(Irreps([self[i] for i in inv]), p, inv)

    def regroup(self) -> Irreps:
        """Sorted, then simplified: every irrep occurs in one entry."""
        return self.sort().irreps.simplify()

    def filter(
        self,
        keep: IrrepsLike | Callable[[MulIr], bool] = None,
        *,
        drop: IrrepsLike | Callable[[MulIr], bool] = None,
        lmax: int | None = None,
    ) -> Irreps:
        """The entries that pass one test: irrep in ``keep``, not in ``drop``, or degree <= ``lmax``.

        >>> Irreps("1e + 2e + 0e").filter(keep="0e + 1e"), Irreps("1e + 2e + 0e").filter(lmax=1)
        (1x1e+1x0e, 1x1e+1x0e)
        """
        if sum(test is not None for test in (keep, drop, lmax)) > 1:
            raise ValueError(f"filter of irreps '{self}' expects one of keep, drop and lmax, got several")
        if keep is not None:
            passes = _membership(keep)
            return Irreps([entry for entry in self if passes(entry)])
        if drop is not None:
            fails = _membership(drop)
            return Irreps([entry for entry in self if not fails(entry)])
        return Irreps([entry for entry in self if lmax is None or entry.ir.l <= lmax])

    def without_parity(self) -> Irreps:
        """The same degrees as irreps of SO(3)."""
        return Irreps([(mul, ir.without_parity()) for mul, ir in self])

    def lie_generators(self) -> Tensor:
        return self._blocks(
            [ir.lie_generators() for ir in self.copies],
            torch.zeros(3, 0, 0, dtype=torch.float64, device="cpu"),
        )

    def discrete_generators(self) -> Tensor:
        none = torch.zeros(1 if self.group == "O(3)" else 0, 0, 0, dtype=torch.float64, device="cpu")
        return self._blocks([ir.discrete_generators() for ir in self.copies], none)

    def matrix(self, g: Tensor) -> Tensor:
        natural = wigner_D_all(max(self.ls, default=0), g)
        return self._blocks([ir._with_parity(natural[ir.l], g) for ir in self.copies], g[..., :0, :0])

    def _blocks(self, blocks: Sequence[Tensor], empty: Tensor) -> Tensor:
        return block_diagonal(blocks) if blocks else empty

    def randn(
        self,
        *size: int,
        normalization: str = "component",
        requires_grad: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A random tensor of shape ``size``, where -1 stands for the rows.

        Args:
            *size: sizes, one of them -1.
            normalization: ``"component"``: unit variance; ``"norm"``: every copy has norm 1.
            requires_grad: whether to follow gradients.
            dtype: of the result.
            device: of the result.
            generator: where the random numbers come from.

        >>> Irreps("5x0e + 10x1o").randn(5, -1, 4).shape
        torch.Size([5, 35, 4])
        """
        if size.count(-1) != 1 or normalization not in ("component", "norm"):
            raise ValueError(
                f"randn of irreps '{self}' expects one size of -1 and normalization 'component' or 'norm', "
                f"got {size} and {normalization!r}"
            )
        axis = size.index(-1)
        shape = (*size[:axis], self.dim, *size[axis + 1 :])
        x = torch.randn(shape, dtype=dtype, device=device, generator=generator)
        if normalization == "norm" and self.dim:
            parts = x.split([ir.dim for ir in self.copies], dim=axis)
            x = torch.cat([part / part.norm(dim=axis, keepdim=True) for part in parts], dim=axis)
        return x.requires_grad_(requires_grad)


class _SliceByMul:
    """What ``Irreps.slice_by_mul`` returns: something to put brackets behind."""

    def __init__(self, irreps: Irreps) -> None:
        self.irreps = irreps

    def __getitem__(self, span: slice) -> Irreps:
        start, stop, stride = span.indices(self.irreps.num_irreps)
        if stride != 1:
            raise ValueError(
                f"slice_by_mul of irreps '{self.irreps}' expects a slice of stride 1, got {stride}"
            )
        kept, before = [], 0
        for mul, ir in self.irreps:
            count = min(stop, before + mul) - max(start, before)
            if count > 0:
                kept.append((count, ir))
            before += mul
        return Irreps(kept)


def _membership(test: IrrepsLike | Callable[[MulIr], bool]) -> Callable[[MulIr], bool]:
    if callable(test):
        return test
    members = {ir for _, ir in Irreps(test)}
    return lambda entry: entry.ir in members


def _read_irreps(spec: IrrepsLike) -> tuple[MulIr, ...]:
    if spec is None:
        return ()
    if isinstance(spec, Irreps):
        return spec.entries
    if isinstance(spec, MulIr):
        return (spec,)
    if hasattr(spec, "l") and hasattr(spec, "p"):
        return (MulIr(1, Irrep(spec)),)
    if isinstance(spec, str):
        words = spec.split("+") if spec.strip() else []
        return tuple(_read_word(word, spec) for word in words)
    if not isinstance(spec, Iterable):
        raise ValueError(f"cannot read {spec!r} as irreps; write e.g. '2x0e + 1o'")
    return tuple(_read_entry(item) for item in spec)


def _read_word(word: str, spec: str) -> MulIr:
    found = WORD.fullmatch(word)
    if found is None:
        raise ValueError(f"cannot read {word.strip()!r} in irreps {spec!r}; write e.g. '2x0e + 1o'")
    return MulIr(int(found[1] or 1), Irrep(*degree_and_parity(found[2], found[3])))


def _read_entry(item: Any) -> MulIr:
    if isinstance(item, str):
        return _read_word(item, item)
    if hasattr(item, "l") and hasattr(item, "p"):
        return MulIr(1, Irrep(item))
    try:
        mul, ir = item
        count = operator.index(mul)
    except (TypeError, ValueError):
        count = -1
    if count < 0:
        raise ValueError(f"cannot read {item!r} as an entry of irreps; write e.g. (2, '0e') or (2, (0, 1))")
    return MulIr(count, Irrep(ir))
