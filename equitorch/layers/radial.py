"""Functions of a distance: edge weights evaluated exactly, or read off a table built from the same network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.jet import jet, product
from equitorch.ops.multilinear import with_derivatives
from equitorch.ops.radial import interpolate

_CHUNK = 512  # points evaluated at a time, so that a network's intermediates stay in the cache


class RadialFunction(nn.Module):
    r"""Edge weights that depend on the distance only: an envelope times a network on a radial basis.

    .. math:: f_n(d) = C(d) \; \text{network}_n(\text{basis}(d))

    Evaluated *exactly*, the network's value and slope come from one forward pass, in pieces that fit the
    cache. From a *table*, the network runs at a few hundred knots only, and is read between them by quintic
    Hermite interpolation: twice continuously differentiable, so forces remain exact gradients.
    Every derivative, to any order, is exact for the function that is evaluated.

    Args:
        basis: distance to features, (...) -> (..., k).
        network: features to weights, (..., k) -> (..., n).
        envelope: distance to a factor, zero at and beyond the cutoff.
        cutoff: Å.
        knots: None evaluates exactly, a number reads from a table of as many intervals.

    Shape:
        d (Å): (points,) -> (points, n)

    Source:
        TensorNet: Simeon, de Fabritiis 2023, arXiv:2306.06482 (edge weights).
    """

    def __init__(
        self,
        basis: nn.Module,
        network: nn.Module,
        envelope: nn.Module,
        *,
        cutoff: float,
        knots: int | None = None,
    ) -> None:
        super().__init__()
        self.basis, self.network, self.envelope = basis, network, envelope
        self.cutoff, self.knots = float(cutoff), knots
        self._cached: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, d: Tensor) -> Tensor:
        if self.knots is None or d.shape[0] == 0:
            return self._exact(d)
        return interpolate(self.table(), d, self.cutoff / self.knots)

    def evaluate(self, d: Tensor) -> Tensor:
        """The definition: envelope times network, in plain PyTorch."""
        return self.envelope(d).unsqueeze(-1) * self.network(self.basis(d))

    def table(self) -> Tensor:
        """Value, h slope, h² curvature at the knots. Shape (knots + 1, 3, n); kept until a weight changes."""
        assert self.knots is not None, "a table was asked for"
        weights = [*self.parameters(), *self.buffers()]
        fresh = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        version = tuple((w.data_ptr(), w._version, w.dtype, w.device, self.knots) for w in weights)
        if not fresh and self._cached is not None and self._cached[0] == version:
            return self._cached[1]
        table = self._build(weights[0])
        if not fresh:
            self._cached = version, table
        return table

    def _build(self, like: Tensor) -> Tensor:
        assert self.knots is not None, "a table was asked for"
        spacing = self.cutoff / self.knots
        d = torch.linspace(0, self.cutoff, self.knots + 1, dtype=like.dtype, device=like.device)
        d[-1] = torch.nextafter(d[-1], d.new_zeros(()))  # the last knot, from the left
        value, slope, curvature = self.derivatives(d, 2).unbind()
        return torch.stack([value, spacing * slope, spacing**2 * curvature], dim=1)

    def derivatives(self, d: Tensor, order: int) -> Tensor:
        """Value and derivatives with respect to ``d``. Shape (order + 1, points, n)."""
        path = torch.cat([d[None], torch.ones_like(d[None]), d.new_zeros(max(order - 1, 0), d.shape[0])])[
            : order + 1
        ]
        features, factor = jet(self.basis, path), jet(self.envelope, path)
        weights = [w for w in self.network.parameters() if w.requires_grad]
        if torch.is_grad_enabled() and weights:
            return _Pieces.apply(self.network, features, factor, *weights)
        return _pieces(self.network, features, factor)

    def _exact(self, d: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
            return self.evaluate(d)
        if not torch.is_grad_enabled() or not d.requires_grad:
            return self.derivatives(d.detach(), 0)[0]
        return _curve(self, d, self.derivatives(d.detach(), 1), 0)

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff:g}, " + ("exact" if self.knots is None else f"{self.knots} knots")


@contextmanager
def tables(module: nn.Module, knots: int | None = 512) -> Iterator[None]:
    """Read every radial function in ``module`` from tables inside the block, or exactly with ``None``."""
    before = {f: f.knots for f in module.modules() if isinstance(f, RadialFunction)}
    set_tables(module, knots)
    try:
        yield
    finally:
        for function, count in before.items():
            function.knots = count


def set_tables(module: nn.Module, knots: int | None = 512) -> None:
    """Let every radial function in ``module`` read from a table of ``knots`` intervals, or be exact (None)."""
    for function in module.modules():
        if isinstance(function, RadialFunction):
            function.knots = knots


def _curve(function: RadialFunction, d: Tensor, values: Tensor, order: int) -> Tensor:
    """The derivative of the given order as a function of ``d``, itself differentiable."""

    def slope(grad: Tensor) -> Tensor:
        above = values if values.shape[0] > order + 1 else function.derivatives(d.detach(), order + 1)
        return (grad * _curve(function, d, above, order + 1)).sum(-1)

    value = values[order]
    return with_derivatives(value.detach(), [(value, lambda grad: grad), (d, slope)])


def _piece(network: nn.Module, features: Tensor, factor: Tensor) -> Tensor:
    return product(factor[..., None], jet(network, features))


def _pieces(network: nn.Module, features: Tensor, factor: Tensor) -> Tensor:
    with torch.no_grad():
        pieces = zip(features.split(_CHUNK, dim=1), factor.split(_CHUNK, dim=1), strict=True)
        return torch.cat([_piece(network, *piece) for piece in pieces], dim=1)


class _Pieces(torch.autograd.Function):
    """The network on all points, in pieces; each is computed again when gradients of weights are wanted."""

    @staticmethod
    def forward(ctx: Any, network: nn.Module, features: Tensor, factor: Tensor, *weights: Tensor) -> Tensor:
        ctx.network, ctx.weights = network, weights
        ctx.save_for_backward(features, factor)
        return _pieces(network, features, factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        features, factor = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody differentiates gradients of weights: all points at once
            value = _piece(ctx.network, features, factor)
            wanted = [x for x in (features, factor) if x.requires_grad]
            found = iter(torch.autograd.grad(value, [*wanted, *ctx.weights], grad, create_graph=True))
            leading = [next(found) if x.requires_grad else None for x in (features, factor)]
            return None, *leading, *found
        totals = [torch.zeros_like(w) for w in ctx.weights]
        needed = ctx.needs_input_grad[1:3]
        inner: list[list[Tensor]] = [[], []]
        for parts in zip(*(x.split(_CHUNK, dim=1) for x in (features, factor, grad)), strict=True):
            with torch.enable_grad():
                leaves = [x.detach().requires_grad_(need) for x, need in zip(parts, needed, strict=False)]
                value = _piece(ctx.network, *leaves)
            wanted = [x for x in leaves if x.requires_grad]
            found = list(torch.autograd.grad(value, [*wanted, *ctx.weights], parts[2]))
            for k, need in enumerate(needed):
                if need:
                    inner[k].append(found.pop(0))
            for total, part in zip(totals, found, strict=True):
                total += part
        leading = [torch.cat(x, dim=1) if need else None for x, need in zip(inner, needed, strict=True)]
        return None, *leading, *totals
