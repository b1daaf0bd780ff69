"""AdamW, the learning rate of every step, and the averaged weights."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from equitorch.training.config import Schedule, Train


def build_optimizer(model: nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW; weight decay, if any, acts on matrices only, never on biases and norms.

    Source:
        Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.lr, fused=fused)


@dataclass
class LearningRate:
    r"""The learning rate of a step: a linear warm-up, then constant, cosine or plateau.

    .. math::
        \eta_t = \eta \min(1, (t + 1) / t_w) \cdot f_t, \quad
        f_t^{\cos} = \eta_{min} / \eta + (1 - \eta_{min} / \eta) (1 + \cos(\pi t / T)) / 2

    The warm-up of a cosine takes at most a tenth of the run. On a plateau f is multiplied by ``factor`` after
    ``patience`` epochs without a better validation loss.

    Args:
        base: the rate after the warm-up.
        warmup: steps of the warm-up.
        steps: T, all steps of the run.
        schedule: what follows the warm-up.

    >>> LearningRate(1e-3, 10, 100, Schedule(name="constant")).at(4)
    0.0005
    """

    base: float
    warmup: int
    steps: int
    schedule: Schedule
    reduction: float = 1.0
    best: float = math.inf
    bad_epochs: int = 0

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        warmup = min(self.warmup, self.steps // 10) if self.schedule.name == "cosine" else self.warmup
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        floor = min(self.schedule.min_lr, self.base)
        if self.schedule.name == "cosine":
            wave = (1 + math.cos(math.pi * min(1.0, step / max(1, self.steps)))) / 2
            return rise * (floor + (self.base - floor) * wave)
        if self.schedule.name == "plateau":
            return rise * max(floor, self.base * self.reduction)
        return rise * self.base

    def epoch_ended(self, loss: float) -> None:
        """Tell the validation loss of an epoch; NaN counts as no progress."""
        if loss < self.best:
            self.best, self.bad_epochs = loss, 0
            return
        self.bad_epochs += 1
        if self.schedule.name == "plateau" and self.bad_epochs > self.schedule.patience:
            self.reduction, self.bad_epochs = self.reduction * self.schedule.factor, 0

    def state(self) -> dict[str, float | int]:
        """What changes during a run."""
        values = asdict(self)
        return {name: values[name] for name in ("reduction", "best", "bad_epochs")}

    def load(self, state: dict[str, float | int]) -> None:
        """Continue from :meth:`state`."""
        self.reduction, self.best = float(state["reduction"]), float(state["best"])
        self.bad_epochs = int(state["bad_epochs"])


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    r"""Exponential moving average of the weights, whose memory grows with the steps until it is ``decay``.

    .. math:: \bar w \leftarrow \bar w + (1 - d_t)(w - \bar w), \quad d_t = \min(d, (1 + t)/(10 + t))

    so that short runs are not dominated by the first weights. With decay 0 it is a copy of the model.
    """

    def lerp(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        steps = int(count)
        keep = min(decay, (1 + steps) / (10 + steps))
        floating = [(a, w) for a, w in zip(averages, weights, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floating], [w for _, w in floating], 1 - keep)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(lerp))


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradients to a total norm of at most ``limit``; returns the norm before, on the device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None and gradients:
        torch._foreach_mul_(gradients, (limit / (norm + 1e-12)).clamp(max=1.0))
    return norm
