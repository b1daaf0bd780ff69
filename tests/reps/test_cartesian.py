"""equitorch/reps/cartesian.py"""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import CartesianTensor, Irreps
from equitorch.testing import assert_equivariant, random_orthogonal
from tests.strategies import seeds

FORMULAS = [
    "i",
    "ij",
    "ij=ji",
    "ij=-ji",
    "ijk",
    "ijk=jik",
    "ijk=-jik=-ikj",
    "ijk=jki",
    "ijkl=jikl=klij",
    "ijkl=jikl=ijlk",
]
formulas = st.sampled_from(FORMULAS)


def turned(g, tensor, rank):
    for axis in range(rank):
        tensor = torch.tensordot(g, tensor, dims=([1], [axis])).movedim(0, axis)
    return tensor


@pytest.mark.parametrize(
    ("formula", "irreps", "dim"),
    [
        ("i", "1o", 3),
        ("ij", "0e+1e+2e", 9),
        ("ij=ji", "0e+2e", 6),
        ("ij=-ji", "1e", 3),
        ("ijk", "0o+3x1o+2x2o+3o", 27),
        ("ijk=jik=ikj", "1o+3o", 10),
        ("ijk=jik", "2x1o+2o+3o", 18),
        ("ijkl", "3x0e+6x1e+6x2e+3x3e+4e", 81),
        ("ijkl=jikl=klij", "2x0e+2x2e+4e", 21),
        ("ijkl=jikl=ijlk=ikjl", "0e+2e+4e", 15),
    ],
)
def test_decompositions_of_the_textbooks(formula, irreps, dim):
    tensor = CartesianTensor(formula)
    assert tensor.irreps == Irreps(irreps)
    assert tensor.dim == dim == tensor.irreps.dim


def test_a_symmetric_matrix_in_e3nn_order():
    """Written out: trace, then xz, xy, the polar axis y, yz, and the difference of the last two axes."""
    t = torch.tensor([[1.0, 2.0, 3.0], [2.0, 5.0, 6.0], [3.0, 6.0, 9.0]], dtype=torch.float64)
    expected = torch.tensor(
        [15 / 3**0.5, 3 * 2**0.5, 2 * 2**0.5, (2 * 5 - 1 - 9) / 6**0.5, 6 * 2**0.5, (9 - 1) / 2**0.5],
        dtype=torch.float64,
    )
    torch.testing.assert_close(CartesianTensor("ij=ji").to_irreps(t), expected)


def test_an_antisymmetric_matrix_is_an_axial_vector():
    """(yz - zy, zx - xz, xy - yx) / sqrt2: the cross product of the two vectors of an outer product."""
    a, b = torch.randn(2, 3, dtype=torch.float64)
    rows = CartesianTensor("ij=-ji").to_irreps(torch.outer(a, b))
    torch.testing.assert_close(rows, torch.linalg.cross(a, b) / 2**0.5)


@pytest.mark.parametrize("formula", FORMULAS)
def test_is_the_basis_of_e3nn(formula):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        io = pytest.importorskip("e3nn.io", reason="e3nn is not installed")
        theirs = io.CartesianTensor(formula)
        basis = theirs.reduced_tensor_products().change_of_basis
    ours = CartesianTensor(formula)
    assert repr(ours.irreps) == repr(theirs)
    torch.testing.assert_close(ours.irreps_basis.float(), basis, atol=2e-6, rtol=0)


@given(formulas, st.booleans(), seeds)
def test_turns_index_by_index(formula, pseudo, seed):
    """Against the definition of a tensor: every index turns by g."""
    rep = CartesianTensor(formula, pseudo=pseudo)
    generator = torch.Generator().manual_seed(seed)
    g = random_orthogonal(generator=generator)
    rows = torch.randn(rep.dim, dtype=torch.float64, generator=generator)
    expected = turned(g, rep.from_rows(rows), rep.rank) * (torch.linalg.det(g) if pseudo else 1)
    torch.testing.assert_close(rep.from_rows(rep.matrix(g) @ rows), expected)
    irreps_rows = rep.irreps.matrix(g) @ rep.to_irreps(rep.from_rows(rows))
    torch.testing.assert_close(rep.from_irreps(irreps_rows), expected)


