"""Products of functions on the sphere as users call them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import autocasting, fused, traced
from equitorch.ops.gaunt.choice import chosen
from equitorch.ops.gaunt.form import BACKENDS, BRACKET, PRECISIONS, PRODUCT, Form, Program, Request
from equitorch.ops.gaunt.program import Values
from equitorch.ops.gaunt.reference import gaunt as reference

PROGRAMS = {
    parity: Program((0, 1), tuple([Request(slot, ((0, 1),)) for slot in slots]))
    for parity, slots in (("even", (PRODUCT,)), ("odd", (BRACKET,)), ("both", (PRODUCT, BRACKET)))
}

_LIB = torch.library.Library("equitorch", "FRAGMENT")


def gaunt_product(
    x: Tensor,
    y: Tensor,
    lmax_out: int,
    *,
    parity: str = "even",
    backend: str = "auto",
    precision: str = "ieee",
) -> Tensor:
    r"""Multiply two functions on the sphere, channel by channel, and read the result up to a degree.

    .. math:: z_k = \sum_{ij} x_i\, y_j \int Y_i Y_j Y_k
        \qquad\text{or}\qquad z_k = \sum_{ij} x_i\, y_j \int Y_k \{Y_i, Y_j\}

    with orthonormal harmonics Y and the bracket :math:`\{f, g\} = r \cdot (\nabla f \times \nabla g)`. The
    coefficients are ``wigner_3j`` times ``gaunt_factor`` (parity "even": l1 + l2 + l3 even) or times
    ``bracket_factor`` (parity "odd"). Nothing aliases: the grids are exact.

    Args:
        x: rows of the first function.
        y: rows of the second; either may have one channel that goes with all of the other's.
        lmax_out: highest degree of the result.
        parity: "even" for the product, "odd" for the bracket.
        backend: "auto" for the fastest, "dense" for the contraction with coefficients, "grid" for values
            on a grid, "separable" for latitudes and longitudes one after the other, "fft" for the paper's
            way over Fourier series.
        precision: of the fused kernel, which "auto" takes on CUDA up to degree 8: "ieee", "tf32x3" (as
            exact, on tensor cores), "tf32" or "bf16". Elsewhere it makes no difference.

    Shape:
        x: (..., (lmax1 + 1)^2, channels), y: (..., (lmax2 + 1)^2, channels)
        -> (..., (lmax_out + 1)^2, channels)

    Raises:
        ValueError: if the rows are not those of all degrees up to one, the channels or dtypes do not fit,
            or an option is not one of these.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216 (products as functions on the sphere).

    >>> gaunt_product(torch.randn(5, 9, 8), torch.randn(5, 4, 8), 3).shape
    torch.Size([5, 16, 8])
    """
    if parity not in ("even", "odd"):
        raise ValueError(f"gaunt_product expects parity even or odd, got {parity!r}")
    return _called("gaunt_product", x, y, lmax_out, parity, backend, precision)[0]


def poisson_bracket(
    x: Tensor, y: Tensor, lmax_out: int, *, backend: str = "auto", precision: str = "ieee"
) -> Tensor:
    """The bracket r . (grad f x grad g) of two functions: ``gaunt_product`` with parity "odd".

    >>> x = torch.randn(5, 9, 8)
    >>> bool(poisson_bracket(x, x, 2).abs().max() < 1e-5)
    True
    """
    return _called("poisson_bracket", x, y, lmax_out, "odd", backend, precision)[0]


def product_and_bracket(
    x: Tensor, y: Tensor, lmax_out: int, *, backend: str = "auto", precision: str = "ieee"
) -> tuple[Tensor, Tensor]:
    """Both results of ``gaunt_product``, even and odd, for less than the price of two calls.

    Shape:
        as ``gaunt_product`` -> two tensors (..., (lmax_out + 1)^2, channels)

    >>> even, odd = product_and_bracket(torch.randn(5, 9, 8), torch.randn(5, 9, 8), 2)
    >>> even.shape == odd.shape
    True
    """
    even, odd = _called("product_and_bracket", x, y, lmax_out, "both", backend, precision)
    return even, odd


def _called(
    name: str, x: Tensor, y: Tensor, lmax_out: int, parity: str, backend: str, precision: str
) -> list[Tensor]:
    if backend not in BACKENDS or precision not in PRECISIONS:
        raise ValueError(
            f"{name} expects backend to be one of {', '.join(BACKENDS)} and precision one of "
            f"{', '.join(PRECISIONS)}, got {backend!r} and {precision!r}"
        )
    if isinstance(lmax_out, bool) or not isinstance(lmax_out, int) or lmax_out < 0:
        raise ValueError(f"{name} expects lmax_out to be a whole number >= 0, got {lmax_out!r}")
    form = Form(_degree(name, "x", x), _degree(name, "y", y), lmax_out, parity, backend, precision)
    channels = y.shape[-1] if x.shape[-1] == 1 else x.shape[-1]
    wide = y.shape[-1]
    if (wide != 1 and wide != channels) or x.dtype != y.dtype:
        raise ValueError(
            f"{name} expects x and y of one dtype with equally many channels, or one of them with a single "
            f"channel, got {x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
        )
    program = PROGRAMS[parity]
    if x.ndim == y.ndim == 3 and x.shape[0] == y.shape[0] and x.shape[2] == wide:
        return gaunt([x, y], program, form)
    try:
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{name} expects leading axes that broadcast, got {tuple(x.shape)} and {tuple(y.shape)}"
        ) from None
    flat = [t.expand(*batch, -1, channels).reshape(math.prod(batch), t.shape[-2], channels) for t in (x, y)]
    return [z.reshape(*batch, z.shape[1], channels) for z in gaunt(flat, program, form)]


def _degree(name: str, operand: str, x: Tensor) -> int:
    rows = x.shape[-2] if x.ndim > 1 else 0
    lmax = next((l for l in range(rows) if (l + 1) ** 2 >= rows), 0)
    if x.ndim < 2 or (lmax + 1) ** 2 != rows or not x.is_floating_point():
        raise ValueError(
            f"{name} expects {operand} of shape (..., (lmax + 1)^2, channels) with real numbers, "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    return lmax


def gaunt(tensors: list[Tensor], program: Program, form: Form, known: Sequence[Values] = ()) -> list[Tensor]:
    """A program on (points, rows, channels), differentiable to any order: each derivative is one program.

    Args:
        tensors: as in the reference.
        program: as there.
        form: as there.
        known: the first tensors' values on the grid, if they were kept.
    """
    if traced(*tensors):
        found: list[Tensor] = torch.ops.equitorch.gaunt(tensors, program.numbers, form.sizes)
        return found
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return reference(tensors, program, form)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return list(_Gaunt.apply(program, form, known, *tensors))
    return computed(tensors, program, form, known)[0]


class _Gaunt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Program, form: Form, known: Sequence[Values], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        outs, values = computed(list(tensors), program, form, known)
        ctx.program, ctx.form, ctx.kept = program, form, [len(components) for components in values]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *(value for components in values for value in components))
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        saved = iter(ctx.saved_tensors)
        tensors = [next(saved) for _ in ctx.program.slots]
        known = [[next(saved) for _ in range(count)] for count in ctx.kept]
        needed = ctx.needs_input_grad[3:]
        return None, None, None, *_derivatives(tensors, grads, needed, ctx.program, ctx.form, known)


def _derivatives(
    tensors: list[Tensor],
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
    program: Program,
    form: Form,
    known: Sequence[Values] = (),
) -> list[Tensor | None]:
    given = [r for r, grad in enumerate(grads) if grad is not None]
    used = {n for r in given for pair in program.requests[r].pairs for n in pair}
    wanted = [n for n in range(len(tensors)) if needed[n] and n in used]
    found: list[Tensor | None] = [None] * len(tensors)
    if wanted:
        cotangents = [grad for grad in grads if grad is not None]
        derivative = program.derivative(tuple(wanted), tuple(given))
        for n, result in zip(wanted, gaunt([*tensors, *cotangents], derivative, form, known), strict=True):
            found[n] = result
    return found


def computed(
    tensors: list[Tensor], program: Program, form: Form, known: Sequence[Values] = ()
) -> tuple[list[Tensor], list[Values]]:
    """A program without history, and values on the grid if they are worth keeping; autocast is ignored."""
    if autocasting(tensors[0]):
        with torch.autocast(tensors[0].device.type, enabled=False):
            return computed(tensors, program, form, known)
    if form.backend == "dense" or not fused(*tensors):
        return reference(tensors, program, form), []
    return chosen([t.detach() for t in tensors], program, form, known)


def _dispatched(tensors: list[Tensor], program: list[int], sizes: list[int]) -> list[Tensor]:
    return computed(tensors, Program.read(program), Form.read(sizes))[0]


def _fake(tensors: list[Tensor], program: list[int], sizes: list[int]) -> list[Tensor]:
    form, (points, _, channels) = Form.read(sizes), tensors[0].shape
    return [
        tensors[0].new_empty(points, form.rows(slot), channels) for slot, _ in Program.read(program).requests
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, ctx.program, ctx.sizes = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad[0]
    needed = needed if isinstance(needed, (list, tuple)) else [needed] * len(ctx.saved_tensors)
    program, form = Program.read(ctx.program), Form.read(ctx.sizes)
    return _derivatives(list(ctx.saved_tensors), grads, needed, program, form), None, None


def _vmap(
    info: Any, dims: tuple[Any, ...], tensors: list[Tensor], program: list[int], sizes: list[int]
) -> tuple[list[Tensor], list[int]]:
    """The batch joins the points."""
    batched = [
        (t.movedim(d, 0) if d is not None else t.expand(info.batch_size, *t.shape)).flatten(0, 1)
        for t, d in zip(tensors, dims[0], strict=True)
    ]
    found = torch.ops.equitorch.gaunt(batched, program, sizes)
    return [z.unflatten(0, (info.batch_size, -1)) for z in found], [0] * len(found)


_LIB.define(
    "gaunt(Tensor[] tensors, int[] program, int[] sizes) -> Tensor[]", tags=(torch.Tag.pt2_compliant_tag,)
)
_LIB.impl("gaunt", _dispatched, "CompositeExplicitAutograd")
torch.library.register_fake("equitorch::gaunt", _fake, lib=_LIB)
torch.library.register_autograd("equitorch::gaunt", _backward, setup_context=_keep, lib=_LIB)
torch.library.register_vmap("equitorch::gaunt", _vmap, lib=_LIB)
