"""equitorch/reps/irrep.py and irreps.py"""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Irrep, Irreps, MulIr
from equitorch.testing import random_orthogonal, random_rotation
from tests.strategies import irrep, irreps, seeds


def element(seed):
    return random_orthogonal(generator=torch.Generator().manual_seed(seed))


@given(seeds)
def test_a_vector_turns_like_a_vector(seed):
    """Pins the convention: a representation with y mirrored would pass every property below."""
    g = element(seed)
    torch.testing.assert_close(Irrep("1o").matrix(g), g)
    torch.testing.assert_close(Irrep("1e").matrix(g), g * torch.linalg.det(g))
    torch.testing.assert_close(Irrep("0o").matrix(g), torch.linalg.det(g).reshape(1, 1))


@given(irreps, seeds, seeds)
def test_is_a_representation(rep, a, b):
    a, b = element(a), element(b)
    torch.testing.assert_close(rep.matrix(a) @ rep.matrix(b), rep.matrix(a @ b), atol=1e-12, rtol=0)


@given(irreps, seeds)
def test_generators_generate_the_matrices(rep, seed):
    """Three facts that must agree: exp(turn . generators), the inversion, and ``matrix``."""
    turn = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    g = torch.matrix_exp(torch.einsum("a,aij->ij", turn, Irrep("1o").lie_generators()))
    exponential = torch.matrix_exp(torch.einsum("a,aij->ij", turn, rep.lie_generators()))
    torch.testing.assert_close(rep.matrix(g), exponential, atol=1e-12, rtol=0)
    torch.testing.assert_close(rep.matrix(-g), rep.discrete_generators()[0] @ exponential, atol=1e-12, rtol=0)


def test_without_parity_belongs_to_the_rotations():
    rep = Irreps("2x1+0")
    assert rep.group == "SO(3)"
    assert rep.discrete_generators().shape == (0, 7, 7)
    assert repr(rep) == "2x1+1x0"
    assert list(Irrep("1") * Irrep("1")) == [Irrep("0"), Irrep("1"), Irrep("2")]
    assert Irreps("2x1o+0e").without_parity() == rep
    g = random_rotation(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rep.matrix(g), Irreps("2x1o+0e").matrix(g))


@pytest.mark.parametrize(
    "spec",
    [
        "16x0e+4x1o",
        " 2 x 0e + 1o ",
        "1y+2y",
        "",
        "  ",
        "0x1o+0e",
        [(16, (0, 1)), (4, (1, -1))],
        [(2, "0e"), "1o"],
        "12x10o",
    ],
)
def test_reads_what_e3nn_reads(o3, spec):
    ours, theirs = Irreps(spec), o3.Irreps(spec)
    assert repr(ours) == repr(theirs)
    assert Irreps(theirs) == ours
    assert (ours.dim, ours.num_irreps, ours.ls, ours.slices()) == (
        theirs.dim,
        theirs.num_irreps,
        theirs.ls,
        theirs.slices(),
    )


@given(irreps, irreps, st.integers(0, 3), st.integers(0, 5), st.integers(0, 5))
def test_calculates_like_e3nn(o3, a, b, times, start, stop):
    x, y = o3.Irreps(repr(a)), o3.Irreps(repr(b))
    names = [repr(ir) for _, ir in b]  # e3nn documents a string too, but drops everything then
    assert repr(a + b) == repr(x + y)
    assert repr(a * times) == repr(x * times)
    assert repr(times * a) == repr(times * x)
    assert tuple(map(str, a.sort())) == tuple(map(str, x.sort()))
    assert repr(a.simplify()) == repr(x.simplify())
    assert repr(a.regroup()) == repr(x.regroup())
    assert repr(a.remove_zero_multiplicities()) == repr(x.remove_zero_multiplicities())
    assert repr(a.filter(keep=b)) == repr(x.filter(keep=names))
    assert repr(a.filter(drop=repr(b))) == repr(x.filter(drop=names))
    assert repr(a.filter(lmax=1)) == repr(x.filter(lmax=1))
    assert repr(a.filter(lambda entry: entry.mul > 1)) == repr(x.filter(lambda entry: entry.mul > 1))
    assert repr(a[1:]) == repr(x[1:])
    assert repr(a.slice_by_mul[start:stop]) == repr(x.slice_by_mul[start:stop].remove_zero_multiplicities())
    assert a.lmax == x.lmax
    for _, ir in b:
        assert a.count(ir) == x.count(str(ir))
        assert (ir in a) == (str(ir) in x)


