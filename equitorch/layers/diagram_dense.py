"""The matrix of an equivariant map, kept while its weights do not change; and when that is the faster way."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

_KEPT = 4  # matrices, for as many dimensions n
LARGEST = 1 << 25
"""Entries of the largest matrix that is worth keeping."""

_MULTIPLY, _READ = 2e-11, 1e-10  # seconds for a product of two numbers, and for reading one of the matrix
_CALL, _STEP, _TOUCH = 4e-5, 2e-6, 1e-9  # for a call of the plan, each step, each number in and out


class _Entry(NamedTuple):
    matrix: Tensor
    shift: Tensor | None
    weights: tuple[Tensor, ...]
    state: tuple[tuple[int, int], ...]


class DenseCache:
    """Matrices of a layer by the dimension they were made for; forgets them as soon as a weight changes.

    Changes are seen by PyTorch's version counters: a weight written to through ``.data`` is not seen.
    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.entries: dict[Hashable, _Entry] = {}
        self.choices: dict[Hashable, str] = {}

    def get(
        self,
        key: Hashable,
        weights: Sequence[Tensor],
        make: Callable[[], tuple[Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor | None]:
        """The matrix and the shift for ``key``, made anew if there is none for these weights."""
        entry = self.entries.get(key)
        if entry is not None and len(entry.weights) == len(weights):
            for weight, known, state in zip(weights, entry.weights, entry.state, strict=True):
                if weight is not known or (weight._version, weight.data_ptr()) != state:
                    break
            else:
                return entry.matrix, entry.shift
        with torch.no_grad():
            matrix, shift = make()
        while len(self.entries) >= _KEPT:
            del self.entries[next(iter(self.entries))]
        state = tuple([(weight._version, weight.data_ptr()) for weight in weights])
        self.entries[key] = _Entry(matrix, shift, tuple(weights), state)
        return matrix, shift

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def prefers_matrix(points: int, inputs: int, outputs: int, steps: int) -> bool:
    """Whether a product with the kept matrix beats the plan, by what was measured on one core.

    In doubt it does: a plan is chosen only where it is much faster.

    Args:
        points: number of features.
        inputs: numbers in one of them.
        outputs: numbers in its result.
        steps: of the plan, roughly.
    """
    if inputs * outputs > LARGEST:
        return False
    matrix = inputs * outputs * (_READ + points * _MULTIPLY)
    plan = _CALL + steps * _STEP + points * (inputs + outputs) * _TOUCH
    return matrix < 1.5 * plan


def best_time(layer: Callable[[Tensor], Tensor], x: Tensor, repeats: int = 5) -> float:
    """Seconds that one call takes, the least of several; with the backward pass where there are gradients."""
    best = float("inf")
    for _ in range(repeats + 1):
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        start = time.perf_counter()
        y = layer(x)
        if y.requires_grad:
            parameters = (
                [p for p in layer.parameters() if p.requires_grad] if isinstance(layer, nn.Module) else []
            )
            wanted = [*parameters, *([x] if x.requires_grad else [])]
            torch.autograd.grad(y.sum(), wanted, allow_unused=True)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        best = min(best, time.perf_counter() - start)
    return best
