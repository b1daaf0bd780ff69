"""equitorch/models/potential.py"""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from equitorch.graph import AtomGraph
from equitorch.models.potential import Potential
from equitorch.models.tensornet import TensorNet
from tests.models.toy import Toy

# torch warns about itself at the first forward-mode derivative
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

E0 = {1: -13.6, 6: -1000.5, 8: -2040.25, 13: -6500.125, 14: -7800.0}


def toy(**options):
    defaults = {"reference_energies": E0, "scale": 0.7, "shift": 0.1}
    return Potential(Toy(), **(defaults | options)).double().eval()


def tensornet():
    torch.manual_seed(0)
    model = TensorNet(channels=8, radial=8, cutoff=4.0, cutoff_function="polynomial", max_z=20)
    return Potential(model, reference_energies=E0, scale=0.7, shift=0.1).double().eval()


@pytest.fixture(params=[toy, tensornet], ids=["toy", "tensornet"])
def potential(request):
    """The two models that every law below holds for."""
    return request.param()


def crystal(repeat=(1, 1, 1), seed=0):
    """A skewed, rattled silicon cell, smaller than the cutoff: atoms meet their own images."""
    atoms = bulk("Si", "diamond", a=5.0) * (2, 1, 1)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.1 * np.arange(9).reshape(3, 3) / 9), scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    return atoms * repeat


def ethanol(seed=0):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


def graph_of(atoms, potential):
    return AtomGraph.from_ase(atoms, potential.cutoff, dtype=potential.dtype)


def evaluate(potential, atoms, **wanted):
    return potential(graph_of(atoms, potential), **wanted)


class Distances(torch.nn.Module):
    """E = sum of k (d - 1)^2 / 2 over pairs: forces and stress follow by hand."""

    cutoff = 2.0

    def forward(self, z, edge_index, edge_vectors, batch, num_graphs, *, charge=None, edge_reverse=None):
        pair = 0.25 * (edge_vectors.norm(dim=-1) - 1).square()
        node = pair.new_zeros(len(z)).index_add(0, edge_index[1], pair)
        return {"energy": node.new_zeros(num_graphs).index_add(0, batch, node), "node_energy": node}


def test_matches_a_spring_by_hand():
    potential = Potential(Distances(), species=[1]).double().eval()
    atoms = Atoms("H2", [[0, 0, 0], [1.5, 0, 0]], cell=[10, 10, 10], pbc=True)
    out = potential(AtomGraph.from_ase(atoms, 2.0, dtype=torch.float64), stress=True)
    assert out["energy"].item() == pytest.approx(0.125, abs=1e-12)
    expected = torch.tensor([[0.5, 0, 0], [-0.5, 0, 0]]).to(out["forces"])
    torch.testing.assert_close(out["forces"], expected, atol=1e-12, rtol=0)
    sigma = torch.zeros(1, 3, 3).to(out["stress"])
    sigma[0, 0, 0] = 0.5 * 1.5 / 1000  # stretched: it pulls, so the tension is positive
    torch.testing.assert_close(out["stress"], sigma, atol=1e-15, rtol=0)


