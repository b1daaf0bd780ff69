"""Multilinear forms as operators: a derivative is the same form with another slot left open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced

Kernel = Callable[[int, list[Tensor], list[Tensor], list[int]], Tensor]

# torch.library.custom_op says this in fewer words, but its first call imports torch._dynamo (a second, even
# if nothing is compiled) and every call costs some microseconds more. Keep _LIB: its end would unregister.
_LIB = torch.library.Library("equitorch", "FRAGMENT")


class Multilinear:
    r"""A form q(x_0, ..., x_n), linear in each slot; calling it leaves one slot open.

    .. math:: \text{form}(k, (x_j)_{j \ne k}) = \partial q / \partial x_k

    It is differentiable to any order, because the derivative with respect to a filled slot is the same
    form again with the cotangent in the slot that was open. In eager mode each slot's derivative is a
    node of its own: the engine evaluates only those that were asked for, so that a force pass computes
    no gradients of weights although the weights require them.

    A kernel has the signature ``kernel(open_slot, operands, plan, sizes) -> Tensor``: the operands are
    the filled slots in ascending order, ``plan`` holds constant tensors (indices, coefficients), and
    ``sizes`` whatever integers the shape of an open slot needs.

    Args:
        name: the operator becomes ``torch.ops.equitorch.<name>``.
        reference: the definition, in PyTorch.
        fake: shape of the result: ``fake(open_slot, operands, plan, sizes)`` with an empty tensor.
        cpu: imports and returns the fused CPU kernel; called at first use.
        cuda: imports and returns the fused CUDA kernel; called at first use.
        half: the CPU kernel takes operands of half precision, too.
    """

    def __init__(
        self,
        name: str,
        *,
        reference: Kernel,
        fake: Kernel,
        cpu: Callable[[], Kernel] | None = None,
        cuda: Callable[[], Kernel] | None = None,
        half: bool = False,
    ) -> None:
        self.name, self.reference, self._half = name, reference, half
        self._kernels = {"cpu": cpu, "cuda": cuda}
        self._loaded: dict[str, Kernel] = {}
        schema = f"{name}(Tensor[] operands, int open_slot, Tensor[] plan, int[] sizes) -> Tensor"
        _LIB.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIB.impl(name, self._dispatched, "CompositeExplicitAutograd")
        torch.library.register_fake(
            f"equitorch::{name}",
            lambda xs, open_slot, plan, sizes: fake(open_slot, xs, plan, sizes),
            lib=_LIB,
        )
        torch.library.register_autograd(f"equitorch::{name}", self._backward, setup_context=_keep, lib=_LIB)
        torch.library.register_vmap(f"equitorch::{name}", self._vmap, lib=_LIB)
        self.op = getattr(torch.ops.equitorch, name).default

    def __call__(
        self, open_slot: int, operands: Sequence[Tensor], plan: Sequence[Tensor], sizes: Sequence[int] = ()
    ) -> Tensor:
        xs, plan, sizes = list(operands), list(plan), list(sizes)
        if traced(*xs):
            return self.op(xs, open_slot, plan, sizes)
        kernel = self._kernel(xs)
        if kernel is None:
            return self.reference(open_slot, xs, plan, sizes)
        out = kernel(open_slot, [x.detach() for x in xs], plan, sizes)

        def derivative(k: int, grad: Tensor, *others: Tensor) -> Tensor:
            slot = k if k < open_slot else k + 1
            place = open_slot if open_slot < slot else open_slot - 1
            return self(slot, [*others[:place], grad, *others[place:]], plan, sizes)

        return with_derivatives(
            out, [(x, partial(derivative, k), (*xs[:k], *xs[k + 1 :])) for k, x in enumerate(xs)]
        )

    def _kernel(self, operands: list[Tensor]) -> Kernel | None:
        kind = operands[0].device.type
        load = self._kernels.get(kind)
        if load is None or not fused(*operands, half=self._half):
            return None
        if kind not in self._loaded:
            self._loaded[kind] = load()
        return self._loaded[kind]

    def _dispatched(
        self, operands: list[Tensor], open_slot: int, plan: list[Tensor], sizes: list[int]
    ) -> Tensor:
        return (self._kernel(operands) or self.reference)(open_slot, operands, plan, sizes)

    def _vmap(
        self,
        info: Any,
        dims: tuple[Any, ...],
        operands: list[Tensor],
        open_slot: int,
        plan: list[Tensor],
        sizes: list[int],
    ) -> tuple[Tensor, int]:
        """One call for each member of the batch: the plan says how items belong together, not the batch."""
        out = []
        for n in range(info.batch_size):
            xs = [x if d is None else x.select(d, n) for x, d in zip(operands, dims[0], strict=True)]
            ps = [p if d is None else p.select(d, n) for p, d in zip(plan, dims[2], strict=True)]
            out.append(self.op(xs, open_slot, ps, sizes))
        return torch.stack(out), 0

    def _backward(self, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved = list(ctx.saved_tensors)
        xs, plan = saved[: ctx.count], saved[ctx.count :]
        wanted = ctx.needs_input_grad[0]
        wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted] * ctx.count
        grads = []
        for k in range(ctx.count):
            slot, filled = _swap(xs, k, ctx.open_slot, grad)
            grads.append(self.op(filled, slot, plan, ctx.sizes) if wanted[k] else None)
        return grads, None, [None] * len(plan), None if ctx.sizes else []


def _swap(operands: list[Tensor], k: int, open_slot: int, grad: Tensor) -> tuple[int, list[Tensor]]:
    """Open the slot of operand ``k`` and fill the one that was open: the new open slot and operands."""
    full = [*operands[:open_slot], grad, *operands[open_slot:]]
    slot = k if k < open_slot else k + 1
    return slot, full[:slot] + full[slot + 1 :]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    operands, ctx.open_slot, plan, ctx.sizes = inputs
    ctx.count = len(operands)
    ctx.save_for_backward(*operands, *plan)


Derivative = tuple[Tensor, Callable[..., Tensor]] | tuple[Tensor, Callable[..., Tensor], tuple[Tensor, ...]]


def with_derivatives(value: Tensor, derivatives: Sequence[Derivative]) -> Tensor:
    """Give a value its derivatives by hand, each a node of its own that runs only when it is wanted.

    Args:
        value: computed without history.
        derivatives: pairs of an input and of the function from the cotangent of ``value`` to that of the
            input. It must be made of differentiable operations on tensors with their history, if higher
            derivatives are to follow. Tensors in third place are saved as autograd saves what it needs:
            until the function, which gets them behind the cotangent, has run.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> y = with_derivatives(x.detach() ** 2, [(x, lambda g, x: 2 * x * g, (x,))])
    >>> torch.autograd.grad(y, x, create_graph=True)[0]
    tensor(6., grad_fn=<MulBackward0>)
    """
    wanted = [entry for entry in derivatives if entry[0].requires_grad]
    if not wanted or not torch.is_grad_enabled():
        return value
    zeros = [_Lazy.apply(x, f, value.shape, value.dtype, saved) for x, f, *saved in wanted]
    return _Sum.apply((value,), *zeros)


class _Lazy(torch.autograd.Function):
    """Zero of a given shape whose derivative with respect to ``x`` is ``derivative(cotangent, *saved)``.

    Whatever else ``derivative`` uses is not tracked as an input: it must not put this node on its path.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        derivative: Callable[..., Tensor],
        shape: torch.Size,
        dtype: torch.dtype,
        saved: list[tuple[Tensor, ...]],
    ) -> Tensor:
        ctx.derivative = derivative
        ctx.save_for_backward(*[tensor for tensors in saved for tensor in tensors])
        return x.new_zeros((), dtype=dtype).expand(shape)  # in x's type the cotangent would be rounded to it

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return ctx.derivative(grad, *_saved(ctx)), None, None, None, None


