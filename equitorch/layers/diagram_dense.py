"""What is kept while weights do not change, above all the matrix of a map; and when that is faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from torch import Tensor, nn

from equitorch.layers.optimizer_steps import optimizer_steps

_KEPT = 4  # matrices, for as many dimensions n
LARGEST = 1 << 25
"""Entries of the largest matrix that is worth keeping."""

_CACHED = 600_000  # entries of a matrix that stays in the cache of a core


Home: TypeAlias = dict[str, nn.Parameter | None]
"""Where a module keeps its parameters."""

Apply: TypeAlias = Callable[[Tensor], Tensor]
"""From features to features, each of shape (points, rows, channels)."""


class Kept(NamedTuple):
    """A function of features with everything that depends on weights alone made beforehand.

    Attributes:
        apply: the function.
        made_of: for each parameter: where it is kept, its name there, itself, its version and its place in
            memory at that time.
        steps: ``optimizer_steps`` at that time.
        memory: of the parameters at that time, so that others do not come to the same place.
    """

    apply: Apply
    made_of: tuple[tuple[Home, str, Tensor, int, int], ...]
    steps: int
    memory: tuple[Tensor, ...]

    def holds(self) -> bool:
        """Whether the parameters are the same, unchanged."""
        if self.steps != optimizer_steps():
            return False
        for home, name, weight, version, place in self.made_of:
            if home.get(name) is not weight or weight._version != version or weight.data_ptr() != place:
                return False
        return True


class WeightCache:
    """What a layer made of its weights, by the dimension it was made for; forgotten when a weight changes.

    Changes are seen by PyTorch's version counters, and by steps of optimizers: a weight written to through
    ``.data`` is not seen. What is kept is made outside of inference mode, so that it serves there and
    elsewhere. Copies and pickles of it are empty.

    Attributes:
        latest: what was used for features that came before, by shape, dtype and the like: where nothing is
            to be chosen any more.
    """

    def __init__(self) -> None:
        self.entries: dict[Hashable, Kept] = {}
        self.latest: dict[Hashable, Kept] = {}

    def get(self, key: Hashable, homes: Sequence[Home], make: Callable[[], Apply]) -> Kept:
        """What is kept for ``key``, made anew if there is nothing for these weights."""
        entry = self.entries.get(key)
        if entry is None or not entry.holds():
            steps, made_of = optimizer_steps(), _remembered(homes)  # before: others may write meanwhile
            memory = tuple([weight.detach() for _, _, weight, _, _ in made_of])
            with torch.inference_mode(False), torch.no_grad():
                apply = make()
            self.latest.clear()
            while len(self.entries) >= _KEPT:
                self.entries.pop(next(iter(list(self.entries)), None), None)  # so may other threads
            entry = self.entries[key] = Kept(apply, made_of, steps, memory)
        return entry

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self.latest.clear()

    def remember(self, features: Hashable, entry: Kept) -> None:
        """The same is to be used for features like these."""
        if len(self.latest) >= 4 * _KEPT:
            self.latest.clear()
        self.latest[features] = entry

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def product_with(matrix: Tensor, shift: Tensor | None, shape: tuple[int, int]) -> Apply:
    """The map from (points, rows_in, channels_in) to (points, *shape) with a matrix of flattened features."""

    def apply(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        y = flat @ matrix if shift is None else torch.addmm(shift, flat, matrix)
        return y.view(x.shape[0], *shape)

    return apply


def _remembered(homes: Sequence[Home]) -> tuple[tuple[Home, str, Tensor, int, int], ...]:
    return tuple(
        [
            (home, name, weight, weight._version, weight.data_ptr())
            for home in homes
            for name, weight in home.items()
            if weight is not None
        ]
    )


class Work(NamedTuple):
    """What the plan does for one feature at one n.

    Attributes:
        products: of two numbers, for one channel on both sides.
        moved_in: numbers that the lower halves have, once for each permutation, for one channel.
        moved_out: numbers that the upper halves have.
        steps: roughly, how many small tensors there are.
        single: whether one kernel does it all, on the CPU and without gradients.
    """

    products: int
    moved_in: int
    moved_out: int
    steps: int
    single: bool = False


def prefers_matrix(
    points: int, rows: tuple[int, int], channels: tuple[int, int], work: Work, cuda: bool
) -> bool:
    """Whether a product with the kept matrix beats the plan, by what was measured on one core.

    In doubt it does. The constants for one kernel are fitted to 286 cases of S, O, Sp, B and O(1,3), n from 2
    to 16, orders up to 4, up to 32 channels and batches up to 256, half of them within 10 %, in microseconds.

    Args:
        points: number of features.
        rows: of input and output.
        channels: of input and output.
        work: of the plan.
        cuda: whether they are on a GPU; its constants are estimates.
    """
    inputs, outputs = rows[0] * channels[0], rows[1] * channels[1]
    entries = inputs * outputs
    if max(entries, rows[0] ** 2) > LARGEST:  # it is made of the results for all unit features
        return False
    moved = work.moved_in * channels[0] + work.moved_out * channels[1]
    products = work.products * channels[0] * channels[1]
    if cuda:
        matrix = 20 + entries * 2e-6 + points * entries * 5e-8
        plan = 150 + 5 * work.steps + points * (products * 5e-8 + (moved + inputs + outputs) * 4e-6)
    else:
        ends, places = inputs + outputs, work.moved_in + work.moved_out + sum(rows)
        matrix = 12 + 3.6e-5 * entries + 1.6e-4 * max(0, entries - _CACHED)
        matrix += points * (1.1e-5 * entries + 1e-4 * ends)
        if work.single:
            plan = 24 + 0.22 * work.steps
            plan += points * (0.11 + 2e-5 * products + 1.5e-4 * moved + 2.6e-5 * ends + 2.9e-4 * places)
        else:
            plan = 60 + 2 * work.steps + points * (2e-5 * products + 5e-4 * moved + 6e-4 * ends)
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
