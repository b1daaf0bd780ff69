"""The state of a run on disk: one safetensors file an epoch, written atomically, checked when read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equitorch.models.container import read_container, write_container

_VERSION = 1
_KEPT = 2


@dataclass(frozen=True)
class State:
    """Tensors by name, and everything else as JSON values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with ``prefix.``, without it."""
        start = prefix + "."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def save_state(folder: Path, epoch: int, state: State) -> Path:
    """Write the state after an epoch, atomically, and keep the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epoch:06d}.safetensors"
    header = {"training_state": _VERSION, "values": json.dumps(state.values)}
    write_container(path, header, state.tensors)
    for old in sorted(folder.glob("epoch-*.safetensors"))[:-_KEPT]:
        old.unlink()
    return path


def read_state(path: Path) -> State:
    """Read a state, whose checksum must fit.

    Raises:
        ValueError: when the file is damaged or of another kind.
    """
    header, tensors = read_container(path)
    if header.get("training_state") != _VERSION:
        found = header.get("training_state", "none")
        raise ValueError(f"{path} should hold a training state of version {_VERSION}, has {found}")
    return State(tensors, json.loads(header["values"]))


def latest_state(folder: Path) -> State | None:
    """The newest readable state of a run, or None; raises where there are some, all damaged."""
    problem: ValueError | None = None
    for path in sorted(folder.glob("epoch-*.safetensors"), reverse=True):
        try:
            return read_state(path)
        except ValueError as error:
            problem = problem or error
    if problem:
        raise problem
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts, flat, under ``<parameter>.<name>``."""
    states = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, state in states.items() for name, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave; the settings stay those of the optimiser."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        states.setdefault(int(index), {})[name] = tensor.clone()
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def random_state() -> dict[str, Tensor]:
    """The states of torch's generators, on the CPU and on every GPU that is in use."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def load_random_state(states: Mapping[str, Tensor]) -> None:
    """Continue the generators where :func:`random_state` found them."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))
