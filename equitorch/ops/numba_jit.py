"""How CPU kernels are compiled and launched: Numba loops that obey PyTorch's thread count."""

from __future__ import annotations

import functools
import os
import threading
import types
import zlib
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

# Sums may be reordered and fused, so that loops vectorise; NaN and infinity keep their meaning.
_FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp"})
_WORTH_THREADS = 1 << 16  # scalar operations; waking threads costs about as much as these

_lock = threading.Lock()  # Numba's portable thread pool aborts the process when two Python threads enter it
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
_pool_owner = 0  # the process that started Numba's threads; they do not survive a fork


class JitPair:
    """A loop over ``numba.prange`` in two compiled variants, of which the call chooses one.

    With ``torch.get_num_threads() == 1`` (PyTorch's setting inside data loader workers) the
    serial variant runs and no thread is ever started. Each variant is compiled at its first
    call with arguments of new types and kept on disk, so later processes only load it.

    Args:
        function: a plain function in Numba's language: arrays and numbers in, nothing out. Each
            iteration of its ``prange`` writes elements that no other iteration touches.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._compiled: dict[tuple[bool, Hashable], Callable[..., None]] = {}

    def __call__(self, *arguments: Any, work: float = float("inf"), kind: Hashable = None) -> None:
        """Run with C-contiguous arrays and numbers.

        Args:
            *arguments: those of the function.
            work: about how many scalar operations it takes.
            kind: what decides the types of the arguments; looking at each takes microseconds.
        """
        threads = torch.get_num_threads()
        if threads == 1 or work < _WORTH_THREADS or _pool_owner not in (0, os.getpid()):
            self._run(False, kind, arguments)
        else:
            with _lock:
                _open_pool(threads)
                self._run(True, kind, arguments)

    def _run(self, parallel: bool, kind: Hashable, arguments: tuple[Any, ...]) -> None:
        if kind is None:
            kind = tuple([(a.dtype, a.ndim) if hasattr(a, "ndim") else type(a) for a in arguments])
        key = parallel, kind
        kernel = self._compiled.get(key)
        if kernel is not None:
            return kernel(*arguments)
        kinds = "_".join(map(_tag, arguments))
        kernel = _compile(self._function, parallel, kinds, cache=True)
        try:
            kernel(*arguments)
        except OSError:  # a full disk, or a quota, while the compiled code is saved
            kernel = _compile(self._function, parallel, kinds, cache=False)
            kernel(*arguments)
        self._compiled[key] = kernel


def jit_pair(function: Callable[..., None]) -> JitPair:
    """Decorate a Numba loop so that it runs serially or in parallel as PyTorch's thread count says.

    Numba is imported at the first call.

    >>> from numba import prange
    >>> import numpy as np
    >>> @jit_pair
    ... def double(x, out):
    ...     for i in prange(x.shape[0]):
    ...         out[i] = 2 * x[i]
    >>> out = np.empty(3)
    >>> double(np.arange(3.0), out)
    >>> out
    array([0., 2., 4.])
    """
    return JitPair(function)


def jit_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that kernels call: compiled into each of them, under the same arithmetic rules."""
    import numba

    compiled: Callable[..., Any] = numba.njit(fastmath=set(_FASTMATH), error_model="numpy")(function)
    return compiled


def array(x: Tensor) -> Any:
    """The C-contiguous NumPy array of a CPU tensor; it shares memory where the tensor is contiguous.

    >>> array(torch.ones(2, 3).mT).flags.c_contiguous
    True
    """
    return x.detach().contiguous().resolve_neg().numpy()


def _open_pool(threads: int) -> None:
    global _pool_owner
    import numba

    _pool_owner = os.getpid()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _compile(
    function: Callable[..., None], parallel: bool, kinds: str, *, cache: bool
) -> Callable[..., None]:
    """One Numba function, under a name that says everything its machine code depends on.

    Numba's disk cache tells neither parallel from serial code, nor two argument types that two
    processes save at the same moment; with one file for each there is nothing to confuse.
    """
    import llvmlite.binding  # type: ignore[import-untyped]
    import numba

    host = f"{llvmlite.binding.get_host_cpu_name()} {sorted(_FASTMATH)}"
    variant = "parallel" if parallel else "serial"
    name = f"{function.__name__}_{variant}_{zlib.crc32(f'{host} {kinds}'.encode()):08x}"
    named = types.FunctionType(function.__code__, function.__globals__, name, function.__defaults__)
    named.__qualname__, named.__module__ = name, function.__module__
    options = {"parallel": parallel, "nogil": True, "fastmath": set(_FASTMATH), "error_model": "numpy"}
    try:
        return numba.njit(cache=cache, **options)(named)
    except RuntimeError:  # no folder can be written to: not the package's, not the user's cache
        return numba.njit(**options)(named)


def _tag(argument: Any) -> str:
    kind = getattr(argument, "dtype", None)
    return f"{kind.char}{argument.ndim}" if kind is not None else type(argument).__name__
