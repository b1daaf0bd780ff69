"""The potential that training starts from: new with references that fit the data, or read from a file."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from equitorch.datasets.dataset import AtomDataset
from equitorch.datasets.reference_energies import isolated_atoms
from equitorch.models.checkpoint import model_class
from equitorch.models.elements import element_names
from equitorch.models.potential import Potential
from equitorch.training.config import Config
from equitorch.training.config_check import model_options
from equitorch.training.config_reader import ConfigError, Problem
from equitorch.training.isolated import silence_isolated_atoms
from equitorch.training.splits import energies_per_atom, find_references, label_values


def build_potential(config: Config, splits: Mapping[str, AtomDataset]) -> tuple[Potential, list[str]]:
    """The potential of a config, and notes on how its constants were found.

    ``scale`` is the root mean square of the force components times 1 Å, or the spread of the energies per
    atom where there are no forces; ``shift`` is what a fit of the references leaves of the mean energy per
    atom, and zero where they are energies of isolated atoms: to these the model then adds nothing at first.

    Raises:
        ConfigError: when the model and the data, or the model and the file it continues, do not fit.
    """
    species = sorted({z for split in splits.values() for z in split.species})
    if config.model.from_ is not None:
        return _continued(config, species)
    train = splits["train"]
    references, how, isolated = find_references(train, config.model.reference_energies, species)
    residual, forces = energies_per_atom(train, references), label_values(train, "forces")
    shift, scale = config.model.shift, config.model.scale
    if isinstance(shift, str):
        keeps, shift = isolated, float(residual.mean()) if len(residual) and not isolated else 0.0
    else:
        keeps = False
    if isinstance(scale, str):
        rest = root_mean_square(residual) if keeps else _spread(residual)
        scale = root_mean_square(forces) or rest or 1.0
    measured = _measured(config, train, species)
    model = model_class(config.model.name)(**config.model.options | measured)
    _check_species(model, species)
    potential = Potential(model, species=species, reference_energies=references, scale=scale, shift=shift)
    notes = [how]
    if keeps:
        silence_isolated_atoms(potential)
        notes.append(_kept(train, species))
    notes += [
        f"{name}: {value:g} in the training frames"
        for name, value in measured.items()
        if isinstance(value, float)
    ]
    return potential, notes


def _measured(config: Config, train: AtomDataset, species: Sequence[int]) -> dict[str, float | list[int]]:
    """Keywords of the model that are facts of the data and were left open: elements, mean neighbours.

    Neighbours of up to a hundred frames, to four digits.
    """
    options = model_options(config.model.name) | config.model.options
    open_ = {name for name in ("elements", "average_neighbors") if options.get(name, "") is None}
    found: dict[str, float | list[int]] = {"elements": list(species)} if "elements" in open_ else {}
    if "average_neighbors" not in open_:
        return found
    some = range(0, len(train), -(-len(train) // 100))
    graphs = [train.graph(i, cutoff=options["cutoff"]) for i in some]
    mean = sum(graph.num_edges for graph in graphs) / sum(graph.num_atoms for graph in graphs)
    return found | ({"average_neighbors": float(f"{mean:.4g}")} if mean > 0 else {})


def _kept(train: AtomDataset, species: Sequence[int]) -> str:
    """What becomes of the energies of isolated atoms: only those that are trained on stay."""
    note = "shift 0: energies of isolated atoms are kept"
    seen = train.subset(np.flatnonzero(isolated_atoms(train) & ~np.isnan(train.energies)))
    unseen = [z for z in species if not len(seen) or z not in seen.species]
    return (
        note
        if not unseen
        else f"{note} at the start; no training frame holds that of {element_names(unseen)}"
    )


def root_mean_square(values: np.ndarray) -> float:
    """The root of the mean square; 0 of nothing.

    >>> root_mean_square(np.array([3.0, -4.0]))
    3.5355339059327378
    """
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0


def _spread(values: np.ndarray) -> float:
    return root_mean_square(values - values.mean()) if len(values) else 0.0


def _check_species(model: nn.Module, species: Sequence[int]) -> None:
    options = getattr(model, "options", {})
    limit, named = options.get("max_z", math.inf), options.get("elements")
    if named is not None and not set(species) <= set(named):
        message = f"the data have {element_names(species)}, the model has weights for {element_names(named)}"
        raise ConfigError([Problem("model.elements", message)])
    if named is None and species[-1] >= limit:
        message = f"the data have element {species[-1]}, the table of the model ends at {limit - 1}"
        raise ConfigError([Problem("model.max_z", message)])


def _continued(config: Config, species: Sequence[int]) -> tuple[Potential, list[str]]:
    """A potential from a file, whose weights, references and scale go on; settings must agree."""
    path = str(config.model.from_)
    potential = Potential.load(path)
    options = json.loads(json.dumps(getattr(potential.model, "options", {})))
    problems = [
        Problem(f"model.{name}", f"is {options.get(name)!r} in '{path}', got {value!r}; leave it out")
        for name, value in config.model.options.items()
        if options.get(name) != value and not (name in ("average_neighbors", "elements") and value is None)
    ]
    unknown = sorted(set(species) - set(potential.species))
    if unknown:
        problems.append(Problem("model.from", f"'{path}' does not know the elements {unknown} of the data"))
    if not isinstance(potential.model, model_class(config.model.name)):
        problems.append(Problem("model.name", f"'{path}' does not hold a model {config.model.name}"))
    if problems:
        raise ConfigError(problems)
    return potential, [f"weights, reference energies, scale and shift from '{path}'"]
