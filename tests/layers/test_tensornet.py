"""equitorch/layers/tensornet.py"""

import math

import pytest
import torch
from torch import nn

from equitorch.layers import MLP, CosineCutoff, ExpNormBasis
from equitorch.layers.radial import RadialFunction
from equitorch.layers.tensornet import (
    ROWS,
    TensorEmbedding,
    TensorInteraction,
    TensorLinear,
    TensorNorms,
    matrix_product,
)
from equitorch.ops.bilinear import Bilinear
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics
from equitorch.testing import assert_equivariant, equivariance_error

TURNS = "0+1+2"  # the same rows where only rotations act
CHANNELS, ATOMS, CUTOFF = 4, 5, 4.5
SPECIES = torch.tensor([1, 6, 7, 8, 1])


def matrices(rows):
    """3x3 matrices of rows (..., 9, channels) -> (..., channels, 3, 3), entry by entry."""
    i, (x, y, z) = rows[..., 0, :] / math.sqrt(3), (rows[..., 1:4, :] / math.sqrt(2)).unbind(-2)
    xz, xy, yy, yz, d = rows[..., 4:, :].unbind(-2)
    xz, xy, yz = (s / math.sqrt(2) for s in (xz, xy, yz))
    sxx, syy, szz = -yy / 6**0.5 - d / 2**0.5, 2 * yy / 6**0.5, -yy / 6**0.5 + d / 2**0.5
    entries = [i + sxx, xy - z, xz + y, xy + z, i + syy, yz - x, xz - y, yz + x, i + szz]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def radial():
    torch.manual_seed(0)
    network = MLP([6, 3 * CHANNELS])
    return RadialFunction(ExpNormBasis(6, CUTOFF), network, CosineCutoff(CUTOFF), cutoff=CUTOFF).double()


def everybody(atoms=ATOMS):
    """All ordered pairs, sorted by target, and the edge back."""
    pairs = [(j, i) for i in range(atoms) for j in range(atoms) if i != j]
    back = [pairs.index((i, j)) for j, i in pairs]
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2).T, torch.tensor(back, dtype=torch.long)


def embedding(reverse=True):
    torch.manual_seed(1)
    return TensorEmbedding(CHANNELS, radial(), activation="silu", max_z=10).double()


def embed(layer, pos, *, reverse=True):
    """Rows of atoms at ``pos`` (atoms, 3)."""
    edges, back = everybody(len(pos))
    plan = EdgePlan.build(edges, len(pos), edge_reverse=back if reverse else None)
    vectors = pos[edges[0]] - pos[edges[1]]
    distance = vectors[plan.pair_edge[:, 0]].norm(dim=-1)
    angle = spherical_harmonics(2, -vectors, normalization="norm")
    return layer(SPECIES[: len(pos)], distance, angle, plan)


def interaction(group):
    torch.manual_seed(2)
    return TensorInteraction(CHANNELS, radial(), group=group).double()


def interact(layer, kappa=None, atoms=ATOMS):
    edges, back = everybody(atoms)
    plan = EdgePlan.build(edges, atoms, edge_reverse=back)
    distance = 1 + 2 * torch.rand(plan.num_pairs, generator=torch.Generator().manual_seed(5)).double()
    return lambda x: layer(x, distance, plan, kappa)


@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_products_are_those_of_matrices(group):
    y, m = random(6, 9, 3), random(6, 9, 3, seed=1)
    product = matrices(Bilinear(matrix_product(group))(y, m))
    a, b = matrices(y), matrices(m)
    torch.testing.assert_close(product, a @ b + b @ a if group == "O(3)" else 2 * a @ b, rtol=0, atol=1e-13)


def test_rows_are_orthonormal():
    x = random(7, 9, 3)
    torch.testing.assert_close(matrices(x).square().sum((-2, -1)), x.square().sum(-2), rtol=1e-14, atol=0)
    outer = matrices(
        torch.cat([torch.zeros(4), spherical_harmonics(2, random(3))[4:]]).view(1, 9, 1).double()
    )
    assert outer.diagonal(dim1=-2, dim2=-1).sum().abs() < 1e-14


def test_products_are_equivariant_and_the_right_ones():
    both, turns = Bilinear(matrix_product("O(3)")), Bilinear(matrix_product("SO(3)"))
    assert_equivariant(both, [ROWS, ROWS], ROWS)
    assert_equivariant(turns, [TURNS, TURNS], TURNS)
    assert equivariance_error(turns, [ROWS, ROWS], ROWS) > 0.1


def test_the_anticommutator_is_its_own_adjoint_up_to_signs():
    y, m, g = (random(1, 9, 2, seed=s).requires_grad_() for s in range(3))
    sign = torch.tensor([1, -1, -1, -1, 1, 1, 1, 1, 1]).double()[:, None]
    product = Bilinear(matrix_product())
    (ours,) = torch.autograd.grad(product(y, m), y, g)
    torch.testing.assert_close(ours, sign * product(m, sign * g), rtol=0, atol=1e-13)


def test_linear_mixes_channels_of_matrices():
    layer, x = TensorLinear(CHANNELS).double(), random(3, 9, CHANNELS)
    assert_equivariant(layer, [ROWS], ROWS, channels=CHANNELS)
    out, ins = matrices(layer(x)), matrices(x)
    antisymmetric = torch.einsum("oi,niab->noab", layer.weight[1], (ins - ins.mT) / 2)
    torch.testing.assert_close((out - out.mT) / 2, antisymmetric, rtol=0, atol=1e-14)


