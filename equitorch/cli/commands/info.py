"""`equitorch info`: the header of a model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from equitorch.cli import failure
from equitorch.cli.files import RunPath
from equitorch.cli.screen import count, field, listing, number


def _energies(table: dict[str, Any]) -> list[str]:
    from ase.data import chemical_symbols

    return [f"{chemical_symbols[int(z)]} {number(float(e), 6)}" for z, e in table.items()]


def run(path: Path) -> int:
    """Print what the file says, without building the model."""
    from ase.data import chemical_symbols

    from equitorch.models.checkpoint import read_header

    found = RunPath.of(path)
    header = read_header(found.model)
    size = found.model.stat().st_size
    field("File", f"{found.model}  ({size / 1e6:.2f} MB, format {header['format']}, weights only, no code)")
    options = {k: v for k, v in header["options"].items() if k != "cutoff"}
    facts = [
        str(header["model"]),
        f"{count(int(header['parameters']))} parameters",
        str(header["dtype"]),
        f"cutoff {header['cutoff']:g} Å",
    ]
    listing("Model", facts)
    listing(
        "Options", [f"{k} {json.dumps(v) if isinstance(v, bool | None) else v}" for k, v in options.items()]
    )
    listing("Elements", [chemical_symbols[int(z)] for z in header["species"]])
    listing("E0 (eV)", _energies(header["reference_energies"]))
    listing("Units", [f"{k} {v}" for k, v in header["units"].items()])
    metrics = (header.get("metadata") or {}).get("metrics") or {}
    if metrics:
        pairs = (("valid_energy_mae", 1e3, "meV/atom"), ("valid_forces_mae", 1e3, "meV/Å"))
        told = [f"epoch {metrics['epoch']}"] if "epoch" in metrics else []
        listing(
            "Valid",
            told
            + [
                f"{key.split('_')[1]} MAE {number(metrics[key] * f)} {u}"
                for key, f, u in pairs
                if metrics.get(key) is not None
            ],
        )
    card = found.folder / "health.json"
    if card.is_file():
        listing(
            "Health",
            [
                c["short"] + (" ✓" if c["passed"] else " ✗")
                for c in json.loads(card.read_text(encoding="utf-8"))["checks"]
            ],
        )
    versions = header.get("versions") or {}
    listing("Versions", [f"equitorch {header['library']}", *(f"{k} {v}" for k, v in versions.items())])
    field("Data", f"sha256 {header['data_hash'] or 'not recorded'}")
    field("sha256", f"{header['sha256']}")
    return failure.OK
