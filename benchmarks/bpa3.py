"""Errors of potentials trained on 3BPA at 300 K: on frames they have not seen, at 300, 600 and 1200 K.

``python -m benchmarks.bpa3 --root FOLDER NAME=RUN [NAME=RUN ...]`` prints a table with the published errors
beside it. FOLDER holds the files of github.com/davkovacs/BOTNet-datasets; a RUN is the folder of a training
with ``benchmarks/3bpa/config.yaml``, whose held-out frames are dealt out again by the run's own config.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch

from equitorch.datasets import AtomDataset, duplicates, read_3bpa
from equitorch.models import Potential
from equitorch.training.config import Config
from equitorch.training.splits import read_splits

PUBLISHED = {  # arXiv:2401.10216, table 2: RMSE, energy meV and force meV/Å, on test_{300K,600K,1200K}.xyz
    "ACE": ("7.1 / 27.1", "24.0 / 64.3", "85.3 / 187.0"),
    "Allegro": ("3.84 / 12.98", "12.07 / 29.17", "42.57 / 82.96"),
    "NequIP": ("3.3 / 10.8", "11.2 / 26.4", "38.5 / 76.2"),
    "BOTNet": ("3.1 / 11.0", "11.5 / 26.7", "39.1 / 81.1"),
    "MACE": ("3.0 / 8.8", "9.7 / 21.8", "29.8 / 62.0"),
    "MACE-Gaunt": ("2.9 / 9.2", "10.6 / 22.2", "30.4 / 63.1"),
}
BLOCKS = ("mixedT_600K", "mixedT_1200K")
TESTS = ("test_300K", "test_600K", "test_1200K")


def errors(potential: Potential, data: AtomDataset) -> dict[str, float]:
    """Root mean square and mean absolute errors: energy of a molecule, meV, and force components, meV/Å."""
    graphs = [data.graph(i, cutoff=potential.cutoff, dtype=potential.dtype) for i in range(len(data))]
    found = potential.predict(graphs, batch_size=10)
    energy = np.array([p["energy"] for p in found]) - data.energies
    forces = (
        np.concatenate([np.asarray(p["forces"]) for p in found])
        - torch.cat([g.forces for g in graphs if g.forces is not None]).double().numpy()
    )
    return {
        "energy_rmse": 1e3 * float(np.sqrt(np.mean(energy**2))),
        "forces_rmse": 1e3 * float(np.sqrt(np.mean(forces**2))),
        "energy_mae": 1e3 * float(np.mean(np.abs(energy))),
        "forces_mae": 1e3 * float(np.mean(np.abs(forces))),
    }


def held_out(run: Path) -> tuple[AtomDataset, AtomDataset]:
    """The frames of a run's file that trained or chose the epoch, and those that did neither."""
    config = Config.from_file(run / "config.yaml")
    splits, _ = read_splits(config.data, seed=config.train.seed)
    return AtomDataset.concatenate([splits["train"], splits["valid"]]), splits["test"]


def expect_unseen(seen: AtomDataset, name: str, data: AtomDataset) -> None:
    """Refuse to test on a frame that was trained on."""
    first = duplicates(AtomDataset.concatenate([seen, data]))[len(seen) :]
    if count := int(np.count_nonzero(first < len(seen))):
        raise ValueError(f"{count} frames of {name} are frames that the model was trained on")


def rows(run: Path, root: Path) -> dict[str, dict[str, float]]:
    """Errors of one run, by the name of what it is tested on."""
    potential = Potential.load(run)
    seen, unseen = held_out(run)
    parts = {"held out, 300 K": unseen} | {name: read_3bpa(root, name) for name in BLOCKS}
    for name in TESTS:
        try:
            parts[name] = read_3bpa(root, name)
        except ValueError:  # not everybody has the test files
            continue
    for name, data in parts.items():
        expect_unseen(seen, name, data)
    return {f"{name} ({len(data)})": errors(potential, data) for name, data in parts.items()}


def epochs(run: Path) -> int:
    """How many epochs the run took."""
    with (run / "metrics.csv").open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="also write all errors to this file")
    parser.add_argument("runs", nargs="+", help="NAME=RUN")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        name: (epochs(Path(run)), rows(Path(run), arguments.root))
        for name, _, run in (text.partition("=") for text in arguments.runs)
    }
    if arguments.json:
        arguments.json.write_text(json.dumps({name: by for name, (_, by) in found.items()}, indent=1) + "\n")
    parts = list(next(iter(found.values()))[1])
    for kind, title in (("rmse", "RMSE"), ("mae", "MAE")):
        print(f"\n{title}: energy of a molecule, meV / force component, meV/Å\n")
        print(f"| model | epochs | {' | '.join(parts)} |\n|---|---|{'---|' * len(parts)}")
        for name, (count, by) in found.items():
            cells = [f"{by[p][f'energy_{kind}']:.1f} / {by[p][f'forces_{kind}']:.1f}" for p in parts]
            print(f"| {name} | {count} | {' | '.join(cells)} |")
    print(
        "\nPublished (arXiv:2401.10216): RMSE on test_300K, test_600K and test_1200K, which are other frames"
    )
    print("\n| model | 300 K | 600 K | 1200 K |\n|---|---|---|---|")
    for name, cells in PUBLISHED.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
