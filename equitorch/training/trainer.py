"""One model being trained: a step, an epoch, a validation, and the state between two epochs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from equitorch.graph import AtomGraph
from equitorch.layers.readout import pool
from equitorch.models.potential import Potential
from equitorch.training.config import Train
from equitorch.training.loss import Loss, Residuals, residuals
from equitorch.training.metrics import Moments
from equitorch.training.optimizer import LearningRate, averaged, build_optimizer, clip_gradients
from equitorch.training.parallel import Processes
from equitorch.training.run import DivergedError
from equitorch.training.state import State, load_optimizer, load_random_state, optimizer_tensors, random_state

_TOLERATED = 3


class Batch(NamedTuple):
    """Frames of one step, this process's share: None where the share is empty."""

    graph: AtomGraph | None
    frames: Sequence[int]


class Batches(Protocol):
    """The frames of one split, batched; the order is a function of the epoch alone."""

    def __len__(self) -> int:
        """Steps per epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0."""

    def name(self, frame: int) -> str:
        """How to call a frame when there is trouble with it."""

    @property
    def groups(self) -> Sequence[str]:
        """Names of the groups that errors are told by."""

    def group(self, frame: int) -> int:
        """The group of a frame."""


def _listed(names: Sequence[str]) -> str:
    """Names such as ``file #3``, each file named once, of many frames only the first two."""
    numbers: dict[str, list[str]] = {}
    for name in names:
        file, space, number = name.rpartition(" ")
        numbers.setdefault(file.rpartition("/")[-1] + space, []).append(number)
    parts = [
        file + ", ".join(found if len(found) < 4 else [*found[:2], f"… ({len(found)} frames)"])
        for file, found in numbers.items()
    ]
    return ", ".join(parts)


def _too_large(batch: Batch) -> str:
    frames = len(batch.frames)
    size = (
        f" with {batch.graph.num_atoms} atoms and {batch.graph.num_edges} edges"
        if batch.graph is not None
        else ""
    )
    advice = f"set train.batch to {frames // 2}" if frames > 1 else "use a smaller model"
    return f"the memory of the device does not suffice for a step of {frames} frames{size}; {advice}"


def compare(
    potential: Potential, graph: AtomGraph, output: Mapping[str, Tensor], labels: Sequence[str]
) -> dict[str, Residuals]:
    """Residuals of the labels; energies are told from the reference energies, so that no digit is lost."""
    atoms = graph.ptr.diff()
    found = {}
    for name in labels:
        prediction, label = output[name], getattr(graph, name)
        if label is None:
            label = torch.full_like(prediction, math.nan)
        if name == "energy":
            table = potential.reference_energies + potential.shift
            base = pool(table[graph.atomic_numbers], graph.batch, graph.num_graphs)
            prediction, label = prediction - base, label - base
        found[name] = residuals(name, prediction, label, atoms)
    return found


@dataclass
class Tally:
    """Loss and errors of a pass over a split, summed on the device."""

    loss: Loss
    sums: Tensor
    counts: Tensor
    moments: dict[str, Moments]

    @classmethod
    def empty(cls, loss: Loss, device: torch.device) -> "Tally":
        """Nothing seen yet."""
        zeros = torch.zeros(len(loss.labels), dtype=torch.float64, device=device)
        return cls(loss, zeros, zeros.clone(), {name: Moments(device=device) for name in loss.labels})

    def add(self, errors: Mapping[str, Residuals], sums: Tensor) -> None:
        """Add one batch."""
        self.sums += sums.detach()
        self.counts += self.loss.counts(errors)
        for name, found in errors.items():
            self.moments[name].add_residuals(found)

    def row(self, split: str, processes: Processes) -> dict[str, float]:
        """Loss, MAE and RMSE over all processes, as columns of metrics.csv."""
        for tensor in (self.sums, self.counts, *(moments.sums for moments in self.moments.values())):
            processes.add(tensor)
        row = {f"{split}_loss": float(self.loss.total(self.sums, self.counts))}
        for name, moments in self.moments.items():
            result = moments.result()
            row |= {f"{split}_{name}_{kind}": result[kind] for kind in ("mae", "rmse")}
        return row


