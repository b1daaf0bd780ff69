"""equitorch/layers/tensornet2.py"""

import pytest
import torch

from equitorch.layers.tensornet import ROWS
from equitorch.layers.tensornet2 import ChargedInteraction, ChargeHead
from equitorch.ops.edges import EdgePlan
from equitorch.testing import assert_equivariant, equivariance_error

CHANNELS, CHARGES, ATOMS = 4, 3, 5
BATCH = torch.tensor([0, 0, 1, 1, 1])
SOURCE = torch.tensor([1, 0, 3, 2, 4])
TARGET = torch.tensor([0, 1, 2, 3, 3])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def head():
    torch.manual_seed(0)
    return ChargeHead(CHANNELS, CHARGES, activation="silu").double()


def interaction(group="O(3)"):
    torch.manual_seed(1)
    return ChargedInteraction(CHANNELS, 6, CHARGES, activation="silu", group=group).double()


def interact(layer, charges):
    plan = EdgePlan.build(torch.stack([SOURCE, TARGET]), ATOMS)
    edge = random(5, 6, seed=3), torch.linspace(0.1, 0.9, 5).double()
    own = random(1, 6, seed=4), torch.ones(1).double()
    return lambda x: layer(x, charges, edge, own, plan)


def test_charges_add_up_to_the_molecules_in_every_channel():
    x, total = random(ATOMS, 9, CHANNELS), torch.tensor([1.0, -2.0]).double()
    layer = head()
    with torch.no_grad():
        layer.network.layers[-1].bias[CHARGES:] += 30  # capacities next to which 1e-6 is nothing
    for given, wanted in ((total, total), (None, 0 * total)):
        q = layer(x, given, BATCH, 2)
        assert q.shape == (ATOMS, CHARGES)
        sums = torch.zeros(2, CHARGES).double().index_add(0, BATCH, q)
        torch.testing.assert_close(sums, wanted[:, None].expand(2, CHARGES), rtol=0, atol=1e-8)


def test_charges_follow_the_formula():
    x, layer = random(ATOMS, 9, CHANNELS), head()
    parts = [x[:, 0] / 3**0.5, x[:, 1:4].square().sum(1), x[:, 4:].square().sum(1)]
    qt, f = layer.network(layer.norm(torch.cat(parts, dim=1))).split(CHARGES, dim=1)
    q = layer(x, torch.tensor([1.0, -2.0]).double(), BATCH, 2)
    for mine, total in (([0, 1], 1.0), ([2, 3, 4], -2.0)):
        share = f[mine] ** 2 / ((f[mine] ** 2).sum(0) + 1e-6)
        torch.testing.assert_close(q[mine], qt[mine] + share * (total - qt[mine].sum(0)), rtol=1e-13, atol=0)


def test_charges_are_invariant_and_of_one_molecule_only():
    total = torch.tensor([1.0, -2.0]).double()
    layer = head()
    assert_equivariant(
        lambda x: layer(x, total, BATCH, 2).unsqueeze(-2), [ROWS], "0e", channels=CHANNELS, batch=(ATOMS,)
    )
    x = random(ATOMS, 9, CHANNELS)
    alone = layer(x[:2], total[:1], BATCH[:2], 1)
    torch.testing.assert_close(layer(x, total, BATCH, 2)[:2], alone, rtol=1e-13, atol=0)


def test_charges_see_the_sign_of_the_trace():
    x = random(ATOMS, 9, CHANNELS)
    flipped = torch.cat([-x[:, :1], x[:, 1:]], dim=1)
    assert (head()(x, None, BATCH, 2) - head()(flipped, None, BATCH, 2)).abs().max() > 1e-4


@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_interaction_is_equivariant(group):
    layer, charges = interaction(group), random(ATOMS, CHARGES, seed=7)
    rows = ROWS if group == "O(3)" else "0+1+2"
    assert_equivariant(interact(layer, charges), [rows], rows, channels=CHANNELS, batch=(ATOMS,))
    if group == "SO(3)":
        error = equivariance_error(interact(layer, charges), [ROWS], ROWS, channels=CHANNELS, batch=(ATOMS,))
        assert error > 1e-5


def test_messages_depend_on_receiver_and_sender_in_this_order():
    layer, charges, x = interaction(), random(ATOMS, CHARGES, seed=7), random(ATOMS, 9, CHANNELS)
    seen = []
    handle = layer.network.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    before = interact(layer, charges)(x)
    handle.remove()
    assert torch.equal(seen[0][:, 6:], torch.cat([charges[TARGET], charges[SOURCE]], dim=1))
    assert torch.equal(seen[1][:, 6:], torch.cat([charges, charges], dim=1))
    changed = charges.clone()
    changed[4] += 1  # atom 4 receives nothing from others and sends to atom 3 only
    moved = (interact(layer, changed)(x) - before).abs().amax((1, 2)) > 1e-9
    assert moved.tolist() == [False, False, False, True, True]


def test_has_first_and_second_derivatives():
    layer = interaction()
    x, charges = random(ATOMS, 9, CHANNELS).requires_grad_(), random(ATOMS, CHARGES, seed=7).requires_grad_()

    def function(x, charges):
        return interact(layer, charges)(x).flatten()[::29]

    assert torch.autograd.gradcheck(function, (x, charges))
    assert torch.autograd.gradgradcheck(lambda q: function(x.detach(), q), (charges,))
