"""equitorch/reps/coupling.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Coupling, Irrep, Irreps, KroneckerProduct, so3_generators, wigner_3j
from equitorch.testing import assert_equivariant
from tests.strategies import couplable, irreps, irreps_without_parity, seeds


def apply(coupling):
    return lambda x, y: torch.einsum("ijk,...ic,...jc->...kc", coupling.dense(), x, y)


def solved(x, y, z):
    """The oracle: the null space of the generators, by a singular value decomposition."""
    degrees = [so3_generators(ir.l) for ir in (x, y, z)]
    ones = [torch.eye(ir.dim, dtype=torch.float64) for ir in (x, y, z)]
    conditions = []
    for a in range(3):
        total = 0
        for slot in range(3):
            factors = [degrees[s][a] if s == slot else ones[s] for s in range(3)]
            total = total + torch.kron(torch.kron(factors[0], factors[1]), factors[2])
        conditions.append(total)
    _, singular, basis = torch.linalg.svd(torch.cat(conditions))
    assert (singular < 1e-8).sum() == 1
    return basis[-1].reshape(x.dim, y.dim, z.dim)


def test_means_the_cross_product():
    """An answer known without this library, sign included."""
    x, y = torch.randn(2, 5, 3, 7, dtype=torch.float64)
    cross = Coupling.between(Irrep("1o"), Irrep("1o"), Irrep("1e"))
    torch.testing.assert_close(apply(cross)(x, y), torch.linalg.cross(x, y, dim=-2) / 6**0.5)


def test_means_the_product_of_matrices():
    product = Coupling.matrix_product(3)
    x, y = torch.randn(2, 5, 9, 2, dtype=torch.float64)
    a, b = (t.unflatten(-2, (3, 3)) for t in (x, y))
    torch.testing.assert_close(apply(product)(x, y), torch.einsum("eabc,ebdc->eadc", a, b).flatten(1, 2))
    assert product.value.numel() == 27


@given(couplable())
def test_agrees_with_the_null_space_of_the_generators(reps):
    closed, numerical = Coupling.between(*reps).dense(), solved(*reps)
    torch.testing.assert_close(closed, numerical * (closed * numerical).sum().sign(), atol=1e-12, rtol=0)


@given(couplable(), seeds)
def test_commutes_with_every_rotation_and_mirror(reps, seed):
    x, y, z = reps
    assert_equivariant(apply(Coupling.between(x, y, z)), [x, y], z, seed=seed)


@given(irreps, irreps, irreps, seeds)
def test_any_sum_of_paths_is_equivariant(x, y, z, seed):
    paths = [(*path, 0.5 + n) for n, path in enumerate(Coupling.paths(x, y, z))]
    coupling = Coupling.from_paths(x, y, z, paths)
    assert coupling.dims == (x.dim, y.dim, z.dim)
    assert coupling.num_paths == len(paths)
    assert_equivariant(apply(coupling), [x, y], z, seed=seed)


@given(irreps_without_parity, irreps_without_parity)
def test_paths_without_parity(x, y):
    z = Irreps.spherical_harmonics(3, p=0)
    paths = Coupling.paths(x, y, z)
    assert len(paths) == sum(
        abs(a.l - b.l) <= l <= a.l + b.l for a in x.copies for b in y.copies for l in range(4)
    )
    assert_equivariant(apply(Coupling.from_paths(x, y, z, paths)), [x, y], z)


def test_the_check_can_fail():
    """A coupling that ignores parity is caught by the mirror image alone."""
    wrong = Coupling.from_dense(wigner_3j(1, 1, 1))
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(apply(wrong), ["1o", "1o"], "1o")
    assert_equivariant(apply(wrong), ["1", "1"], "1")


def test_other_representations_are_solved_for():
    matrices = KroneckerProduct((Irrep("1o"), Irrep("1o")))
    coupling = Coupling.between(matrices, Irreps("0e"), Irrep("2e"))
    assert_equivariant(apply(coupling), [matrices, Irreps("0e")], Irrep("2e"))
    torch.testing.assert_close(coupling.value.norm(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("dims", [(2, 3, 4), (1, 5, 2), (3, 0, 2)])
def test_plan_evaluates_the_form_for_every_open_slot(dims):
    dense = torch.randn(dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coupling = Coupling.from_dense(dense)
    torch.testing.assert_close(coupling.dense(), dense)
    slots = [torch.randn(n, dtype=torch.float64) for n in dims]
    plan = coupling.plan()
    assert len(plan) == 9
    for slot in range(3):
        (left, right), value, start = plan[3 * slot : 3 * slot + 3]
        assert (left.dtype, value.dtype, start.dtype) == (torch.int32, torch.float64, torch.int32)
        a, b = (slots[s] for s in range(3) if s != slot)
        terms = value * a[left.long()] * b[right.long()]
        rows = [terms[start[r] : start[r + 1]].sum() for r in range(dims[slot])]
        out = torch.stack(rows) if rows else value.new_zeros(0)
        letters = "ijk".replace("ijk"[slot], "")
        torch.testing.assert_close(
            out, torch.einsum(f"ijk,{letters[0]},{letters[1]}->{'ijk'[slot]}", dense, a, b)
        )


def test_keeps_the_path_of_each_entry():
    x = Irreps("0e+1o")
    coupling = Coupling.from_paths(x, x, x, Coupling.paths(x, x, x))
    assert torch.bincount(coupling.path).tolist() == [1, 3, 3, 3]
    for slot, path in enumerate(coupling.path_plan()):
        (left, right), *_ = coupling.plan()[3 * slot : 3 * slot + 3]
        for l, r, p in zip(left.tolist(), right.tolist(), path.tolist(), strict=True):
            owner = [
                (coupling.index[s] == v)
                for s, v in zip([s for s in range(3) if s != slot], (l, r), strict=True)
            ]
            assert p in coupling.path[owner[0] & owner[1]]


@given(st.permutations([0, 1, 2]))
def test_permutes_its_slots(order):
    coupling = Coupling.between(Irrep("1o"), Irrep("2e"), Irrep("3o"))
    torch.testing.assert_close(coupling.permuted(tuple(order)).dense(), coupling.dense().permute(order))


def test_adds_scales_and_places():
    dot, cross = (Coupling.from_dense(wigner_3j(1, 1, l)) for l in (0, 1))
    assert torch.equal(dot.scaled(2.0).dense(), 2 * dot.dense())
    together = Coupling.sum([dot.placed((3, 3, 4), (0, 0, 0)), cross.placed((3, 3, 4), (0, 0, 1))])
    same = Coupling.from_paths("1", "1", "0+1", [(0, 0, 0), (0, 0, 1)])
    torch.testing.assert_close(together.dense(), same.dense())
    assert Coupling.sum([cross, cross.scaled(-1.0)]).value.numel() == 0


def test_entries_at_one_place_add_up():
    twice = Coupling.from_paths("1", "1", "1", [(0, 0, 0, 2.0), (0, 0, 0, 3.0)])
    torch.testing.assert_close(twice.dense(), 5 * wigner_3j(1, 1, 1))
    assert Coupling.sum([twice]).value.numel() == 6


def test_changes_basis():
    coupling = Coupling.from_dense(torch.randn(2, 3, 4, dtype=torch.float64))
    bases = [torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0] for n in coupling.dims]
    slots = [torch.randn(n, dtype=torch.float64) for n in coupling.dims]
    turned = [b @ x for b, x in zip(bases, slots, strict=True)]
    value = torch.einsum("ijk,i,j,k", coupling.in_basis(*bases).dense(), *turned)
    torch.testing.assert_close(value, torch.einsum("ijk,i,j,k", coupling.dense(), *slots))


def test_has_the_densities_of_the_literature():
    for l, share in ((2, 0.20), (6, 0.10), (10, 0.065)):
        full = Coupling.between(Irrep(l, 1), Irrep(l, 1), Irrep(l, 1))
        assert full.value.numel() / (2 * l + 1) ** 3 == pytest.approx(share, abs=0.02)


def test_counts_no_two_paths_alike():
    x = Irreps("2x0e+1o")
    paths = Coupling.paths(x, x, x)
    assert len(paths) == len(set(paths)) == 8 + 3 * 2
    assert Coupling.from_paths(x, x, x, []).value.numel() == 0


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="1x1o and 1x1o couple into 1x3o in 0 independent ways, expected 1"):
        Coupling.between(Irreps("1o"), Irreps("1o"), Irreps("3o"))
    with pytest.raises(ValueError, match=r"path \(0, 0, 0\) joins 1o and 1o into 1o, which do not couple"):
        Coupling.from_paths("1o", "1o", "1o", [(0, 0, 0)])
    with pytest.raises(ValueError, match="names copy 3 of irreps '1x1o', which has 1"):
        Coupling.from_paths("1o", "1o", "0e", [(0, 3, 0)])
    with pytest.raises(ValueError, match=r"expects a form of shape \(I, J, K\)"):
        Coupling.from_dense(torch.ones(3, 3))
    with pytest.raises(ValueError, match="does not fit"):
        Coupling.matrix_product(2).placed((4, 4, 5), (0, 1, 0))
    with pytest.raises(ValueError, match="forms of one size"):
        Coupling.sum([Coupling.matrix_product(1), Coupling.matrix_product(2)])
    with pytest.raises(ValueError, match=r"index of shape \(3, entries\)"):
        Coupling((1, 1, 1), torch.zeros(2, 1, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