@pytest.mark.parametrize("atoms", [ethanol(), crystal()], ids=["molecule", "crystal"])
def test_forces_are_minus_the_gradient(potential, atoms):
    h = 1e-4
    forces = evaluate(potential, atoms)["forces"]
    for i, axis in ((0, 0), (1, 2), (2, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[i, axis] += sign * h
            energies.append(evaluate(potential, moved, forces=False)["energy"].item())
        numeric = -(energies[0] - energies[1]) / (2 * h)
        assert numeric == pytest.approx(forces[i, axis].item(), abs=1e-7)


def test_stress_is_the_strain_derivative_over_volume(potential):
    atoms, h = crystal(), 1e-4
    stress = evaluate(potential, atoms, stress=True)["stress"][0]
    torch.testing.assert_close(stress, stress.T, atol=0, rtol=0)
    assert stress.abs().max() > 1e-3
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            bent = atoms.copy()
            bent.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(evaluate(potential, bent, forces=False)["energy"].item())
        numeric = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert numeric == pytest.approx(stress[a, b].item(), abs=1e-7)


def test_the_check_can_fail():
    """A model that hides part of its dependence on the positions has wrong forces; differences see it."""
    potential, atoms, h = toy(), ethanol(), 1e-4
    whole = Toy.forward

    class Hidden(Toy):
        def forward(self, z, edge_index, edge_vectors, *args, **kwargs):
            out = whole(self, z, edge_index, edge_vectors, *args, **kwargs)
            hidden = whole(self, z, edge_index, edge_vectors.detach(), *args, **kwargs)
            return {k: v + 0.1 * hidden[k] for k, v in out.items()}

    potential.model.__class__ = Hidden
    forces = evaluate(potential, atoms)["forces"]
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[0, 0] += sign * h
        energies.append(evaluate(potential, moved, forces=False)["energy"].item())
    assert abs(-(energies[0] - energies[1]) / (2 * h) - forces[0, 0].item()) > 1e-4


def test_atomic_virials_sum_to_volume_times_stress(potential):
    atoms = crystal()
    out = evaluate(potential, atoms, stress=True, atomic_virial=True)
    total = out["atomic_virial"].sum(0) / atoms.get_volume()
    torch.testing.assert_close(total, out["stress"][0], atol=1e-12, rtol=1e-10)


def test_turns_with_the_structure(potential):
    atoms = crystal()
    rotation = Rotation.random(rng=0).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell[:] @ rotation.T, scale_atoms=True)
    one, two = (evaluate(potential, a, stress=True) for a in (atoms, turned))
    r = torch.tensor(rotation)
    close = {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(two["energy"], one["energy"], **close)
    torch.testing.assert_close(two["forces"], one["forces"] @ r.T, **close)
    torch.testing.assert_close(two["stress"], r @ one["stress"] @ r.T, **close)


@pytest.mark.parametrize("repeat", [(2, 2, 2), (3, 1, 1)])
def test_energy_is_extensive(potential, repeat):
    copies = int(np.prod(repeat))
    rotation = Rotation.random(rng=1).as_matrix()  # axis-aligned cells hide errors
    small = crystal()
    small.set_cell(small.cell[:] @ rotation.T, scale_atoms=True)
    one, many = evaluate(potential, small, stress=True), evaluate(potential, small * repeat, stress=True)
    assert many["energy"].item() == pytest.approx(copies * one["energy"].item(), rel=1e-10)
    own = one["node_energy"].repeat(copies)  # absolute: the E0s would hide much in a relative error
    torch.testing.assert_close(many["node_energy"], own, atol=1e-10, rtol=0)
    torch.testing.assert_close(many["forces"], one["forces"].repeat(copies, 1), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(many["stress"], one["stress"], atol=1e-10, rtol=1e-10)


def test_far_fragments_add_up(potential):
    a, b = ethanol(0), ethanol(1)
    far = b.copy()
    far.positions += 40.0
    both, one, two = (evaluate(potential, x) for x in (a + far, a, b))
    torch.testing.assert_close(both["energy"], one["energy"] + two["energy"], atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(both["forces"], torch.cat([one["forces"], two["forces"]]), atol=1e-10, rtol=0)


def test_a_batch_is_its_frames(potential):
    frames = [ethanol(), crystal(), Atoms("O"), crystal(seed=3)]
    graphs = [graph_of(a, potential) for a in frames]
    batch = potential(AtomGraph.batch(graphs), stress=True)
    singles = [potential(g, stress=True) for g in graphs]
    for key in set(singles[0]) & {"energy", "forces", "stress", "node_energy", "dipole"}:
        expected = torch.cat([s[key] for s in singles])
        torch.testing.assert_close(batch[key], expected, atol=1e-12, rtol=1e-12, equal_nan=True)
    periodic = batch["stress"].isfinite().all(-1).all(-1)
    assert periodic.tolist() == [False, True, False, True]  # no stress is invented for a molecule


def test_frames_do_not_see_each_other(potential):
    graph = AtomGraph.batch([graph_of(ethanol(), potential), graph_of(ethanol(1), potential)])
    pos = graph.pos.clone().requires_grad_()
    energy = potential(graph.replace(pos=pos), forces=False)["energy"]
    (gradient,) = torch.autograd.grad(energy[0], pos)
    assert gradient[9:].abs().max() == 0
    assert gradient[:9].abs().max() > 0


def test_interactions_fade_at_the_cutoff(potential):
    def dimer(d):
        out = evaluate(potential, Atoms("HO", [[0, 0, 0], [0.6 * d, 0.8 * d, 0]]))
        return out["energy"].item(), out["forces"].abs().max().item()

    (far, none), (inside, little) = dimer(4.001), dimer(3.999)
    assert none == 0
    assert inside == pytest.approx(far, abs=1e-8)
    assert little < 1e-5
    assert dimer(2.0)[1] > 1e-4


def test_hessian_is_symmetric_and_translation_free(potential):
    graph = graph_of(molecule("H2O"), potential)
    hessian = potential.hessian(graph)
    flat = hessian.reshape(9, 9)
    torch.testing.assert_close(flat, flat.T, atol=1e-8, rtol=0)
    assert hessian.sum(2).abs().max() < 1e-8  # the acoustic sum rule
    v = torch.randn(3, 3, dtype=torch.float64)
    product = potential.hessian_vector_product(graph, v)
    torch.testing.assert_close(product, torch.einsum("iajb,jb->ia", hessian, v), atol=1e-9, rtol=0)
    h = 1e-4
    ahead, behind = (potential(graph.replace(pos=graph.pos + s * h * v))["forces"] for s in (1, -1))
    torch.testing.assert_close(product, -(ahead - behind) / (2 * h), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gives_the_same_in_every_grad_mode(potential, mode):
    atoms = crystal()
    expected = evaluate(potential, atoms, stress=True)
    with mode():
        found = evaluate(potential, atoms, stress=True)
    for key, value in expected.items():
        assert torch.equal(found[key], value)
        assert not found[key].requires_grad
    assert all(p.requires_grad and p.grad is None for p in potential.parameters())


def test_a_force_loss_reaches_the_weights():
    """Against a central difference of the loss along a random direction of the weights."""
    potential = toy().train()
    graph = AtomGraph.batch([graph_of(crystal(), potential), graph_of(ethanol(), potential)])

    def loss():
        out = potential(graph, stress=True)
        return (
            out["forces"].square().mean()
            + out["energy"].sub(-9e3).square().mean() * 1e-8
            + (torch.where(out["stress"].isnan(), 0.0, out["stress"]).square().sum())
        )

    weights = list(potential.parameters())
    gradients = torch.autograd.grad(loss(), weights)
    directions = [torch.randn_like(w) for w in weights]
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
    assert all(g.isfinite().all() for g in gradients)  # though the molecule's stress is NaN
    values, h = [], 1e-5
    for step in (h, -2 * h):
        for w, d in zip(weights, directions, strict=True):
            w.data.add_(d, alpha=step)
        values.append(loss().item())
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(expected, rel=1e-5)


def test_computes_no_gradient_of_a_weight_in_inference():
    seen = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            seen.append(ctx.needs_input_grad)
            return x * weight

        @staticmethod
        def backward(ctx, g):
            return g, g

    potential = toy()
    potential.model.register_parameter("w", torch.nn.Parameter(torch.ones((), dtype=torch.float64)))
    plain = potential.model.forward
    potential.model.forward = lambda z, e, r, *a, **k: plain(z, e, Spy.apply(r, potential.model.w), *a, **k)
    evaluate(potential, ethanol())
    evaluate(potential, ethanol(), forces=False)
    evaluate(potential.train(), ethanol())
    assert seen == [(True, False), (False, False), (True, True)]


def test_sums_energies_in_float64():
    """E0s of 1e7 eV in total leave no digit for the chemistry in float32."""
    atoms = crystal((4, 4, 4))
    single = toy().float()
    assert single.dtype == torch.float32
    assert single.reference_energies.dtype == torch.float64
    exact, found = evaluate(toy(), atoms), evaluate(single, atoms)
    assert found["energy"].dtype == torch.float64
    assert found["forces"].dtype == torch.float32
    assert abs(found["energy"] - exact["energy"]).item() / len(atoms) < 1e-6
    torch.testing.assert_close(found["forces"].double(), exact["forces"], atol=1e-5, rtol=1e-4)


def test_an_isolated_atom_has_its_own_energy_and_no_force():
    potential = toy()
    out = evaluate(potential, Atoms("O", cell=[20, 20, 20], pbc=True), stress=True)
    model = potential.model
    expected = 0.7 * (model.level[8] + (torch.zeros(8) @ model.outer.float())).item() + 0.1 + E0[8]
    assert out["energy"].item() == pytest.approx(expected, abs=1e-9)
    assert out["forces"].abs().max() == 0
    assert out["stress"].abs().max() == 0


def test_scales_and_shifts_by_element():
    atoms = molecule("H2O")
    bare = evaluate(toy(reference_energies=None, scale=1.0, shift=0.0), atoms)["node_energy"]
    scale, shift = {1: 2.0, 8: 3.0}, {1: -1.0, 8: 0.5}
    out = evaluate(Potential(Toy(), scale=scale, shift=shift, offset=7.0).double().eval(), atoms)
    expected = torch.tensor([3.0, 2.0, 2.0]) * bare + torch.tensor([0.5, -1.0, -1.0])
    torch.testing.assert_close(out["node_energy"], expected)
    assert out["energy"].item() == pytest.approx(expected.sum().item() + 7.0)


def test_reduces_as_asked():
    atoms = molecule("H2O")
    total = evaluate(toy(), atoms)
    for reduce, count in (("mean", 3), ("torchmdnet_mean", 4)):
        out = evaluate(toy(reduce=reduce), atoms)
        torch.testing.assert_close(out["energy"], total["energy"] / count)
        torch.testing.assert_close(out["forces"], total["forces"] / count)
        torch.testing.assert_close(out["node_energy"].sum(), out["energy"][0])


def test_takes_a_model_without_atomic_energies(potential):
    atoms = ethanol()
    expected = evaluate(potential, atoms)
    plain = potential.model.forward
    potential.model.forward = lambda *a, **k: {"energy": plain(*a, **k)["energy"]}
    found = evaluate(potential, atoms)
    torch.testing.assert_close(found["energy"], expected["energy"])
    torch.testing.assert_close(found["forces"], expected["forces"])
    assert "node_energy" not in found


def test_passes_the_charge_on(potential):
    atoms = ethanol()
    neutral = evaluate(potential, atoms)["energy"]
    atoms.info["charge"] = 1
    assert abs(evaluate(potential, atoms)["energy"] - neutral).item() > 1e-5


def test_takes_a_pyg_batch(potential):
    torch_geometric = pytest.importorskip("torch_geometric")
    frames = [ethanol(), ethanol(1)]
    data = [
        torch_geometric.data.Data(
            z=torch.tensor(a.numbers),
            pos=torch.tensor(a.positions),
            edge_index=torch.zeros(2, 0, dtype=torch.long),
        )
        for a in frames
    ]
    found = potential(torch_geometric.data.Batch.from_data_list(data))
    expected = potential(AtomGraph.batch([graph_of(a, potential) for a in frames]))
    torch.testing.assert_close(found["energy"], expected["energy"], atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(found["forces"], expected["forces"], atol=1e-10, rtol=0)


def test_predicts_lists_in_batches():
    potential, frames = toy(), [ethanol(), crystal(), Atoms("O")]
    found = potential.predict(frames, batch_size=2, stress=True)
    for atoms, result in zip(frames, found, strict=True):
        expected = evaluate(potential, atoms, stress=True)
        assert isinstance(result["energy"], float)
        assert result["energy"] == pytest.approx(expected["energy"].item(), abs=1e-9)
        np.testing.assert_allclose(result["forces"], expected["forces"].numpy(), atol=1e-10)
        np.testing.assert_allclose(result["stress"], expected["stress"][0].numpy(), atol=1e-10)
        assert result["dipole"].shape == (3,)
    assert potential.predict([]) == []


def test_copies_and_pickles(potential):
    atoms = ethanol()
    energy = evaluate(potential, atoms)["energy"]
    for twin in (copy.deepcopy(potential), pickle.loads(pickle.dumps(potential))):
        assert torch.equal(evaluate(twin, atoms)["energy"], energy)


def test_keeps_all_digits_when_the_dtype_changes():
    potential = toy(scale=1 / 3)
    assert potential.float().double().scale[1].item() == 1 / 3


def test_species_come_from_the_tables_or_the_model():
    assert toy().species == tuple(E0)
    assert Potential(Toy(max_z=5)).species == (1, 2, 3, 4)
    assert Potential(Toy(), species=[8, 1], reference_energies=E0).species == (1, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reduce": "max"}, "reduce to be one of sum, mean, torchmdnet_mean, got 'max'"),
        ({"species": []}, "expects species as atomic numbers such as"),
        ({"species": [1, 17]}, "reference_energies has no value for Cl; give one for each of H, Cl"),
        ({"shift": {1: 0.0}}, "shift has no value for C, O, Al, Si"),
        ({"scale": float("nan")}, "scale must be finite"),
    ],
)
def test_says_what_is_wrong_with_its_tables(options, words):
    with pytest.raises(ValueError, match=words):
        toy(**options)


def test_names_an_unknown_element():
    potential = toy()
    graph = graph_of(molecule("HCl"), potential)
    for _ in range(2):  # a refusal is not remembered as a look
        with pytest.raises(ValueError, match=r"knows H, C, O, Al, Si, got Cl; train it on these elements"):
            potential(graph)
    changed = graph_of(molecule("H2O"), potential)
    potential(changed)
    changed.atomic_numbers[0] = 17  # nor is a look at what has been changed since
    with pytest.raises(ValueError, match="got Cl"):
        potential(changed)


def test_refuses_too_short_a_cutoff():
    with pytest.raises(ValueError, match=r"edges up to 4 Å, got one with cutoff 3 Å"):
        toy()(AtomGraph.from_ase(ethanol(), 3.0))


def test_says_what_a_hessian_expects():
    with pytest.raises(ValueError, match=r"expects v of shape \(9, 3\), got \(9,\)"):
        toy().hessian_vector_product(AtomGraph.from_ase(ethanol(), 4.0), torch.ones(9))
