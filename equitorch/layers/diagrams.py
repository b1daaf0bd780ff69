"""The equivariant linear map between tensor powers, for every group that has diagrams."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from equitorch.layers.diagram_checks import (
    expect_channels,
    expect_dimension,
    expect_every_n,
    expect_feature,
    expect_mask,
    expect_options,
)
from equitorch.layers.diagram_dense import (
    LARGEST,
    Apply,
    Home,
    WeightCache,
    best_time,
    prefers_matrix,
    product_with,
)
from equitorch.layers.diagram_maps import DiagramMaps
from equitorch.layers.diagram_sides import Side
from equitorch.layers.diagram_storage import Weights
from equitorch.layers.diagram_tables import TableMaps
from equitorch.layers.diagram_weights import WeightIndex
from equitorch.layers.rows import expect_dtype
from equitorch.ops.backend import autocasting, traced, use_reference
from equitorch.reps import Rep, TensorPower
from equitorch.reps.automorphism import Automorphism
from equitorch.reps.rep import common_group

_MANY_WEIGHTS = 1 << 20  # above as many, mixing="auto" is "depthwise"


class DiagramLinear(nn.Module):
    r"""All linear maps that commute with a group, between tensor powers of the space that it acts on.

    .. math:: y_{i_1 \dots i_l} = \sum_D \sum_{j_1 \dots j_k} D_{i_1 \dots i_l, j_1 \dots j_k} \, W_D \,
        x_{j_1 \dots j_k} + \sum_D D_{i_1 \dots i_l} \, b_D

    with a matrix of channels for each diagram D: partitions of the l + k indices for permutations, pairings
    for orthogonal and symplectic matrices, some more for their subgroups of determinant 1. Each map that
    commutes with the group is such a sum, so nothing is lost. For S, B, O and Sp the weights do not depend on
    n: a layer made for one n runs at any other, and loads its weights.

    Representations may be direct sums of tensor powers (one product for all terms of equal rank), symmetric
    powers, duals, and outer products of powers of several groups, as ``Outer(TensorPower("S", 5, 2),
    TensorPower("O", 3, 1))``. Permutations that are an ``Automorphism`` have a weight for each orbit of index
    tuples. What has no diagrams, irreps on one side for instance, has a weight for each map of ``hom_basis``.

    Args:
        rep_in: how the rows of the feature transform.
        rep_out: how the rows of the result transform.
        channels_in: channels per row of the input.
        channels_out: channels per row of the output.
        bias: add learned invariant tensors.
        normalization: what a sum over n indices is multiplied by: "sum" 1, "mean" 1 / n, "sqrt" 1 / sqrt(n).
            "auto" is "mean" for S and A, else "sqrt". Sums that copy to outputs are never scaled.
        basis: "spanning": all diagrams; "minimal": linearly independent ones at this n, the first of them.
        mixing: "full": a matrix of channels for each diagram; "depthwise": a number for each diagram and
            channel, then one matrix; "auto": "full" up to a million weights.
        backend: "plan" and "fused" use few sums and small products instead of a matrix; "plan" by PyTorch
            alone. "dense" multiplies with the matrix of the map; kept while the weights stay the same and
            need no gradient; what is written to their ``.data`` counts from the next ``train()`` or
            ``eval()`` on. "auto" chooses, by what ``tune`` measured or was measured once.

    Attributes:
        weights: one parameter for each pair of sectors (see ``equitorch.reps.halves``), of shape
            (permutations, lower halves, channels_in, upper halves, channels_out); if only some diagrams are
            kept, or there are no halves, of shape (maps, channels_in, channels_out). The order is part of the
            format of checkpoints.
        bias: the same for the maps from an invariant number, of shape (upper halves, channels_out), or None.

    Shape:
        x: (..., rep_in.dim, channels_in) -> (..., rep_out.dim, channels_out)
        mask: (..., n), bool, which points are there; permutations S only

    Raises:
        ValueError: if the groups differ, an option is unknown, or ``x`` or ``mask`` have the wrong shape.

    Source:
        Maron et al. 2019, arXiv:1812.09902 (S); Pearce-Crump 2022, arXiv:2212.08630 (O, SO, Sp).

    >>> layer = DiagramLinear.power("S", 5, 2, 2, 8, 16)
    >>> layer(torch.randn(10, 25, 8)).shape, layer(torch.randn(10, 49, 8)).shape  # graphs of 5 and 7 points
    (torch.Size([10, 25, 16]), torch.Size([10, 49, 16]))
    >>> [tuple(weight.shape) for weight in layer.weights.values()]
    [(1, 2, 8, 2, 16), (1, 3, 8, 3, 16), (2, 1, 8, 1, 16)]
    """

    channels: nn.Parameter | None
    zero: Tensor

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        channels_in: int,
        channels_out: int,
        *,
        bias: bool = True,
        normalization: str = "auto",
        basis: str = "spanning",
        mixing: str = "auto",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        expect_options(normalization=normalization, basis=basis, mixing=mixing, backend=backend)
        expect_channels(channels_in=channels_in, channels_out=channels_out)
        common_group([rep_in, rep_out])
        self.rep_in, self.rep_out = rep_in, rep_out
        self.channels_in, self.channels_out = channels_in, channels_out
        self.normalization, self.basis, self.backend = normalization, basis, backend
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # dtype where there are no weights
        self._tuned: dict[Hashable, str] = {}
        self._cache = WeightCache()
        inner, outer = Side.of(rep_in), Side.of(rep_out)
        if inner is not None and outer is not None:
            self.maps: DiagramMaps | TableMaps = DiagramMaps(inner, outer, normalization, basis, bias)
        else:
            self.maps = TableMaps(rep_in, rep_out, normalization, basis, bias)
        entries, constants = self.maps.entries, self.maps.constants
        count = sum(entry.size for entry in entries) * channels_in * channels_out
        self.mixing = ("depthwise" if count > _MANY_WEIGHTS else "full") if mixing == "auto" else mixing
        full = self.mixing == "full"
        self.weights = Weights(entries, channels_in, channels_out if full else None)
        self.bias = Weights(constants, 1, channels_out) if constants else None
        self.channels = None if full else nn.Parameter(torch.empty(channels_in, channels_out))
        if not full and isinstance(self.maps, DiagramMaps):
            self.maps.unmixed()
        self._count = len(self._own())
        self.reset_parameters()

    @staticmethod
    def power(
        group: str | Automorphism,
        n: int,
        order_in: int,
        order_out: int,
        channels_in: int,
        channels_out: int,
        *,
        form: str = "block",
        **options: Any,
    ) -> DiagramLinear:
        """The layer between the tensors of two orders.

        Args:
            group: "S", "A", "B", "O", "SO", "Sp", "O(p,q)", "SO(p,q)" or an ``Automorphism``.
            n: dimension.
            order_in: number of indices of the input.
            order_out: number of indices of the output.
            channels_in: channels per row of the input.
            channels_out: channels per row of the output.
            form: of Sp: "block" or "interleaved".
            **options: those of the class.

        >>> DiagramLinear.power("O", 3, 2, 2, 8, 8, basis="minimal")
        DiagramLinear(TensorPower(O(3), order 2) -> TensorPower(O(3), order 2), 8 -> 8)
        """
        rep_in, rep_out = (TensorPower(group, n, order, form=form) for order in (order_in, order_out))
        return DiagramLinear(rep_in, rep_out, channels_in, channels_out, **options)

    def train(self, mode: bool = True) -> Self:
        """Switch modes, and forget what was made of the weights, however they were changed."""
        self._cache.clear()
        return super().train(mode)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Unit variance in, unit variance out; no bias."""
        self.weights.reset(1 if self.channels is not None else self.channels_in)
        if self.bias is not None:
            self.bias.reset(1, zero=True)
        if self.channels is not None:
            nn.init.normal_(self.channels, std=max(self.channels_in, 1) ** -0.5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if autocasting(x):
            return self._uncast(x, mask)
        latest = self._cache.latest
        if latest and mask is None and x.ndim == 3 and not _is_traced(x):
            entry = latest.get(self._like(x))
            if entry is not None and entry.holds():
                return entry.apply(x)
        sizes = self._check(x, mask)
        points = _flattened(x)
        backend = "fused" if mask is not None else self._backend_for(points, sizes)
        parameters = self._own()
        fixed = not (torch.is_grad_enabled() and any(p.requires_grad for p in parameters))
        if len(parameters) != self._count:  # others stand for them, see torch.nn.utils.parametrize
            fixed = False
        if not fixed or _is_traced(x, *parameters) or any(p.is_inference() for p in parameters):
            fixed = False
        if backend == "dense":
            y = self._by_matrix(points, sizes, fixed)
        elif fixed and mask is None and backend == "fused" and self.channels is None and not self._is_zero:
            y = self._by_kept_plan(points, sizes)
        else:
            flat = None if mask is None else _flattened(mask[..., None])[..., 0]
            y = self._by_plan(points, sizes, flat, backend)
        return y.reshape(*x.shape[:-2], *y.shape[-2:])

    def to_dense(self, n: int | None = None) -> Tensor:
        """The matrix without bias, differentiable: (dim_out, channels_out, dim_in, channels_in).

        Args:
            n: dimension, where it is free; that of the representations, if not given.

        >>> layer = DiagramLinear.power("S", 3, 2, 1, 4, 5)
        >>> x = torch.randn(9, 4)
        >>> torch.allclose(torch.einsum("iojc,jc->io", layer.to_dense(), x), layer(x), atol=1e-5)
        True
        """
        return self._matrix(self._sizes_at(n)).permute(0, 3, 1, 2)

    def dense_bias(self, n: int | None = None) -> Tensor:
        """What is added to ``to_dense``. Shape (dim_out, channels_out)."""
        return self._shift(self._sizes_at(n))

    def diagrams(self) -> Iterator[tuple[WeightIndex, Any]]:
        """Where the weights of each diagram are, and its blocks of vertices: outputs first, then inputs.

        Blocks are a tuple of tuples of vertices; with several groups one such tuple for each; None where maps
        are no diagrams, but orbits or matrices.

        >>> layer = DiagramLinear.power("O", 3, 1, 1, 4, 5)
        >>> [(index, blocks)] = layer.diagrams()
        >>> blocks, layer.weights[index.name][index.position].shape
        (((0, 1),), torch.Size([4, 5]))
        """
        return self.maps.diagrams()

    def tune(self, x: Tensor) -> dict[str, float]:
        """Measure the backends on features like ``x`` and use the fastest from now on, where it is "auto".

        With gradients enabled the backward pass is measured, too. Holds for this n, gradients, dtype, device
        and number of points, up to a factor of two.

        Args:
            x: the feature.

        Returns:
            seconds of each backend that could run.
        """
        sizes = self._check(x, None)
        points = _flattened(x.detach()).requires_grad_(x.requires_grad)
        chosen, seconds = self.backend, {}
        try:
            for backend in ("dense", "plan", "fused"):
                if backend != "dense" or self._matrix_fits(points):
                    self.backend = backend
                    seconds[backend] = best_time(self, points)
        finally:
            self.backend = chosen
        self._cache.latest.clear()
        self._tuned[self._key(points, sizes)] = min(seconds, key=seconds.__getitem__)
        return seconds

    def _uncast(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The result in the dtype of the weights: autocast, which lowers products only, changes nothing."""
        own = self._own()
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(own[0].dtype if own else self.zero.dtype) if x.is_floating_point() else x
            return self.forward(x, mask)

    def _by_plan(self, x: Tensor, sizes: tuple[int, ...], mask: Tensor | None, backend: str) -> Tensor:
        if backend == "plan" and not _is_traced(x):
            with use_reference():
                return self._by_plan(x, sizes, mask, "fused")
        if self._is_zero:
            nothing = x[:, :0].sum()  # zero, but a function of x
            y = nothing.expand(x.shape[0], self.maps.rows(sizes)[1], self.channels_out)
        elif self.channels is None:
            bias = None if self.bias is None else self.bias.full()
            return self.maps(x, self.weights.full(), bias, sizes, mask)
        else:
            y = self.maps(x, self.weights.full(), None, sizes, mask)
            y = y if self.channels is None else y @ self.channels
        if self.bias is None:
            return y
        shift = self._shift(sizes)
        return y + (shift if mask is None else shift * self.maps.present(mask, sizes, y))

    def _by_matrix(self, x: Tensor, sizes: tuple[int, ...], fixed: bool) -> Tensor:
        if not fixed:
            return self._product(sizes)(x)
        entry = self._cache.get((sizes, "dense"), self._homes(), lambda: self._product(sizes))
        if not torch.is_grad_enabled() and x.ndim == 3:
            self._cache.remember(self._like(x), entry)
        return entry.apply(x)

    def _by_kept_plan(self, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        entry = self._cache.get((sizes, "fused"), self._homes(), lambda: self._prepared(sizes))
        if not torch.is_grad_enabled():
            self._cache.remember(self._like(x), entry)
        return entry.apply(x)

    def _prepared(self, sizes: tuple[int, ...]) -> Apply:
        bias = None if self.bias is None else [weight.detach() for weight in self.bias.full()]
        weights = [weight.detach() for weight in self.weights.full()]
        return self.maps.prepared(weights, bias, sizes)

    def _product(self, sizes: tuple[int, ...]) -> Apply:
        """The function that multiplies with the matrix."""
        matrix = self._matrix(sizes).permute(1, 2, 0, 3)
        shift = None if self.bias is None else self._shift(sizes).flatten()
        shape = (self.maps.rows(sizes)[1], self.channels_out)
        return product_with(matrix.flatten(2).flatten(0, 1), shift, shape)

    def _like(self, x: Tensor) -> Hashable:
        """What decides how features of shape (points, rows, channels) are treated, besides the weights."""
        points, rows, channels = x.shape
        kind = x.dtype, x.device, self.backend, torch.is_grad_enabled()
        return points.bit_length(), rows, channels, kind

    def _matrix(self, sizes: tuple[int, ...]) -> Tensor:
        """(rows_out, rows_in, channels_in, channels_out)"""
        if self._is_zero:
            rows = self.maps.rows(sizes)
            return self.zero.new_zeros(rows[1], rows[0], self.channels_in, self.channels_out)
        matrix = self.maps.dense(self.weights.full(), sizes)
        return matrix if self.channels is None else matrix.unsqueeze(-1) * self.channels

    def _shift(self, sizes: tuple[int, ...]) -> Tensor:
        """(rows_out, channels_out)"""
        if self.bias is None:
            raise ValueError(f"{self} has no bias")
        if not self.channels_out:
            return self.zero.new_zeros(self.maps.rows(sizes)[1], 0)
        return self.maps.shift(self.bias.full(), sizes)[0]

    @property
    def _is_zero(self) -> bool:
        """Whether there are no maps, or no channels, so that nothing but the bias is left."""
        return not (self.weights.entries and self.channels_in and self.channels_out)

    def _homes(self) -> list[Home]:
        """Where the parameters are; asking a ParameterDict for them takes microseconds."""
        modules = (self, self.weights, self.bias)
        return [module._parameters for module in modules if module is not None]

    def _own(self) -> list[Tensor]:
        """All parameters, whatever stands in for them."""
        return [weight for home in self._homes() for weight in home.values() if weight is not None]

    def _backend_for(self, x: Tensor, sizes: tuple[int, ...]) -> str:
        if self.backend != "auto" or self._is_zero:
            return "fused" if self._is_zero else self.backend
        parameters = self._own()
        if _is_traced(x, *parameters):
            return "fused"
        if self._tuned:
            chosen = self._tuned.get(self._key(x, sizes))
            if chosen is not None:
                return chosen
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return "fused"
        channels = (self.channels_in, self.channels_out)
        work = self.maps.work(sizes)
        dense = prefers_matrix(x.shape[0], self.maps.rows(sizes), channels, work, x.is_cuda)
        return "dense" if dense else "fused"

    def _key(self, x: Tensor, sizes: tuple[int, ...]) -> Hashable:
        grad = torch.is_grad_enabled()
        weights = grad and any(p.requires_grad for p in self._own())
        return (sizes, x.shape[0].bit_length(), x.dtype, x.device.type, weights, grad and x.requires_grad)

    def _matrix_fits(self, x: Tensor) -> bool:
        rows = self.maps.rows(self._sizes_at(None))
        entries = x.shape[1] * self.channels_in * rows[1] * self.channels_out
        return max(entries, x.shape[1] ** 2) <= LARGEST

    def _sizes_at(self, n: int | None) -> tuple[int, ...]:
        if n is None:
            return self.maps.sizes
        sizes = expect_dimension(self, n, self.maps)
        if sizes != self.maps.sizes:
            expect_every_n(self, self.maps)
        return sizes

    def _check(self, x: Tensor, mask: Tensor | None) -> tuple[int, ...]:
        """The dimension of each group for this feature."""
        sizes = expect_feature(self, x, self.maps, self.channels_in)
        if sizes != self.maps.sizes:
            expect_every_n(self, self.maps)
        expect_dtype(self, x, self.zero)
        if mask is not None:
            expect_mask(self, mask, x, self.maps, sizes)
        return sizes

    def __repr__(self) -> str:
        return f"DiagramLinear({self.rep_in} -> {self.rep_out}, {self.channels_in} -> {self.channels_out})"


def _is_traced(*operands: Tensor) -> bool:
    """Whether PyTorch transforms or records the program: then nothing is kept and nothing chosen."""
    return traced(*operands) or torch._C._functorch.peek_interpreter_stack() is not None


def _flattened(x: Tensor) -> Tensor:
    """All leading axes as one: (points, rows, channels)."""
    return x if x.ndim == 3 else x[None] if x.ndim == 2 else x.flatten(0, -3)
