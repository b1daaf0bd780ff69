"""From what users name to what commands need: run folders, models, structures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli.failure import UserError, existing

if TYPE_CHECKING:
    from ase import Atoms

    from equitorch.models import Potential


@dataclass(frozen=True)
class RunPath:
    """A run folder and the model in it; a bare model file stands for the folder it lies in."""

    folder: Path
    model: Path

    @classmethod
    def of(cls, path: Path) -> RunPath:
        """Find the model that a path means.

        Raises:
            UserError: if there is none; the message names what is there instead.
        """
        path = existing(path, "run")
        if path.is_file():
            if path.suffix not in (".eqt", ".safetensors"):
                raise UserError(f"'{path}' is no run: name the folder of a training, or a model file (.eqt)")
            return cls(path.parent, path)
        if (path / "model.eqt").is_file():
            return cls(path, path / "model.eqt")
        inner = sorted(p.parent.name for p in path.glob("*/model.eqt"))
        hint = (
            f"; there are runs inside it: {', '.join(inner[:5])}"
            if inner
            else "; did its training finish an epoch?"
        )
        raise UserError(f"run '{path}' has no model.eqt{hint}")

    def load(self, dtype: str | None = None) -> Potential:
        """Read the potential, as it was saved or in the dtype named."""
        import torch

        from equitorch.models import Potential

        kinds = {"float32": torch.float32, "float64": torch.float64, None: None}
        if dtype not in kinds:
            raise UserError(f"--dtype: expected float32 or float64, got '{dtype}'")
        return Potential.load(self.model, dtype=kinds[dtype]).eval()


def read_structures(path: Path, index: str = ":") -> list[Atoms]:
    """Read structures: with ASE, or those of a data set in an ``.npz`` file.

    Args:
        path: the file.
        index: which of them: ``":"`` for all, or the number of one.

    Raises:
        UserError: naming the file, if it is missing, empty or in no format that is known.
    """
    from ase.io import read
    from ase.io.formats import UnknownFileTypeError

    path = existing(path, "structure file")
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; expected a file with structures")
    if path.suffix == ".npz":
        return _read_npz(path, index)
    try:
        found = read(path, index=index)
    except UnknownFileTypeError as error:
        raise UserError(
            f"'{path}': ASE does not know this kind of file ({error}); e.g. .xyz, .cif, POSCAR work"
        ) from error
    except Exception as error:  # readers raise whatever they meet: IndexError, KeyError, struct.error, ...
        raise UserError(f"'{path}' cannot be read as structures: {type(error).__name__}: {error}") from error
    frames = found if isinstance(found, list) else [found]
    if not frames or not len(frames[0]):
        raise UserError(f"'{path}' holds no atoms")
    return frames


def _read_npz(path: Path, index: str) -> list[Atoms]:
    from equitorch.datasets import open_dataset

    try:
        data = open_dataset(path)
    except Exception as error:  # any archive may be named so
        raise UserError(
            f"'{path}' cannot be read as structures: {error}; write the frame you mean to an .xyz file"
        ) from error
    chosen = range(len(data)) if index == ":" else [range(len(data))[int(index)]]
    return [data.to_ase(i) for i in chosen]


def output_folder(run: RunPath, name: str) -> Path:
    """Create a folder inside the run for what a command writes."""
    folder = run.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_name(folder: Path, stem: str, suffix: str) -> str:
    """Return the stem, or the stem with the next number, so that no earlier result is overwritten.

    >>> free_name(Path("/nowhere"), "nvt_300K", ".csv")
    'nvt_300K'
    """
    name, k = stem, 2
    while (folder / f"{name}{suffix}").exists():
        name, k = f"{stem}_{k}", k + 1
    return name
