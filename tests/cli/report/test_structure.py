"""Pictures: turned, never mirrored."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
from ase.build import molecule
from scipy.spatial.transform import Rotation

from equitorch.cli.report.structure import bonds, picture, superpose, view


def test_shows_the_flat_side_of_a_flat_molecule_without_a_mirror() -> None:
    turn = view(molecule("C6H6").positions)
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.isclose(np.linalg.det(turn), 1.0)
    assert abs(turn[2] @ [0, 0, 1]) > 0.8


def test_superposes_what_was_only_turned_and_moved() -> None:
    pos = molecule("CH3CH2OH").positions
    moved = Rotation.random(rng=0).apply(pos) + 3
    assert np.allclose(superpose(moved, pos), pos)
    mirrored = pos * [1, 1, -1]
    assert np.linalg.norm(superpose(mirrored, pos) - pos) > 0.05 or np.allclose(pos[:, 2].std(), 0)


def test_benzene_has_twelve_bonds() -> None:
    atoms = molecule("C6H6")
    assert len(bonds(atoms.numbers, atoms.positions)) == 12


def test_draws_every_atom_once() -> None:
    atoms = molecule("CH3CH2OH")
    root = ElementTree.fromstring(picture(atoms.numbers.tolist(), atoms.positions))
    assert len([e for e in root.iter() if e.tag.endswith("circle")]) == len(atoms)
    single = ElementTree.fromstring(picture([92], np.zeros((1, 3))))
    assert len([e for e in single.iter() if e.tag.endswith("circle")]) == 1
