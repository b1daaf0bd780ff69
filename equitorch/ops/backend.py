"""Which implementation runs: the PyTorch reference or a fused kernel. Decided here only."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_HAS_NUMBA = importlib.util.find_spec("numba") is not None
_forbidden = 0  # blocks that forbid fused kernels now, in all threads

P = ParamSpec("P")
R = TypeVar("R")


def fused(*operands: Tensor, half: bool = False) -> bool:
    """Whether these operands go to a fused kernel: all on one device that has one, and nobody forbade it.

    Half precision on the CPU, unless ``half`` says that the kernel takes it, and everything inside
    ``torch.func`` transforms runs by the reference.
    """
    if _forbidden or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if all(x.is_cuda for x in operands):
        return _HAS_TRITON
    wide = half or all(x.dtype in (torch.float32, torch.float64) for x in operands if x.is_floating_point())
    return _HAS_NUMBA and wide and all(x.device.type == "cpu" for x in operands)


def kernels_allowed() -> bool:
    """Whether nobody forbade fused kernels.

    >>> with use_reference():
    ...     kernels_allowed()
    False
    """
    return not _forbidden


def traced(*operands: Tensor) -> bool:
    """Whether PyTorch records a program (``torch.compile``, ``export``, ``make_fx``) instead of computing.

    Then an op shows itself as one operator of the dispatcher; a kernel would meet tensors without data.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    return any(type(x) is not Tensor and type(x) is not torch.nn.Parameter for x in operands)


def autocasting(x: Tensor) -> bool:
    """Whether autocast chooses the dtype of matrix products on the device of a tensor.

    >>> autocasting(torch.zeros(2))
    False
    """
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def lasting(make: Callable[P, R]) -> Callable[P, R]:
    """A function that makes tensors which are kept, and may be called for the first time anywhere.

    Tensors made inside a ``torch.func`` transform die with it, and no derivative takes those made in
    inference mode: the function runs outside of both. To be put below the cache.

    >>> made = lasting(torch.zeros)
    >>> with torch.inference_mode():
    ...     made(2).is_inference()
    False
    """

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

        with torch.inference_mode(False), temporarily_clear_interpreter_stack():
            return make(*args, **kwargs)

    return made


@contextlib.contextmanager
def use_reference() -> Iterator[None]:
    """Run every op by its PyTorch reference inside the block, whatever the device; in other threads, too.

    >>> with use_reference():
    ...     pass
    """
    global _forbidden
    _forbidden += 1
    try:
        yield
    finally:
        _forbidden -= 1