@given(irreps, seeds)
def test_turns_like_e3nn(o3, rep, seed):
    g, theirs = element(seed), o3.Irreps(repr(rep))
    torch.testing.assert_close(rep.matrix(g), theirs.D_from_matrix(g), atol=1e-5, rtol=0)  # theirs is float32
    angles = o3.rand_angles(2, dtype=torch.float64)
    torch.testing.assert_close(rep.D_from_angles(*angles), theirs.D_from_angles(*angles), atol=1e-5, rtol=0)
    turned = rep.D_from_angles(*angles)
    torch.testing.assert_close(rep.D_from_quaternion(o3.angles_to_quaternion(*angles)), turned)
    torch.testing.assert_close(rep.D_from_axis_angle(*o3.angles_to_axis_angle(*angles)), turned)


@given(irrep, irrep)
def test_multiplies_like_e3nn(o3, a, b):
    assert list(map(repr, a * b)) == list(map(repr, o3.Irrep(repr(a)) * o3.Irrep(repr(b))))
    assert Irrep(o3.Irrep(repr(a))) == a


def test_small_things():
    """The answers of e3nn, stored, for machines without it."""
    rep = Irreps("2o + 1e + 0e + 1e")
    assert rep.sort().p == (3, 1, 0, 2)
    assert rep.sort().inv == (2, 1, 3, 0)
    assert Irreps("1o+1e+0e+0o").regroup() == Irreps("0o+0e+1o+1e")  # odd before even
    assert [repr(ir) for ir in Irrep.iterator(1)] == ["0e", "0o", "1o", "1e"]
    assert 3 * Irrep("1o") == Irreps("3x1o")
    assert Irrep("1o") + Irrep("2e") == Irreps("1o+2e")
    assert Irreps([Irrep("1o"), MulIr(2, Irrep("0e"))]) == Irreps("1o+2x0e")
    assert "1o" + Irreps("0e") == Irreps("1o+0e")
    assert Irreps("1o+0e+1o").rows("1o").tolist() == [0, 1, 2, 4, 5, 6]
    assert Irreps("2x0e+1o").copy_slices() == [slice(0, 1), slice(1, 2), slice(2, 5)]
    assert Irreps("2x0e+1o")[1] == (1, Irrep("1o"))
    assert Irrep("0e").is_scalar()
    assert not Irrep("0o").is_scalar()
    l, p = Irrep("3o")
    assert (l, p) == (3, -1)


@given(irreps)
def test_is_a_value(rep):
    for twin in (copy.deepcopy(rep), pickle.loads(pickle.dumps(rep)), Irreps(repr(rep))):
        assert twin == rep
        assert hash(twin) == hash(rep)
    with pytest.raises(AttributeError):
        rep.entries = ()


def test_keeps_plain_integers():
    numbers = Irreps([(torch.tensor(2), (torch.tensor(1), -1))])
    assert type(numbers[0].mul) is int
    assert type(numbers[0].ir.l) is int


@pytest.mark.parametrize("normalization", ["component", "norm"])
def test_draws_random_features(normalization):
    rep = Irreps("2x1o+0e+2e")
    x = rep.randn(100, -1, 3, normalization=normalization, generator=torch.Generator().manual_seed(0))
    assert x.shape == (100, 12, 3)
    squares = torch.stack([x[:, s].square().sum(dim=1).mean() for s in rep.copy_slices()])
    expected = torch.ones(4) if normalization == "norm" else torch.tensor([3.0, 3.0, 1.0, 5.0])
    torch.testing.assert_close(squares, expected, rtol=0.2, atol=0)


def test_an_empty_sum_has_no_rows():
    empty = Irreps("")
    assert empty.dim == 0
    assert empty.matrix(torch.eye(3)).shape == (0, 0)
    assert empty.lie_generators().shape == (3, 0, 0)
    assert empty + Irreps("1") == Irreps("1")


def test_compiles_as_a_constant():
    rep = Irreps("2x0e+1o")

    def total(x):
        return x * rep.dim + sum(mul * ir.l for mul, ir in rep)

    whole = torch.compile(total, fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(torch.ones(2)), torch.full((2,), 6.0))


@pytest.mark.parametrize("spec", ["3q", "-1e", "2x", "0e++1o", "1o+", "x1o", "1.5e"])
def test_says_which_word_it_cannot_read(spec):
    with pytest.raises(ValueError, match="cannot read"):
        Irreps(spec)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"mix O\(3\) and SO\(3\)"):
        Irreps("1o+1")
    with pytest.raises(ValueError, match=r"needs l >= 0 and p of 1, -1 or 0 .*, got l=1, p=2"):
        Irrep(1, 2)
    with pytest.raises(ValueError, match="as an irrep"):
        Irrep(1)
    with pytest.raises(ValueError, match="have no highest degree"):
        Irreps("0x2e").lmax  # noqa: B018
    with pytest.raises(ValueError, match="expects one of keep, drop and lmax"):
        Irreps("1o").filter(keep="1o", lmax=2)
    with pytest.raises(ValueError, match="expects one size of -1"):
        Irreps("1o").randn(3, 4)
    with pytest.raises(ValueError, match="as an entry of irreps"):
        Irreps([(-1, "1o")])
