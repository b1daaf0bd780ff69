"""One call of a tensor product: rows of two operands in, blocks of the result out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.product_layout import Operand, Views
from equitorch.layers.product_plan import Call, Part, Side
from equitorch.ops.bilinear import bilinear
from equitorch.ops.convolution import convolution, form_lists, form_name
from equitorch.ops.edges import EdgePlan
from equitorch.reps import Coupling


class ProductCall(nn.Module):
    """Make the rows of both operands, join them, and turn the rows of the result into blocks.

    Args:
        call: what to do.
        shapes: of the weights of every path.
    """

    def __init__(self, call: Call, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.sides, self.results, self.shapes = call.sides, call.results, list(shapes)
        self.maker, self.columns, self.channels = call.maker, call.columns, call.channels
        self.scaled = call.scaled
        kind = _Scaled if call.scaled else _Join
        self.join = kind(call.coupling, call.maker) if call.coupling is not None else None
        self.matrices = Constant(call.matrices) if call.matrices is not None else None
        self.height = sum(part.rows for part in call.results)

    def forward(self, operands: Sequence[Views], weights: Sequence[Tensor]) -> Tensor:
        """The rows of the results. Shape (points, rows, channels)."""
        left, right = (
            self._side(side, views, weights) for side, views in zip(self.sides, operands, strict=True)
        )
        if self.join is None:
            return self._matrix_product(left, right)
        if not self.scaled:
            return self.join(_one(left), _one(right))
        factors = torch.stack([weights[path] for path in self.scaled], dim=-2)
        return self.join(_one(left), _one(right), factors)

    def terms(self, z: Tensor, weights: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        """Pairs of a block of the result and a term of it, (points, dim, mul), from ``forward``'s rows."""
        rows = [z] if len(self.results) == 1 else z.split([part.rows for part in self.results], dim=1)
        return [
            (part.block, self._result(part, own, weights))
            for part, own in zip(self.results, rows, strict=True)
        ]

    def gives(self, own: Operand) -> bool:
        """Whether ``forward`` gives a whole result already, row by row."""
        wanted = [n for n, (mul, _) in enumerate(own.irreps) if mul]
        plain = all(part.kind == "sum" for part in self.results)
        return plain and own.is_even(self.channels) and [part.block for part in self.results] == wanted

    def _matrix_product(self, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """Small matrices, linear in one side, times the rows of the other: part by part, without a copy."""
        makers, parts = (left, right) if self.maker == 0 else (right, left)
        parts = [_one(parts)] if self.columns == 1 else parts
        assert self.matrices is not None
        numbers, constant = _one(makers), self.matrices.value
        if constant.dtype != numbers.dtype:
            constant = self.matrices.exact.to(numbers)
        if self.columns == 1:
            made = numbers.flatten(1) @ constant.T
        else:
            made = torch.bmm(constant.expand(numbers.shape[0], -1, -1), numbers).flatten(1)
        sizes = [self.height * rows.shape[1] for rows in parts]
        pieces = [made] if len(parts) == 1 else made.split(sizes, dim=1)
        z = None
        for piece, rows in zip(pieces, parts, strict=True):
            matrix = piece.unflatten(1, (self.height, rows.shape[1]))
            z = torch.bmm(matrix, rows) if z is None else torch.baddbmm(z, matrix, rows)
        assert z is not None, "a call has at least one part"
        return z

    def _side(self, side: Side, views: Views, weights: Sequence[Tensor]) -> list[Tensor]:
        """The parts of one operand. Shapes (points, rows, channels)."""
        if side.way == "whole":
            return [views.rows(side.channels)]
        if side.way == "single":
            return [views.numbers()]
        blocks = views.blocks()
        return [self._rows(part, blocks[part.block], weights) for part in side.parts]

    def _rows(self, part: Part, block: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Rows of an operand from one of its blocks (points, dim, mul)."""
        if part.kind == "mixed":
            matrix = self._matrix(part, weights, left=True)
            inner = part.extra, matrix.shape[-1] // part.extra
            mixed = torch.bmm(block, matrix) if matrix.ndim == 3 else _flat_times(block, matrix)
            return mixed.unflatten(2, inner).flatten(1, 2)
        if part.kind == "weighted":
            factor = torch.stack([weights[use.path] for use in part.uses], dim=-2)
            return (block.unsqueeze(2) * factor.unsqueeze(-3)).flatten(1, 2)
        if part.kind == "tiled":
            return block.unsqueeze(2).expand(-1, -1, self.channels // block.shape[2], -1).flatten(2)
        if part.kind == "repeated":
            pairs = block.unsqueeze(3).expand(-1, -1, -1, self.channels // block.shape[2])
            if part.uses:
                path = part.uses[0].path
                pairs = pairs * weights[path].unflatten(-1, self.shapes[path]).unsqueeze(-3)
            return pairs.flatten(2)
        if part.kind in ("first", "second"):
            pairs = torch.triu_indices(block.shape[2], block.shape[2], 1, device=block.device)
            block = block.index_select(2, pairs[0 if part.kind == "first" else 1])
            return block * weights[part.uses[0].path].unsqueeze(-2) if part.uses else block
        return block

    def _result(self, part: Part, rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """A block (points, dim, mul) of the result from rows of a product."""
        if part.kind != "mix":
            return rows
        z = rows.unflatten(1, (part.dim, part.extra)).flatten(2)
        return _times(z, self._matrix(part, weights, left=False))

    def _matrix(self, part: Part, weights: Sequence[Tensor], *, left: bool) -> Tensor:
        """The weights of a part as one matrix; ``left``: its first index is that of the operand."""
        matrices = []
        for path, swapped in part.uses:
            shape = self.shapes[path]
            w = weights[path].unflatten(-1, shape)
            axis = w.ndim - len(shape)
            w = w.transpose(axis, axis + 1) if swapped else w
            matrices.append(w.flatten(axis + 1) if left else w.flatten(axis, -2))
        return matrices[0] if len(matrices) == 1 else torch.cat(matrices, dim=-1 if left else -2)


class _Lists(nn.Module):
    """Constant tensors, whose coefficients keep their digits whatever dtypes come and go."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.count = len(tensors)
        for n, tensor in enumerate(tensors):
            if tensor.is_floating_point():
                self.add_module(f"list_{n}", Constant(tensor, wide=True))
            else:
                self.register_buffer(f"list_{n}", tensor, persistent=False)
        self._found: list[Tensor] = []

    def lists(self) -> list[Tensor]:
        """The tensors; looked up once, as that takes longer than a small product."""
        if self._found and not torch.compiler.is_compiling():
            return self._found
        parts = [getattr(self, f"list_{n}") for n in range(self.count)]
        found = [part.value if isinstance(part, Constant) else part for part in parts]
        if not torch.compiler.is_compiling():
            self._found = found
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._found = []
        return super()._apply(fn, recurse)


class _Join(_Lists):
    """Rows of two operands through a coupling."""

    def __init__(self, coupling: Coupling, maker: int) -> None:
        super().__init__(coupling.plan())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return bilinear(x, y, self.lists())


class _Scaled(_Lists):
    """Rows and single numbers through a coupling, every path times weights of its channels.

    This is a convolution whose edges lead from every point to itself; nothing is stored for its derivatives.
    """

    def __init__(self, coupling: Coupling, maker: int) -> None:
        coupling = coupling if maker == 1 else coupling.permuted((1, 0, 2))
        form = form_lists(coupling) + form_lists(coupling.permuted((2, 1, 0)))
        super().__init__(form)
        self.maker, self.dims = maker, (*coupling.dims, coupling.num_paths)
        self.form_name = form_name(form)  # read once: to read it at each call, a GPU would have to wait

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        rows, numbers = (x, y) if self.maker == 1 else (y, x)
        starts = torch.arange(rows.shape[0] + 1, device=rows.device)
        points = starts[:-1]
        pairs = torch.stack([points, torch.full_like(points, -1)], dim=1)
        loops = EdgePlan(points, points, starts, starts, points, points, pairs)
        numbers, projection = numbers.flatten(1), None
        if weight.ndim == 2:
            weight, projection = rows.new_ones(rows.shape[0], 1), weight.unsqueeze(0)
        options = self.lists(), self.dims
        return convolution(rows, numbers, weight, loops, *options, projection=projection, name=self.form_name)


def _one(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _flat_times(x: Tensor, matrix: Tensor) -> Tensor:
    """Channels times a matrix, the result contiguous: a copy of ``x`` is less than one of the result."""
    return (x.flatten(0, 1) @ matrix).unflatten(0, x.shape[:2])


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Channels times a matrix, of all points or of each: (points, dim, c) -> (points, dim, c')."""
    if matrix.ndim == 3:
        return torch.bmm(x, matrix)
    if x.shape[1] == 1:
        return (x.squeeze(1) @ matrix).unsqueeze(1)
    return torch.bmm(x.transpose(0, 1), matrix.expand(x.shape[1], -1, -1)).transpose(0, 1)
