"""e3nn's modules with one flat weight: the linear map and the tensor products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, fx, nn

from equitorch.interop.e3nn_dropin import DropIn, Keep, Weighted, own_parameter
from equitorch.layers.tensor_product import TensorProduct as Product


class _Path(NamedTuple):
    """One instruction of a linear map."""

    i_in: int
    i_out: int
    mul_in: int
    mul_out: int
    scale: float


class Linear(Weighted):
    """``e3nn.o3.Linear``.

    Each irrep is one matrix product, with the components of all points stacked above one another.
    """

    attributes: ClassVar[tuple[str, ...]] = (
        "irreps_in",
        "irreps_out",
        "instructions",
        "weight_numel",
        "bias_numel",
        "internal_weights",
        "shared_weights",
    )
    bias: nn.Parameter | None
    bias_numel: int

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.bias = own_parameter(theirs, "bias", keep)
        self.f_in, self.f_out = _fans(theirs)
        self._blocks_in = [(entry.mul, entry.ir.dim) for entry in theirs.irreps_in]
        self._blocks_out = [(entry.mul, entry.ir.dim) for entry in theirs.irreps_out]
        used = [ins for ins in theirs.instructions if 0 not in ins.path_shape]
        self._paths = [
            _Path(ins.i_in, ins.i_out, ins.path_shape[0], ins.path_shape[1], ins.path_weight)
            for ins in used
            if ins.i_in != -1
        ]
        scales = {path.scale for path in self._paths}
        self._scale = scales.pop() if len(scales) == 1 else None
        self._biased = [ins.i_out for ins in used if ins.i_in == -1]
        self._dims = [sum(mul * dim for mul, dim in blocks) for blocks in (self._blocks_in, self._blocks_out)]
        self._text = repr(theirs)

    def forward(self, features: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        fan = () if self.f_out is None else (self.f_in or "any",)
        lead = features.shape[: features.ndim - 1 - len(fan)]
        tail = features.shape[len(lead) :]
        if tail[-1:] != (self._dims[0],) or self.f_in not in (None, tail[0]):
            raise ValueError(
                f"{self} expects features of shape (..., {', '.join(map(str, (*fan, self._dims[0])))}), "
                f"got {tuple(features.shape)}"
            )
        x = features.reshape(math.prod(lead), *tail)
        out = self._mapped(x, self.weight_or_own(weight)) if self._paths else {}
        if self._biased:
            self._shift(out, self._bias_or_own(bias))
        fan_out = () if self.f_out is None else (self.f_out,)
        blocks = [
            out[i] if i in out else x.new_zeros(x.shape[0], *fan_out, mul * dim)
            for i, (mul, dim) in enumerate(self._blocks_out)
        ]
        if len(blocks) != 1:
            blocks = [torch.cat(blocks, dim=-1) if blocks else x.new_zeros(x.shape[0], *fan_out, 0)]
        return blocks[0].reshape(*lead, *fan_out, self._dims[1])

    def _mapped(self, x: Tensor, weight: Tensor) -> dict[int, Tensor]:
        """The blocks of the result to which a path leads; x has shape (points, [f_in,] dim)."""
        if self.shared_weights and self._scale is not None:
            weight = weight * self._scale
        parts = weight.split([path.mul_in * path.mul_out for path in self._paths], dim=-1)
        blocks = x.split([mul * dim for mul, dim in self._blocks_in], dim=-1)
        stacked: dict[int, Tensor] = {}
        sums: dict[int, Tensor] = {}
        for path, part in zip(self._paths, parts, strict=True):
            i, o = path.i_in, path.i_out
            if i not in stacked:
                stacked[i] = self._stacked(blocks[i], self._blocks_in[i][1])
            matrix = self._matrix(part, path)
            y = stacked[i] @ matrix if self.shared_weights else (matrix.mT @ stacked[i]) * path.scale
            sums[o] = sums[o] + y if o in sums else y
        return {o: self._unstacked(y, x.shape[0], self._blocks_out[o][1]) for o, y in sums.items()}

    def _matrix(self, part: Tensor, path: _Path) -> Tensor:
        """The weight of a path as a matrix, scaled; or one for each point, which is large and left alone."""
        maps = () if self.shared_weights else (-1,)
        if self.f_in is None:
            matrix = part.reshape(*maps, path.mul_in, path.mul_out)
        else:
            fans = self.f_in, self.f_out or 1
            matrix = part.reshape(*maps, *fans, path.mul_in, path.mul_out).transpose(-3, -2)
            matrix = matrix.reshape(*maps, fans[0] * path.mul_in, fans[1] * path.mul_out)
        return matrix * path.scale if self.shared_weights and self._scale is None else matrix

    def _stacked(self, block: Tensor, dim: int) -> Tensor:
        """The components above one another: (dim * points, f_in * mul), or (points, f_in * mul, dim)."""
        if self.shared_weights and dim == 1:
            return block.flatten(1)
        split = block.reshape(block.shape[0], math.prod(block.shape[1:]) // dim, dim)
        return split.permute(2, 0, 1).flatten(0, 1) if self.shared_weights else split

    def _unstacked(self, y: Tensor, points: int, dim: int) -> Tensor:
        fan_out = () if self.f_out is None else (self.f_out,)
        if self.shared_weights and dim == 1:
            return y.unflatten(-1, (self.f_out, -1)) if fan_out else y
        y = y.unflatten(0, (dim, points)).permute(1, 2, 0) if self.shared_weights else y
        return y.reshape(points, *fan_out, y.shape[1] // (self.f_out or 1) * dim)

    def _shift(self, out: dict[int, Tensor], bias: Tensor) -> None:
        fan_out = () if self.f_out is None else (self.f_out,)
        sizes = [self._blocks_out[i][0] for i in self._biased]
        parts = bias.reshape(-1, *fan_out, self.bias_numel).split(sizes, dim=-1)
        for i, part in zip(self._biased, parts, strict=True):
            out[i] = out[i] + part

    def _bias_or_own(self, bias: Tensor | None) -> Tensor:
        if bias is None and self.bias is None:
            raise ValueError(f"{self} has no bias of its own and expects one of {self.bias_numel}, got none")
        return self.bias if bias is None else bias  # type: ignore[return-value]

    def __repr__(self) -> str:
        return self._text


def _fans(theirs: Any) -> tuple[int | None, int | None]:
    """The arguments f_in and f_out, which e3nn keeps nowhere but in the program that it wrote.

    A program without any path does not mention f_in, which may then be anything.
    """
    if isinstance(theirs.weight, nn.Parameter):
        return (None, None) if theirs.weight.ndim == 1 else (theirs.weight.shape[0], theirs.weight.shape[1])
    main = theirs._compiled_main
    if not isinstance(main, fx.GraphModule):
        return None, None
    x = next(iter(main.graph.nodes))
    shapes = [node.args[1:] for node in x.users if node.target == "reshape"]
    f_in = next((shape[1] for shape in shapes if len(shape) == 3), None)
    tails = [a for node in main.graph.nodes for a in node.args if isinstance(a, tuple) and node.name == "add"]
    f_out = next((tail[0] for tail in tails if len(tail) == 2), None)
    return f_in, f_out


class TensorProduct(Weighted):
    """``e3nn.o3.TensorProduct`` and all that derive from it, but :class:`TensorSquare`."""

    attributes: ClassVar[tuple[str, ...]] = (
        "irreps_in1",
        "irreps_in2",
        "irreps_out",
        "instructions",
        "weight_numel",
        "internal_weights",
        "shared_weights",
    )

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.product = Product(
            theirs.irreps_in1,
            theirs.irreps_in2,
            theirs.irreps_out,
            [
                (i.i_in1, i.i_in2, i.i_out, i.connection_mode, i.has_weight, i.path_weight**2)
                for i in theirs.instructions  # whose path_weight is the final coefficient, a root
            ],
            irrep_normalization="none",
            path_normalization="none",
            internal_weights=False,
            shared_weights=theirs.shared_weights,
            layout="e3nn",
        )
        self.product.to(theirs.output_mask)
        self._text = repr(theirs)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        if isinstance(weight, Sequence):
            return self.product(x, y, weight)
        return self.product(x, y, self.weight_or_own(weight) if self.weight_numel else None)

    def __repr__(self) -> str:
        return self._text


class TensorSquare(TensorProduct):
    """``e3nn.o3.TensorSquare``: a tensor product of a feature with itself."""

    attributes = ("irreps_in", *TensorProduct.attributes)

    def forward(self, x: Tensor, weight: Tensor | Sequence[Tensor] | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, weight)


class ReducedTensorProducts(DropIn):
    """``e3nn.o3.ReducedTensorProducts``, as one contraction with its change of basis."""

    attributes = ("irreps_in", "irreps_out")
    change_of_basis: Tensor

    def __init__(self, theirs: Any, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.register_buffer("change_of_basis", keep(theirs.change_of_basis))

    def forward(self, *xs: Tensor) -> Tensor:
        *others, last = xs
        out = last @ self.change_of_basis.flatten(0, -2).mT
        for x in reversed(others):
            out = (out.unflatten(-1, (-1, x.shape[-1])) @ x[..., None]).squeeze(-1)
        return out
