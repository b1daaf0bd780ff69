"""Functions of a distance: edge weights, evaluated exactly or read off a table of the same network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.jet import jet
from equitorch.ops.jet import product
from equitorch.ops.multilinear import with_derivatives
from equitorch.ops.radial import interpolate

_CHUNK = 512  # points evaluated at a time without history, so that intermediates stay in the cache
_KEEP = 1 << 16  # points whose intermediates are kept for the gradients of weights; for more, computed again


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
        self._tables, self._jets = _Kept(), _Kept()

    def forward(self, d: Tensor) -> Tensor:
        if self.knots is None or d.shape[0] == 0:
            return self._exact(d)
        return interpolate(self.table(), d, self.cutoff / self.knots)

    def evaluate(self, d: Tensor) -> Tensor:
        """The definition: envelope times network, in plain PyTorch."""
        return self.envelope(d).unsqueeze(-1) * self.network(self.basis(d))

    def derivatives(self, d: Tensor, order: int) -> Tensor:
        """Value and derivatives with respect to ``d``. Shape (order + 1, points, n)."""
        return self._network(*self._features(d, order))

    def table(self) -> Tensor:
        """Value, h slope, h² curvature at the knots. Shape (knots + 1, 3, n); kept until a weight changes."""
        return self._tables.get((self,), self.knots, self._build)

    def _build(self) -> Tensor:
        assert self.knots is not None, "a table was asked for"
        spacing = self.cutoff / self.knots
        jets = self._jets.get((self.basis, self.envelope), (self.knots, self._like().dtype), self._at_knots)
        value, slope, curvature = self._network(*jets).unbind()
        return torch.stack([value, spacing * slope, spacing**2 * curvature], dim=1)

    def _at_knots(self) -> tuple[Tensor, Tensor]:
        assert self.knots is not None, "a table was asked for"
        like = self._like()
        d = torch.linspace(0, self.cutoff, self.knots + 1, dtype=torch.float64, device=like.device).to(
            like.dtype
        )
        d[-1] = torch.nextafter(d[-1], d.new_zeros(()))  # the last knot, from the left
        return self._features(d, 2)

    def _like(self) -> Tensor:
        return next(self.network.parameters())

    def _features(self, d: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """Jets of the basis, (orders, points, k), and of the envelope, (orders, points)."""
        path = torch.zeros(order + 1, d.shape[0], dtype=d.dtype, device=d.device)
        path[0] = d
        path[1:2] = 1
        return jet(self.basis, path), jet(self.envelope, path)

    def _network(self, features: Tensor, factor: Tensor) -> Tensor:
        weights = [w for w in self.network.parameters() if w.requires_grad]
        if not torch.is_grad_enabled() or not (weights or features.requires_grad):
            return _pieces(self.network, features, factor)
        if features.shape[1] <= _KEEP:
            return _piece(self.network, features, factor)
        out: Tensor = _Pieces.apply(self.network, features, factor, *weights)
        return out

    def _exact(self, d: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
            return self.evaluate(d)
        if not torch.is_grad_enabled() or not d.requires_grad:
            return self.derivatives(d.detach(), 0)[0]
        return _curve(self, d, self.derivatives(d.detach(), 1).unbind(), 0)

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff:g}, " + ("exact" if self.knots is None else f"{self.knots} knots")


class _Kept:
    """A result that is computed again when a weight of the modules it depends on has changed."""

    def __init__(self) -> None:
        self.version: object = None
        self.result: Any = None

    def get(self, modules: tuple[nn.Module, ...], options: object, compute: Callable[[], Any]) -> Any:
        weights = [w for module in modules for w in (*module.parameters(), *module.buffers())]
        if torch.is_grad_enabled() and any(w.requires_grad for w in weights):
            return compute()  # with history
        version = options, [(id(w), w.data_ptr(), w._version, w.dtype, w.device) for w in weights]
        if self.version != version:
            self.version, self.result = version, compute()
        return self.result

    def __deepcopy__(self, memo: object) -> _Kept:
        return _Kept()

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


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
    """Let every radial function in ``module`` read from a table of ``knots`` intervals; None: be exact."""
    for function in module.modules():
        if isinstance(function, RadialFunction):
            function.knots = knots


def _curve(function: RadialFunction, d: Tensor, values: tuple[Tensor, ...], order: int) -> Tensor:
    """The derivative of the given order as a function of ``d``, itself differentiable."""

    def slope(grad: Tensor) -> Tensor:
        above = values if len(values) > order + 1 else function.derivatives(d.detach(), order + 1).unbind()
        return (grad * _curve(function, d, above, order + 1)).sum(-1)

    value = values[order]
    return with_derivatives(value.detach(), [(value, lambda grad: grad), (d, slope)])


def _piece(network: nn.Module, features: Tensor, factor: Tensor) -> Tensor:
    return product(factor, jet(network, features))


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