class Trainer:
    """The weights, their average, the optimiser and the clock of one run.

    Args:
        potential: what is trained, on its device and in its dtype.
        loss: what is minimised.
        settings: the section ``train`` of the config.
        steps: all steps of the run, for the cosine schedule.
        processes: those that train together.
    """

    def __init__(
        self,
        potential: Potential,
        loss: Loss,
        settings: Train,
        *,
        steps: int,
        processes: Processes | None = None,
    ) -> None:
        self.potential, self.loss, self.settings = potential, loss, settings
        self.processes = processes or Processes()
        self.processes.equalize(potential)
        self.parameters = [p for p in potential.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(potential, settings)
        self.average = averaged(potential, settings.ema)
        self.rate = LearningRate(settings.lr, settings.warmup, steps, settings.schedule)
        self.step_count = 0
        self.bad_frames: list[str] = []

    @property
    def evaluated(self) -> Potential:
        """The potential with averaged weights: what is validated and saved."""
        potential = self.average.module
        assert isinstance(potential, Potential), "the average is a copy of a potential"
        return potential

    def _predict(self, potential: Potential, batch: Batch) -> tuple[dict[str, Residuals], Tensor, Tensor]:
        """Residuals, sums of losses and counts; zeros for an empty share."""
        labels = self.loss.labels
        if batch.graph is None:
            zeros = torch.zeros(len(labels), dtype=torch.float64, device=potential.device)
            return {}, zeros, zeros.clone()
        graph = batch.graph
        output = potential(graph, forces="forces" in labels, stress="stress" in labels)
        errors = compare(potential, graph, output, labels)
        return errors, self.loss.sums(errors), self.loss.counts(errors)

    def step(self, batch: Batch, tally: Tally, name: Callable[[int], str] = str) -> float:
        """One step of the optimiser; a loss that is no number leaves everything as it was.

        Returns:
            the loss of the batch, over all processes.

        Raises:
            DivergedError: at the third such loss of a run.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(self.step_count)
        self.step_count += 1
        errors, sums, own = self._predict(self.potential, batch)
        total = self.loss.total(sums, self.processes.add(own.clone()))
        self.optimizer.zero_grad(set_to_none=True)
        if total.requires_grad:
            torch.autograd.backward(total, inputs=self.parameters)
        self.processes.add_gradients(self.parameters)
        norm = clip_gradients(self.parameters, self.settings.clip)
        value, size = torch.stack([self.processes.add(total.detach()), norm.to(total)]).tolist()
        if not (math.isfinite(value) and math.isfinite(size)):
            self._bad(batch, name)
            return math.nan
        self.optimizer.step()
        self.average.update_parameters(self.potential)
        if errors:
            tally.add(errors, sums)
        return float(value)

    def _bad(self, batch: Batch, name: Callable[[int], str]) -> None:
        """Remember the frames of a batch whose loss is no number, and stop at the third such batch."""
        found = [name(frame) for frame in self._culprits(batch)]
        everywhere = [name(frame) for frame in batch.frames]
        self.bad_frames.append(_listed(self.processes.gather(found) or self.processes.gather(everywhere)))
        if len(self.bad_frames) >= _TOLERATED:
            frames = "; ".join(self.bad_frames)
            raise DivergedError(
                f"the loss was not a number {_TOLERATED} times, in the frames {frames}; "
                f"look at their labels and geometries, or lower train.lr (now {self.settings.lr:g}) "
                f"or train.clip (now {self.settings.clip})"
            )

    def _culprits(self, batch: Batch) -> Sequence[int]:
        """The frames that are bad by themselves."""
        if batch.graph is None:
            return []
        errors = self._predict(self.evaluated, batch)[0]
        bad = torch.zeros(batch.graph.num_graphs, dtype=torch.bool)
        for label, found in errors.items():
            wrong = ~found.error.isfinite().cpu()
            if label == "forces":
                wrong = wrong.reshape(-1, 3).any(-1)
                bad[batch.graph.batch.cpu()[wrong]] = True
            else:
                bad |= wrong.reshape(len(bad), -1).any(-1)
        return [frame for frame, wrong in zip(batch.frames, bad.tolist(), strict=True) if wrong]

    def epoch(
        self, batches: Batches, number: int, on_batch: Callable[[int, int, float], None] | None = None
    ) -> dict[str, Any]:
        """All steps of an epoch.

        Returns:
            columns of metrics.csv; ``step`` counts from the start of the run.
        """
        self.potential.train()
        tally = Tally.empty(self.loss, self.potential.device)
        for done, batch in enumerate(batches.epoch(number), 1):
            try:
                value = self.step(batch, tally, batches.name)
            except torch.OutOfMemoryError as error:
                raise ValueError(_too_large(batch)) from error
            if on_batch:
                on_batch(done, len(batches), value)
        self.potential.eval()
        row: dict[str, Any] = {
            "epoch": number + 1,
            "step": self.step_count,
            "lr": self.rate.at(self.step_count - 1),
        }
        return row | tally.row("train", self.processes)

    def validate(self, batches: Batches, split: str = "valid") -> dict[str, float]:
        """Loss and errors of the averaged weights on a split."""
        potential = self.evaluated.eval()
        tally = Tally.empty(self.loss, potential.device)
        for batch in batches.epoch(0):
            errors, sums, _ = self._predict(potential, batch)
            if errors:
                tally.add(errors, sums)
        return tally.row(split, self.processes)

    def state(self) -> State:
        """Everything that the next epoch depends on."""
        tensors = {f"model.{k}": v for k, v in self.potential.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        tensors |= {f"random.{k}": v for k, v in random_state().items()}
        values = {"step": self.step_count, "rate": self.rate.state(), "bad_frames": self.bad_frames}
        return State(tensors, values)

    def load(self, state: State) -> None:
        """Continue from :meth:`state`, bit for bit."""
        self.potential.load_state_dict(state.part("model"))
        self.average.load_state_dict(state.part("average"))
        load_optimizer(self.optimizer, state.part("optimizer"))
        load_random_state(state.part("random"))
        self.step_count, self.bad_frames = int(state.values["step"]), list(state.values["bad_frames"])
        self.rate.load(state.values["rate"])
