"""Whether indices are indices, checked where looking at them makes no device wait."""

from __future__ import annotations

import torch
from torch import Tensor

from equitorch.ops.backend import traced


def readable(index: Tensor) -> bool:
    """Whether values may be looked at: on the CPU, by no recorded program, and not inside ``torch.func``.

    >>> readable(torch.tensor([0, 1]))
    True
    """
    recorded = traced(index) or torch._C._functorch.peek_interpreter_stack() is not None
    return index.device.type == "cpu" and not recorded


def expect_indices(name: str, index: Tensor, count: int) -> None:
    """Refuse what does not count from 0 to ``count`` - 1: a kernel would read memory that is not its own.

    Values are looked at where they are ``readable``: who gives a GPU indices out of range gets undefined
    results.

    Args:
        name: what they are, as the user wrote it.
        index: integers, of any shape.
        count: how many things there are to point at.

    Raises:
        ValueError: for another type, or an index out of range.

    >>> expect_indices("species", torch.tensor([0, 1]), 2)
    """
    if index.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise ValueError(f"{name} is expected to hold integers, got {index.dtype}")
    if not readable(index) or not index.numel():
        return
    low, high = (int(end) for end in index.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"{name} is expected to hold numbers from 0 to {count - 1}, got {low} to {high}")
