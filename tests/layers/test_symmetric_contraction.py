"""equitorch/layers/symmetric_contraction.py"""

import copy
import itertools
import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import Linear, SymmetricContraction
from equitorch.reps import Irrep, Irreps, wigner_3j
from equitorch.testing import assert_equivariant, random_irreps


def layer_and_operands(irreps="0e+1o+2e", out="0e+1o", correlation=3, nodes=5, channels=3, species=2):
    torch.manual_seed(0)
    layer = SymmetricContraction(irreps, out, channels, correlation=correlation, species=species).double()
    x = torch.randn(nodes, layer.irreps_in.dim, channels, dtype=torch.float64)
    return layer, x, torch.randint(0, species, (nodes,))


def couplings(irreps, degree):
    """MACE's U by its description: (irrep, tensor (2 l + 1, dim, ..., dim)), coupled from the left."""
    eye = torch.eye(irreps.dim, dtype=torch.float64)
    one = [(ir, eye[s]) for ir, s in zip(irreps.copies, irreps.copy_slices(), strict=True)]
    found = one
    for _ in range(degree - 1):
        products = [
            (
                ir,
                torch.einsum(
                    "kij,i...,jx->k...x", wigner_3j(ir.l, a.l, b.l) * math.sqrt(ir.dim), left, right
                ),
            )
            for (a, left), (b, right) in itertools.product(found, one)
            for ir in a * b
            if degree < 4 or ir.p == (-1) ** ir.l
        ]
        found = sorted(products, key=lambda pair: pair[0])
    return found


def mace(irreps, irreps_out, weights, x, index):
    """Horner's scheme from the highest degree down, with dense U."""
    results = []
    for ir, by_degree in zip(irreps_out.copies, weights, strict=True):
        out = 0
        for degree in range(len(by_degree), 0, -1):
            columns = [form for own, form in couplings(irreps, degree) if own == ir]
            none = torch.zeros(ir.dim, *[irreps.dim] * degree, 0, dtype=torch.float64)
            u = torch.stack(columns, dim=-1) if columns else none
            mixed = torch.einsum("...u,nuc->nc...", u, by_degree[degree - 1][index]) + out
            out = torch.einsum("nc...i,nic->nc...", mixed, x)
        results.append(out.transpose(1, 2))
    return torch.cat(results, dim=1)


@pytest.mark.parametrize(
    ("irreps", "out", "correlation"),
    [
        ("0e+1o+2e", "0e+1o", 3),
        ("0e+1o", "0e+1o", 4),
        ("0+1+2", "0+1", 2),
        ("1o+1e", "0e+2e+0e", {"0e": 3, "2e": 1}),
    ],
)
def test_takes_the_weights_of_mace(irreps, out, correlation):
    layer, x, index = layer_and_operands(irreps, out, correlation)
    weights = [
        [
            torch.randn(2, sum(own == ir for own, _ in couplings(layer.irreps_in, degree)), 3).double()
            for degree in range(1, highest + 1)
        ]
        for ir, highest in zip(layer.irreps_out.copies, layer.correlation, strict=True)
    ]
    layer.load_mace(weights)
    expected = mace(layer.irreps_in, layer.irreps_out, weights, x, index)
    torch.testing.assert_close(layer(x, index), expected, rtol=1e-10, atol=1e-10)


@given(st.integers(0, 2**31 - 1), st.integers(1, 3))
def test_commutes_with_every_rotation_and_mirror(seed, correlation):
    generator = torch.Generator().manual_seed(seed)
    irreps, out = (random_irreps(2, entries=3, max_mul=1, generator=generator) for _ in range(2))
    layer = SymmetricContraction(irreps, out, 2, correlation=correlation, species=3).double()
    index = torch.tensor([0, 2, 2, 0, 1])
    assert_equivariant(lambda x: layer(x, index), [irreps], out, channels=2, seed=seed)


def test_the_check_can_fail():
    layer, _, index = layer_and_operands(channels=4)
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x: layer(x.abs(), index), [layer.irreps_in], layer.irreps_out)


def test_is_a_sum_over_degrees_and_a_linear_map_in_the_first():
    layer, x, index = layer_and_operands("2x0e+1o", "0e+1o", 1, species=1)
    linear = Linear("2x0e+1o", 3, 3, irreps_out="0e+1o", bias=False, path_normalization="element").double()
    blocks = torch.zeros(2, 3, 1, 3).double(), torch.zeros(1, 3, 1, 3).double()
    for c in range(3):
        blocks[0][:, c, 0, c], blocks[1][:, c, 0, c] = (
            layer.weight[0, :2, c].data,
            layer.weight[0, 2:, c].data,
        )
    linear.weight.data = torch.cat([6**0.5 * blocks[0].flatten(), 3**0.5 * blocks[1].flatten()])
    torch.testing.assert_close(layer(x, index), linear(x))


def test_each_degree_scales_as_it_must():
    layer, x, index = layer_and_operands()
    for degree in (1, 2, 3):
        chosen = copy.deepcopy(layer)
        off = [row for row, path in enumerate(layer.paths) if path[0] != degree]
        chosen.weight.data[:, off] = 0
        torch.testing.assert_close(chosen(2 * x, index), 2**degree * chosen(x, index))
        assert chosen(x, index).abs().max() > 0


