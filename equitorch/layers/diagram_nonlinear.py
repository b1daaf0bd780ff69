"""What a network of tensors does between its linear maps: activations, products, and norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from equitorch.layers.activation import activation_function, parity_of
from equitorch.layers.diagram_sides import Side, with_form
from equitorch.reps.matrix_groups import MatrixGroup

_PERMUTATIONS = ("S", "A", "Aut")
_POWERS = {"sum": 0.0, "mean": -1.0, "sqrt": -0.5}


def kind_for(group: MatrixGroup, nonlinearity: str, function: Callable[[Tensor], Tensor]) -> str:
    """The nonlinearity of tensors that a group allows: "pointwise", "gate" or "norm".

    Args:
        group: what acts.
        nonlinearity: what is asked for; "auto" is pointwise where that commutes with the group, else a gate.
        function: the activation.

    Raises:
        ValueError: if it is unknown, or does not commute with the group.

    >>> kind_for(MatrixGroup.named("B", 4), "auto", torch.tanh)
    'pointwise'
    """
    odd = group.family == "B" and parity_of(function) == -1
    free = group.family in _PERMUTATIONS or odd
    if nonlinearity not in ("auto", "pointwise", "gate", "norm"):
        raise ValueError(
            f"a nonlinearity is one of auto, pointwise, gate or norm, got nonlinearity={nonlinearity!r}"
        )
    if nonlinearity == "pointwise" and not free:
        allowed = "only odd functions such as tanh commute with sign changes" if group.family == "B" else ""
        allowed = allowed or "a function of single entries commutes with permutations only"
        raise ValueError(f"{group.symbol} has no nonlinearity pointwise: {allowed}; use gate")
    if nonlinearity == "norm" and not group.is_orthogonal:
        raise ValueError(f"{group.symbol} leaves no norm of tensors alone; use nonlinearity gate")
    return ("pointwise" if free else "gate") if nonlinearity == "auto" else nonlinearity


class TensorActivation(nn.Module):
    r"""An activation of invariant numbers, and what commutes with the group for tensors of higher order.

    Pointwise: the activation of each entry. Gate: :math:`x_k \, \sigma(g_k)` with invariant numbers g that
    come with the feature. Norm: :math:`x_k \, \sigma(a_k |x_k| + b_k)` with the root mean square of the
    entries of each channel.

    Args:
        group: what acts.
        orders: of the tensors, which lie one below the other.
        channels: of each.
        activation: name or function.
        nonlinearity: "pointwise", "gate", "norm", or "auto": pointwise where the group allows it, else gate.

    Attributes:
        orders_in: those of the input: ``orders``, then with gates a number for each tensor.

    Shape:
        x: (batch, rows of orders_in, channels) -> (batch, rows of orders, channels)

    >>> gate = TensorActivation(MatrixGroup.named("O", 3), (0, 1), 4)
    >>> gate.orders_in, gate(torch.randn(2, 5, 4), 3).shape
    ((0, 1, 0), torch.Size([2, 4, 4]))
    """

    def __init__(
        self,
        group: MatrixGroup,
        orders: tuple[int, ...],
        channels: int,
        *,
        activation: str | Callable[[Tensor], Tensor] = "silu",
        nonlinearity: str = "auto",
    ) -> None:
        super().__init__()
        self.function = activation_function(activation)
        self.kind = kind_for(group, nonlinearity, self.function)
        tensors = sum(order > 0 for order in orders)
        self.orders_in = orders + (0,) * tensors if self.kind == "gate" else orders
        self.orders, self.side = orders, Side.of_powers(group, self.orders_in)
        shape = (2, tensors, channels)
        self.slope = nn.Parameter(torch.ones(shape)) if self.kind == "norm" else None

    def forward(self, x: Tensor, n: int) -> Tensor:
        if self.kind == "pointwise":
            return self.function(x)
        blocks = x.split(self.side.rows((n,)), dim=-2)
        gates = iter(blocks[len(self.orders) :] if self.slope is None else self._sizes(blocks))
        made = [
            block * next(gates).sigmoid() if order else self.function(block)
            for order, block in zip(self.orders, blocks, strict=False)
        ]
        return torch.cat(made, dim=-2)

    def _sizes(self, blocks: tuple[Tensor, ...]) -> list[Tensor]:
        """The arguments of the gates, from the norms of the tensors."""
        if self.slope is None:
            return []
        tensors = [block for order, block in zip(self.orders, blocks, strict=True) if order]
        eps = torch.finfo(blocks[0].dtype).eps
        norms = [(block.square().mean(-2, keepdim=True) + eps).sqrt() for block in tensors]
        return [norm * a + b for norm, a, b in zip(norms, self.slope[0], self.slope[1], strict=True)]

    def extra_repr(self) -> str:
        return f"{self.orders}, {self.kind}"


class TensorProducts(nn.Module):
    r"""Add to each tensor products of two mixtures of tensors, next to each other or joined along indices.

    .. math:: z_{IK} = x_{IK} + \sum M \Bigl( s \sum_{J J'} (L x)_{IJ} \, F_{J J'} \, (R x)_{J'K} \Bigr)

    where F is the form that the group leaves alone, J are no indices, one, or all if joining one alone leaves
    an order that there is no tensor of; L, R and M mix channels. These are outer products, matrix products
    and inner products.

    Args:
        group: what acts.
        orders: of the tensors, which lie one below the other; none twice.
        channels: of each.
        scaling: s for each index of J: "sum" 1, "mean" 1 / n, "sqrt" 1 / sqrt(n).

    Attributes:
        paths: orders of the two factors, number of joined indices, order of the product.

    Shape:
        x: (batch, rows, channels), mask: (batch, n) -> (batch, rows, channels)

    Source:
        Maron et al. 2019, arXiv:1905.11136 (matrix products of features of pairs).

    >>> TensorProducts(MatrixGroup.named("Sp", 4), (0, 1), 8).paths
    [(0, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 0)]
    """

    def __init__(
        self, group: MatrixGroup, orders: tuple[int, ...], channels: int, *, scaling: str = "sqrt"
    ) -> None:
        super().__init__()
        self.group, self.orders, self.side = group, orders, Side.of_powers(group, orders)
        self.scaling = scaling
        self.paths = [
            (a, b, joined, a + b - 2 * joined)
            for a, b in itertools.combinations_with_replacement(sorted(orders), 2)
            for joined in _joins(a, b, orders)
        ]
        self.factors = nn.Parameter(torch.empty(2, len(orders), channels, channels))
        self.mix = nn.Parameter(torch.empty(len(self.paths), channels, channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Unit variance in, unit variance of the sum of products out."""
        channels = max(self.factors.shape[-1], 1)
        self.factors.normal_(std=channels**-0.5)
        targets = [path[3] for path in self.paths]
        for weight, order in zip(self.mix, targets, strict=True):
            weight.normal_(std=(channels * targets.count(order)) ** -0.5)

    def forward(self, x: Tensor, n: int, mask: Tensor | None = None) -> Tensor:
        blocks = list(x.split(self.side.rows((n,)), dim=-2))
        size = float(n) if mask is None else mask.sum(1).clamp(min=1).to(x.dtype)[:, None, None]
        left, right = (
            {order: block @ weight for order, block, weight in zip(self.orders, blocks, side, strict=True)}
            for side in self.factors
        )
        for weight, (a, b, joined, order) in zip(self.mix, self.paths, strict=True):
            product = self._join(left[a], right[b], n, joined) * size ** (joined * _POWERS[self.scaling])
            place = self.orders.index(order)
            blocks[place] = blocks[place] + product @ weight
        return torch.cat(blocks, dim=-2)

    def _join(self, x: Tensor, y: Tensor, n: int, joined: int) -> Tensor:
        """The last indices of x with the first of y: (batch, n^a, c), (batch, n^b, c) -> (batch, n^.., c)."""
        size = n**joined
        for index in range(joined):
            y = with_form(y, self.group, n, index)
        x = x.unflatten(1, (x.shape[1] // size, size)).permute(0, 3, 1, 2)
        y = y.unflatten(1, (size, y.shape[1] // size)).permute(0, 3, 1, 2)
        return (x @ y).flatten(2).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.orders}, {len(self.paths)} products, {self.scaling}"


class TensorNorm(nn.Module):
    """Each tensor divided by the root mean square of its entries in all channels, then rescaled by channel.

    Args:
        group: what acts, by orthogonal matrices.
        orders: of the tensors, which lie one below the other.
        channels: of each.
        eps: what is added to the mean square.

    Shape:
        x: (batch, rows, channels), mask: (batch, n) -> (batch, rows, channels)

    Raises:
        ValueError: if the matrices of the group are not orthogonal.

    >>> norm = TensorNorm(MatrixGroup.named("S", 3), (0, 1), 4)
    >>> norm(torch.randn(2, 4, 4), 3)[:, 1:].square().mean().item()
    0.999...
    """

    def __init__(
        self, group: MatrixGroup, orders: tuple[int, ...], channels: int, *, eps: float = 1e-5
    ) -> None:
        super().__init__()
        if not group.is_orthogonal:
            raise ValueError(f"{group.symbol} leaves no norm of tensors alone; use norm=False")
        self.orders, self.side, self.eps = orders, Side.of_powers(group, orders), eps
        self.weight = nn.Parameter(torch.ones(len(orders), channels))

    def forward(self, x: Tensor, n: int, mask: Tensor | None = None) -> Tensor:
        made = []
        blocks = x.split(self.side.rows((n,)), dim=-2)
        for order, block, weight in zip(self.orders, blocks, self.weight, strict=True):
            mean = block.square().mean((-2, -1), keepdim=True)
            if mask is not None:
                there = mask.sum(1).clamp(min=1).to(x.dtype)[:, None, None]
                mean = mean * (n / there) ** order
            made.append(block * (mean + self.eps).rsqrt() * weight)
        return torch.cat(made, dim=-2)

    def extra_repr(self) -> str:
        return f"{self.orders}, eps={self.eps:g}"


def _joins(a: int, b: int, orders: tuple[int, ...]) -> list[int]:
    """Along how many indices tensors of two orders are joined, so that there is a tensor for the result."""
    choices = [joined for joined in (0, 1) if joined <= min(a, b) and a + b - 2 * joined in orders]
    whole = a == b > 1 and 1 not in choices and 0 in orders
    return choices + [a] * whole
