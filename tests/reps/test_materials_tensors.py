"""Tensors of materials: how many constants they have, in which irreps, and how many for each symmetry."""

import pytest
import torch

from equitorch.layers import DiagramLinear
from equitorch.reps import (
    Automorphism,
    CartesianTensor,
    ChangedBasis,
    DirectSum,
    Irreps,
    KroneckerProduct,
    Outer,
    TensorPower,
    hom_basis,
    hom_dim,
)
from tests.strategies import random

FORMULAS = {
    "strain": "ij=ji",
    "piezoelectric": "ijk=ikj",
    "photoelastic": "ijkl=jikl=ijlk",
    "elastic": "ijkl=jikl=klij",
}


def plane_and_axis(group, n, other):
    """Vectors in space under a group of the plane and another of the axis."""
    flat, upright = TensorPower(group, n, 1), TensorPower(other, 1, 1)
    flat, upright = (
        Outer(flat, TensorPower(other, 1, 0)),
        Outer(TensorPower(group, n, 0), upright),
    )
    return DirectSum((flat, upright))


def three_axes():
    one, v = TensorPower("O", 1, 0), TensorPower("O", 1, 1)
    return DirectSum(tuple(Outer(*(v if i == j else one for j in range(3))) for i in range(3)))


SYMMETRIES = {  # vectors of space, as a representation of the symmetry of the material
    "isotropic": TensorPower("O", 3, 1),
    "isotropic, chiral": TensorPower("SO", 3, 1),
    "cubic": TensorPower("B", 3, 1),
    "transversely isotropic": plane_and_axis("O", 2, "O"),
    "fibres with a direction": plane_and_axis("O", 2, "SO"),
    "tetragonal": plane_and_axis("B", 2, "O"),
    "orthorhombic": three_axes(),
    "triclinic": TensorPower(Automorphism([(0, 1, 2)]), 3, 1),
}
CONSTANTS = {  # of each tensor; tables of crystal physics (Nye, Physical Properties of Crystals)
    "strain": (1, 1, 1, 2, 2, 2, 3, 6),
    "piezoelectric": (0, 0, 0, 0, 3, 0, 0, 18),
    "photoelastic": (2, 2, 3, 6, 6, 7, 12, 36),
    "elastic": (2, 2, 3, 5, 5, 6, 9, 21),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_constants_for_each_symmetry_of_the_material(name):
    basis = CartesianTensor(FORMULAS[name]).basis.flatten(1)
    order = len(FORMULAS[name].split("=")[0])
    for (symmetry, vectors), expected in zip(SYMMETRIES.items(), CONSTANTS[name], strict=True):
        tensors = ChangedBasis(KroneckerProduct((vectors,) * order), basis)
        one = KroneckerProduct((vectors, vectors))  # the unit matrix, which every group here leaves alone
        unit = ChangedBasis(one, torch.eye(3, dtype=torch.float64).reshape(1, 9) / 3**0.5)
        assert hom_dim(unit, tensors) == len(hom_basis(unit, tensors)) == expected, symmetry


@pytest.mark.parametrize(
    ("name", "irreps", "maps"),
    [
        ("strain", "0e+2e", 2),  # to itself: the two constants of Lame
        ("piezoelectric", "2x1o+2o+3o", 6),
        ("photoelastic", "2x0e+1e+3x2e+3e+4e", 16),
        ("elastic", "2x0e+2x2e+4e", 9),
    ],
)
def test_decompose_as_published(name, irreps, maps):
    tensor = CartesianTensor(FORMULAS[name])
    assert tensor.irreps.simplify().sort().irreps == Irreps(irreps).sort().irreps
    assert tensor.dim == CONSTANTS[name][-1]
    assert hom_dim(tensor, tensor) == len(hom_basis(tensor, tensor)) == maps


def test_stress_of_an_isotropic_solid():
    """2 mu strain + lambda trace: what the layer between symmetric tensors can learn, and nothing else."""
    rep = TensorPower("O", 3, 2, symmetric=True)
    strain = random(0, 3, 3)
    strain = strain + strain.T
    stress = 2 * 0.7 * strain + 1.3 * strain.trace() * torch.eye(3, dtype=torch.float64)
    rows = [rep.basis @ matrix.reshape(9) for matrix in (strain, stress)]
    maps = hom_basis(rep, rep)
    images = (maps @ rows[0]).T
    mixed = torch.linalg.lstsq(images, rows[1][:, None], driver="gelsd").solution
    torch.testing.assert_close(images @ mixed, rows[1][:, None])
    layer = DiagramLinear(rep, rep, 1, 1, bias=False, basis="minimal")
    assert sum(weight.numel() for weight in layer.parameters()) == 2


def test_the_check_can_fail():
    """A cubic solid has one constant more than what rotations leave alone."""
    basis = CartesianTensor(FORMULAS["elastic"]).basis.flatten(1)
    counts = []
    for group in ("B", "O"):
        tensors = ChangedBasis(TensorPower(group, 3, 4), basis)
        counts.append(hom_dim(TensorPower(group, 3, 0), tensors))
    assert counts == [3, 2]
