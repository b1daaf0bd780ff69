"""Reading a checkpoint of PyTorch without running code from it."""

from __future__ import annotations

import collections
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import numpy as np
import torch

from equitorch.models.container import peek_container

# What PyTorch's reader says to bytes that it cannot follow.
_UNREADABLE: Final = (
    pickle.UnpicklingError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    AssertionError, ArithmeticError, struct.error,
)  # fmt: skip


def read(path: Path) -> Mapping[str, Any]:
    """What a checkpoint file holds: tensors, numbers, texts, lists and mappings of them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds anything else, which only running its code could rebuild, or is no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with _only(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE:
        raise ValueError(_refusal(path)) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected the entries of a checkpoint")
    return content


def _refusal(path: Path) -> str:
    """Why a file is not read, and what to do instead."""
    foreign = _foreign(path)
    if foreign:
        return (
            f"{path} cannot be read without running code from it, so it is refused (it needs "
            f"{', '.join(foreign)}); if you trust it, convert it once: "
            f"equitorch convert --unsafe-pickle {path} OUT.eqt"
        )
    if _is_own(path):
        return f"{path} is already a file of this library; load it with equitorch.load"
    return f"{path} is no PyTorch checkpoint"


def _foreign(path: Path) -> list[str]:
    """What a checkpoint's code would call; nothing, if it is none."""
    try:
        with _only(_allowed()):
            return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNREADABLE:
        return []


def _is_own(path: Path) -> bool:
    try:
        return "format" in peek_container(path)
    except ValueError:
        return False


@contextmanager
def _only(allowed: list[Any]) -> Iterator[None]:
    """Let a checkpoint hold these, and nothing that other packages have allowed, such as ``defaultdict``."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _mapping(_factory: object = None) -> dict[Any, Any]:
    """In the place of a ``defaultdict``, whose entries PyTorch would not read."""
    return {}


def _allowed() -> list[Any]:
    """Containers, numbers and paths: all that a checkpoint may hold besides tensors."""
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    rebuilt = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, function in (("scalar", scalar), ("_reconstruct", array))
    ]
    numbers = [type(np.dtype(kind)) for kind in ("?", *"bBhHiIlLqQefd", "S1", "U1")]
    plain = [(kind, f"builtins.{kind.__name__}") for kind in (dict, list, set, int, float)]
    paths: list[Any] = [(PurePosixPath, f"pathlib.{name}") for name in ("PosixPath", "PurePosixPath")]
    paths += [(PureWindowsPath, f"pathlib.{name}") for name in ("WindowsPath", "PureWindowsPath")]
    containers = [collections.Counter, collections.OrderedDict, (_mapping, "collections.defaultdict")]
    return [*containers, np.dtype, np.ndarray, *numbers, *rebuilt, *plain, *paths]
