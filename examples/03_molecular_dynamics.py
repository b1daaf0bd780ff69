"""Run dynamics at constant energy with ASE and watch that the energy stays.

``python examples/03_molecular_dynamics.py runs/ethanol [--steps 2000]`` takes a run, or a model file.
"""

import argparse

from ase import units
from ase.md.verlet import VelocityVerlet

from equitorch import EquitorchCalculator
from equitorch.cli.dynamics import thermalize
from equitorch.datasets import load_shipped

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("--molecule", default="ethanol")
parser.add_argument("--steps", type=int, default=2000)
arguments = parser.parse_args()

atoms = load_shipped(arguments.molecule).to_ase(0)
atoms.calc = EquitorchCalculator(arguments.model)
thermalize(atoms, 300)

dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
start = atoms.get_total_energy()
for _ in range(10):
    dynamics.run(arguments.steps // 10)
    drift = (atoms.get_total_energy() - start) / len(atoms) * 1e3
    print(f"{dynamics.nsteps:6d} steps  {atoms.get_temperature():5.0f} K  total energy {drift:+.3f} meV/atom")
