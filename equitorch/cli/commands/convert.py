"""`equitorch convert`: a foreign checkpoint into a model file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equitorch.cli import failure, screen
from equitorch.cli.failure import UserError, existing
from equitorch.cli.screen import count, field


def run(source: Path, output: Path, config: Path | None, unsafe_pickle: bool) -> int:
    """Read a checkpoint of fairchem and write its potential.

    Raises:
        UserError: if a file is missing, the output exists or is no ``.eqt``, or classes are not installed.
        ValueError: if the checkpoint cannot be read safely, or its model has no counterpart here.
    """
    from equitorch.interop import fairchem

    existing(source, "checkpoint")
    if config is not None:
        existing(config, "config")
    if output.suffix != ".eqt":
        raise UserError(f"OUT: expected a file name that ends in .eqt, got '{output}'")
    if output.exists():
        raise UserError(f"'{output}' exists; choose another name")
    potential = fairchem.load_potential(_unpickled(source) if unsafe_pickle else source, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    potential.save(output, metadata={"converted_from": source.name})
    parameters = sum(p.numel() for p in potential.model.parameters())
    field("Model", f"{type(potential.model).__name__}  {count(parameters)} parameters, as published")
    field("Wrote", str(output))
    field("Next", f"equitorch info {shlex.quote(str(output))}")
    return failure.OK


def _unpickled(path: Path) -> Mapping[str, Any]:
    """What a checkpoint holds; reading it may run any code. The only place that does so."""
    import torch

    screen.warn(f"--unsafe-pickle: reading '{path}' runs whatever code it holds, with all your rights")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"'{path}' needs a package that is not installed: {error}; convert it where it is"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"'{path}' holds a {type(content).__name__}, expected the entries of a checkpoint")
    return content
