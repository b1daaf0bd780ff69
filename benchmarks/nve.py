"""Measure how well a trained potential keeps the total energy: dynamics at constant energy, in float64.

``python -m benchmarks.nve RUN [--molecule aspirin] [--temperature 300] [--picoseconds 10] [--timestep 0.5]``
prints the slope of a straight line through the total energy per atom, and its fluctuation.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from equitorch import EquitorchCalculator
from equitorch.cli.dynamics import thermalize
from equitorch.datasets import load_shipped

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("--molecule", default="aspirin")
parser.add_argument("--temperature", type=float, default=300.0)
parser.add_argument("--picoseconds", type=float, default=10.0)
parser.add_argument("--timestep", type=float, default=0.5, help="fs")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()

torch.set_num_threads(1)
atoms = load_shipped(arguments.molecule).to_ase(0)
atoms.calc = EquitorchCalculator(arguments.model, dtype=torch.float64)
thermalize(atoms, arguments.temperature, arguments.seed)
dynamics = VelocityVerlet(atoms, timestep=arguments.timestep * units.fs)
times, energies, temperatures = [], [], []


def observe() -> None:
    times.append(dynamics.nsteps * arguments.timestep * 1e-3)
    energies.append(atoms.get_total_energy() / len(atoms) * 1e3)
    temperatures.append(atoms.get_temperature())


dynamics.attach(observe, interval=4)
dynamics.run(round(arguments.picoseconds * 1e3 / arguments.timestep))
slope, intercept = np.polyfit(times, energies, 1)
rest = np.array(energies) - slope * np.array(times) - intercept
print(f"{arguments.molecule}, {times[-1]:.1f} ps at {arguments.timestep} fs")
print(f"started at {arguments.temperature:.0f} K, mean temperature {np.mean(temperatures):.0f} K")
print(f"drift of the total energy {slope:+.5f} meV/atom/ps, fluctuation {rest.std():.4f} meV/atom")