def test_norms_are_those_of_matrices():
    layer, x = TensorNorms(CHANNELS, activation="silu").double(), random(3, 9, CHANNELS)
    assert_equivariant(lambda x: layer(x).unsqueeze(-2), [ROWS], "0e", channels=CHANNELS)
    seen = []
    layer.norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    layer(x)
    a = matrices(x)
    trace = a.diagonal(dim1=-2, dim2=-1).mean(-1)
    antisymmetric = (a - a.mT).square().sum((-2, -1)) / 4
    symmetric = ((a + a.mT) / 2 - trace[..., None, None] * torch.eye(3)).square().sum((-2, -1))
    expected = torch.cat([3 * trace**2, antisymmetric, symmetric], dim=-1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("reverse", [True, False])
def test_embedding_is_equivariant(reverse):
    layer = embedding()
    assert_equivariant(
        lambda pos: embed(layer, pos.squeeze(-1), reverse=reverse), ["1o"], ROWS, channels=1, batch=(ATOMS,)
    )


def test_embedding_ignores_the_order_of_a_pair():
    layer, pos = embedding(), random(ATOMS, 3)
    torch.testing.assert_close(embed(layer, pos), embed(layer, pos, reverse=False), rtol=0, atol=1e-14)


def test_embedding_points_from_the_neighbour_to_the_atom():
    layer, pos = embedding(), torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).double()
    seen = []
    layer.mix.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    embed(layer, pos)
    weight = layer.radial(torch.ones(1).double()).view(3, CHANNELS)
    pair = layer.pair(torch.cat([layer.element(SPECIES[:2]), layer.element(SPECIES[[1, 0]])], dim=-1))
    x = math.sqrt(2) * weight[1] * pair * torch.tensor([[-1.0], [1.0]])
    torch.testing.assert_close(seen[0][:, 1], x, rtol=0, atol=1e-14)
    assert not seen[0][:, 2:4].any()


def test_an_atom_alone_sees_itself():
    x = embed(embedding(), torch.zeros(1, 3).double())
    assert x[:, 0].abs().max() > 1e-3
    assert not x[:, 1:].any()


@pytest.mark.parametrize("charge", [None, -1.0])
def test_interaction_is_equivariant(charge):
    kappa = None if charge is None else torch.full((ATOMS, 1, 1), 1 + 0.1 * charge, dtype=torch.float64)
    options = {"channels": CHANNELS, "batch": (ATOMS,)}
    assert_equivariant(interact(interaction("O(3)"), kappa), [ROWS], ROWS, **options)
    assert_equivariant(interact(interaction("SO(3)"), kappa), [TURNS], TURNS, **options)
    assert equivariance_error(interact(interaction("SO(3)"), kappa), [ROWS], ROWS, **options) > 1e-4


@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_interaction_is_a_product_of_matrices(group):
    layer, x = interaction(group), random(2, 9, CHANNELS)
    q, d = -1.0, torch.tensor([1.7]).double()
    kappa = 1 + 0.1 * q
    edges, back = everybody(2)
    plan = EdgePlan.build(edges, 2, edge_reverse=back)
    out = matrices(layer(x, d, plan, torch.full((2, 1, 1), kappa, dtype=torch.float64)))

    def mix(linear, a):
        i = a.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(3)
        parts = (i, (a - a.mT) / 2, (a + a.mT) / 2 - i)
        return sum(
            torch.einsum("oi,niab->noab", w, p) for w, p in zip(linear.weight, parts, strict=True)
        ), parts

    def size(a):
        return a.square().sum((-2, -1), keepdim=True)

    a = matrices(x)
    a = a / (size(a) + 1)
    y, _ = mix(layer.before, a)
    _, parts = mix(layer.before, y)
    near, own = (layer.radial(r).view(3, 1, CHANNELS, 1, 1) for r in (d, torch.zeros(1).double()))
    m = sum(f * p[[1, 0]] + g * p for f, g, p in zip(near, own, parts, strict=True))
    product = 2 * y @ m if group == "SO(3)" else kappa * (y @ m + m @ y)
    change, _ = mix(layer.after, product / (size(product) + 1))
    torch.testing.assert_close(out, a + change + kappa * change @ change, rtol=0, atol=1e-13)


@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_layers_differentiate_twice(group):
    layer, x = interaction(group), random(2, 9, CHANNELS).requires_grad_()
    edges, back = everybody(2)
    plan = EdgePlan.build(edges, 2, edge_reverse=back)
    d = torch.tensor([1.7]).double().requires_grad_()
    some = slice(0, 72, 17)

    def function(x, d):
        return layer(x, d, plan, None).flatten()[some]

    assert torch.autograd.gradcheck(function, (x, d))
    assert torch.autograd.gradgradcheck(function, (x, d))


def test_an_empty_system_stays_empty():
    out = interact(interaction("O(3)"), atoms=0)(torch.zeros(0, 9, CHANNELS).double())
    assert out.shape == (0, 9, CHANNELS)


def test_weights_start_like_those_of_linear_maps():
    torch.manual_seed(0)
    weight = TensorLinear(64).weight
    assert weight.shape == (3, 64, 64)
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(nn.Linear(64, 64).weight.std().item(), rel=0.05)
