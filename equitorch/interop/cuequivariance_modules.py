"""cuEquivariance's modules on the layers of this library: same call, same layouts, same numbers."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from equitorch.interop.cuequivariance import (
    channel_wise,
    features_from_cuequivariance,
    features_to_cuequivariance,
    from_cuequivariance_irreps,
)
from equitorch.layers import linear, tensor_product
from equitorch.layers.constant import Constant
from equitorch.ops.linear import linear as linear_rows
from equitorch.ops.linear import linear_by_index
from equitorch.reps.convention import common_channels, rows_of


def from_cuequivariance(module: nn.Module) -> nn.Module:
    """A drop-in for a ``Linear``, ``FullyConnectedTensorProduct`` or ``ChannelWiseTensorProduct``.

    It is called as the module of ``cuequivariance_torch`` is, in its layouts, and has copies of its weights.

    Args:
        module: one of ``cuequivariance_torch``.

    Raises:
        ValueError: for any other module.
    """
    kind = type(module)
    convert = _COUNTERPARTS.get(kind.__name__)
    if convert is None or kind.__module__.split(".")[0] != "cuequivariance_torch":
        raise ValueError(
            f"from_cuequivariance expects one of {', '.join(_COUNTERPARTS)} of cuequivariance_torch, "
            f"got {kind.__module__}.{kind.__qualname__}"
        )
    return convert(module).train(module.training)


class Linear(nn.Module):
    """``cuequivariance_torch.Linear``.

    Shape:
        x: (batch, irreps_in.dim) -> (batch, irreps_out.dim)
        weight: (weight_classes or batch, weight_numel), unless the module has its own
        weight_indices: (batch,), only with several classes of weights
    """

    order: Tensor
    rows_in: Tensor | None
    rows_out: Tensor | None

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.weight = _own(theirs)
        self.irreps_in, self.irreps_out = map(
            from_cuequivariance_irreps, (theirs.irreps_in, theirs.irreps_out)
        )
        self.layout_in, self.layout_out = theirs.transpose_in.source.name, theirs.transpose_out.target.name
        self.weight_numel, self.weight_classes = theirs.weight_numel, theirs.weight_classes
        self.shared_weights, self.internal_weights = theirs.shared_weights, theirs.internal_weights
        like = linear.Linear(
            rows_of(self.irreps_in),
            common_channels(self.irreps_in),
            common_channels(self.irreps_out),
            irreps_out=rows_of(self.irreps_out),
            bias=False,
        ).double()
        like.load_e3nn(torch.arange(self.weight_numel, dtype=torch.float64))
        self.layout = like.layout
        self.register_buffer("order", like.weight.detach().long(), persistent=False)
        self.register_buffer("rows_in", like.rows_in, persistent=False)
        self.register_buffer("rows_out", like.rows_out, persistent=False)
        uniform = torch.full((self.weight_numel,), like.uniform_scale, dtype=torch.float64)
        self.scale = Constant(uniform if like.scale is None else like.scale.exact)

    def forward(
        self, x: Tensor, weight: Tensor | None = None, weight_indices: Tensor | None = None
    ) -> Tensor:
        w = _weight(self, weight)[:, self.order]
        w = w * self.scale.value.to(w)
        rows = features_from_cuequivariance(x, self.irreps_in, layout=self.layout_in)
        rows = rows if self.rows_in is None else rows.index_select(-2, self.rows_in)
        if self.weight_classes > 1:
            if weight_indices is None:
                raise ValueError(
                    f"{self} has {self.weight_classes} classes of weights and expects weight_indices "
                    "of shape (batch,), got none"
                )
            y = linear_by_index(rows, w, weight_indices, self.layout)
        elif self.shared_weights or w.shape[0] == 1:
            y = linear_rows(rows, w[0], self.layout)
        else:
            y = linear_by_index(rows, w, torch.arange(rows.shape[0], device=x.device), self.layout)
        y = y if self.rows_out is None else y.index_select(-2, self.rows_out)
        return features_to_cuequivariance(y, self.irreps_out, layout=self.layout_out)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out} | {self.weight_numel} weights"


class FullyConnectedTensorProduct(nn.Module):
    """``cuequivariance_torch.FullyConnectedTensorProduct``.

    Shape:
        x1: (batch, irreps_in1.dim), x2: (batch, irreps_in2.dim) -> (batch, irreps_out.dim)
        weight: (1 or batch, weight_numel), unless the module has its own
    """

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.weight = _own(theirs)
        names = ("irreps_in1", "irreps_in2", "irreps_out")
        self.irreps_in1, self.irreps_in2, self.irreps_out = (
            from_cuequivariance_irreps(getattr(theirs, name)) for name in names
        )
        self.layouts = (
            theirs.transpose_in1.source.name,
            theirs.transpose_in2.source.name,
            theirs.transpose_out.target.name,
        )
        self.weight_numel = theirs.weight_numel
        self.shared_weights, self.internal_weights = theirs.shared_weights, theirs.internal_weights
        self.product = tensor_product.TensorProduct(
            self.irreps_in1,
            self.irreps_in2,
            self.irreps_out,
            self._instructions(theirs),
            internal_weights=False,
            shared_weights=self.shared_weights,
        )

    def _instructions(self, theirs: Any) -> list[Any]:
        return [
            (i, j, k, "uvw", True)
            for i, (_, a) in enumerate(self.irreps_in1)
            for j, (_, b) in enumerate(self.irreps_in2)
            for k, (_, c) in enumerate(self.irreps_out)
            if c in list(a * b)
        ]

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor | None = None) -> Tensor:
        w = _weight(self, weight)
        x = features_from_cuequivariance(x1, self.irreps_in1, layout=self.layouts[0])
        y = features_from_cuequivariance(x2, self.irreps_in2, layout=self.layouts[1])
        z = self.product(x, y, w[0] if self.shared_weights else w)
        return features_to_cuequivariance(z, self.irreps_out, layout=self.layouts[2])

    def extra_repr(self) -> str:
        return f"{self.irreps_in1} x {self.irreps_in2} -> {self.irreps_out} | {self.weight_numel} weights"


class ChannelWiseTensorProduct(FullyConnectedTensorProduct):
    """``cuequivariance_torch.ChannelWiseTensorProduct``.

    Shape:
        x1: (batch, irreps_in1.dim), x2: (batch, irreps_in2.dim) -> (batch, irreps_out.dim)
        weight: (1 or batch, weight_numel), unless the module has its own
        indices_1, indices_2: which points of x1, x2 each item of the batch takes
        indices_out, size_out: which point of the result, of so many, it is added to
    """

    def _instructions(self, theirs: Any) -> list[Any]:
        e3nn_order = theirs.irreps_in1.irrep_class.__name__ == "O3_e3nn"
        kept = [(1, ir) for ir in dict.fromkeys(ir for _, ir in self.irreps_out)]
        found = channel_wise(self.irreps_in1, self.irreps_in2, kept, e3nn_order=e3nn_order)
        assert found.irreps_out == self.irreps_out, "the sorted outputs of all paths"
        return list(found.instructions)

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        weight: Tensor | None = None,
        indices_1: Tensor | None = None,
        indices_2: Tensor | None = None,
        indices_out: Tensor | None = None,
        size_out: int | None = None,
    ) -> Tensor:
        x1 = x1 if indices_1 is None else x1.index_select(0, indices_1)
        x2 = x2 if indices_2 is None else x2.index_select(0, indices_2)
        out = super().forward(x1, x2, weight)
        if indices_out is None:
            return out
        if size_out is None:
            raise ValueError("ChannelWiseTensorProduct with indices_out expects size_out, got none")
        return out.new_zeros(size_out, out.shape[1]).index_add(0, indices_out, out)


_COUNTERPARTS: Final[dict[str, type[nn.Module]]] = {
    "Linear": Linear,
    "FullyConnectedTensorProduct": FullyConnectedTensorProduct,
    "ChannelWiseTensorProduct": ChannelWiseTensorProduct,
}


def _own(theirs: Any) -> nn.Parameter | None:
    weight = theirs.weight
    return None if weight is None else nn.Parameter(weight.detach().clone(), weight.requires_grad)


def _weight(module: Any, given: Tensor | None) -> Tensor:
    """The weight of a module or, if it has none, the one given."""
    if (given is None) == (module.weight is None):
        has = "has no weights of its own" if given is None else "has weights of its own"
        raise ValueError(f"{module} {has}: it expects weight {'to be given' if given is None else 'of None'}")
    return module.weight if given is None else given
