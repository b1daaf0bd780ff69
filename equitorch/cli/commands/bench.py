"""`equitorch bench`: how long energy and forces take, with the kernels and without."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli import failure, screen
from equitorch.cli.failure import UserError
from equitorch.cli.files import RunPath, read_structures
from equitorch.cli.screen import field, listing, number, plural, table

if TYPE_CHECKING:
    from ase import Atoms


def _structure(run: RunPath, start: Path | None) -> Atoms:
    """Return the structure to time: the user's, or the first that the run was evaluated on."""
    from equitorch.cli.predictions import Predictions

    if start is not None:
        return read_structures(start, "0")[0]
    files = sorted((run.folder / "predictions").glob("*.npz"))
    if not files:
        raise UserError(
            f"'{run.folder}' was evaluated on nothing yet: name a structure, equitorch bench RUN START"
        )
    return Predictions.load(files[0]).atoms(0)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UserError(f"--sizes: expected positive integers such as 1,8,32, got '{text}'")
    return sizes


BUDGET = 1.0  # seconds per row


def median_seconds(call: Callable[[], object]) -> float:
    """Return the median time of a call, repeated for about a second after one warm-up."""
    call()
    times: list[float] = []
    while not times or (sum(times) < BUDGET and len(times) < 50):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def run(path: Path, start: Path | None, sizes: str) -> int:
    """Time the model and print a table."""
    import torch

    from equitorch.graph import AtomGraph
    from equitorch.ops.backend import use_reference

    wanted = _sizes(sizes)
    found = RunPath.of(path)
    failure.logs_to(found.folder)
    potential, atoms = found.load(), _structure(found, start)
    if torch.cuda.is_available():
        potential = potential.cuda()
    screen.banner()
    listing(
        "Timing",
        [
            "energy + forces",
            f"{atoms.get_chemical_formula()}, {plural(len(atoms), 'atom')}",
            str(potential.dtype),
        ],
    )
    one = AtomGraph.from_ase(atoms, potential.cutoff, labels=False)
    rows = []
    for n in wanted:
        graph = AtomGraph.batch([one] * n).to(potential.device, potential.dtype)

        def step(graph: AtomGraph = graph) -> None:
            potential(graph)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        fast = median_seconds(step)
        with use_reference():
            slow = median_seconds(step)
        rate = f"{n * len(atoms) / fast:,.0f}".replace(",", " ")
        counts = [f"x{n}", str(graph.num_atoms), str(graph.num_edges)]
        rows.append([*counts, number(fast * 1e3), rate, number(slow * 1e3), f"{slow / fast:.2f}"])
    table(["copies", "atoms", "edges", "ms/step", "atoms/s", "reference ms", "ratio"], rows)
    field("Note", "reference: the same model by plain PyTorch, without fused kernels")
    return failure.OK
