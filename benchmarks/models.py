"""Time TensorNet beside torchmd-net with the same weights; refuse to print times when the answers disagree.

``python -m benchmarks.models [--cases water501,aspirin32] [--repeats 5]`` prints a table in Markdown. Its
last column is the library as it comes, which reads edge weights from tables where that is less work; "exact"
evaluates their network. One thread; seconds of the processor, the least of several runs, so that other
programs disturb little. Both sides start from positions: neighbour lists are counted, and so are the tables
that training builds. Needs torchmd-net, an extra of this package.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import torch
from torch import Tensor

from benchmarks.systems import aspirin, water
from equitorch.graph import AtomGraph
from equitorch.interop import torchmdnet
from equitorch.layers.radial import set_tables
from equitorch.models import Potential

OPTIONS = {
    "model": "tensornet", "embedding_dimension": 128, "num_layers": 2, "num_rbf": 32, "rbf_type": "expnorm",
    "trainable_rbf": False, "activation": "silu", "cutoff_lower": 0.0, "cutoff_upper": 5.0, "max_z": 128,
    "max_num_neighbors": 128, "equivariance_invariance_group": "O(3)", "prior_model": None,
    "output_model": "Scalar", "reduce_op": "add", "derivative": True, "atom_filter": -1,
    "static_shapes": False, "precision": 32,
}  # fmt: skip
CASES: dict[str, Callable[[], list[ase.Atoms]]] = {
    "aspirin1": lambda: aspirin(1),
    "aspirin8": lambda: aspirin(8),
    "aspirin32": lambda: aspirin(32),
    "water501": lambda: [water()],
}


def peers() -> dict[str, torch.nn.Module]:
    """torchmd-net as it comes (Warp kernels), and its pure PyTorch path, with equal weights."""
    from torchmdnet.models.model import create_model

    torch.manual_seed(0)
    fast = create_model(dict(OPTIONS))
    name = "torchmdnet.models.tensornet"
    kept = sys.modules.pop(name)
    sys.modules["torchmdnet.extensions.warp_ops"] = None  # type: ignore[assignment]
    plain = importlib.import_module(name)
    importlib.import_module("torchmdnet.models").tensornet = plain
    slow = create_model(dict(OPTIONS))
    sys.modules[name] = kept
    slow.load_state_dict(fast.state_dict())
    assert fast.representation_model.opt, "its default is the Warp path"
    assert not slow.representation_model.opt, "without Warp it takes the PyTorch path"
    return {"torchmd-net": fast, "torchmd-net, PyTorch": slow}


def peer_inputs(frames: list[ase.Atoms]) -> dict[str, Tensor | None]:
    z, pos = (torch.tensor(np.concatenate([getattr(f, k) for f in frames])) for k in ("numbers", "positions"))
    batch = torch.repeat_interleave(torch.arange(len(frames)), torch.tensor([len(f) for f in frames]))
    box = torch.tensor(frames[0].cell.array, dtype=torch.float32) if frames[0].pbc.any() else None
    return {"z": z, "pos": pos.float(), "batch": batch, "box": box}


def loss_of(energy: Tensor, forces: Tensor) -> Tensor:
    return energy.square().mean() + forces.square().mean()


def peer_call(model: torch.nn.Module, frames: list[ase.Atoms], *, train: bool) -> Callable[[], Any]:
    inputs = peer_inputs(frames)

    def call() -> tuple[Tensor, Tensor]:
        model.train(train).requires_grad_(train)
        energy, forces = model(**{**inputs, "pos": inputs["pos"].clone()})
        if train:
            loss_of(energy, forces).backward()
            model.zero_grad()
        return energy.detach().flatten(), forces.detach()

    return call


def our_call(
    potential: Potential, frames: list[ase.Atoms], knots: str | None, *, train: bool
) -> Callable[[], Any]:
    weights = list(potential.parameters())

    def call() -> tuple[Tensor, Tensor]:
        set_tables(potential, knots)
        potential.train(train).requires_grad_(train)
        graph = AtomGraph.batch(
            [AtomGraph.from_ase(f, potential.cutoff, dtype=torch.float32) for f in frames]
        )
        out = potential(graph)
        if train:
            torch.autograd.backward(loss_of(out["energy"], out["forces"]), inputs=weights)
            potential.zero_grad()
        return out["energy"].detach(), out["forces"].detach()

    return call


def check(name: str, answers: dict[str, tuple[Tensor, Tensor]], atoms: int) -> None:
    """Energies per atom and forces of all agree within float32's round-off."""
    energy, forces = answers["torchmd-net, PyTorch"]
    for who, (e, f) in answers.items():
        off = (
            (e - energy).abs().max().item() / atoms,
            (f - forces).abs().max().item() / forces.abs().max().item(),
        )
        if off[0] > 2e-6 or off[1] > 2e-4:
            raise SystemExit(
                f"{name}: {who} differs by {off[0]:.1e} eV/atom, {off[1]:.1e} of the largest force"
            )


def best(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = peers()
    potential = torchmdnet.load(models["torchmd-net"].state_dict(), OPTIONS).float()
    columns = ["torchmd-net, PyTorch", "torchmd-net", "equitorch, exact", "equitorch"]
    print(f"| case | job | {' | '.join(f'{c}, ms' for c in columns)} | exact: speed-up | speed-up |")
    print("|---" * 8 + "|")
    for name in arguments.cases.split(","):
        frames = CASES[name]()
        for train in (False, True):
            calls = {who: peer_call(model, frames, train=train) for who, model in models.items()}
            calls["equitorch, exact"] = our_call(potential, frames, None, train=train)
            calls["equitorch"] = our_call(potential, frames, "auto", train=train)
            check(name, {who: call() for who, call in calls.items()}, sum(map(len, frames)))
            times = {who: best(calls[who], arguments.repeats) for who in columns}
            plain, warp = times[columns[0]], times[columns[1]]
            ratios = [f"{plain / times[c]:.1f}x / {warp / times[c]:.1f}x" for c in columns[2:]]
            row = [
                name,
                "training step" if train else "energy, forces",
                *(f"{times[c]:.0f}" for c in columns),
                *ratios,
            ]
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
