"""3BPA: a flexible molecule at three temperatures (Kovács et al. 2021, doi 10.1021/acs.jctc.1c00647; MIT)."""

from __future__ import annotations

from pathlib import Path

from equitorch.datasets.ase_files import read_ase
from equitorch.datasets.dataset import AtomDataset

_BLOCKS = {"300K": slice(0, 167), "600K": slice(167, 334), "1200K": slice(334, 500)}  # of train_mixedT
_FILES = {
    "train_300K": "train_300K.xyz",
    "train_mixedT": "train_mixedT.xyz",
    "isolated": "iso_atoms.xyz",
    "test_300K": "test_300K.xyz",
    "test_600K": "test_600K.xyz",
    "test_1200K": "test_1200K.xyz",
    "test_dihedrals": "test_dih.xyz",
    **{f"mixedT_{name}": "train_mixedT.xyz" for name in _BLOCKS},
}


def read_3bpa(root: str | Path, part: str = "train_300K") -> AtomDataset:
    """Read one part of the data set, energies in eV and forces in eV/Angstrom.

    Under ``root``, or in a folder ``dataset_3BPA`` or ``3bpa`` of it, are the published files
    ``train_300K.xyz``, ``train_mixedT.xyz``, ``iso_atoms.xyz`` and, for parts that begin with test,
    ``test_300K.xyz``, ``test_600K.xyz``, ``test_1200K.xyz`` and ``test_dih.xyz``. Published errors are those
    on the test files.

    The frames of ``train_mixedT.xyz`` are in the order of their temperature: "mixedT_300K", "mixedT_600K" and
    "mixedT_1200K" are its 167, 167 and 166. The first of these holds frames of ``train_300K.xyz`` too, which
    ``duplicates`` finds: one cannot test a model that was trained on the other.

    Args:
        root: the folder with the files; nothing is downloaded.
        part: "train_300K", "train_mixedT", "mixedT_300K", "mixedT_600K", "mixedT_1200K", "isolated" (the
            energies of the atoms alone), "test_300K", "test_600K", "test_1200K" or "test_dihedrals".

    Raises:
        ValueError: if there is no such part, its file is missing, or does not hold as many frames.
    """
    if part not in _FILES:
        raise ValueError(f"read_3bpa expects part to be one of {', '.join(_FILES)}, got {part!r}")
    root, name = Path(root), _FILES[part]
    places = (root, root / "dataset_3BPA", root / "3bpa")
    path = next((place / name for place in places if (place / name).is_file()), None)
    if path is None:
        have = sorted({p.name for place in places for p in place.glob("*.xyz")})
        raise ValueError(f"{root}: 3BPA expects {name} here, found {', '.join(have) or 'no .xyz'}")
    data = read_ase(path)
    block = _BLOCKS.get(part.removeprefix("mixedT_")) if part.startswith("mixedT_") else None
    if block is None:
        return data
    if len(data) != _BLOCKS["1200K"].stop:
        raise ValueError(f"{path}: 3BPA expects 500 frames in the order of temperature, got {len(data)}")
    return data[block]


def isolated_energies(root: str | Path) -> dict[int, float]:
    """Energies of the isolated atoms by atomic number, eV, from ``iso_atoms.xyz``.

    Raises:
        ValueError: if the file is missing.
    """
    atoms = read_3bpa(root, "isolated")
    return {int(atoms.graph(i).atomic_numbers): float(atoms.energies[i]) for i in range(len(atoms))}
