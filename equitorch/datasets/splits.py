"""Which frames train, validate and test: deterministic, trajectories and duplicates kept together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from equitorch.datasets.dataset import AtomDataset

_FEW = 5  # groups; with fewer, what is held out would differ in kind from what is trained on


class Split(NamedTuple):
    """Frames of a data set in disjoint parts, counted within the data set, and how they were chosen."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    note: str = ""


def split(
    dataset: AtomDataset,
    *,
    valid: float | int = 0.1,
    test: float | int = 0.0,
    seed: int = 0,
    by: str = "auto",
) -> Split:
    """Divide a data set.

    Whole groups (trajectories, kinds of configuration) go to one part each. With ``by="auto"`` this is done
    where there are five groups or more and it meets the wanted sizes within a half, else frames are drawn one
    by one. Frames that are the same
    structure always stay together.

    Args:
        dataset: what is divided.
        valid: how many frames, or which share of them if below 1.
        test: likewise.
        seed: of the draw.
        by: "group", "frame" or "auto".

    Raises:
        ValueError: if nothing would be left to train on, or ``by`` is none of these.

    >>> import ase
    >>> runs = [ase.Atoms("H2", [[0, 0, 0], [0, 0, 1 + k]], info={"group": k % 5}) for k in range(20)]
    >>> parts = split(AtomDataset.from_ase(runs), valid=0.2)
    >>> len(parts.train), len(set((parts.valid % 5).tolist()))
    (16, 1)
    """
    if by not in ("auto", "group", "frame"):
        raise ValueError(f"split expects by='auto', 'group' or 'frame', got {by!r}")
    total = len(dataset)
    wanted = [_count(share, total, name) for share, name in ((valid, "valid"), (test, "test"))]
    if sum(wanted) >= total:
        raise ValueError(
            f"split expects frames left to train on, got {wanted[0]} + {wanted[1]} of {total} held out"
        )
    same = duplicates(dataset)
    group = np.unique(np.array(dataset.groups), return_inverse=True)[1]
    if by == "group" or (by == "auto" and len(np.unique(group)) >= _FEW):
        bundle = _join(same, group)
        parts = _draw(bundle, wanted, seed)
        if by == "group" or all(_near(len(p), w) for p, w in zip(parts[1:], wanted, strict=True)):
            count = len(np.unique(group))
            return Split(
                parts[0], parts[1], parts[2], f"{count} groups (trajectories, kinds) whole, seed {seed}"
            )
    parts = _draw(same, wanted, seed)
    return Split(parts[0], parts[1], parts[2], f"frames drawn one by one, duplicates together, seed {seed}")


def duplicates(dataset: AtomDataset, *, tolerance: float = 1e-5) -> np.ndarray:
    """(frames,): the first frame that is the same structure (Angstrom; same order of atoms, same charge)."""
    first: dict[tuple[bytes, ...], int] = {}
    owner = np.empty(len(dataset), dtype=np.int64)
    columns, ptr = dataset.frames.columns, dataset.frames.ptr
    for index, frame in enumerate(dataset.indices):
        atoms = slice(ptr[frame], ptr[frame + 1])
        pos = columns["pos"][atoms]
        shape = np.concatenate([pos - pos[:1], columns["cell"][frame]])
        key = (
            columns["atomic_numbers"][atoms].tobytes(),
            (np.rint(shape / tolerance).astype(np.int64)).tobytes(),
            columns["pbc"][frame].tobytes(),
            columns["charge"][frame].tobytes(),
        )
        owner[index] = first.setdefault(key, index)
    return owner


def _count(share: float | int, total: int, name: str) -> int:
    """How many frames a share or a number means."""
    count = round(share * total) if isinstance(share, float) and share < 1 else int(share)
    if share < 0 or count != round(count):
        raise ValueError(f"split expects {name} as a share below 1 or a number of frames, got {share!r}")
    return max(count, 1) if share > 0 else 0


def _near(got: int, wanted: int) -> bool:
    """Whether a part has about the wanted size."""
    return wanted / 2 <= got <= 1.5 * wanted if wanted else got == 0


def _join(same: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Bundles that contain whole groups and every duplicate of their frames."""
    label = {g: int(g) for g in np.unique(group)}

    def root(g: int) -> int:
        while label[g] != g:
            g = label[g]
        return g

    for index, original in enumerate(same):
        a, b = root(group[index]), root(group[original])
        label[max(a, b)] = min(a, b)
    return np.array([root(g) for g in group])


def _draw(bundle: np.ndarray, wanted: Sequence[int], seed: int) -> list[np.ndarray]:
    """Train and the held-out parts, made of whole bundles taken in a random order where they fit."""
    members: dict[int, list[int]] = {}
    for index, name in enumerate(bundle.tolist()):
        members.setdefault(name, []).append(index)
    order = np.random.default_rng(seed).permutation(sorted(members)).tolist()
    parts = []
    for count in wanted:
        part: list[int] = []
        for name in list(order):
            rest = count - len(part)
            if rest > 0 and len(members[name]) <= 1.5 * rest and len(order) > 1:
                part += members[name]
                order.remove(name)
        parts.append(np.array(sorted(part), dtype=np.int64))
    left = [index for name in order for index in members[name]]
    return [np.array(sorted(left), dtype=np.int64), *parts]