def test_chooses_the_weights_of_each_species():
    layer, x, index = layer_and_operands(nodes=9)
    y = layer(x, index)
    for s in range(2):
        single = SymmetricContraction("0e+1o+2e", "0e+1o", 3).double()
        single.weight.data[0] = layer.weight.data[s]
        torch.testing.assert_close(y[index == s], single(x[index == s], index[index == s] * 0))


def test_permutations_of_nodes_and_channels_change_nothing_else():
    layer, x, index = layer_and_operands(nodes=9)
    order = torch.randperm(9)
    torch.testing.assert_close(layer(x[order], index[order]), layer(x, index)[order])
    turned = copy.deepcopy(layer)
    turned.weight.data = layer.weight.data.flip(2)
    torch.testing.assert_close(turned(x.flip(2), index), layer(x, index).flip(2))


def test_names_its_paths():
    layer = SymmetricContraction("0e+1o", "1o+0e", 2, correlation={"0e": 2, "1o": 1}, species=3)
    assert layer.paths == ((1, 0, Irrep("1o")), (1, 1, Irrep("0e")), (2, 1, Irrep("0e")), (2, 1, Irrep("0e")))
    assert layer.weight.shape == (3, 4, 2)
    assert (
        repr(layer)
        == "SymmetricContraction(1x0e+1x1o -> 1x1o+1x0e, channels=2, correlation=[1, 2], species=3)"
    )


def test_weights_start_by_the_number_of_columns():
    layer = SymmetricContraction("0e+1o+2e", "0e", 4096, species=3)
    wanted = torch.tensor([1.0] + 3 * [1 / 3] + 5 * [1 / 5])
    torch.testing.assert_close(layer.weight.std(dim=(0, 2)), wanted, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("batch", [(), (0,), (6,), (5, 2), (0, 4)])
@pytest.mark.parametrize("channels", [0, 1, 2])
def test_takes_any_batch_even_an_empty_one(batch, channels):
    layer = SymmetricContraction("0e+1o", "1o+0e+2e", channels, species=2)
    x = torch.randn(*batch, 4, channels, requires_grad=True)
    y = layer(x, torch.randint(0, 2, batch))
    assert y.shape == (*batch, 9, channels)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize(
    ("irreps", "out"), [("0x1o", "0e+1o"), ("0e+1o", "0x0e"), ("1o", "0o"), ("", "0e"), ("0e", "")]
)
def test_takes_irreps_that_are_not_there(irreps, out):
    layer = SymmetricContraction(irreps, out, 2)
    x = torch.randn(3, Irreps(irreps).dim, 2, requires_grad=True)
    y = layer(x, torch.zeros(3, dtype=torch.int64))
    assert y.shape == (3, Irreps(out).dim, 2)
    assert not y.any()
    (y.sum() + x.sum()).backward()
    assert (x.grad == 1).all()


def test_differentiates_twice():
    layer, x, index = layer_and_operands(nodes=3, channels=2)

    def function(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x, index))

    x.requires_grad_()
    assert torch.autograd.gradcheck(function, (x, layer.weight))
    assert torch.autograd.gradgradcheck(function, (x, layer.weight))


def test_compiles_and_exports():
    layer, x, index = layer_and_operands()
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x, index), layer(x, index))
    exported = torch.export.export(layer, (x, index)).module()
    torch.testing.assert_close(exported(x, index), layer(x, index))


def test_is_built_in_no_time():
    start = time.process_time()
    SymmetricContraction("0e+1o+2e+3o", "0e+1o+2e", 16, species=89)
    assert time.process_time() - start < 0.3


def test_says_what_it_expected():
    layer, x, index = layer_and_operands()
    with pytest.raises(ValueError, match=r"species=2\) expects x of shape \(\.\.\., 9, 3\).*got \(5, 8, 3\)"):
        layer(x[:, :8], index)
    with pytest.raises(ValueError, match=r"index of shape \(\.\.\.\), got \(5, 9, 3\) and \(4,\)"):
        layer(x, index[:4])
    with pytest.raises(
        ValueError, match="index of species is expected to hold numbers from 0 to 1, got 2 to 2"
    ):
        layer(x, torch.full_like(index, 2))
    with pytest.raises(ValueError, match="expects a correlation for every irrep of '1x0e', got none for 0e"):
        SymmetricContraction("0e", "0e", 1, correlation={"1o": 2})
    with pytest.raises(ValueError, match="correlation of 1 or more, got 0"):
        SymmetricContraction("0e", "0e", 1, correlation=0)
    with pytest.raises(ValueError, match=r"degrees 1 to \[3, 3\].*got \[\] degrees"):
        layer.load_mace([])
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\) for degree 2 of 0e, got \(2, 4, 3\)"):
        layer.load_mace([[torch.ones(2, n, 3) for n in (1, 4, 5)]] * 2)


def test_another_dtype_is_refused_by_name():
    layer = SymmetricContraction("0e+1o", "0e", 4, correlation=2).float()
    with pytest.raises(
        ValueError, match=r"SymmetricContraction.* expects .*torch.float32, got torch.float64"
    ):
        layer(torch.ones(2, 4, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
