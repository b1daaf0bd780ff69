"""``spherical_harmonics`` as users call it, and as PyTorch's dispatcher, compiler and autograd see it."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.harmonics import reference


def spherical_harmonics(
    lmax: int, vectors: Tensor, normalize: bool = True, normalization: str = "component"
) -> Tensor:
    r"""Real spherical harmonics of degrees 0 to ``lmax``, the rows of ``0e + 1o + 2e + ...``.

    .. math:: Y_{l+1, i}(x) = \frac{2l+3}{\sqrt{l+1}} \sum_{jk} C^{l+1, l, 1}_{ijk} \, Y_{l, j}(x) \, x_k

    with unit-norm 3j symbols C. Rows of degree l are in the order m = -l..l with polar axis y, so that
    degree 1 is proportional to (x, y, z); values are those of e3nn. Differentiable to any order.

    Args:
        lmax: highest degree, any.
        vectors: need not have unit length.
        normalize: take the harmonics of the directions. Vectors shorter than 1e-12 then give zero in
            all degrees but the zeroth, with zero gradient. Otherwise row l is a homogeneous polynomial
            of degree l.
        normalization: on the unit sphere, the squares of degree l sum to 2l + 1 ("component"), to
            (2l + 1) / 4π ("integral") or to 1 ("norm").

    Shape:
        vectors: (..., 3) -> (..., (lmax + 1)**2)

    Raises:
        ValueError: if the vectors do not have three floating point components, or an option is unknown.

    Source:
        Conventions: Geiger and Smidt 2022, arXiv:2207.09453.

    >>> spherical_harmonics(3, torch.randn(10, 3)).shape
    torch.Size([10, 16])
    """
    _check(lmax, vectors, normalization)
    options = lmax, normalize, normalization
    rows = vectors.reshape(-1, 3)
    if traced(vectors):
        out = _harmonics(rows, *options)
    elif fused(vectors):
        out = (
            _Harmonics.apply(rows, *options)
            if _followed(rows)
            else _plain("spherical_harmonics", rows, *options)
        )
    else:
        return reference.spherical_harmonics(vectors, *options)
    return out.reshape(*vectors.shape[:-1], out.shape[-1])


def _check(lmax: int, vectors: Tensor, normalization: str) -> None:
    if vectors.ndim == 0 or vectors.shape[-1] != 3 or not vectors.is_floating_point():
        raise ValueError(
            "spherical_harmonics expects floating point vectors of shape (..., 3), "
            f"got {vectors.dtype} of shape {tuple(vectors.shape)}"
        )
    if isinstance(lmax, bool) or not isinstance(lmax, int) or lmax < 0:
        raise ValueError(
            f"spherical_harmonics expects lmax to be the highest degree, an integer >= 0, got {lmax!r}; "
            "pick rows l*l to (l+1)**2 of the result for a single degree"
        )
    if normalization not in reference.NORMALIZATIONS:
        raise ValueError(
            f"spherical_harmonics expects normalization to be one of {', '.join(reference.NORMALIZATIONS)}, "
            f"got {normalization!r}"
        )


def _followed(*operands: Tensor) -> bool:
    """Whether autograd wants to know."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in operands)


def _plain(name: str, *arguments: Any) -> Any:
    """One of the three functions where nobody follows: a node of autograd costs as much as small inputs."""
    return getattr(_implementation(arguments[0]), name)(*arguments)


def _implementation(x: Tensor) -> ModuleType:
    return _kernels(x.is_cuda) if fused(x) else reference


@functools.cache
def _kernels(cuda: bool) -> ModuleType:
    return importlib.import_module(f"equitorch.ops.harmonics.{'triton' if cuda else 'cpu'}")


