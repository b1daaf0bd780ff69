"""equitorch/reps/symmetric_power.py"""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.reps import Irrep, Irreps, KroneckerProduct, intertwiners, wigner_3j
from equitorch.reps.symmetric_power import (
    coupled_powers,
    from_coupled_powers,
    monomials,
    symmetric_maps,
    tensor_norm,
)
from equitorch.testing import assert_equivariant, random_irreps


def evaluate(maps, x):
    """Values by the monomials: (..., dim, channels) -> (..., maps * ir.dim, channels)."""
    found, ir = monomials(maps), maps[0].ir
    products = x[..., torch.from_numpy(found.factors), :].prod(-3) * torch.from_numpy(found.value)[:, None]
    out = products.new_zeros(*x.shape[:-2], len(maps) * ir.dim, x.shape[-1])
    return out.index_add(-2, torch.from_numpy(found.column * ir.dim + found.row), products)


def dense(maps, dim):
    """The symmetric tensors themselves. Shape (maps, ir.dim, dim, ..., dim)."""
    found, degree = monomials(maps), maps[0].degree
    out = np.zeros((len(maps), maps[0].ir.dim) + (dim,) * degree)
    orders = list(itertools.permutations(range(degree)))
    for order in orders:
        np.add.at(out, (found.column, found.row, *found.factors[list(order)]), found.value / len(orders))
    return out


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "coupled", "symmetric"),
    [
        ("0+1+2", "0+1", 62, 18),
        ("0e+1o+2e", "0e+1o", 41, 17),
        ("0e+1o+2e+3o", "0e+1o+2e", 159, 49),
    ],
)
def test_counts_what_is_known_of_mace(irreps_in, irreps_out, coupled, symmetric):
    irs = Irreps(irreps_out).copies
    kept = [len(symmetric_maps(irreps_in, ir, degree)) for degree in (1, 2, 3) for ir in irs]
    every = [node.ir in irs for degree in (1, 2, 3) for node in coupled_powers(irreps_in, degree)]
    assert (sum(every), sum(kept)) == (coupled, symmetric)


@pytest.mark.parametrize("irreps_in", ["0e+1o", "2x1o", "0o+1e+2o", "0+1", "2x0e+0o", "2"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_is_every_symmetric_map(irreps_in, degree):
    """Against the null space of the generators, by which nothing was built."""
    irreps = Irreps(irreps_in)
    orders = list(itertools.permutations(range(degree)))
    for ir in (
        (Irrep(0, 0), Irrep(1, 0)) if irreps.group == "SO(3)" else (Irrep("0e"), Irrep("1o"), Irrep("1e"))
    ):
        forms = intertwiners(KroneckerProduct((irreps,) * degree), ir).unflatten(-1, (irreps.dim,) * degree)
        full = sum(forms.permute(0, 1, *(2 + i for i in order)) for order in orders) / len(orders)
        rank = int(torch.linalg.matrix_rank(full.flatten(1), tol=1e-8)) if len(full) else 0
        assert len(symmetric_maps(irreps, ir, degree)) == rank


@given(st.integers(0, 2**31 - 1), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_commutes_with_every_rotation_and_mirror(seed, degree, l, odd):
    irreps = random_irreps(3, entries=2, max_mul=2, generator=torch.Generator().manual_seed(seed))
    ir = Irrep(l, -1 if odd else 1)
    maps = symmetric_maps(irreps, ir, degree)[:5]
    if maps:
        assert_equivariant(
            lambda x: evaluate(maps, x), [irreps], Irreps([(len(maps), ir)]), channels=2, batch=(), seed=seed
        )


@pytest.mark.parametrize(
    ("irreps", "ir", "degree"), [("0e+1o+2e", "1o", 3), ("2x1o+3o", "2e", 2), ("2e", "2e", 4)]
)
def test_is_an_orthonormal_basis(irreps, ir, degree):
    maps = symmetric_maps(irreps, ir, degree)
    flat = dense(maps, Irreps(irreps).dim).reshape(len(maps) * Irrep(ir).dim, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-13)


def test_norms_of_monomials():
    index = np.array(list(itertools.combinations_with_replacement(range(3), 4))).T
    counted = [len(set(itertools.permutations(column))) for column in index.T.tolist()]
    np.testing.assert_allclose(tensor_norm(index), 1 / np.array(counted))


def coupled_from_the_left(irreps, degree):
    """MACE's columns once more, as dense tensors: irreps and forms (2 l + 1, dim, ..., dim)."""
    eye = torch.eye(irreps.dim, dtype=torch.float64)
    one = [(ir, eye[s]) for ir, s in zip(irreps.copies, irreps.copy_slices(), strict=True)]
    found = one
    for _ in range(degree - 1):
        step = []
        for left, form in found:
            for right, unit in one:
                for ir in left * right:
                    symbol = wigner_3j(ir.l, left.l, right.l) * math.sqrt(ir.dim)
                    if degree < 4 or ir.p == (-1) ** ir.l:
                        step.append((ir, torch.einsum("kij,i...,jx->k...x", symbol, form, unit)))
        found = sorted(step, key=lambda pair: pair[0])
    return found


@pytest.mark.parametrize(
    ("spec", "degree"), [("0e+1o", 3), ("0e+1o+2e", 2), ("1e+2o", 3), ("0e+1o", 4), ("0+1", 3)]
)
def test_knows_what_coupled_powers_mean(spec, degree):
    """As polynomials, each equals its combination of symmetric maps."""
    irreps = Irreps(spec)
    theirs = coupled_from_the_left(irreps, degree)
    assert [ir for ir, _ in theirs] == [node.ir for node in coupled_powers(irreps, degree)]
    x = torch.randn(irreps.dim, 3, dtype=torch.float64)
    for ir in {ir for ir, _ in theirs if ir.l < 3}:
        maps = symmetric_maps(irreps, ir, degree)
        letters = "abcd"[:degree]
        spec = f"uk{letters}," + ",".join(f"{a}z" for a in letters) + "->ukz"
        columns = torch.stack([form for own, form in theirs if own == ir])
        expected = torch.einsum(spec, columns, *[x] * degree)
        mixing = torch.from_numpy(from_coupled_powers(irreps, ir, degree))
        ours = evaluate(maps, x).unflatten(0, (len(maps), ir.dim)) if maps else x.new_zeros(0, ir.dim, 3)
        torch.testing.assert_close(
            torch.einsum("mu,mkz->ukz", mixing, ours), expected, rtol=1e-11, atol=1e-11
        )


def test_is_built_in_no_time():
    """A program of its own would say more, yet 3j symbols known already would not change it much."""
    symmetric_maps.__globals__["_Powers"].of.cache_clear()
    start = time.process_time()
    for degree, ir in itertools.product((1, 2, 3), ("0e", "1o", "2e")):
        monomials(symmetric_maps("0e+1o+2e+3o", ir, degree))
    assert time.process_time() - start < 0.3


def test_the_check_can_fail():
    """The product of two vectors that is no invariant must be caught."""
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x: x[..., :1, :] * x[..., 1:2, :], ["1o"], "0e")


def test_says_what_it_expected():
    with pytest.raises(ValueError, match="expects a degree of 1 or more, got 0"):
        symmetric_maps("0e", "0e", 0)
