"""equitorch/layers/readout.py"""

import pytest
import torch

from equitorch.layers import ScalarReadout, TensorReadout, VectorReadout, pool
from equitorch.reps import CartesianTensor
from equitorch.testing import assert_equivariant, random_orthogonal, transform

FULL = "0e+1o+2e+1e+3o+4e"
FORMULAS = ["i", "ij=ji", "ij=-ji", "ij", "ijk=jik=ikj", "ijkl=jikl=klij"]
BATCH = torch.tensor([0, 0, 1, 3, 3])


def turned(g, tensor, rank):
    for axis in range(-rank, 0):
        tensor = (tensor.movedim(axis, -1) @ g.T).movedim(-1, axis)
    return tensor


def test_pool_adds_and_averages():
    values = torch.arange(10.0).view(5, 2)
    torch.testing.assert_close(pool(values, BATCH, 4), torch.tensor([[2.0, 4], [4, 5], [0, 0], [14, 16]]))
    mean = pool(values, BATCH, 4, reduce="mean")
    torch.testing.assert_close(mean, torch.tensor([[1.0, 2], [4, 5], [0, 0], [7, 8]]))


@pytest.mark.parametrize("irreps", ["0e+1o", "1o+2x0e", "0e+1o+0e", "0+1"])
def test_scalars_are_invariant(irreps):
    layer = ScalarReadout(irreps, 4, hidden=(3,), outputs=2).double()
    assert_equivariant(lambda x: layer(x)[:, :, None], [irreps], "2x0e" if "e" in irreps else "2x0")
    x = torch.randn(5, layer.irreps.dim, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x, BATCH, 4), pool(layer(x), BATCH, 4))
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x, BATCH, 4), layer(x, BATCH, 4))


@pytest.mark.parametrize("formula", FORMULAS)
def test_tensors_turn_index_by_index(formula):
    """Against the definition of a Cartesian tensor: one matrix for each index, mirrors included."""
    layer = TensorReadout(FULL, 4, formula).double()
    x = torch.randn(5, layer.irreps.dim, 4, dtype=torch.float64)
    for seed in range(4):
        g = random_orthogonal(3, generator=torch.Generator().manual_seed(seed)) * (-1) ** seed
        torch.testing.assert_close(
            layer(transform(FULL, g, x)), turned(g, layer(x), layer.rank), rtol=0, atol=1e-11
        )
    tensor = CartesianTensor(formula)
    torch.testing.assert_close(tensor.from_irreps(tensor.to_irreps(layer(x))), layer(x))  # has the symmetries
    rows = TensorReadout(FULL, 4, formula, form="irreps").double()
    rows.load_state_dict(layer.state_dict())
    assert_equivariant(lambda x: rows(x)[..., None], [FULL], tensor.irreps)
    torch.testing.assert_close(tensor.from_irreps(rows(x)), layer(x))


def test_reads_known_tensors():
    """The 0e row alone gives multiples of the identity; the 1o rows are (x, y, z)."""
    layer = TensorReadout("0e+2e", 1, "ij=ji").double()
    x = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(layer(x)[0], layer.linear.weight[0].detach() * torch.eye(3).double() / 3**0.5)
    vector = VectorReadout("0e+1o", 1).double()
    x = torch.tensor([9.0, 1, 2, 3], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(vector(x)[0], vector.readout.linear.weight[0].detach() * x[0, 1:, 0])


def test_vectors_are_polar_or_axial():
    polar, axial = VectorReadout(FULL, 4).double(), VectorReadout(FULL, 4, pseudo=True).double()
    assert_equivariant(lambda x: polar(x)[..., None], [FULL], "1o")
    assert_equivariant(lambda x: axial(x)[..., None], [FULL], "1e")
    with pytest.raises(AssertionError, match="is off by"):  # the check can fail
        assert_equivariant(lambda x: axial(x)[..., None], [FULL], "1o")


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_atoms_make_graphs(reduce):
    layer = TensorReadout("0e+2e", 4, "ij=ji", reduce=reduce).double()
    x = torch.randn(5, 6, 4, dtype=torch.float64, requires_grad=True)
    y = layer(x, BATCH, 4)
    assert y.shape == (4, 3, 3)
    torch.testing.assert_close(y, pool(layer(x), BATCH, 4, reduce=reduce))
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x, BATCH, 4), y)
    assert layer(x[:0], BATCH[:0], 0).shape == (0, 3, 3)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, BATCH, 4), x)


def test_so3_allows_what_parity_forbids():
    layer = TensorReadout("0+1+2", 4, "ij").double()
    x = torch.randn(5, 9, 4, dtype=torch.float64)
    g = random_orthogonal(3, generator=torch.Generator().manual_seed(0))
    g = g * torch.linalg.det(g).sign()
    torch.testing.assert_close(layer(transform("0+1+2", g, x)), turned(g, layer(x), 2), rtol=0, atol=1e-11)
    y = layer(x)
    assert (y - y.mT).abs().max() > 0.1


def test_keeps_its_symmetry_through_dtypes():
    layer = TensorReadout(FULL, 4, "ij=ji").float().double()
    x = torch.randn(5, layer.irreps.dim, 4, dtype=torch.float64)
    g = random_orthogonal(3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(transform(FULL, g, x)), turned(g, layer(x), 2), rtol=0, atol=1e-12)


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match=r"'ij'\) is made of .*1x1e.* Its 1o rows cannot stand in: inversion gives"
    ):
        TensorReadout("0e+1o+2e", 4, "ij")
    with pytest.raises(
        ValueError, match=r"expects 1 x 4e of the feature, got 1x0e\+1x2e with 8 channels: 0 x 4e"
    ):
        TensorReadout("0e+2e", 8, "ijkl=jikl=klij")
    with pytest.raises(ValueError, match=r"expects 2 x 0e of the feature, got .* with 1 channels: 1 x 0e"):
        TensorReadout("0e+2e+4e", 1, "ijkl=jikl=klij")
    with pytest.raises(ValueError, match=r"expects 1 x 1o of the feature, got 1x0e"):
        VectorReadout("0e", 8)
    with pytest.raises(ValueError, match=r"a feature with rows of 0e, got 1x0o"):
        ScalarReadout("0o", 8)
    with pytest.raises(ValueError, match=r"ScalarReadout\(1x0e\+1x1o\) expects x of shape \(\.\.\., 4, 8\)"):
        ScalarReadout("0e+1o", 8)(torch.ones(2, 3, 8))
    with pytest.raises(ValueError, match=r"reduce to be sum or mean, got 'max'"):
        pool(torch.ones(1), torch.zeros(1, dtype=torch.long), 1, reduce="max")
