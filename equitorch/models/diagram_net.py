"""DiagramNet: a network of tensors of several orders, for any group that has diagrams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.diagram_nonlinear import TensorActivation, TensorNorm, TensorProducts
from equitorch.layers.diagram_sides import Side
from equitorch.layers.diagrams import DiagramLinear
from equitorch.reps import DirectSum, Rep, TensorPower
from equitorch.reps.automorphism import Automorphism
from equitorch.reps.matrix_groups import MatrixGroup

Orders = int | Sequence[int]
Feature = Tensor | Sequence[Tensor] | Mapping[int, Tensor]


class DiagramNet(nn.Module):
    r"""Tensors to tensors, commuting with a group of matrices: all linear maps, nonlinearities between them.

    .. math:: x_{s + 1} = x_s + N(P(\phi(A_s x_s))), \qquad y = A_{-1} x_{-1}

    where A are ``DiagramLinear``, phi an activation, P optional products of tensors, N an optional norm; x_s
    is added where orders and channels stay the same. Functions of single entries commute with permutations.
    Of other groups, invariant numbers pass through the activation and gate the tensors, and products make
    invariants of tensors: there have 0 among the hidden orders.

    A network of S, B, O or Sp runs at any n, with the same weights.

    Args:
        group: "S", "A", "B", "O", "SO", "Sp", "O(p,q)", "SO(p,q)" or an ``Automorphism``.
        n: dimension.
        orders: of the tensors of every stage, input first, output last: one number, or several.
        channels: of every stage.
        form: of Sp: "block" or "interleaved".
        activation: name or function.
        nonlinearity: of tensors: "pointwise", for permutations, signed ones with an odd function; "gate";
            "norm", a gate by the norm, for orthogonal matrices; "auto": pointwise if that commutes, or gate.
        products: add products of tensors whose order the stage has, next to each other or joined along an
            index: "none", or by what the sum over the index is multiplied: "sum" 1, "mean" 1 / n, "sqrt"
            1 / sqrt(n). "auto" is "none" for permutations, signed or not, else "sqrt".
        norm: divide by the norm of each tensor in each hidden stage.
        residual: add the input of a layer to its result where they are alike.
        normalization: of the sums inside linear maps, as in ``DiagramLinear``.
        basis: "spanning" or "minimal", as in ``DiagramLinear``.
        mixing: "auto", "full" or "depthwise", as in ``DiagramLinear``.
        backend: "auto", "dense", "plan" or "fused", as in ``DiagramLinear``.

    Shape:
        x: (..., n^order, channels[0]), for several orders a tensor of each, by order or in order, or one with
        their rows below each other; each of them may have fewer channels, and the rest is zero.
        mask: (..., n), bool, which points are there; S only.
        -> (..., n^order, channels[-1]), for several orders a tensor of each, by order.

    Raises:
        ValueError: if an option is unknown or does not commute with the group, stages do not fit each other,
            or a tensor has the wrong shape.

    Source:
        Maron et al. 2019, arXiv:1812.09902 (S); Pearce-Crump 2022, arXiv:2212.08630 (O, SO, Sp).

    >>> net = DiagramNet("S", 5, orders=[2, (1, 2), (1, 2), 0], channels=[1, 16, 16, 3])
    >>> net(torch.rand(10, 25, 1)).shape, net(torch.rand(10, 49, 1)).shape  # graphs of 5 and of 7 points
    (torch.Size([10, 1, 3]), torch.Size([10, 1, 3]))
    """

    def __init__(
        self,
        group: str | Automorphism,
        n: int,
        orders: Sequence[Orders],
        channels: Sequence[int],
        *,
        form: str = "block",
        activation: str | Callable[[Tensor], Tensor] = "silu",
        nonlinearity: str = "auto",
        products: str = "auto",
        norm: bool = False,
        residual: bool = True,
        normalization: str = "auto",
        basis: str = "spanning",
        mixing: str = "auto",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.group = MatrixGroup.named(group, n, form)
        self.orders = _checked(orders, channels)
        self.channels = tuple(channels)
        self.single = isinstance(orders[-1], int)
        self.side = Side.of_powers(self.group, self.orders[0])
        maps = {"normalization": normalization, "basis": basis, "mixing": mixing, "backend": backend}
        products = _products_for(self.group, products)
        layers = []
        for stage, (inner, outer) in enumerate(itertools.pairwise(self.orders)):
            c = self.channels[stage : stage + 2]
            last = stage == len(self.orders) - 2
            layer = DiagramBlock(
                self.group,
                inner,
                outer,
                *c,
                activation=None if last else activation,
                nonlinearity=nonlinearity,
                products="none" if last else products,
                norm=norm and not last,
                residual=residual and not last and inner == outer and c[0] == c[1],
                maps=maps,
            )
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        tensors = [max(stage) > 0 for stage in self.orders]
        self.forgets_n = any(not a and b for a, b in itertools.pairwise(tensors))

    def forward(self, x: Feature, mask: Tensor | None = None) -> Tensor | dict[int, Tensor]:
        """The tensors of the last stage: one, or by order."""
        rows = self._rows(x)
        n = self._dimension(rows)
        lead = rows.shape[:-2]
        rows = rows.reshape(-1, *rows.shape[-2:])
        flat = None if mask is None else mask.reshape(-1, mask.shape[-1])
        for layer in self.layers:
            rows = layer(rows, n, flat)
        rows = rows.reshape(*lead, *rows.shape[-2:])
        if self.single:
            return rows
        sizes = Side.of_powers(self.group, self.orders[-1]).rows((n,))
        return dict(zip(self.orders[-1], rows.split(sizes, dim=-2), strict=True))

    def rep(self, stage: int) -> Rep:
        """How the rows of a stage transform; -1 is the output.

        >>> DiagramNet("O", 3, [2, (0, 2), 1], [1, 8, 1]).rep(0)
        TensorPower(O(3), order 2)
        """
        return _rep(self.group, self.orders[stage])

    def _rows(self, x: Feature) -> Tensor:
        if isinstance(x, Tensor):
            return x
        orders, channels = self.orders[0], self.channels[0]
        given = list(x) if isinstance(x, Mapping) else list(orders[: len(x)])
        if sorted(given) != sorted(orders) or len(x) != len(orders):
            raise ValueError(f"{self} expects a tensor of each order {orders}, got {len(x)}: {given}")
        parts = [x[order] for order in orders] if isinstance(x, Mapping) else list(x)
        if any(part.ndim < 2 or part.shape[-1] > channels for part in parts):
            shapes = [tuple(part.shape) for part in parts]
            raise ValueError(f"{self} expects tensors of at most {channels} channels, got shapes {shapes}")
        padded = [nn.functional.pad(part, (0, channels - part.shape[-1])) for part in parts]
        return torch.cat(padded, dim=-2)

    def _dimension(self, rows: Tensor) -> int:
        sizes = self.side.sizes_for(rows.shape[-2]) if rows.ndim > 1 else None
        if sizes is None or rows.shape[-1] != self.channels[0]:
            other = " (or the rows of another n)" if self.side.free is not None else ""
            raise ValueError(
                f"{self} expects x of shape (..., {self.rep(0).dim}, {self.channels[0]}){other}, "
                f"got {tuple(rows.shape)}"
            )
        if sizes[0] != self.group.n and self.forgets_n:
            raise ValueError(
                f"{self} runs at n={self.group.n} only: a stage of order 0 comes before one of higher order; "
                "add an order above 0 to that stage"
            )
        return sizes[0]

    def __repr__(self) -> str:
        stages = " -> ".join(f"{c}x{_text(k)}" for k, c in zip(self.orders, self.channels, strict=True))
        return f"DiagramNet({self.group.symbol}, {stages})"


class DiagramBlock(nn.Module):
    """One layer of a ``DiagramNet``: a linear map, then without ``activation`` nothing else.

    Shape:
        x: (batch, rows of inner, channels_in) -> (batch, rows of outer, channels_out)
    """

    def __init__(
        self,
        group: MatrixGroup,
        inner: tuple[int, ...],
        outer: tuple[int, ...],
        channels_in: int,
        channels_out: int,
        *,
        activation: str | Callable[[Tensor], Tensor] | None,
        nonlinearity: str,
        products: str,
        norm: bool,
        residual: bool,
        maps: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.residual = residual
        self.has_points = max(inner + outer) > 0
        self.side = Side.of_powers(group, outer)
        self.activation = None
        made = outer
        if activation is not None:
            self.activation = TensorActivation(
                group, outer, channels_out, activation=activation, nonlinearity=nonlinearity
            )
            made = self.activation.orders_in
        self.linear = DiagramLinear(_rep(group, inner), _rep(group, made), channels_in, channels_out, **maps)
        self.products = (
            None if products == "none" else TensorProducts(group, outer, channels_out, scaling=products)
        )
        self.norm = TensorNorm(group, outer, channels_out) if norm else None

    def forward(self, x: Tensor, n: int, mask: Tensor | None = None) -> Tensor:
        y = self.linear(x, mask if self.has_points else None)
        if self.activation is None:
            return y
        y = self.activation(y, n)
        if mask is not None:
            there = torch.cat(self.side.keep(mask, (n,)), dim=1)
            y = y * there.to(y.dtype)
        if self.products is not None:
            y = self.products(y, n, mask)
        if self.norm is not None:
            y = self.norm(y, n, mask)
        return x + y if self.residual else y


def _rep(group: MatrixGroup, orders: tuple[int, ...]) -> Rep:
    form = "interleaved" if group.interleaved else "block"
    name = group.permutations or group.family
    if group.negative:
        name = f"{group.family}({group.n - group.negative},{group.negative})"
    powers = tuple([TensorPower(name, group.n, order, form=form) for order in orders])
    return powers[0] if len(powers) == 1 else DirectSum(powers)


def _products_for(group: MatrixGroup, products: str) -> str:
    if products not in ("auto", "none", "sum", "mean", "sqrt"):
        raise ValueError(
            f"DiagramNet expects products to be auto, none, sum, mean or sqrt, got products={products!r}"
        )
    permutes = group.family in ("S", "A", "B", "Aut")
    return ("none" if permutes else "sqrt") if products == "auto" else products


def _checked(orders: Sequence[Orders], channels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The orders of each stage as a tuple."""
    if isinstance(orders, int) or isinstance(channels, int) or len(orders) != len(channels):
        raise ValueError(
            "DiagramNet expects orders and channels of every stage, input first and output last, as in "
            f"orders=[2, (0, 2), 0], channels=[1, 16, 1]; got orders={orders} and channels={channels}"
        )
    stages = tuple([(stage,) if isinstance(stage, int) else tuple(stage) for stage in orders])
    if len(stages) < 2:
        raise ValueError(f"DiagramNet expects at least two stages, input and output, got orders={orders}")
    for stage in stages:
        if not stage or len(set(stage)) < len(stage):
            raise ValueError(
                f"DiagramNet expects one or more different orders in a stage, got {stage}; "
                "copies of an order are channels"
            )
    return stages


def _text(orders: tuple[int, ...]) -> str:
    return str(orders[0]) if len(orders) == 1 else f"({', '.join(map(str, orders))})"
