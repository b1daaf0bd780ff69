"""Equivariant maps by a table: orbits of pairs of rows, or matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant, Indices
from equitorch.layers.diagram_dense import Apply, Work
from equitorch.layers.diagram_storage import Entry
from equitorch.layers.diagram_weights import WeightIndex
from equitorch.ops.diagrams import orbit_map
from equitorch.reps import DirectSum, Irrep, Irreps, Rep, TensorPower, hom_basis, invariants


class TableMaps(nn.Module):
    """Maps that are a table: orbits of pairs of rows, or a list of matrices where no diagrams are known.

    Args:
        rep_in: the input.
        rep_out: the output.
        normalization: "sum" for orbits and matrices as they are; "mean" and "sqrt" divide an orbit by the
            number of inputs that an output meets, or its root. "auto" is "sqrt".
        basis: "spanning" or "minimal", of ``hom_basis``.
        bias: whether there are maps from an invariant number, too.

    Attributes:
        places: for each weight, by name, the summand of the input that its maps read, and of the output.
    """

    sizes: tuple[int, ...] = ()
    is_free = partial = False

    def __init__(self, rep_in: Rep, rep_out: Rep, normalization: str, basis: str, bias: bool = False) -> None:
        super().__init__()
        self.dims = rep_in.dim, rep_out.dim
        if _is_orbits(rep_in) and _is_orbits(rep_out):
            self._start([part.dim for part in _parts(rep_in)], [part.dim for part in _parts(rep_out)])
            for i, a in enumerate(_parts(rep_in)):
                for j, b in enumerate(_parts(rep_out)):
                    self._add_orbits(i, j, a, b, "sqrt" if normalization == "auto" else normalization)
        else:
            self._start([rep_in.dim], [rep_out.dim])
            self._add_matrices(hom_basis(rep_in, rep_out, basis=basis))
        self.shifts = TableMaps.of_constants(rep_out, normalization) if bias else None

    @staticmethod
    def of_constants(rep: Rep, normalization: str) -> TableMaps:
        """The maps from an invariant number: what a bias is a sum of."""
        if _is_orbits(rep):
            parts = [part for part in _parts(rep) if isinstance(part, TensorPower)]
            return TableMaps(parts[0].with_order(0), rep, normalization, "minimal")
        if rep.group in ("O(3)", "SO(3)"):
            return TableMaps(Irreps([(1, Irrep(0, int(rep.group == "O(3)")))]), rep, normalization, "minimal")
        maps = TableMaps.__new__(TableMaps)
        nn.Module.__init__(maps)
        maps.dims, maps.shifts = (1, rep.dim), None
        maps._start([1], [rep.dim])
        maps._add_matrices(invariants(rep)[:, :, None])
        return maps

    def _start(self, rows_in: list[int], rows_out: list[int]) -> None:
        self.rows_in, self.rows_out = rows_in, rows_out
        self.places: dict[str, tuple[int, int]] = {}
        self.scales, self.matrices, self.orbits = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()

    def _add_matrices(self, maps: Tensor) -> None:
        self.places["maps"] = (0, 0)
        self.matrices["maps"] = Constant(maps)

    def _add_orbits(self, i: int, j: int, a: Rep, b: Rep, normalization: str) -> None:
        if (
            not isinstance(a, TensorPower)
            or not isinstance(b, TensorPower)
            or a.matrix_group.permutations is None
        ):
            raise ValueError(f"orbits are of pairs of tensor powers, got {a} and {b}")
        group, name = a.matrix_group.permutations, f"orbits_{i}_{j}"
        table = torch.tensor(group.orbits(a.order + b.order), device="cpu").reshape(b.dim, a.dim)
        met = torch.bincount(table.flatten()).to(torch.float64) / max(b.dim, 1)
        self.places[name] = (i, j)
        self.orbits[name] = Indices(table)
        power = {"sum": 0.0, "mean": -1.0, "sqrt": -0.5}[normalization]
        self.scales[name] = Constant(met**power)

    def forward(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        bias: Sequence[Tensor] | None,
        sizes: tuple[int, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """(batch, rows, channels_in) -> (batch, rows, channels_out); weights (count, channels...) by name.

        Weights without a last axis do not mix channels.
        """
        xs = x.split(self.rows_in, dim=1)
        ys: list[Tensor | None] = [None] * len(self.rows_out)
        for (name, (i, j)), full in zip(self.places.items(), weights, strict=True):
            weight = full[0, :, :, 0]
            if weight.ndim == 3 and name in self.scales:
                scaled = weight * self.get_buffer(f"scales.{name}.value")[:, None, None]
                y = orbit_map(xs[i], scaled, self.orbits.get_buffer(f"{name}.value"))
            else:
                matrix = self._matrix(name, weight)
                y = torch.einsum("bjc,ijc->bic" if weight.ndim == 2 else "bjc,ijcd->bid", xs[i], matrix)
            found = ys[j]
            ys[j] = y if found is None else found + y
        y = torch.cat([y for y in ys if y is not None], dim=1)
        return y if bias is None else y + self.shift(bias, sizes)

    def dense(self, weights: Sequence[Tensor], sizes: tuple[int, ...]) -> Tensor:
        """The matrix of the map: (rows_out, rows_in, channels...), with the channel axes of the weights."""
        places = self.places.items()
        found = {
            place: self._matrix(name, weight[0, :, :, 0])
            for (name, place), weight in zip(places, weights, strict=True)
        }
        columns = range(len(self.rows_in))
        rows = [torch.cat([found[i, j] for i in columns], dim=1) for j in range(len(self.rows_out))]
        return torch.cat(rows, dim=0)

    def _matrix(self, name: str, weight: Tensor) -> Tensor:
        if name in self.matrices:
            return torch.tensordot(self.get_buffer(f"matrices.{name}.value"), weight, ([0], [0]))
        scale = self.get_buffer(f"scales.{name}.value").reshape(-1, *[1] * (weight.ndim - 1))
        return (weight * scale)[self.orbits.get_buffer(f"{name}.value")]

    def prepared(
        self, weights: Sequence[Tensor], bias: Sequence[Tensor] | None, sizes: tuple[int, ...]
    ) -> Apply:
        """The same as a function of the feature alone."""
        return lambda x: self(x, weights, bias, sizes)

    def diagrams(self) -> Iterator[tuple[WeightIndex, None]]:
        """Where the weights of each map are."""
        for entry in self.entries:
            for number in range(entry.size):
                yield WeightIndex(entry.name, (number,), *self.places[entry.name]), None

    @property
    def constants(self) -> list[Entry]:
        """What the weights of the bias are."""
        return [entry for entry in self.shifts.entries if entry.size] if self.shifts is not None else []

    def shift(self, bias: Sequence[Tensor], sizes: tuple[int, ...]) -> Tensor:
        """The bias itself: (1, rows_out, channels_out)."""
        if self.shifts is None:
            raise ValueError("these maps were made without a bias")
        return self.shifts(bias[0].new_ones(1, 1, 1), bias, None, sizes)

    def sizes_for(self, rows: int) -> tuple[int, ...] | None:
        """Nothing to tell, if the rows are as many as there must be."""
        return () if rows == self.dims[0] else None

    def work(self, sizes: tuple[int, ...]) -> Work:
        """As much as the matrix does, and more."""
        entries = self.dims[0] * self.dims[1]
        return Work(entries, entries, 0, 0)

    def sizes_at(self, n: int) -> tuple[int, ...] | None:
        """No other n is possible."""
        return None

    def rows(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        """Numbers of rows of input and output."""
        return self.dims

    def present(self, mask: Tensor, sizes: tuple[int, ...], like: Tensor) -> Tensor:
        """All rows are."""
        return like.new_ones(())

    def masked(self, sizes: tuple[int, ...]) -> int | None:
        """Nothing can be masked."""
        return None

    @property
    def entries(self) -> list[Entry]:
        """What the weights are; they start so that outputs keep unit variance."""
        squares = {name: self._squares(name) for name in self.places}
        found = []
        for name, (_, j) in self.places.items():
            others = [squares[other] for other, (_, place) in self.places.items() if place == j]
            total = torch.cat(others).sum(0)
            fan_in = squares[name] @ total / squares[name].sum(1).clamp(min=1e-30)
            count = len(fan_in)
            deviation = fan_in.clamp(min=1e-30).rsqrt()[None, :, None]
            found.append(Entry(name, (1, count, 1), deviation, torch.arange(count, device="cpu")))
        return found

    def _squares(self, name: str) -> Tensor:
        """The squared norm of each row of each map: (maps, rows_out), float64."""
        if name in self.matrices:
            return self._exact(self.matrices, name).square().sum(2)
        table = self._exact(self.orbits, name)
        scale = self._exact(self.scales, name)
        row = torch.arange(len(table), device="cpu")[:, None].expand_as(table)
        counts = torch.zeros(len(scale), len(table), dtype=torch.float64, device="cpu")
        counts.index_put_((table.flatten(), row.flatten()), counts.new_ones(()), accumulate=True)
        return counts * scale.square()[:, None]

    @staticmethod
    def _exact(constants: nn.ModuleDict, name: str) -> Tensor:
        constant = constants[name]
        assert isinstance(constant, (Constant, Indices))  # whatever is put there
        return constant.exact


def _parts(rep: Rep) -> tuple[Rep, ...]:
    return rep.reps if isinstance(rep, DirectSum) else (rep,)


def _is_orbits(rep: Rep) -> bool:
    return all(
        isinstance(part, TensorPower) and part.family == "Aut" and not part.symmetric for part in _parts(rep)
    )