@given(formulas, st.booleans(), st.sampled_from(["O(3)", "SO(3)"]), seeds)
def test_the_change_of_basis_is_equivariant(formula, pseudo, group, seed):
    rep = CartesianTensor(formula, pseudo=pseudo, group=group)
    assert rep.irreps.group == group
    assert_equivariant(lambda x: rep.change_of_basis @ x, [rep], rep.irreps, seed=seed)
    Q = rep.change_of_basis
    torch.testing.assert_close(Q @ Q.T, torch.eye(rep.dim, dtype=torch.float64))


@given(formulas, seeds)
def test_goes_there_and_back(formula, seed):
    rep = CartesianTensor(formula)
    x = torch.randn(2, rep.dim, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for to, back in ((rep.to_irreps, rep.from_irreps), (rep.to_rows, rep.from_rows)):
        tensor = back(x, channels=True)
        assert tensor.shape == (2, *(3,) * rep.rank, 5)
        torch.testing.assert_close(to(tensor, channels=True), x)
        torch.testing.assert_close(back(x.mT).movedim(1, -1), tensor)
        torch.testing.assert_close(to(tensor.movedim(-1, 1)), x.mT)


def test_projects_out_what_violates_the_symmetry():
    t = torch.randn(3, 3, dtype=torch.float64)
    rep = CartesianTensor("ij=ji")
    torch.testing.assert_close(rep.from_irreps(rep.to_irreps(t)), (t + t.T) / 2)


def test_has_the_generators_of_its_matrices():
    rep = CartesianTensor("ijk=jki", pseudo=True)
    vector = Irreps("1o")
    for small, large in zip(vector.lie_generators(), rep.lie_generators(), strict=True):
        torch.testing.assert_close(rep.matrix(torch.matrix_exp(small)), torch.matrix_exp(large))
    torch.testing.assert_close(rep.discrete_generators()[0], torch.eye(rep.dim, dtype=torch.float64))


def test_the_check_can_fail():
    """Exchanging x and y in the tensor only, a mistaken convention, is no symmetry."""
    rep = CartesianTensor("ij=ji")
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x: rep.change_of_basis @ x[..., [3, 1, 4, 0, 2, 5], :], [rep], rep.irreps)


def test_follows_dtype_and_compares_by_value():
    rep = CartesianTensor("ij=ji")
    assert rep.to_irreps(torch.eye(3)).dtype == torch.float32
    assert rep == CartesianTensor("ij=ji") != CartesianTensor("ij=ji", pseudo=True)
    assert hash(rep) == hash(CartesianTensor("ij=ji"))


@pytest.mark.parametrize("formula", ["", "ii", "ij=jk", "ij=jii", "-ij=ji", "i2"])
def test_says_which_formula_it_cannot_read(formula):
    with pytest.raises(ValueError, match="cannot read index symmetries"):
        CartesianTensor(formula)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="allow no tensor but zero"):
        CartesianTensor("ij=-ij")
    with pytest.raises(ValueError, match="allow no tensor but zero"):
        CartesianTensor("ijkl=-jikl=-ikjl=-ijlk")
    with pytest.raises(ValueError, match=r"expects a tensor of shape \(\.\.\., 3, 3\), got \(2, 3\)"):
        CartesianTensor("ij").to_irreps(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"expects rows of shape \(\.\.\., 6, channels\), got \(2, 3, 6\)"):
        CartesianTensor("ij=ji").from_irreps(torch.ones(2, 3, 6), channels=True)
    with pytest.raises(ValueError, match=r"expects group 'O\(3\)' or 'SO\(3\)'"):
        CartesianTensor("ij", group="O(4)")
