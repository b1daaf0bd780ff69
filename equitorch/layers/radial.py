"""Functions of a distance: edge weights, evaluated exactly or read off a table of the same network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.jet import jet
from equitorch.ops.backend import fused, traced
from equitorch.ops.jet import product
from equitorch.ops.multilinear import with_derivatives
from equitorch.ops.radial import interpolate

_CHUNK = 512  # points evaluated at a time without history, so that intermediates stay in the cache
_SPACING = 0.0125  # Å between the knots of a table in float32
_ERROR = (1e-6, 1e-5)  # of its values and slopes, relative to the largest: what round-off does to the network
_WORTH = 2  # pairs per knot from which on a table that must be built costs less than its use saves
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
        knots: None evaluates exactly, a number reads from a table of as many intervals. "auto" is exact in
            float64; in float32 it reads from tables, fine enough to lie below the round-off, wherever that is
            less work: in evaluation, and in training where a batch has many more pairs than a table knots.

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
        knots: int | str | None = "auto",
    ) -> None:
        super().__init__()
        self.basis, self.network, self.envelope = basis, network, envelope
        self.cutoff, self.knots = float(cutoff), knots
        self._tables, self._jets, self._fine = _Kept(), _Kept(), _Kept()

    def forward(self, d: Tensor) -> Tensor:
        knots = self._knots_for(d)
        if knots is None:
            return self._exact(d)
        return interpolate(self.table(knots), d, self.cutoff / knots)

    def with_own(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """The function at ``d`` and at zero, where an atom meets itself. Shapes (points, n) and (n,)."""
        knots = self._knots_for(d)
        if knots is None:
            return self._exact(d), self._exact(d.new_zeros(1))[0]
        table = self.table(knots)
        return interpolate(table, d, self.cutoff / knots), table[0, 0]

    def evaluate(self, d: Tensor) -> Tensor:
        """The definition: envelope times network, in plain PyTorch."""
        return self.envelope(d).unsqueeze(-1) * self.network(self.basis(d))

    def derivatives(self, d: Tensor, order: int) -> Tensor:
        """Value and derivatives with respect to ``d``. Shape (order + 1, points, n)."""
        weights = [w for w in self.parameters() if w.requires_grad]
        if torch.is_grad_enabled() and weights:
            out: Tensor = _Jets.apply(self, (d,), order, *weights)
            return out
        with torch.no_grad():
            return torch.cat([_jets(self, part, order) for part in d.split(_CHUNK)], dim=1)

    def table(self, knots: int) -> Tensor:
        """Value, h slope, h² curvature at the knots. Shape (knots + 1, 3, n); kept until a weight changes."""
        return self._tables.get((self,), knots, lambda: self._table(knots))

    def _knots_for(self, d: Tensor) -> int | None:
        """Number of intervals of the table from which the function is read at ``d``, None for exact."""
        if d.shape[0] == 0 or isinstance(self.knots, int):
            return self.knots if d.shape[0] and isinstance(self.knots, int) else None
        if self.knots is None or d.dtype != torch.float32 or traced(d) or not fused(d):
            return None
        knots = math.ceil(self.cutoff / _SPACING)
        if _learns(self):
            return knots if d.shape[0] > _WORTH * knots else None
        return self._fine.get((self,), knots, lambda: self._fine_enough(knots))

    def _fine_enough(self, knots: int) -> int | None:
        """The fewest intervals, from ``knots`` on, whose error is round-off half way between the knots."""
        twin = self._twin()
        for count in (knots, 2 * knots, 4 * knots):
            middle = (torch.arange(count, device=self._like().device) + 0.5) * (self.cutoff / count)
            exact = twin.derivatives(middle.double(), 1)
            table, spacing = twin._build(count).float(), self.cutoff / count
            read = torch.stack([interpolate(table, middle, spacing, order=k) for k in (0, 1)])
            error, size = ((x.abs().amax(dim=(1, 2))) for x in (read - exact, exact))
            if bool((error <= size * size.new_tensor(_ERROR)).all()):
                return count
        return None

    def _twin(self) -> RadialFunction:
        """The same function, in float64 and without history."""
        parts = (
            copy.deepcopy(part).requires_grad_(False) for part in (self.basis, self.network, self.envelope)
        )
        return RadialFunction(*parts, cutoff=self.cutoff, knots=None).double()

    def _table(self, knots: int) -> Tensor:
        if _learns(self):
            return self._build(knots)
        return self._twin()._build(knots).to(self._like().dtype)

    def _build(self, knots: int) -> Tensor:
        spacing = self.cutoff / knots
        jets = self._jets.get(
            (self.basis, self.envelope), (knots, self._like().dtype), lambda: self._at_knots(knots)
        )
        value, slope, curvature = self._network(*jets).unbind()
        return torch.stack([value, spacing * slope, spacing**2 * curvature], dim=1)

    def _at_knots(self, knots: int) -> tuple[Tensor, Tensor]:
        like = self._like()
        d = torch.linspace(0, self.cutoff, knots + 1, dtype=torch.float64, device=like.device).to(like.dtype)
        d[-1] = torch.nextafter(d[-1], d.new_zeros(()))  # the last knot, from the left
        return self._features(d, 2)

    def _like(self) -> Tensor:
        return next(self.network.parameters())

    def _features(self, d: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """Jets of the basis, (orders, points, k), and of the envelope, (orders, points)."""
        path = torch.zeros(order + 1, d.shape[0], dtype=d.dtype, device=d.device)
        path[0] = d
        path[1:2] = 1
        features = jet(self.basis, path)
        # Far out, Gaussians are subnormal numbers, with which matrix products are a hundred times slower.
        features = features.masked_fill(features.abs() < 1e6 * torch.finfo(d.dtype).tiny, 0.0)  # NaN stays
        return features, jet(self.envelope, path)

    def _network(self, features: Tensor, factor: Tensor) -> Tensor:
        """The jet of the function, from those of the basis and of the envelope."""
        return product(factor, jet(self.network, features))

    def _exact(self, d: Tensor) -> Tensor:
        if traced(d) or torch._C._functorch.peek_interpreter_stack() is not None:
            return self.evaluate(d)
        if not torch.is_grad_enabled() or not d.requires_grad:
            return self.derivatives(d, 0)[0]
        return _curve(self, d, self.derivatives(d, 1).unbind(), 0)

    def extra_repr(self) -> str:
        return f"cutoff={self.cutoff:g}, " + ("exact" if self.knots is None else f"knots={self.knots}")


def _learns(module: nn.Module) -> bool:
    """Whether what the module computes now is to be differentiated with respect to its weights."""
    return torch.is_grad_enabled() and any(w.requires_grad for w in module.parameters())


class _Kept:
    """A result that is computed again when a weight of the modules it depends on has changed."""

    def __init__(self) -> None:
        self.version: object = None
        self.result: Any = None

    def get(self, modules: tuple[nn.Module, ...], options: object, compute: Callable[[], Any]) -> Any:
        weights = [w for module in modules for w in (*module.parameters(), *module.buffers())]
        if any(map(_learns, modules)):
            return compute()  # with history
        version = options, [(id(w), w.data_ptr(), w._version, _sum(w), w.dtype, w.device) for w in weights]
        if self.version != version:
            with torch.no_grad():  # a history that outlives its backward pass could not be used again
                self.version, self.result = version, compute()
        return self.result

    def __deepcopy__(self, memo: object) -> _Kept:
        return _Kept()

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


def _sum(weight: Tensor) -> float | None:
    """What shows that a weight was written to through ``.data``, which no version counter sees."""
    return weight.detach().sum().item() if weight.device.type == "cpu" else None


@contextmanager
def tables(module: nn.Module, knots: int | str | None = 512) -> Iterator[None]:
    """Set how the radial functions in ``module`` are evaluated inside the block: see ``set_tables``."""
    before = {f: f.knots for f in module.modules() if isinstance(f, RadialFunction)}
    set_tables(module, knots)
    try:
        yield
    finally:
        for function, count in before.items():
            function.knots = count


def set_tables(module: nn.Module, knots: int | str | None = 512) -> None:
    """Let every radial function in ``module`` read from a table of ``knots`` intervals.

    Args:
        module: a model, or a potential.
        knots: number of intervals; None evaluates exactly, "auto" chooses (see :class:`RadialFunction`).
    """
    for function in module.modules():
        if isinstance(function, RadialFunction):
            function.knots = knots


def _curve(function: RadialFunction, d: Tensor, values: tuple[Tensor, ...], order: int) -> Tensor:
    """The derivative of the given order as a function of ``d``, itself differentiable."""

    def slope(grad: Tensor) -> Tensor:
        above = values if len(values) > order + 1 else function.derivatives(d, order + 1).unbind()
        return (grad * _curve(function, d, above, order + 1)).sum(-1)

    value = values[order]
    return with_derivatives(value.detach(), [(value, lambda grad: grad), (d, slope)])


def _jets(function: RadialFunction, d: Tensor, order: int) -> Tensor:
    return function._network(*function._features(d, order))


class _Jets(torch.autograd.Function):
    """A function's jets as a function of its weights alone.

    ``d`` is in a tuple, so that this node is not on its path: what depends on ``d`` is said by the next
    order of derivative. Gradients of weights that are differentiated again do know it.
    """

    @staticmethod
    def forward(ctx: Any, function: RadialFunction, d: tuple[Tensor], order: int, *weights: Tensor) -> Tensor:
        ctx.function, (ctx.d,), ctx.order, ctx.weights = function, d, order, weights
        points, ctx.kept = ctx.d.detach(), None
        if points.shape[0] > _KEEP:
            return torch.cat([_jets(function, part, order) for part in points.split(_CHUNK)], dim=1)
        with torch.enable_grad():
            ctx.kept = _jets(function, points, order)
        return ctx.kept.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weights = ctx.weights
        if torch.is_grad_enabled():
            value = _jets(ctx.function, ctx.d, ctx.order)
            return None, None, None, *torch.autograd.grad(value, weights, grad, create_graph=True)
        if ctx.kept is not None:
            return None, None, None, *torch.autograd.grad(ctx.kept, weights, grad, retain_graph=True)
        totals = [torch.zeros_like(w) for w in weights]
        for part, cotangent in zip(ctx.d.split(_CHUNK), grad.split(_CHUNK, dim=1), strict=True):
            with torch.enable_grad():
                value = _jets(ctx.function, part.detach(), ctx.order)
            for total, found in zip(totals, torch.autograd.grad(value, weights, cotangent), strict=True):
                total += found
        return None, None, None, *totals
