"""From a config to what the loop needs: splits with edges, a potential, a loss, and numbers to show."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.reference_energies import isolated_atoms
from equitorch.models.potential import Potential
from equitorch.training.batches import GraphBatches, KeptGraphs, automatic_size
from equitorch.training.config import Config
from equitorch.training.config_reader import ConfigError, Problem
from equitorch.training.evaluate import ISOLATED
from equitorch.training.initial import build_potential, root_mean_square
from equitorch.training.loss import LABELS, Loss
from equitorch.training.parallel import Processes
from equitorch.training.splits import energies_per_atom, frame_names, label_values, read_splits

_DEFAULT_WEIGHTS = {"energy": 1.0, "forces": 10.0, "stress": 1.0}


@dataclass
class Prepared:
    """Everything a run starts from.

    Attributes:
        potential: on its device and in its dtype.
        loss: with weights and scales.
        train: shuffled batches for the optimiser.
        splits: train, valid and test in their order, for evaluation; None where there is none.
        data_hash: of the training frames and labels.
        summary: numbers for run.json and the first screen.
        notes: what the user should know.
    """

    potential: Potential
    loss: Loss
    train: GraphBatches
    splits: dict[str, GraphBatches | None]
    data_hash: str
    summary: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def valid(self) -> GraphBatches | None:
        """The validation frames."""
        return self.splits.get("valid")

    def describe(self) -> str:
        """One line for the log."""
        frames = ", ".join(f"{name} {count}" for name, count in self.summary["frames"].items())
        return f"{self.summary['parameters']} parameters; frames: {frames}; batch {self.summary['batch']}"


def prepare(config: Config, device: torch.device, processes: Processes | None = None) -> Prepared:
    """Read the data, build the potential, check that they fit.

    Raises:
        ConfigError: when they do not, with the key to change.
    """
    processes = processes or Processes()
    splits, notes = read_splits(config.data, seed=config.train.seed)
    train = splits["train"]
    weights, unlearned = loss_weights(config, train)
    potential, found = build_potential(config, splits)
    potential.to(device=device, dtype=getattr(torch, config.train.precision))
    size = config.train.batch
    if not isinstance(size, int):
        size = max(1, automatic_size(len(train), float(train.sizes.mean())) // processes.world)
    settings = config.train.loss
    scales = loss_scales(potential, train) if settings.normalize else {}
    batches = {
        name: with_edges(split, potential, size, processes) if len(split) else None
        for name, split in splits.items()
    }
    plain = batches["train"]
    assert plain is not None, "read_splits refuses a split without training frames"
    return Prepared(
        potential=potential,
        loss=Loss(weights, scales, settings.kind, settings.delta),
        train=plain.shuffled(config.train.seed),
        splits=batches,
        data_hash=train.digest(),
        summary=_summary(splits, plain, potential) | {"weights": weights, "loss_scales": scales},
        notes=[*notes, *found, *unlearned, *_charges(train, potential)],
    )


def _charges(train: AtomDataset, potential: Potential) -> list[str]:
    """A note where frames are charged: the model is told, and so must be whoever uses it."""
    charges = np.asarray(train.frames.columns["charge"], dtype=np.float64)[train.indices]
    charged = int(np.count_nonzero(np.nan_to_num(charges)))
    told = "the model is given the charge, in info['charge'] of atoms"
    if not getattr(potential.model, "sees_charge", True):
        told = "this model makes no difference between charges; tensornet does"
    return [f"{charged} training frames are charged: {told}"] if charged else []


def with_edges(split: AtomDataset, potential: Potential, size: int, processes: Processes) -> GraphBatches:
    """Batches of a split whose neighbours are found when a frame is first used."""
    cutoff, dtype = potential.cutoff, potential.dtype
    return GraphBatches(
        KeptGraphs(split, cutoff, dtype),
        size,
        processes=processes,
        device=potential.device,
        names=frame_names(split),
        frame_groups=[
            ISOLATED if alone else group
            for alone, group in zip(isolated_atoms(split).tolist(), split.groups, strict=True)
        ],
    )


def _summary(splits: dict[str, AtomDataset], train: GraphBatches, potential: Potential) -> dict[str, Any]:
    """Numbers of the data and the model, as run.json holds them."""
    return {
        "frames": {name: len(split) for name, split in splits.items()},
        "atoms": {name: int(split.sizes.sum()) for name, split in splits.items()},
        "labels": {name: split.labels for name, split in splits.items()},
        "keys": splits["train"].frames.keys,
        "species": list(potential.species),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "cutoff": potential.cutoff,
        "neighbours": train.neighbours(),
        "batch": train.size,
        "reference_energies": {str(z): float(potential.reference_energies[z]) for z in potential.species},
        "scale": float(potential.scale[potential.species[0]]),
        "shift": float(potential.shift[potential.species[0]]),
    }


def loss_weights(config: Config, train: AtomDataset) -> tuple[dict[str, float], list[str]]:
    """Weights of the labels that are there, and notes on labels that are not used.

    Raises:
        ConfigError: when a weight was asked for and no frame has the label, or nothing can be learned.
    """
    counts, weights = train.labels, {}
    problems, notes = [], []
    for name in LABELS:
        wanted = getattr(config.train.loss, name)
        weight = _DEFAULT_WEIGHTS[name] if wanted == "auto" else float(wanted)
        if weight > 0 and counts[name]:
            weights[name] = weight
        elif counts[name]:
            notes.append(f"{name} of {counts[name]} training frames have no weight and are not learned")
        elif wanted != "auto" and weight > 0:
            message = f"no training frame has {name}; set the weight to 0, or data.keys.{name} to its name"
            problems.append(Problem(f"train.loss.{name}", message))
    if not weights and not problems:
        problems.append(Problem("data.train", "no training frame has energy, forces or stress to learn from"))
    if problems:
        raise ConfigError(problems)
    return weights, notes


def loss_scales(potential: Potential, train: AtomDataset) -> dict[str, float]:
    """The spread of every label in the training frames, in eV and Å: what counts as an error of 1."""
    references = {z: float(potential.reference_energies[z]) for z in potential.species}
    energies = energies_per_atom(train, references)
    scales = {
        "energy": root_mean_square(energies - energies.mean()) if len(energies) else 0.0,
        "forces": root_mean_square(label_values(train, "forces")),
        "stress": root_mean_square(label_values(train, "stress")),
    }
    return {name: scale if scale > 1e-9 else 1.0 for name, scale in scales.items()}
