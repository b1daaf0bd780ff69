"""equitorch/reps/tensor_power.py and matrix_groups.py"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Automorphism, CartesianTensor, Irreps, Outer, Rep, TensorPower, invariants
from equitorch.reps.matrix_groups import MatrixGroup
from equitorch.reps.tensor_power import defining_dim
from equitorch.testing import assert_equivariant, random_elements, symplectic_form, transform
from tests.strategies import random, seeds

SQUARE = Automorphism([(1, 2, 3, 0), (0, 3, 2, 1)])
GROUPS = [
    ("S", 4),
    ("S", 1),
    ("A", 4),
    ("A", 2),
    ("B", 3),
    ("O", 3),
    ("O", 4),
    ("SO", 2),
    ("SO", 3),
    ("Sp", 4),
    ("O(1,2)", 3),
    ("SO(2,1)", 3),
    ("O(2,2)", 4),
    (SQUARE, 4),
]
groups = st.sampled_from(GROUPS)


@given(groups, st.integers(0, 3), st.booleans(), seeds)
def test_is_a_representation(group, order, symmetric, seed):
    rep = TensorPower(*group, order, symmetric=symmetric)
    assert isinstance(rep, Rep)
    generator = torch.Generator().manual_seed(seed)
    g, h = (random_elements(rep.group, generator)[-1] for _ in range(2))
    product = rep.matrix(g) @ rep.matrix(h)
    torch.testing.assert_close(product, rep.matrix(g @ h), atol=1e-9, rtol=1e-9)
    assert product.shape == (rep.dim, rep.dim)
    x = random(seed, 2, rep.dim, 3)
    torch.testing.assert_close(rep.act(g, x), rep.matrix(g) @ x, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(transform(rep, g, x), rep.matrix(g) @ x, atol=1e-10, rtol=1e-10)


@given(groups, st.integers(0, 3), st.booleans())
def test_generators_are_those_of_its_matrices(group, order, symmetric):
    """Lie generators are derivatives at the identity; generators leave the form of the group alone."""
    rep = TensorPower(*group, order, symmetric=symmetric)
    one = TensorPower(*group, 1)
    form = rep.matrix_group.form
    for g in one.discrete_generators():
        torch.testing.assert_close(g.T @ form @ g, form)
    torch.testing.assert_close(rep.discrete_generators(), rep.matrix(one.discrete_generators()))
    for small, large in zip(one.lie_generators(), rep.lie_generators(), strict=True):
        torch.testing.assert_close(small.T @ form + form @ small, torch.zeros_like(form))
        grown = torch.matrix_exp(0.3 * large)
        torch.testing.assert_close(grown, rep.matrix(torch.matrix_exp(0.3 * small)), atol=1e-9, rtol=1e-9)


def test_generators_make_the_whole_group():
    """As many invariant tensors as published; fewer generators would leave more alone."""
    counts = {
        ("S", 4): [1, 1, 2, 5],
        ("A", 4): [1, 1, 2, 6],
        ("B", 3): [1, 0, 1, 0],
        ("O", 3): [1, 0, 1, 0],
        ("SO", 3): [1, 0, 1, 1],
        ("SO", 2): [1, 0, 2, 0],
        ("O(1,2)", 3): [1, 0, 1, 0],
        ("SO(2,1)", 3): [1, 0, 1, 1],
        ("Sp", 4): [1, 0, 1, 0],
        (SQUARE, 4): [1, 1, 3, 10],
    }
    for group, expected in counts.items():
        assert [len(invariants(TensorPower(*group, m))) for m in range(4)] == expected


def test_vectors_in_space_are_those_of_irreps():
    """Generators in the order of irreps, so that the two kinds meet in one layer."""
    for group, name in (("O", "1o"), ("SO", "1")):
        power, irrep = TensorPower(group, 3, 1), Irreps(name)
        assert power.group == irrep.group
        torch.testing.assert_close(power.lie_generators(), irrep.lie_generators())
        torch.testing.assert_close(power.discrete_generators(), irrep.discrete_generators())


@pytest.mark.parametrize(
    ("order", "irreps"),
    [
        (0, "0e"),
        (1, "1o"),
        (2, "0e+1e+2e"),
        (3, "0o+3x1o+2x2o+3o"),
        (4, "3x0e+6x1e+6x2e+3x3e+4e"),
    ],
)
def test_decomposes_into_irreps(order, irreps):
    """Multiplicities from characters; matrices become those of the irreps."""
    for group in ("O", "SO"):
        rep = TensorPower(group, 3, order)
        expected = Irreps(irreps) if group == "O" else Irreps(irreps).without_parity()
        assert rep.irreps.simplify() == expected.simplify()
        q = rep.change_of_basis
        torch.testing.assert_close(q @ q.T, torch.eye(rep.dim, dtype=torch.float64))
        for g in random_elements(rep.group, torch.Generator().manual_seed(0)):
            torch.testing.assert_close(q @ rep.matrix(g) @ q.T, rep.irreps.matrix(g), atol=1e-9, rtol=0)


def test_change_of_basis_is_that_of_e3nn():
    """Written out: trace, antisymmetric part, symmetric traceless part in e3nn's order and signs."""
    x = random(0, 3, 3)
    t, a = x.trace() / 3**0.5, x - x.T
    s = x + x.T
    expected = [t, a[1, 2], a[2, 0], a[0, 1], s[0, 2], s[0, 1]]
    expected += [(2 * x[1, 1] - x[0, 0] - x[2, 2]) / 3**0.5, s[1, 2], x[2, 2] - x[0, 0]]
    expected = torch.stack(expected) / torch.tensor([1] + [2**0.5] * 8, dtype=torch.float64)
    torch.testing.assert_close(TensorPower("O", 3, 2).change_of_basis @ x.flatten(), expected)


