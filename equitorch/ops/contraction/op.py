"""``contraction`` as layers call it, and as PyTorch's dispatcher, compiler and autograd see it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.contraction import reference
from equitorch.ops.contraction.program import Program, program
from equitorch.ops.indices import expect_indices
from equitorch.ops.multilinear import with_derivatives

Options = tuple[str, str, tuple[int, ...]]
Run = Callable[[Program, list[Tensor], list[Tensor], Tensor], tuple[Tensor, Tensor]]


def contraction(
    x: Tensor, weight: Tensor, index: Tensor, irreps_in: str, irreps_out: str, correlation: Sequence[int]
) -> Tensor:
    r"""Equivariant polynomials of each node and channel: the function under ``SymmetricContraction``.

    .. math:: z_{n k c} = \sum_p W_{s_n p c} \, P_{p k}(x_{n \cdot c})

    where s is the species of a node, and p counts ``program.paths``. Differentiable to any order.

    Args:
        x: the features.
        weight: coefficients of the polynomials.
        index: the species of each node, int64.
        irreps_in: how the rows of ``x`` transform.
        irreps_out: how the rows of the result transform.
        correlation: the highest degree for each copy of ``irreps_out``.

    Shape:
        x: (nodes, rows, channels), weight: (species, paths, channels), index: (nodes,)
        -> (nodes, rows of irreps_out, channels)

    Raises:
        ValueError: if ``index`` holds no species; see ``expect_indices``.

    >>> contraction(torch.ones(5, 3, 2), torch.ones(4, 1, 2), torch.zeros(5).long(), "1o", "0e", (2,)).shape
    torch.Size([5, 1, 2])
    """
    expect_indices("the index of species", index, weight.shape[0])
    options = irreps_in, irreps_out, tuple(correlation)
    if traced(x, weight, index) or not fused(x, weight):
        return _run([x], [weight], index, options, "")[0]
    value = _implementation(x)(program(*options), [x.detach()], [weight.detach()], index)[0]
    versions = x._version, weight._version

    def derivative(by: str, grad: Tensor) -> Tensor:
        if (x._version, weight._version) != versions:
            raise RuntimeError("an operand of contraction was changed in place before its backward pass")
        none = weight.new_empty(weight.shape[0], 0, weight.shape[2])
        return _run([x, grad], [weight, none], index, options, by)["ns".index(by)]

    # a node for each derivative, of which the engine runs what is asked for: forces need none of weights
    return with_derivatives(value, [(x, partial(derivative, "n")), (weight, partial(derivative, "s"))])


def _run(
    nodes: list[Tensor], species: list[Tensor], index: Tensor, options: Options, by: str
) -> tuple[Tensor, Tensor]:
    """The program that is ``by``-th derivative of the contraction; see ``program``."""
    if traced(*nodes, *species, index):
        return _op(nodes, species, index, options[0], options[1], list(options[2]), by)
    if not fused(*nodes, *species):
        return reference.run(program(*options, by), nodes, species, index)
    return _Derivative.apply(options, by, len(nodes), index, *nodes, *species)


def _implementation(x: Tensor) -> Run:
    kernels = "triton" if x.is_cuda else "cpu"
    return importlib.import_module(f"equitorch.ops.contraction.{kernels}").run


class _Derivative(torch.autograd.Function):
    """A program, whose derivative is a program again."""

    @staticmethod
    def forward(
        ctx: Any, options: Options, by: str, count: int, index: Tensor, *operands: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.options, ctx.by, ctx.count = options, by, count
        ctx.save_for_backward(index, *operands)
        nodes, species = list(operands[:count]), list(operands[count:])
        return _implementation(nodes[0])(program(*options, by), nodes, species, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        index, *operands = ctx.saved_tensors
        found = _gradients(operands[: ctx.count], operands[ctx.count :], index, ctx.options, ctx.by, grads)
        return None, None, None, None, *found[0], *found[1]


def _gradients(
    nodes: list[Tensor],
    species: list[Tensor],
    index: Tensor,
    options: Options,
    by: str,
    grads: Sequence[Tensor],
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Cotangents of all operands of a program."""
    sizes = [[part.shape[1] for part in parts] for parts in (nodes, species)]
    out = _run([*nodes, grads[0]], [*species, grads[1]], index, options, by + "b")
    return out[0].split(sizes[0], dim=1), out[1].split(sizes[1], dim=1)


def _dispatched(
    nodes: list[Tensor], species: list[Tensor], index: Tensor, i: str, o: str, correlation: list[int], by: str
) -> tuple[Tensor, Tensor]:
    run = _implementation(nodes[0]) if fused(*nodes, *species) else reference.run
    return run(program(i, o, tuple(correlation), by), nodes, species, index)


def _fake(
    nodes: list[Tensor], species: list[Tensor], index: Tensor, i: str, o: str, correlation: list[int], by: str
) -> tuple[Tensor, Tensor]:
    return reference.fake(program(i, o, tuple(correlation), by), nodes, species, index)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    nodes, species, index, i, o, correlation, ctx.by = inputs
    ctx.options, ctx.count = (i, o, tuple(correlation)), len(nodes)
    ctx.save_for_backward(index, *nodes, *species)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    index, *operands = ctx.saved_tensors
    nodes, species = operands[: ctx.count], operands[ctx.count :]
    wanted = [w if isinstance(w, (list, tuple)) else [w] for w in ctx.needs_input_grad[:2]]
    if ctx.by:
        found = _gradients(nodes, species, index, ctx.options, ctx.by, grads)
        return list(found[0]), list(found[1]), None, None, None, None, None
    more = [*nodes, grads[0]], [*species, grads[1]]
    by_nodes = [_run(*more, index, ctx.options, "n")[0] if any(wanted[0]) else None]
    by_species = [_run(*more, index, ctx.options, "s")[1] if any(wanted[1]) else None]
    return by_nodes, by_species, None, None, None, None, None


def _batched(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
    """One more axis of nodes is merged into theirs, and one of species into theirs."""
    nodes, species, index, *options = arguments
    size = info.batch_size

    def merged(x: Tensor, dim: int | None) -> Tensor:
        full = x.movedim(dim, 0) if dim is not None else x[None].expand(size, *x.shape)
        return full.flatten(0, 1)

    count = species[0].shape[0] if dims[1][0] is None else species[0].movedim(dims[1][0], 0).shape[1]
    nodes = [merged(x, dim) for x, dim in zip(nodes, dims[0], strict=True)]
    species = [merged(x, dim) for x, dim in zip(species, dims[1], strict=True)]
    shift = torch.arange(size, device=index.device).repeat_interleave(nodes[0].shape[0] // size)
    out = _op(nodes, species, merged(index, dims[2]) + shift * count, *options)
    return tuple(x.unflatten(0, (size, -1)) for x in out), (0, 0)


_LIB = torch.library.Library("equitorch", "FRAGMENT")  # kept: its end would unregister the operator
_LIB.define(
    "contraction(Tensor[] nodes, Tensor[] species, Tensor index, str irreps_in, str irreps_out, "
    "int[] correlation, str derivative) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIB.impl("contraction", _dispatched, "CompositeExplicitAutograd")
torch.library.register_fake("equitorch::contraction", _fake, lib=_LIB)
torch.library.register_autograd("equitorch::contraction", _backward, setup_context=_keep, lib=_LIB)
_op = torch.ops.equitorch.contraction.default
torch.library.register_vmap("equitorch::contraction", _batched, lib=_LIB)
