"""Learn ethanol's energies and forces from the molecules that come with the library, and use the result.

``python examples/01_train_a_potential.py [--epochs 30] [--output runs/ethanol]``
"""

import argparse

import equitorch
from equitorch.datasets import load_shipped

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--output", default="runs/ethanol")
arguments = parser.parse_args()

run = equitorch.train(
    {
        "data": {"train": "shipped:ethanol", "valid": "10%", "test": "10%"},
        "model": {"name": "tensornet", "channels": 32, "layers": 1, "radial": 16, "cutoff": 4.5},
        "train": {"epochs": arguments.epochs, "batch": 8, "lr": 3e-3},
        "output": arguments.output,
    }
)
print(f"{len(run.history)} epochs, {run.status}; the model is in {run.path}")

potential = equitorch.load(run.path)
frames = load_shipped("ethanol")
[prediction] = potential.predict([frames.to_ase(0)])
label = frames[0]
print(f"energy {prediction['energy']:.3f} eV, GFN2-xTB {label.energy.item():.3f} eV")
print(f"largest error of a force {abs(prediction['forces'] - label.forces.numpy()).max() * 1e3:.0f} meV/Å")
