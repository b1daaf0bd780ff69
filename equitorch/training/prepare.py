"""From a config to what the loop needs: splits with edges, a potential with references and scale, a loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from equitorch.models.checkpoint import model_class
from equitorch.models.potential import Potential
from equitorch.training.batches import GraphBatches, automatic_size
from equitorch.training.config import Config
from equitorch.training.config_reader import ConfigError, Problem
from equitorch.training.frames import Frames, read_splits
from equitorch.training.loss import LABELS, Loss
from equitorch.training.parallel import Processes

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


def prepare(config: Config, device: torch.device, processes: Processes) -> Prepared:
    """Read the data, build the potential, check that they fit.

    Raises:
        ConfigError: when they do not, with the key to change.
    """
    splits = read_splits(config.data, seed=config.train.seed)
    weights, notes = _weights(config, splits["train"])
    potential, found = build_potential(config, splits)
    potential.to(device=device, dtype=getattr(torch, config.train.precision))
    sizes = [graph.num_atoms for graph in splits["train"].graphs]
    size = config.train.batch
    if not isinstance(size, int):
        size = max(1, automatic_size(len(sizes), sum(sizes) / len(sizes)) // processes.world)
    scales = _scales(potential, splits["train"]) if config.train.loss.normalize else {}
    loss = Loss(
        weights,
        {k: v for k, v in scales.items() if k in weights},
        config.train.loss.kind,
        config.train.loss.delta,
    )
    batches = {
        name: _batches(split, potential, size, processes) if len(split) else None
        for name, split in splits.items()
    }
    train = batches["train"]
    assert train is not None, "read_splits refuses a split without training frames"
    shuffled = GraphBatches(
        train.graphs,
        size,
        shuffle=True,
        seed=config.train.seed,
        processes=processes,
        device=device,
        names=train.names,
    )
    summary = {
        "frames": {name: len(split) for name, split in splits.items()},
        "atoms": {name: sum(graph.num_atoms for graph in split.graphs) for name, split in splits.items()},
        "labels": {name: split.label_counts() for name, split in splits.items()},
        "species": list(potential.species),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "cutoff": potential.cutoff,
        "neighbours": sum(g.num_edges for g in train.graphs) / sum(sizes),
        "batch": size,
        "reference_energies": {str(z): float(potential.reference_energies[z]) for z in potential.species},
        "scale": float(potential.scale[potential.species[0]]),
        "shift": float(potential.shift[potential.species[0]]),
        "loss_scales": scales,
    }
    hashed = splits["train"].digest()
    return Prepared(
        potential, loss, shuffled, batches, hashed, summary, [*splits["train"].notes, *found, *notes]
    )


def _batches(split: Frames, potential: Potential, size: int, processes: Processes) -> GraphBatches:
    graphs = [graph.with_edges(potential.cutoff).to(dtype=potential.dtype) for graph in split.graphs]
    return GraphBatches(
        graphs,
        size,
        processes=processes,
        device=potential.device,
        names=split.names,
        frame_groups=split.groups,
    )


def _weights(config: Config, frames: Frames) -> tuple[dict[str, float], list[str]]:
    """Weights of the labels that are there; a weight that was asked for and has no label is an error."""
    counts, weights = frames.label_counts(), {}
    problems, notes = [], []
    for name in LABELS:
        wanted = getattr(config.train.loss, name)
        weight = _DEFAULT_WEIGHTS[name] if wanted == "auto" else float(wanted)
        if weight > 0 and counts[name]:
            weights[name] = weight
        elif counts[name]:
            notes.append(f"{name} of {counts[name]} training frames have no weight and are not learned")
        elif wanted != "auto" and weight > 0:
            message = (
                f"no training frame has {name}; set the weight to 0 or auto, or data.keys.{name} to its name"
            )
            problems.append(Problem(f"train.loss.{name}", message))
    if not weights and not problems:
        problems.append(Problem("data.train", "no training frame has energy, forces or stress to learn from"))
    if problems:
        raise ConfigError(problems)
    return weights, notes


def build_potential(config: Config, splits: dict[str, Frames]) -> tuple[Potential, list[str]]:
    """The potential of a config: new, with references that fit the training frames, or from a file."""
    species = sorted({z for split in splits.values() for z in split.species})
    if config.model.from_ is not None:
        return _continued(config, species)
    train = splits["train"]
    references, notes = train.references(config.model.reference_energies, species)
    residual = train.energies_per_atom(references)
    forces = train.values("forces")
    shift = float(residual.mean()) if config.model.shift == "auto" and residual.numel() else 0.0
    scale = 1.0
    if config.model.scale == "auto" and forces.numel() and float(forces.square().mean()) > 0:
        scale = float(forces.square().mean().sqrt())
    elif config.model.scale == "auto" and residual.numel() > 1 and float(residual.std()) > 0:
        scale = float(residual.std())
    scale = scale if config.model.scale == "auto" else float(config.model.scale)
    shift = shift if config.model.shift == "auto" else float(config.model.shift)
    model = model_class(config.model.name)(**config.model.options)
    _check_species(model, config, species)
    potential = Potential(model, species=species, reference_energies=references, scale=scale, shift=shift)
    return potential, notes


def _check_species(model: nn.Module, config: Config, species: Sequence[int]) -> None:
    limit = getattr(model, "options", {}).get("max_z", math.inf)
    if species[-1] >= limit:
        message = f"the data have element {species[-1]}, the table of the model ends at {limit - 1}"
        raise ConfigError([Problem("model.max_z", message)])


def _continued(config: Config, species: Sequence[int]) -> tuple[Potential, list[str]]:
    """A potential from a file, whose weights, references and scale go on; settings must agree."""
    path = str(config.model.from_)
    potential = Potential.load(path)
    options = getattr(potential.model, "options", {})
    problems = [
        Problem(
            f"model.{name}",
            f"is {options.get(name)!r} in '{path}', got {value!r}; leave it out",
        )
        for name, value in config.model.options.items()
        if options.get(name) != value
    ]
    unknown = sorted(set(species) - set(potential.species))
    if unknown:
        problems.append(Problem("model.from", f"'{path}' does not know the elements {unknown} of the data"))
    if not isinstance(potential.model, model_class(config.model.name)):
        problems.append(Problem("model.name", f"'{path}' does not hold a model {config.model.name}"))
    if problems:
        raise ConfigError(problems)
    return potential, [f"weights, reference energies, scale and shift from '{path}'"]


def _scales(potential: Potential, frames: Frames) -> dict[str, float]:
    """The spread of every label in the training frames: what counts as an error of 1."""
    references = {z: float(potential.reference_energies[z] + potential.shift[z]) for z in potential.species}
    residual = frames.energies_per_atom(references)
    scales = {name: frames.values(name).square().mean().sqrt().item() for name in ("forces", "stress")}
    scales["energy"] = residual.std().item() if residual.numel() > 1 else math.nan
    return {name: scale if math.isfinite(scale) and scale > 1e-9 else 1.0 for name, scale in scales.items()}
