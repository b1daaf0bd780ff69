"""equitorch/layers/nequip.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers.jet import jet
from equitorch.layers.nequip import (
    GatedConvolution,
    NoEnvelope,
    SelfConnection,
    SmoothBessel,
    gate_into,
    scalar_network,
    sinc_derivatives,
)
from equitorch.ops.backend import use_reference
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant, equivariance_error

CHANNELS, ATOMS, CUTOFF = 3, 4, 4.0
VECTORS = torch.randn(2, 5, generator=torch.Generator().manual_seed(7)).double()
KIND = torch.tensor([0, 1, 1, 0])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def everybody():
    pairs = [(j, i) for i in range(ATOMS) for j in range(ATOMS) if i != j]
    back = [pairs.index((i, j)) for j, i in pairs]
    return torch.tensor(pairs).T, torch.tensor(back)


def layer(irreps="0e + 1o", irreps_out="0e + 1o + 2e", elements=5):
    torch.manual_seed(0)
    basis = SmoothBessel(4, CUTOFF)
    options = {"lmax": 2, "basis": basis, "hidden": [6], "elements": elements, "average_neighbors": 2.0}
    return GatedConvolution(irreps, CHANNELS, irreps_out, **options).double()


def apply(made, x, pos, *, reverse=True):
    edges, back = everybody()
    plan = EdgePlan.build(edges, ATOMS, edge_reverse=back if reverse else None)
    vectors = pos[edges[0]] - pos[edges[1]]
    distance = vectors[plan.pair_edge[:, 0]].norm(dim=-1)
    return made(x, spherical_harmonics(2, vectors), distance, plan, VECTORS, KIND)


def test_basis_is_that_of_the_paper():
    basis = SmoothBessel(3, CUTOFF).double()
    d = torch.tensor([0.5, 1.7, 3.9]).double()
    x = d / CUTOFF
    u = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    for n in range(3):
        wave = 2 / CUTOFF * torch.sin((n + 1) * math.pi * d / CUTOFF) / d
        torch.testing.assert_close(basis(d)[:, n], wave * u, rtol=1e-6, atol=1e-9)


def test_basis_and_network_vanish_smoothly_at_the_cutoff():
    basis, network = SmoothBessel(3, CUTOFF).double(), scalar_network([3, 8, 2]).double()
    near, nearer, at, beyond = network(
        basis(torch.tensor([CUTOFF - 2e-2, CUTOFF - 1e-2, CUTOFF, 5.0]).double())
    )
    assert not at.any()
    assert not beyond.any()
    torch.testing.assert_close(near / nearer, torch.full((2,), 16.0).double(), rtol=0.1, atol=0)
    assert NoEnvelope()(torch.tensor([1.0, float("nan")])).isnan().tolist() == [False, True]


@pytest.mark.parametrize("orders", [1, 2, 3, 4, 5])
def test_basis_knows_its_derivatives_along_a_curve(orders):
    basis = SmoothBessel(6, CUTOFF, trainable=True).double()
    x = random(orders, 40)
    x[0] = torch.linspace(0, 4.5, 40)
    found, expected = jet(basis, x), jet(basis.forward, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)
    weight = torch.linspace(1, 2, found.numel()).view_as(found).double()
    ours, theirs = (
        torch.autograd.grad((weight * y).sum(), basis.bessel.frequency)[0] for y in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)
    assert jet(NoEnvelope(), x[..., None])[1:].abs().sum() == 0


def test_sinc_has_the_derivatives_of_sinc():
    a = torch.tensor([0.0, 1e-3, 0.999, 1.001, 30.0]).double().requires_grad_()
    value = (a + (a == 0)).sin() / (a + (a == 0)) * (a != 0) + (a == 0).double()
    parts = sinc_derivatives(a.detach(), 3)
    torch.testing.assert_close(parts[0], value.detach(), rtol=1e-14, atol=0)
    for part in parts[1:]:
        (value,) = torch.autograd.grad(value.sum(), a, create_graph=True)
        torch.testing.assert_close(part[2:], value.detach()[2:], rtol=1e-12, atol=1e-14)
    third = sinc_derivatives(torch.tensor([0.0, 1e-3]).double(), 3)
    assert [part[0].item() for part in third] == pytest.approx([1, 0, -1 / 3, 0], abs=1e-15)
    assert third[3][1].item() == pytest.approx(1e-3 / 5, rel=1e-6)


def test_networks_keep_the_variance():
    torch.manual_seed(0)
    x = torch.randn(500, 64)
    assert scalar_network([64, 256])(x).var().item() == pytest.approx(1, rel=0.1)
    assert 0.4 < scalar_network([64, 256, 256])(x).var().item() < 1.2


def test_self_connection_has_a_matrix_for_each_element():
    made = SelfConnection("0e + 1o + 2e", CHANNELS, 5, irreps_out="2x0e + 2e + 3o").double()
    x = random(ATOMS, 9, CHANNELS)
    blocks = made.weight.split([CHANNELS * 2 * CHANNELS, CHANNELS * CHANNELS], dim=1)
    scalar = blocks[0].view(5, CHANNELS, 2, CHANNELS)
    tensor = blocks[1].view(5, CHANNELS, CHANNELS)
    a = VECTORS[KIND]
    expected = x.new_zeros(ATOMS, 14, CHANNELS)
    expected[:, :2] = torch.einsum("ne,ni,eiqo->nqo", a, x[:, 0], scalar)
    expected[:, 2:7] = torch.einsum("ne,nmi,eio->nmo", a, x[:, 4:9], tensor)
    expected /= (5 * CHANNELS) ** 0.5
    torch.testing.assert_close(made(x, VECTORS, KIND), expected, rtol=1e-13, atol=1e-13)
    with use_reference():
        torch.testing.assert_close(made(x, VECTORS, KIND), expected, rtol=1e-13, atol=1e-13)


@given(st.sampled_from(["0e", "1o", "0o+0e+1o+1e", "0e+1o+2e+2o"]), st.booleans())
def test_commutes_with_every_rotation_and_mirror(irreps, own):
    made = layer(irreps, "0o+0e+1o+1e+2e", 5 if own else None)
    pos = ["1o"]

    def function(x, place):
        # positions have one channel of their own
        return apply(made, x, place[..., 0])

    assert_equivariant(function, [Irreps(irreps), *pos], made.irreps_out, channels=CHANNELS, batch=(ATOMS,))


def test_the_check_can_fail():
    made = layer()
    made.register_forward_hook(lambda _module, _inputs, x: x + 0.1)
    x = torch.zeros(ATOMS, 4, CHANNELS).double()
    error = equivariance_error(
        lambda pos: apply(made, x, pos[..., 0]),
        ["1o"],
        made.irreps_out,
        channels=1,
        batch=(ATOMS,),
    )
    assert error > 1e-3


def test_both_directions_of_a_pair_may_share_their_weights():
    made, x, pos = layer(), random(ATOMS, 4, CHANNELS), random(ATOMS, 3, seed=1)
    torch.testing.assert_close(apply(made, x, pos), apply(made, x, pos, reverse=False), rtol=0, atol=1e-13)


def test_divides_by_the_root_of_the_number_of_neighbours():
    made, x, pos = layer(elements=None), random(ATOMS, 4, CHANNELS), random(ATOMS, 3, seed=1)
    seen = []
    made.gate.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    apply(made, x, pos)
    made.average_neighbors = 8.0
    apply(made, x, pos)
    torch.testing.assert_close(seen[0], 2 * seen[1], rtol=1e-13, atol=1e-14)


def test_differentiates_twice():
    made = layer("0e + 1o", "0e + 1o")
    x, pos = random(ATOMS, 4, CHANNELS).requires_grad_(), random(ATOMS, 3, seed=1).requires_grad_()

    def function(x, pos):
        return apply(made, x, pos).flatten()[::11]

    assert torch.autograd.gradcheck(function, (x, pos))
    assert torch.autograd.gradgradcheck(function, (x, pos))


def test_gates_have_odd_functions_for_odd_scalars():
    gate = gate_into(Irreps("0o+0e+1o"), "silu")
    x = random(2, gate.irreps_in.dim, 1)
    flipped = x * torch.tensor([-1.0, 1, 1, -1, -1, -1]).double()[:, None]
    sign = torch.tensor([-1.0, 1, -1, -1, -1]).double()[:, None]
    torch.testing.assert_close(gate(flipped), sign * gate(x))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"SelfConnection expects each irrep once.*got 2x0e -> 1x0e"):
        SelfConnection("2x0e", 4, 3, irreps_out="0e")
    made = SelfConnection("0e", 4, 3, irreps_out="0e")
    with pytest.raises(ValueError, match=r"expects vectors of shape \(kinds, 3\), got \(2, 5\)"):
        made(torch.zeros(4, 1, 4), VECTORS.float(), KIND)
    with pytest.raises(ValueError, match=r"SelfConnection\(1x0e\) expects x of shape \(..., 1, 4\), got"):
        made(torch.zeros(4, 1, 5), VECTORS[:, :3].float(), KIND)