class _Harmonics(torch.autograd.Function):
    """The harmonics of vectors (n, 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *options: Any) -> Tensor:
        ctx.options = options
        ctx.save_for_backward(x)
        return _implementation(x).spherical_harmonics(x, *options)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        operands = g, *ctx.saved_tensors
        if _followed(*operands):
            return _Gradient.apply(*operands, *ctx.options), None, None, None
        return _plain("gradient", *operands, *ctx.options), None, None, None


class _Gradient(torch.autograd.Function):
    """Their derivative as a function of cotangent and vectors."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, *options: Any) -> Tensor:
        ctx.options = options
        ctx.save_for_backward(g, x)
        return _implementation(x).gradient(g, x, *options)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
        operands = *ctx.saved_tensors, h
        if _followed(*operands):
            return *_Second.apply(*operands, *ctx.options), None, None, None
        return *_plain("second", *operands, *ctx.options), None, None, None


class _Second(torch.autograd.Function):
    """The derivative of the derivative; the orders above it are those of the reference."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, h: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
        ctx.options = options
        ctx.save_for_backward(g, x, h)
        return _implementation(x).second(g, x, h, *options)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # aliases: one operand may itself depend on another, which is not this function's business
            operands = [t.view_as(t) if t.requires_grad else t.detach() for t in ctx.saved_tensors]
            wanted = [t for t in operands if t.requires_grad]
            outputs = reference.second(*operands, *ctx.options)
            products = [(y * c).sum() for y, c in zip(outputs, cotangents, strict=True)]
            grads = iter(
                torch.autograd.grad(
                    sum(products[1:], products[0]), wanted, create_graph=again, materialize_grads=True
                )
            )
        return *[next(grads) if t.requires_grad else None for t in operands], None, None, None


def _dispatch(name: str) -> Any:
    """One of the three functions, from whichever file serves the operands' device."""

    def run(*arguments: Any) -> Any:
        operands = [a.contiguous() for a in arguments if isinstance(a, Tensor)]
        return getattr(_implementation(operands[0]), name)(*operands, *arguments[len(operands) :])

    return run


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [a for a in inputs if isinstance(a, Tensor)]
    ctx.options = inputs[len(tensors) :]
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return _gradient(g, *ctx.saved_tensors, *ctx.options), None, None, None


def _gradient_backward(ctx: Any, h: Tensor) -> tuple[Any, ...]:
    return *_second(*ctx.saved_tensors, h, *ctx.options), None, None, None


def _fake_harmonics(x: Tensor, lmax: int, normalize: bool, normalization: str) -> Tensor:
    return x.new_empty(x.shape[0], (lmax + 1) ** 2)


def _fake_gradient(g: Tensor, x: Tensor, *options: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_second(g: Tensor, x: Tensor, h: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    return g.new_empty(g.shape), x.new_empty(x.shape)


def _vmap(op: Any) -> Any:
    """All operands have the batch as their first dimension already, so one more is merged into it."""

    def rule(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        merged = []
        for argument, dim in zip(arguments, dims, strict=True):
            if isinstance(argument, Tensor):
                full = argument.movedim(dim, 0) if dim is not None else argument[None]
                argument = full.expand(info.batch_size, *full.shape[1:]).flatten(0, 1)
            merged.append(argument)
        out = op(*merged)
        if isinstance(out, Tensor):
            return out.unflatten(0, (info.batch_size, -1)), 0
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in out), (0,) * len(out)

    return rule


_LIB = torch.library.Library("equitorch", "FRAGMENT")  # kept: its end would unregister the operators


def _register(name: str, function: str, operands: str, results: str, fake: Any, backward: Any) -> Any:
    qualified = f"equitorch::{name}"
    options = "int lmax, bool normalize, str normalization"
    _LIB.define(f"{name}({operands}, {options}) -> {results}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIB.impl(name, _dispatch(function), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_LIB)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=_save, lib=_LIB)
    op = getattr(torch.ops.equitorch, name).default
    torch.library.register_vmap(qualified, _vmap(op), lib=_LIB)
    return op


_harmonics = _register(
    "spherical_harmonics", "spherical_harmonics", "Tensor x", "Tensor", _fake_harmonics, _backward
)
_gradient = _register(
    "spherical_harmonics_gradient",
    "gradient",
    "Tensor g, Tensor x",
    "Tensor",
    _fake_gradient,
    _gradient_backward,
)
_second = _register(
    "spherical_harmonics_second",
    "second",
    "Tensor g, Tensor x, Tensor h",
    "(Tensor, Tensor)",
    _fake_second,
    None,
)