def test_symmetric_tensors_have_the_rows_of_cartesian_ones():
    for order, formula in ((2, "ij=ji"), (3, "ijk=jik=ikj")):
        ours, other = TensorPower("O", 3, order, symmetric=True), CartesianTensor(formula)
        torch.testing.assert_close(ours.basis, other.basis.flatten(1))
        assert ours.irreps == other.irreps
    assert TensorPower("S", 4, 1, symmetric=True) == TensorPower("S", 4, 1)


def test_forms_of_the_symplectic_group():
    block, interleaved = TensorPower("Sp", 4, 1), TensorPower("Sp", 4, 1, form="interleaved")
    torch.testing.assert_close(block.matrix_group.form, symplectic_form(4))
    assert (block.group, interleaved.group) == ("Sp(4)", "Sp(4,interleaved)")
    order = [0, 2, 1, 3]  # block row a r + i is interleaved row 2 i + a
    torch.testing.assert_close(interleaved.matrix_group.form[order][:, order], symplectic_form(4))


def test_products_of_groups():
    molecule = Outer(TensorPower("S", 3, 1), TensorPower("O", 3, 1))
    assert (molecule.group, molecule.dim, defining_dim(molecule.group)) == ("S(3) x O(3)", 9, 6)
    assert isinstance(molecule, Rep)
    elements = random_elements(molecule.group, torch.Generator().manual_seed(0))
    assert len(elements) == 6
    x = random(0, 3, 3)  # three points in space
    for g in elements:
        moved = g[:3, :3] @ x @ g[3:, 3:].T
        torch.testing.assert_close(molecule.matrix(g) @ x.flatten(), moved.flatten())
    assert_equivariant(lambda x: x * x.norm(dim=-2, keepdim=True), [molecule], molecule)
    assert len(molecule.lie_generators()) == 3
    assert len(molecule.discrete_generators()) == 3


def test_equivariance_can_be_asked_of_functions():
    power = TensorPower("S", 3, 2)
    assert_equivariant(torch.exp, [power], power)
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(torch.exp, [TensorPower("O", 3, 2)], TensorPower("O", 3, 2))


def test_is_a_value():
    assert TensorPower("O(1,3)", 4, 2) == TensorPower("O(1,3)", 4, 2) != TensorPower("O", 4, 2)
    assert len({TensorPower(SQUARE, 4, 1), TensorPower(Automorphism(SQUARE.generators), 4, 1)}) == 1
    assert Outer(TensorPower("S", 2, 1)) == Outer(TensorPower("S", 2, 1))
    for symbol in ("S(5)", "A(4)", "B(3)", "O(1,3)", "SO(2,1)", "Sp(4)", "Sp(4,interleaved)", SQUARE.symbol):
        assert MatrixGroup.of_symbol(symbol).symbol == symbol
        assert TensorPower(symbol, MatrixGroup.of_symbol(symbol).n, np.int64(2)).group == symbol
    with torch.device("meta"):
        reps = [TensorPower(*group, 2, symmetric=True) for group in GROUPS]
        made = [t for rep in reps for t in (rep.lie_generators(), rep.discrete_generators(), rep.basis)]
    assert {tensor.device.type for tensor in made} == {"cpu"}


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"expects a group S, A, B .* got 'GL'"):
        TensorPower("GL", 3, 1)
    with pytest.raises(ValueError, match=r"O\(1,3\) acts on n = 4 dimensions, got 3"):
        TensorPower("O(1,3)", 3, 1)
    with pytest.raises(ValueError, match="Sp expects an even n and a form block or interleaved, got n = 3"):
        TensorPower("Sp", 3, 1)
    with pytest.raises(ValueError, match="S acts on n = 1 or more dimensions, got 0"):
        TensorPower("S", 0, 1)
    with pytest.raises(ValueError, match=r"expects a whole number of dimensions, got n = 3\.0"):
        TensorPower("S", 3.0, 1)
    with pytest.raises(ValueError, match=r"or an Automorphism\(graph\), got array"):
        TensorPower(np.eye(2), 2, 1)
    with pytest.raises(ValueError, match="expects an order of 0 or more, got -1"):
        TensorPower("S", 3, -1)
    with pytest.raises(ValueError, match=r"features of shape \(\.\.\., 9, channels\), got \(8, 2\)"):
        TensorPower("S", 3, 2).act(torch.eye(3), torch.ones(8, 2))
    with pytest.raises(ValueError, match=r"only tensors of O\(3\) and SO\(3\) decompose"):
        _ = TensorPower("S", 3, 2).irreps
    with pytest.raises(ValueError, match="Outer expects a representation of each group, got none"):
        Outer()
    with pytest.raises(ValueError, match=r"O\(0,3\) has no axis of positive square; write O\(3\)"):
        TensorPower("O(0,3)", 3, 1)
