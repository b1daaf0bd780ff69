"""ANALYSIS and SYNTHESIS as layers and PyTorch's compiler see them: each is the other's derivative."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from equitorch.ops.backend import fused, traced
from equitorch.ops.diagrams import reference
from equitorch.ops.diagrams.program import without_whole

_KERNELS = {"cpu": "cpu", "cuda": "triton"}
_loaded: dict[str, ModuleType] = {}


def diagram_analysis(x: Tensor, key: str, n: int, form: str = "", scale: float = 1.0) -> list[Tensor]:
    r"""All halves of a tensor, sector by sector.

    .. math:: z_{h}[j_1, .., j_d] = s^{\text{closed}} \sum x[i_1, .., i_k]

    over all indices that agree within the blocks of the half h, and are j on its through blocks.

    Args:
        x: the tensor.
        key: which halves: a ``Plan.key``, with marks for permutations; see ``reference.reading``.
        n: dimension.
        form: what pairs are contracted with: "", "O", "O(p,q)", "Sp:block" or "Sp:interleaved".
        scale: a factor for each closed block, s.

    Shape:
        x: (batch, n ** order, channels) -> (batch, n ** rank, halves, channels) for each sector, where rank
        counts through and alternating axes, in C order. The tensor itself, if asked for, is no copy.

    >>> z0, z1 = diagram_analysis(torch.ones(1, 9, 1), "2|partition:0:0|partition:1:0", 3)
    >>> z0.flatten(), z1[0, 0].flatten()  # trace and sum of all; diagonal, sums over rows and over columns
    (tensor([3., 9.]), tensor([1., 3., 3.]))
    """
    rest, whole = without_whole(key)
    found = iter(_analysis(x, rest, n, form, scale) if "|" in rest else [])
    return [x.unsqueeze(2) if itself else next(found) for itself in whole]


def diagram_synthesis(zs: Sequence[Tensor], key: str, n: int, form: str = "", scale: float = 1.0) -> Tensor:
    """The transpose of ``diagram_analysis``: from all halves, at least one sector, to the tensor.

    Shape:
        (batch, n ** rank, halves, channels) for each sector -> (batch, n ** order, channels)

    >>> z = torch.arange(3.0).reshape(1, 3, 1, 1)
    >>> diagram_synthesis([torch.cat([z, z, 0 * z], 2)], "2|partition:1:0", 3).reshape(3, 3)
    tensor([[0., 1., 2.],
            [0., 2., 2.],
            [0., 1., 4.]])
    """
    zs = list(zs)
    if traced(*zs):
        return torch.ops.equitorch.diagram_synthesis(zs, key, n, form, scale)
    _expect_halves(zs, key, n)
    kernel = kernel_for(*zs)
    if kernel is None:
        return reference.synthesis(zs, key, n, form, scale)
    if torch.is_grad_enabled() and any(z.requires_grad for z in zs):
        return _Synthesis.apply(key, n, form, scale, *zs)
    return kernel.synthesis(zs, key, n, form, scale)


def diagram_symbol(z: Tensor, key: str, n: int, form: str = "", transposed: bool = False) -> Tensor:
    """Alternating axes of lower halves turned to those of upper ones, or back.

    Shape:
        (batch, n ** (through + lower), halves, channels) -> (batch, n ** (through + upper), halves, channels)

    >>> z = torch.eye(3)[None, 0, :, None, None]
    >>> diagram_symbol(z, "free:0:1:2", 3, "O").reshape(3, 3)  # eps[a, b, 0]
    tensor([[ 0.,  0.,  0.],
            [ 0.,  0.,  1.],
            [ 0., -1.,  0.]])
    """
    if traced(z):
        return torch.ops.equitorch.diagram_symbol(z, key, n, form, transposed)
    return _symbol(z, key, n, form, transposed)


def fused_linear(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    key_in: str,
    key_out: str,
    n: int,
    form: str,
    scale: float,
) -> Tensor | None:
    """``diagram_linear`` from one tensor to one tensor in one pass, where nothing is recorded; else None.

    It is None too where the shapes do not belong together.

    Args:
        x: the input. Shape (batch, n ** order, channels).
        weights: one for each sector that both keys have.
        bias: of the upper halves of rank 0, or None.
        key_in: the lower halves.
        key_out: the upper halves.
        n: dimension.
        form: what pairs are contracted with.
        scale: a factor for each closed block of a lower half.
    """
    given = [x, *weights] if bias is None else [x, *weights, bias]
    if not weights or traced(*given):
        return None
    recorded = torch.is_grad_enabled()
    for w in given:
        if w.dtype is not x.dtype or w.device != x.device or (recorded and w.requires_grad):
            return None
    kernel = kernel_for(x)
    if kernel is None or not hasattr(kernel, "linear"):
        return None
    y: Tensor | None = kernel.linear(x, weights, bias, key_in, key_out, n, form, scale)
    return y


def _analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> Sequence[Tensor]:
    if traced(x):
        return torch.ops.equitorch.diagram_analysis(x, key, n, form, scale)
    _expect_tensor(x, key, n)
    kernel = kernel_for(x)
    if kernel is None:
        return reference.analysis(x, key, n, form, scale)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Analysis.apply(x, key, n, form, scale)
    return kernel.analysis(x, key, n, form, scale)


def _expect_tensor(x: Tensor, key: str, n: int) -> None:
    """Refuse shapes that do not belong to a key: kernels read memory, whatever there is."""
    rows = n ** int(key[: key.index("|")])
    if x.ndim != 3 or x.shape[1] != rows:
        raise ValueError(
            f"diagram_analysis expects x of shape (batch, {rows}, channels) for n={n}, got {tuple(x.shape)}"
        )


def _expect_halves(zs: Sequence[Tensor], key: str, n: int) -> None:
    shapes, first = _shapes_of_halves(key, n), zs[0]
    if len(zs) == len(shapes) and first.ndim == 4:
        batch, channels = first.shape[0], first.shape[3]
        for z, (size, halves) in zip(zs, shapes, strict=True):
            if z.shape != (batch, size, halves, channels) or z.dtype != first.dtype:
                break
        else:
            return
    wanted = [("batch", *shape, "channels") for shape in shapes]
    raise ValueError(
        f"diagram_synthesis expects tensors of shapes {wanted} and one dtype, "
        f"got {[tuple(z.shape) for z in zs]} of {[z.dtype for z in zs]}"
    )


@functools.lru_cache(maxsize=1024)
def _shapes_of_halves(key: str, n: int) -> tuple[tuple[int, int], ...]:
    plan, views = reference.reading(key)
    ranks = [sector.rank + sector.alternating for sector in plan.sectors]
    return tuple([(n**rank, len(group)) for rank, group in zip(ranks, views, strict=True)])


def kernel_for(*operands: Tensor) -> ModuleType | None:
    """The module with the fused kernels for these operands, if there is one."""
    kind = operands[0].device.type
    if kind not in _KERNELS or not operands[0].is_floating_point() or not fused(*operands):
        return None
    if kind not in _loaded:
        _loaded[kind] = importlib.import_module(f"equitorch.ops.diagrams.{_KERNELS[kind]}")
    return _loaded[kind]


class _Analysis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *options: Any) -> tuple[Tensor, ...]:
        ctx.options = options
        kernel = kernel_for(x) or reference
        return tuple(kernel.analysis(x, *options))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return diagram_synthesis(grads, *ctx.options), None, None, None, None


class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, key: str, n: int, form: str, scale: float, *zs: Tensor) -> Tensor:
        ctx.options = key, n, form, scale
        kernel = kernel_for(*zs) or reference
        out: Tensor = kernel.synthesis(list(zs), key, n, form, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return None, None, None, None, *diagram_analysis(grad, *ctx.options)


def _symbol(z: Tensor, key: str, n: int, form: str, transposed: bool) -> Tensor:
    values = _values(key, n, form, z.device, z.dtype)
    if transposed:
        values = values.mT
    through, size = n ** int(key.split(":")[1]), z.shape[1]
    blocks = z.reshape(z.shape[0], through, size // through, *z.shape[2:])
    return torch.einsum("iab,zibhc->ziahc", values, blocks).flatten(1, 2).contiguous()


@functools.lru_cache(maxsize=128)
def _values(key: str, n: int, form: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return reference.symbol(key, n, form).to(device, dtype)


def _run_analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    _expect_tensor(x, key, n)
    kernel = kernel_for(x)
    if kernel is None:
        return reference.analysis(x, key, n, form, scale)
    zs: list[Tensor] = kernel.analysis(x, key, n, form, scale)
    return zs


def _run_synthesis(zs: list[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    _expect_halves(zs, key, n)
    y: Tensor = (kernel_for(*zs) or reference).synthesis(zs, key, n, form, scale)
    shared = any(y.untyped_storage().data_ptr() == z.untyped_storage().data_ptr() for z in zs)
    return y.clone() if shared else y  # results of an op share no memory with its arguments


def _fake_analysis(x: Tensor, key: str, n: int, form: str, scale: float) -> list[Tensor]:
    plan, views = reference.reading(key)
    ranks = [sector.rank + sector.alternating for sector in plan.sectors]
    return [
        x.new_empty(x.shape[0], n**rank, len(group), x.shape[2])
        for rank, group in zip(ranks, views, strict=True)
    ]


def _fake_synthesis(zs: list[Tensor], key: str, n: int, form: str, scale: float) -> Tensor:
    return zs[0].new_empty(zs[0].shape[0], n ** int(key.split("|")[0]), zs[0].shape[3])


def _fake_symbol(z: Tensor, key: str, n: int, form: str, transposed: bool) -> Tensor:
    _, through, lower, upper = key.split(":")
    rank = int(through) + int(lower if transposed else upper)
    return z.new_empty(z.shape[0], n**rank, *z.shape[2:])


def _keep_options(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.options = inputs[1:]


def _analysis_backward(ctx: Any, grads: Sequence[Tensor]) -> tuple[Any, ...]:
    return diagram_synthesis(grads, *ctx.options), None, None, None, None


def _synthesis_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return diagram_analysis(grad, *ctx.options), None, None, None, None


def _symbol_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    key, n, form, transposed = ctx.options
    return diagram_symbol(grad, key, n, form, not transposed), None, None, None, None


def _batched_analysis(info: Any, dims: Any, x: Tensor, *options: Any) -> tuple[Any, Any]:
    zs = torch.ops.equitorch.diagram_analysis(_merged(x, dims[0], info.batch_size), *options)
    return [_split(z, info.batch_size) for z in zs], [0] * len(zs)


def _batched_synthesis(info: Any, dims: Any, zs: Sequence[Tensor], *options: Any) -> tuple[Any, Any]:
    merged = [_merged(z, dim, info.batch_size) for z, dim in zip(zs, dims[0], strict=True)]
    return _split(torch.ops.equitorch.diagram_synthesis(merged, *options), info.batch_size), 0


def _batched_symbol(info: Any, dims: Any, z: Tensor, *options: Any) -> tuple[Any, Any]:
    merged = _merged(z, dims[0], info.batch_size)
    return _split(torch.ops.equitorch.diagram_symbol(merged, *options), info.batch_size), 0


def _merged(x: Tensor, dim: int | None, size: int) -> Tensor:
    """One more axis merged into the batch."""
    return (x.movedim(dim, 0) if dim is not None else x[None].expand(size, *x.shape)).flatten(0, 1)


def _split(x: Tensor, size: int) -> Tensor:
    return x.reshape(size, x.shape[0] // size if size else 0, *x.shape[1:])


_LIB = torch.library.Library("equitorch", "FRAGMENT")  # kept: its end would unregister the operators
_OPTIONS = "str key, SymInt n, str form"


def _register(name: str, signature: str, run: Any, fake: Any, backward: Any, batched: Any) -> None:
    _LIB.define(f"{name}{signature}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIB.impl(name, run, "CompositeExplicitAutograd")
    qualified = f"equitorch::{name}"
    torch.library.register_fake(qualified, fake, lib=_LIB)
    torch.library.register_autograd(qualified, backward, setup_context=_keep_options, lib=_LIB)
    torch.library.register_vmap(qualified, batched, lib=_LIB)


_register(
    "diagram_analysis",
    f"(Tensor x, {_OPTIONS}, float scale) -> Tensor[]",
    _run_analysis,
    _fake_analysis,
    _analysis_backward,
    _batched_analysis,
)
_register(
    "diagram_synthesis",
    f"(Tensor[] zs, {_OPTIONS}, float scale) -> Tensor",
    _run_synthesis,
    _fake_synthesis,
    _synthesis_backward,
    _batched_synthesis,
)
_register(
    "diagram_symbol",
    f"(Tensor z, {_OPTIONS}, bool transposed) -> Tensor",
    _symbol,
    _fake_symbol,
    _symbol_backward,
    _batched_symbol,
)
