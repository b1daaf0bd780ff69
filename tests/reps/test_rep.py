"""equitorch/reps/rep.py"""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given

from equitorch.reps import (
    CartesianTensor,
    ChangedBasis,
    Coupling,
    DirectSum,
    Dual,
    Irrep,
    Irreps,
    KroneckerProduct,
    Rep,
    SphereGrid,
    intertwiners,
    invariants,
    to_grid,
    wigner_D,
    wigner_steps,
)
from equitorch.reps.rep import block_diagonal, kron
from equitorch.testing import random_elements, symplectic_form
from tests.strategies import irreps, seeds


@dataclass(frozen=True)
class Symplectic:
    """The defining representation of Sp(4): a group that is not O(3), whose matrices are not orthogonal."""

    group: str = "Sp(4)"
    dim: int = 4

    def lie_generators(self):
        form = symplectic_form(4)
        symmetric = [a + a.T for a in torch.eye(16, dtype=torch.float64).reshape(16, 4, 4)]
        return torch.stack([torch.linalg.inv(form) @ s for s in symmetric])

    def discrete_generators(self):
        return torch.zeros(0, 4, 4, dtype=torch.float64)

    def matrix(self, g):
        return g


@dataclass(frozen=True)
class Permutation:
    """The defining representation of S(4): a finite group."""

    group: str = "S(4)"
    dim: int = 4

    def lie_generators(self):
        return torch.zeros(0, 4, 4, dtype=torch.float64)

    def discrete_generators(self):
        one = torch.eye(4, dtype=torch.float64)
        return torch.stack([one[[1, 0, 2, 3]], one[[1, 2, 3, 0]]])

    def matrix(self, g):
        return g


SP, S4, VECTOR = Symplectic(), Permutation(), Irrep("1o")
BASIS = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 2, 1]], dtype=torch.float64)
MADE = [
    Dual(SP),
    Dual(Irreps("0o+1e")),
    DirectSum((SP, Dual(SP))),
    DirectSum((VECTOR, Irreps("2x2e"))),
    DirectSum((S4, S4)),
    KroneckerProduct((SP, SP)),
    KroneckerProduct((SP, Dual(SP), SP)),
    KroneckerProduct((S4, S4)),
    KroneckerProduct((VECTOR, Irrep("1e"))),
    ChangedBasis(VECTOR, BASIS),
    ChangedBasis(DirectSum((VECTOR, Irrep("0e"))), torch.eye(4)[:3]),
]


@pytest.mark.parametrize("rep", MADE, ids=lambda rep: type(rep).__name__)
def test_is_a_representation(rep):
    assert isinstance(rep, Rep)
    a, b = (random_elements(rep.group, torch.Generator().manual_seed(seed))[-1] for seed in (0, 1))
    together = rep.matrix(a) @ rep.matrix(b)
    assert together.shape == (rep.dim, rep.dim)
    torch.testing.assert_close(rep.matrix(a @ b), together, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(rep.matrix(torch.stack([a, b]))[1], rep.matrix(b))


@pytest.mark.parametrize("rep", MADE, ids=lambda rep: type(rep).__name__)
def test_its_generators_are_derivatives_of_its_matrices(rep):
    defining = {"Sp(4)": SP, "S(4)": S4, "O(3)": VECTOR}[rep.group]
    for small, large in zip(defining.lie_generators(), rep.lie_generators(), strict=True):
        g = torch.matrix_exp(0.1 * small)
        torch.testing.assert_close(rep.matrix(g), torch.matrix_exp(0.1 * large), atol=1e-10, rtol=1e-10)
    for small, large in zip(defining.discrete_generators(), rep.discrete_generators(), strict=True):
        torch.testing.assert_close(rep.matrix(small), large)


def test_counts_of_equivariant_maps_known_from_outside():
    """Schur's lemma; Bell numbers of partitions; the symplectic form; Brauer's three pairings."""
    assert len(intertwiners(Irreps("2x1o+0e"), Irreps("3x1o+1e"))) == 6
    assert len(intertwiners(KroneckerProduct((S4, S4)), KroneckerProduct((S4, S4)))) == 15
    assert len(invariants(KroneckerProduct((SP, SP)))) == 1
    assert len(invariants(KroneckerProduct((VECTOR,) * 4))) == 3
    assert len(intertwiners(SP, Dual(SP))) == 1
    assert len(invariants(KroneckerProduct((VECTOR, VECTOR, VECTOR)))) == 0
    assert len(invariants(KroneckerProduct((Irrep("1"),) * 3))) == 1


@given(irreps, irreps, seeds)
def test_intertwiners_commute(x, y, seed):
    maps = intertwiners(x, y)
    for g in random_elements("O(3)", torch.Generator().manual_seed(seed)):
        torch.testing.assert_close(y.matrix(g) @ maps, maps @ x.matrix(g), atol=1e-9, rtol=0)
    assert len(maps) == sum(x.count(ir) * y.count(ir) for ir in {ir for _, ir in x})


def test_the_dual_differs_where_matrices_are_not_orthogonal():
    g = random_elements("Sp(4)", torch.Generator().manual_seed(0))[0]
    x, form = torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close((Dual(SP).matrix(g) @ form) @ (SP.matrix(g) @ x), form @ x)
    assert (Dual(SP).matrix(g) - SP.matrix(g)).abs().max() > 0.1


def test_matrices_by_hand():
    a, b = torch.randn(2, 1, 2, 3), torch.randn(5, 4, 2)
    torch.testing.assert_close(kron(a, b)[1, 3], torch.kron(a[1, 0], b[3]))
    blocks = block_diagonal([a[:, 0], b[:2]])
    torch.testing.assert_close(blocks[1], torch.block_diag(a[1, 0], b[1]))


def test_constants_stay_on_the_cpu():
    """Whatever the default device, and in inference mode: they are made once for everybody."""
    with torch.device("meta"), torch.inference_mode():
        reps = [
            Irreps("2x1o+4e"),
            CartesianTensor("ijk=jik"),
            KroneckerProduct((VECTOR, Irrep("2e"))),
            Irreps(""),
        ]
        made = [tensors for rep in reps for tensors in (rep.lie_generators(), rep.discrete_generators())]
        coupling = Coupling.between(Irrep("4e"), Irrep("4e"), Irrep("3e"))
        made += [coupling.dense(), *coupling.plan(), coupling.path, *wigner_steps(5), invariants(reps[0])]
        made += [to_grid(SphereGrid.exact(5), 3), SphereGrid.e3nn(6, 5).points, *random_elements("O(1,3)")]
    assert {tensor.device.type for tensor in made} == {"cpu"}
    R = torch.eye(3, requires_grad=True)
    wigner_D(5, R).sum().backward()


def test_is_a_value():
    assert KroneckerProduct((VECTOR, Irrep("1o"))) == KroneckerProduct((Irrep("1o"), VECTOR))
    assert hash(DirectSum((VECTOR,))) == hash(DirectSum((Irrep("1o"),)))


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"expected one or more representations of one group, got 1o of O\(3\), 1 of"
    ):
        DirectSum((VECTOR, Irrep("1")))
    with pytest.raises(ValueError, match="got none"):
        KroneckerProduct(())
    with pytest.raises(ValueError, match=r"expects a basis of shape \(dim, 3\), got \(3, 2\)"):
        ChangedBasis(VECTOR, torch.ones(3, 2))
