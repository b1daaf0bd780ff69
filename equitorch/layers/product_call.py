"""One call of a tensor product: rows of two operands in, blocks of the result out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.product_plan import Call, Operand, Part, Side
from equitorch.ops.bilinear import bilinear
from equitorch.reps import Coupling


class Views:
    """One operand of a product, seen as a whole or as blocks, which are made when first asked for.

    Args:
        whole: the operand. Shape (points, ...), the last axes as in ``own.shape``.
        own: its irreps and layout.
    """

    def __init__(self, whole: Tensor, own: Operand) -> None:
        self.whole, self.own = whole, own
        self._blocks: list[Tensor] = []

    def blocks(self) -> list[Tensor]:
        """Its blocks. Shapes (points, dim, mul)."""
        if not self._blocks:
            self._blocks = _blocks(self.whole, self.own)
        return self._blocks


def _blocks(x: Tensor, own: Operand) -> list[Tensor]:
    if own.channels == 0:
        parts = x.split([entry.dim for entry in own.irreps], dim=1)
        return [
            part.unflatten(1, (mul, ir.dim)).transpose(1, 2)
            for part, (mul, ir) in zip(parts, own.irreps, strict=True)
        ]
    copies = [mul // own.channels for mul, _ in own.irreps]
    parts = x.split([n * ir.dim for n, (_, ir) in zip(copies, own.irreps, strict=True)], dim=1)
    return [
        part if n == 1 else part.unflatten(1, (n, ir.dim)).transpose(1, 2).flatten(2)
        for part, n, (_, ir) in zip(parts, copies, own.irreps, strict=True)
    ]


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
        self.join = _Join(call.coupling) if call.coupling is not None else None
        self.matrices = Constant(call.matrices) if call.matrices is not None else None
        self.height = sum(part.rows for part in call.results)

    def forward(self, operands: Sequence[Views], weights: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        """Pairs of a block of the result and a term of it, (points, dim, mul)."""
        left, right = (
            self._side(side, views, weights) for side, views in zip(self.sides, operands, strict=True)
        )
        z = self._matrix_product(left, right) if self.join is None else self.join(_one(left), _one(right))
        if len(self.results) == 1:
            return [(self.results[0].block, self._result(self.results[0], z, weights))]
        rows = z.split([part.rows for part in self.results], dim=1)
        return [
            (part.block, self._result(part, own, weights))
            for part, own in zip(self.results, rows, strict=True)
        ]

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
            return [views.whole]
        if side.way == "single":
            return [views.whole.flatten(1).unsqueeze(2)]
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


class _Join(nn.Module):
    """``bilinear`` with its coupling, whose coefficients keep their digits whatever dtypes come and go."""

    def __init__(self, coupling: Coupling) -> None:
        super().__init__()
        for name, tensor in zip(_PLAN, coupling.plan(), strict=True):
            if tensor.is_floating_point():
                self.add_module(name, Constant(tensor, wide=True))
            else:
                self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        plan = [getattr(self, name) for name in _PLAN]
        return bilinear(x, y, [part.value if isinstance(part, Constant) else part for part in plan])


_PLAN = [f"{what}_{slot}" for slot in range(3) for what in ("index", "value", "start")]


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
