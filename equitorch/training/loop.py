"""Train a potential from a config: plain PyTorch, resumable bit for bit, one process or many."""

import copy
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from equitorch.models.potential import Potential
from equitorch.training.config import Config
from equitorch.training.config_reader import ConfigError, Problem
from equitorch.training.evaluate import Evaluation, evaluate
from equitorch.training.interrupt import Interrupt, interrupts
from equitorch.training.parallel import Processes, processes
from equitorch.training.prepare import Prepared, prepare
from equitorch.training.run import DivergedError, Observer, Run, RunFolder, Status, metrics_csv
from equitorch.training.state import State, latest_state, save_state
from equitorch.training.tensorboard import TensorBoard
from equitorch.training.trainer import Trainer

_MAY_CHANGE = (
    "train.epochs",
    "train.max_minutes",
    "train.patience",
    "train.tensorboard",
    "train.device",
    "output",
)
_SHARE_OF_SAVING = 0.03  # states are written seldom enough to cost no more than this share of the time


def device_of(name: str) -> torch.device:
    """The device that a config means; under ``torchrun`` each process gets its own GPU.

    Raises:
        ValueError: if it is a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"train.device is {name!r}, but PyTorch finds no GPU here; write cpu or auto")
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def train(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    resume: bool = False,
    observers: Sequence[Observer] = (),
) -> Run:
    """Train a potential; started by ``torchrun``, on all its processes together.

    The run's folder (``config.output``) gets model.eqt (the best averaged weights), last.eqt, metrics.csv,
    run.json, config.yaml, train.log, and state/, from which a run that was stopped in any way continues
    bit for bit. Ctrl-C once finishes the epoch and saves.

    Args:
        config: a config, plain values, or a YAML file.
        resume: continue the run in ``config.output``; only the length of the run may have been changed.
        observers: told what happens; see :class:`Observer`.

    Raises:
        ConfigError: when the config and the data do not fit; before anything is trained.
        DivergedError: when the loss was no number three times; names the frames.
    """
    if not isinstance(config, Config):
        config = Config.from_dict(config) if isinstance(config, Mapping) else Config.from_file(config)
    device = device_of(config.train.device)
    with processes(device) as group, interrupts() as interrupt:
        state = _previous(config, resume)
        torch.manual_seed(config.train.seed)
        prepared = prepare(config, device, group)
        _check_same_data(prepared, state)
        if config.train.tensorboard and group.first:
            observers = [*observers, TensorBoard(Path(config.output) / "tensorboard")]
        return _Loop(config, prepared, group, interrupt, tuple(observers)).run(state)


def _previous(config: Config, resume: bool) -> State | None:
    """The state to continue from, or None for a fresh run; a run is never overwritten unasked."""
    path = Path(config.output)
    state = latest_state(path / "state")
    if not resume:
        if state is not None or (path / "model.eqt").exists():
            message = f"'{config.output}' holds a run already; resume it, choose another output, or remove it"
            raise ConfigError([Problem("output", message)])
        return None
    if state is None:
        raise ConfigError([Problem("output", f"there is no run to resume in '{config.output}'")])
    changed = _changes(state.values["config"], config.to_dict(full=True))
    if changed:
        problems = [
            Problem(key, f"was {old!r} in the run to resume, is {new!r}") for key, old, new in changed
        ]
        raise ConfigError(problems)
    return state


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in dict.fromkeys([*old, *new]):
        key, a, b = prefix + name, old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _changes(a, b, key + ".")
        elif a != b and key not in _MAY_CHANGE:
            found.append((key, a, b))
    return found


def _check_same_data(prepared: Prepared, state: State | None) -> None:
    if state is not None and state.values["data_hash"] != prepared.data_hash:
        raise ConfigError([Problem("data.train", "the frames are not those of the run to resume")])


@dataclass
class _Loop:
    """The epochs of a run, and what is written after each."""

    config: Config
    prepared: Prepared
    group: Processes
    interrupt: Interrupt
    observers: tuple[Observer, ...]
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)
    saving: float = 0.0

    def __post_init__(self) -> None:
        steps = len(self.prepared.train) * self.config.train.epochs
        self.trainer = Trainer(
            self.prepared.potential, self.prepared.loss, self.config.train, steps=steps, processes=self.group
        )
        self.folder = RunFolder(Path(self.config.output), self.group.first)

    def tell(self, event: str, *values: Any) -> None:
        """Tell the observers, in the first process."""
        for observer in self.observers if self.group.first else ():
            getattr(observer, event)(*values)

    def run(self, state: State | None) -> Run:
        """All epochs, then the final table."""
        self.folder.create()
        self.begin(state)
        started, status = time.monotonic(), cast(Status, "finished")
        try:
            while len(self.history) < self.config.train.epochs:
                self.epoch()
                reason = self.reason_to_stop(time.monotonic() - started)
                last = len(self.history) == self.config.train.epochs
                self.save(always=bool(reason) or last)
                if reason and not last:
                    status = reason
                    break
        except DivergedError as error:
            self.folder.log(f"diverged: {error}")
            self.finish("diverged", table=False)
            raise
        return self.finish(status, table=status != "interrupted")

    def begin(self, state: State | None) -> None:
        """Start afresh, or put the files and the trainer back to the end of the last saved epoch."""
        start = f"{self.prepared.describe()}"
        if state is not None:
            self.trainer.load(state)
            self.history = state.values["history"]
            self.best_loss, self.best_epoch = state.values["best_loss"], state.values["best_epoch"]
            self.seconds = _previous_seconds(self.folder.path)
            self.folder.write("metrics.csv", metrics_csv(self.history))
            start = f"resumed after epoch {len(self.history)}"
        self.folder.write("config.yaml", self.config.to_yaml(full=True))
        self.folder.log(start)
        for note in self.prepared.notes:
            self.folder.log(f"note: {note}")
            self.tell("on_message", note)
        self.folder.write("run.json", json.dumps(self.summary("running"), indent=1))
        self.tell("on_start", self.summary("running"))

    def epoch(self) -> None:
        """One epoch of training and its validation."""
        start = time.monotonic()
        row = self.trainer.epoch(
            self.prepared.train, len(self.history), lambda *values: self.tell("on_batch", *values)
        )
        if self.prepared.valid is not None:
            row |= self.trainer.validate(self.prepared.valid)
        else:
            row["valid_loss"] = row["train_loss"]
        self.history.append(row)
        self.trainer.rate.epoch_ended(row["valid_loss"])
        better = row["valid_loss"] < self.best_loss
        if better:
            self.best_loss, self.best_epoch = row["valid_loss"], row["epoch"]
            self.save_model("model.eqt", row)
        self.folder.append_metrics(self.history)
        seconds = time.monotonic() - start
        self.seconds += seconds
        self.folder.log(
            "  ".join(f"{k} {v:.6g}" for k, v in row.items()) + f"  {seconds:.2f} s" + "  *" * better
        )
        self.tell("on_epoch", row | {"seconds": seconds, "best": better})

    def reason_to_stop(self, elapsed: float) -> Status | None:
        """Why not to go on; the same in all processes."""
        device, limit = self.prepared.potential.device, self.config.train.max_minutes
        next_epoch = 1.05 * self.seconds / max(1, len(self.history))
        late = limit is not None and elapsed + next_epoch > 60 * limit
        patience = self.config.train.patience
        if self.group.any(self.interrupt.requested, device):
            return "interrupted"
        if self.group.any(late, device):
            return "time"
        if patience is not None and len(self.history) - self.best_epoch >= patience:
            return "early"
        return None

    def save_model(self, name: str, row: Mapping[str, Any]) -> None:
        """Write the averaged weights."""
        if self.group.first:
            metadata = {
                "metrics": dict(row),
                "seed": self.config.train.seed,
                "config": self.config.to_dict(full=True),
            }
            path = self.folder.path / name
            self.trainer.evaluated.save(path, metadata=metadata, data_hash=self.prepared.data_hash)

    def save(self, *, always: bool) -> None:
        """Write the state, when asked or when the last time is long enough ago."""
        now = time.monotonic()
        if not self.group.first or not (always or now - self.saved_at >= self.saving / _SHARE_OF_SAVING):
            return
        self.save_model("last.eqt", self.history[-1])
        state = self.trainer.state()
        values = {
            "config": self.config.to_dict(full=True),
            "data_hash": self.prepared.data_hash,
            "history": self.history,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
        }
        save_state(self.folder.states, len(self.history), State(state.tensors, state.values | values))
        self.saved_at = time.monotonic()
        self.saving = self.saved_at - now

    def summary(self, status: str) -> dict[str, Any]:
        """What run.json holds."""
        return {
            "status": status,
            "epochs": len(self.history),
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 3),
            "processes": self.group.world,
            "threads": torch.get_num_threads(),
            "device": str(self.prepared.potential.device),
            "data_hash": self.prepared.data_hash,
            "bad_frames": self.trainer.bad_frames,
            **self.prepared.summary,
        }

    def finish(self, status: Status, *, table: bool) -> Run:
        """Evaluate the best model on every split and write run.json."""
        summary = self.summary(status)
        if table and self.best_epoch:
            found = self.evaluate_best()
            summary["metrics"] = {name: table.overall() for name, table in found.items()}
            summary["table"] = [row for name, table in found.items() for row in table.rows(name)]
        self.folder.write("run.json", json.dumps(_without_nan(summary), indent=1))
        self.folder.log(f"{status} after epoch {len(self.history)}; best epoch {self.best_epoch}")
        run = Run(self.folder.path, status, self.history, summary)
        self.tell("on_end", run)
        return run

    def evaluate_best(self) -> dict[str, Evaluation]:
        """The tables of the best model on the frames it was not trained on, gathered from all processes."""
        best = copy.deepcopy(self.trainer.evaluated)
        if self.group.first:
            saved = Potential.load(self.folder.path / "model.eqt", best.device, best.dtype)
            best.load_state_dict(saved.state_dict())
        self.group.equalize(best)
        splits = {
            name: split
            for name, split in self.prepared.splits.items()
            if split is not None and name != "train"
        }
        return {name: evaluate(best, split, self.group) for name, split in splits.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _previous_seconds(path: Path) -> float:
    try:
        return float(json.loads((path / "run.json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0