def _saved(ctx: Any) -> tuple[Tensor, ...]:
    try:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise RuntimeError(
            "an operand was changed in place before the backward pass that needs it"
        ) from error
    return tensors


class _Sum(torch.autograd.Function):
    """The value, plus zeros that carry its derivatives."""

    @staticmethod
    def forward(ctx: Any, value: tuple[Tensor], *zeros: Tensor) -> Tensor:
        ctx.count = len(zeros)
        return value[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, *[grad] * ctx.count


def with_joint_derivatives(
    values: tuple[Tensor, ...], derivatives: Sequence[Derivative]
) -> tuple[Tensor, ...]:
    """As ``with_derivatives`` for several results at once: a function takes the cotangent of each.

    Args:
        values: computed without history.
        derivatives: as there, with functions from the cotangents, and what is saved, to that of the input.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> values = (x.detach() ** 2, 5 * x.detach())
    >>> y, z = with_joint_derivatives(values, [(x, lambda g, h, x: 2 * x * g + 5 * h, (x,))])
    >>> torch.autograd.grad(y + z, x)[0]
    tensor(11.)
    """
    wanted = [entry for entry in derivatives if entry[0].requires_grad]
    if not wanted or not torch.is_grad_enabled():
        return values
    zeros = [zero for x, f, *saved in wanted for zero in _JointLazy.apply(x, f, values, saved)]
    joined: tuple[Tensor, ...] = _JointSum.apply(values, *zeros)
    return joined


class _JointLazy(torch.autograd.Function):
    """Zeros of given shapes; the derivative with respect to ``x`` is ``derivative(*cotangents, *saved)``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        derivative: Callable[..., Tensor],
        values: tuple[Tensor, ...],
        saved: list[tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        ctx.derivative = derivative
        ctx.save_for_backward(*[tensor for tensors in saved for tensor in tensors])
        return tuple(x.new_zeros((), dtype=v.dtype).expand(v.shape) for v in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return ctx.derivative(*grads, *_saved(ctx)), None, None, None


class _JointSum(torch.autograd.Function):
    """The values, plus zeros that carry their derivatives, as many for each input as there are values."""

    @staticmethod
    def forward(ctx: Any, values: tuple[Tensor, ...], *zeros: Tensor) -> tuple[Tensor, ...]:
        ctx.count = len(zeros) // len(values)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, *grads * ctx.count
