"""How often optimizers have written to weights: fused ones do so without a word to version counters."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = [0]


def optimizer_steps() -> int:
    """The number of steps that all optimizers together have made since this was asked for the first time.

    What is computed from weights and kept is out of date when their version counters have changed, or this.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> before = optimizer_steps()
    >>> torch.optim.SGD([weight], lr=0.1).step()
    >>> optimizer_steps() - before
    1
    """
    _watch()
    return _steps[0]


@functools.cache
def _watch() -> None:
    register_optimizer_step_post_hook(_count_step)


def _count_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if not torch.compiler.is_compiling():  # what a compiler writes raises version counters
        _steps[0] += 1
    elif any(group.get("fused") for group in optimizer.param_groups):
        _count_outside()  # fused steps are not compiled


@torch.compiler.disable
def _count_outside() -> None:
    _steps[0] += 1
