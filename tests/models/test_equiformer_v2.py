"""equitorch/models/equiformer_v2.py, equiformer_v2_options.py and equitorch/layers/equiformer_v2.py"""

import copy
import gc
import math
import warnings

import pytest
import torch
from ase.build import molecule
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st

import equitorch
from equitorch.datasets import load_shipped
from equitorch.graph import AtomGraph
from equitorch.interop import fairchem
from equitorch.layers.equiformer_v2 import row_norm
from equitorch.models import EquiformerV2, Potential
from equitorch.models.equiformer_v2 import nearest
from equitorch.models.equiformer_v2_options import SIZES
from equitorch.ops.backend import use_reference
from equitorch.ops.rotate import edge_frames
from equitorch.reps import rand_matrix
from equitorch.testing import equivariance_error
from tests.equiformer_reference import MODELS, assert_same, reference

CUTOFF = 4.0
SPECIES = (1, 6, 7, 8)
SMALL = {
    "layers": 2, "lmax": 2, "mmax": 2, "channels": 6, "hidden": 4, "heads": 2, "score_channels": 4,
    "value_channels": 3, "ffn_hidden": 6, "edge_channels": 8, "cutoff": CUTOFF, "average_neighbors": 4.0,
    "max_z": 20,
}  # fmt: skip
BOTH = {
    "parity": "both",
    "channels": (6, 3),
    "hidden": (4, 2),
    "value_channels": (3, 2),
    "ffn_hidden": (6, 3),
}
PRODUCTS = {"activation": "product", "feed_forward": "product"}
EXACT = {
    "L2M2": {},
    "L4M2": {"lmax": 4},
    "L4M4, products": {"lmax": 4, "mmax": 4, **PRODUCTS},
    "L6M2": {"lmax": 6},
    "L6M6": {"lmax": 6, "mmax": 6, "layers": 1},
    "L3M2, selfmix": {"lmax": 3, "selfmix": True},
    "L1M0": {"lmax": 1, "mmax": 0},
    "both parities": {"lmax": 3, **BOTH},
    "both parities, selfmix": {"selfmix": True, **BOTH},
    "both parities, products": {"lmax": 3, "latitudes": 4, **BOTH, **PRODUCTS},
    "layer_norm_sh": {"lmax": 3, "norm": "layer_norm_sh", "share_radial": True, "attention_norm": False},
    "layer_norm": {"norm": "layer_norm", "share_element_scalars": True, "feed_forward": "spectral"},
    "no elements": {"lmax": 3, "mmax": 1, "element_scalars": False, "rescale": True},
}


def model(seed=0, **options):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is not exact")
        return EquiformerV2(**SMALL | options).double()


def potential(seed=0, **options):
    return Potential(model(seed, **options), species=SPECIES, scale=2.0).double().eval()


def atoms(count=10, seed=0):
    """Atoms of four elements at random places, none closer than 1 Å."""
    generator, pos = torch.Generator().manual_seed(seed), []
    while len(pos) < count:
        p = 5 * torch.rand(3, generator=generator, dtype=torch.float64) - 2.5
        if all((p - q).norm() > 1 for q in pos):
            pos.append(p)
    return torch.tensor(SPECIES)[torch.randint(4, (count,), generator=generator)], torch.stack(pos)


def run(made, numbers, pos, **options):
    return made(AtomGraph.build(numbers, pos, cutoff=made.cutoff, dtype=made.dtype), **options)


def turned(seed):
    """A rotation, and its mirror image."""
    torch.manual_seed(seed)
    rotation = rand_matrix(dtype=torch.float64)
    return rotation, -rotation


def errors(made, seed=0):
    """How far energies and forces are from turning with the atoms, relative to their size."""
    numbers, pos = atoms()
    before = run(made, numbers, pos)
    energy = force = 0.0
    for g in (*turned(seed), *turned(seed + 1)):
        after = run(made, numbers, pos @ g.T)
        energy = max(
            energy, float((after["energy"] - before["energy"]).abs() / before["node_energy"].abs().sum())
        )
        wrong = (after["forces"].double() - before["forces"].double() @ g.T).abs().max()
        force = max(force, float(wrong / before["forces"].abs().max()))
    return energy, force


@pytest.mark.parametrize("name", MODELS)
def test_reproduces_the_published_model(name):
    data = reference(name)
    with pytest.warns(UserWarning, match="is not exact"):
        made = fairchem.load(data)
    inputs, taken = data["inputs"], {}
    hooks = {
        "blocks.0.norm_1": made.blocks[0].norm1,
        "blocks.0.ga": made.blocks[0].attention,
        "blocks.0.norm_2": made.blocks[0].norm2,
        "blocks.0.ffn": made.blocks[0].ffn,
        "blocks.0": made.blocks[0],
        "edge_degree_embedding": made.degree,
        "norm": made.norm,
    }
    for key, module in hooks.items():
        module.register_forward_hook(lambda _m, _i, out, key=key: taken.__setitem__(key, out.detach()))
    args = (inputs["atomic_numbers"], inputs["edge_index"], inputs["edge_distance_vec"], inputs["batch"], 2)
    out = made(*args, edge_frames=data["frame"]["rot"])
    for key, value in taken.items():
        assert_same(value, data["intermediates"][key], 1e-13)
    assert_same(out["energy"], data["outputs"]["energy"], 1e-13)
    assert_same(out["forces"], data["outputs"]["forces"], 1e-13)
    if "grads" in data:
        ((inputs["w_e"] * out["energy"]).sum() + (inputs["w_f"] * out["forces"]).sum()).backward()
        gradients = fairchem.parameters(made, gradients=True)
        assert gradients.keys() == data["grads"].keys()
        for key, value in data["grads"].items():
            assert_same(gradients[key], value, 1e-11)


def test_needs_no_frames_where_the_published_model_does_not():
    data = reference("eqv2_L2M2_gate")
    with pytest.warns(UserWarning, match="is not exact"):
        made = fairchem.load(data)
    inputs = data["inputs"]
    args = (inputs["atomic_numbers"], inputs["edge_index"], inputs["edge_distance_vec"], inputs["batch"], 2)
    for implementation in (torch.no_grad(), use_reference()):
        with implementation:
            out = made(*args)
        assert_same(out["energy"].detach(), data["outputs"]["energy"], 1e-13)
        assert_same(out["forces"].detach(), data["outputs"]["forces"], 1e-13)


@pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)
def test_turns_with_the_atoms_and_knows_their_mirror_image(options):
    energy, force = errors(potential(**options))
    assert energy < 1e-13
    assert force < 1e-12


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 10**6))
@settings(max_examples=10)
def test_turns_with_the_atoms_at_every_size(lmax, mmax, seed):
    energy, force = errors(potential(seed, lmax=lmax, mmax=min(lmax, mmax), layers=1), seed)
    assert energy < 1e-13
    assert force < 1e-12


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (4, 2), (4, 4), (6, 2), (6, 6)])
def test_turns_with_the_atoms_in_float32(lmax, mmax):
    made = potential(lmax=lmax, mmax=mmax, channels=16, hidden=12, cutoff=5.0).to(dtype=torch.float32)
    energy, force = errors(made)
    assert energy < 1e-6
    assert force < 2e-6


def test_the_check_can_fail():
    """Imaginary weights see mirror images, and functions on a published grid see rotations."""
    assert errors(potential(parity="so3"))[0] > 1e-6
    assert errors(potential(mode="compat", activation="gate", feed_forward="separable_grid"))[1] > 1e-6


def test_features_are_what_irreps_out_says():
    made, (numbers, _) = model(lmax=3), atoms(6)
    assert str(made.irreps_out) == "1x0e+1x1o+1x2e+1x3o"
    target, source = (~torch.eye(6, dtype=torch.bool)).nonzero().T

    def features(x):
        vectors = x[source, :, 0] - x[target, :, 0]
        batch = torch.zeros(6, dtype=torch.long)
        return made(numbers, torch.stack([source, target]), vectors, batch, 1)["node_features"]

    assert equivariance_error(features, ["1o"], made.irreps_out, channels=1, batch=(6,)) < 1e-12


def test_pseudo_features_matter():
    """With them, energies depend on weights that map between the stacks."""
    made, (numbers, pos) = potential(lmax=3, layers=3, **BOTH), atoms()
    before = run(made, numbers, pos, forces=False)["energy"]
    with torch.no_grad():
        for block in made.model.blocks:
            for weight in block.attention.graph.conv1.imag_pseudo:
                weight.zero_()
    assert (run(made, numbers, pos, forces=False)["energy"] - before).abs() > 1e-6


@pytest.mark.parametrize(
    "options", [{"lmax": 4}, {"lmax": 3, **PRODUCTS}, {"lmax": 3, **BOTH}, {"selfmix": True}], ids=str
)
def test_forces_are_the_gradient(options):
    made, (numbers, pos) = potential(**options), atoms()
    forces, h = run(made, numbers, pos)["forces"], 1e-4
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        energies = []
        for k in (1, -1, 2, -2):
            moved = pos.clone()
            moved[atom, axis] += k * h
            energies.append(float(run(made, numbers, moved, forces=False)["energy"]))
        up, down, far_up, far_down = energies
        slope = (8 * (up - down) - (far_up - far_down)) / (12 * h)
        assert -slope == pytest.approx(float(forces[atom, axis]), abs=1e-8)


def test_sees_neither_the_poles_nor_the_equator_of_its_frames():
    made, numbers = potential(lmax=4), torch.tensor([6, 8, 1, 7])
    pos = torch.tensor([[0, 0, 0], [0, 1.3, 0], [1.0, -0.6, 0.3], [-0.7, -0.5, -1.0]], dtype=torch.float64)
    before = run(made, numbers, pos)
    for angle in (0.0, 1e-8, 1e-5, 3e-3, 0.1, math.pi / 2 - 1e-9, math.pi / 2, math.pi / 2 + 1e-9, math.pi):
        c, s = math.cos(angle), math.sin(angle)
        for turn in ([[1, 0, 0], [0, c, -s], [0, s, c]], [[c, -s, 0], [s, c, 0], [0, 0, 1]]):
            g = torch.tensor(turn, dtype=torch.float64)
            after = run(made, numbers, pos @ g.T)
            assert (after["energy"] - before["energy"]).abs() < 1e-14 * before["node_energy"].abs().sum()
            assert (after["forces"] - before["forces"] @ g.T).abs().max() < 1e-13


def test_selfmix_adds_a_branch_and_changes_nothing_else():
    """Without it, state and answers are what they were; with weights of zero it adds nothing."""
    plain, mixed, (numbers, pos) = potential(), potential(selfmix=True), atoms()
    extra = set(mixed.state_dict()) - set(plain.state_dict())
    assert all("selfmix" in name for name in extra)
    assert extra
    mixed.load_state_dict(plain.state_dict(), strict=False)
    before = run(plain, numbers, pos)["energy"]
    assert (run(mixed, numbers, pos)["energy"] - before).abs() > 1e-6
    with torch.no_grad():
        for block in mixed.model.blocks:
            block.selfmix.last.weight.zero_()
    assert torch.equal(run(mixed, numbers, pos)["energy"], before)


def test_any_frames_give_the_same_energy():
    made, (numbers, pos) = model(lmax=4), atoms()
    graph = AtomGraph.build(numbers, pos, cutoff=CUTOFF, dtype=torch.float64)
    vectors = graph.edge_vectors()
    roll = torch.rand(len(vectors), dtype=torch.float64) * 6
    c, s, o = roll.cos(), roll.sin(), torch.zeros_like(roll)
    rolls = torch.stack([c, o, s, o, o + 1, o, -s, o, c], dim=-1).unflatten(-1, (3, 3))
    args = numbers, graph.edge_index, vectors, graph.batch, 1
    ours, rolled = made(*args)["energy"], made(*args, edge_frames=rolls @ edge_frames(vectors))["energy"]
    assert (ours - rolled).abs() < 1e-14


@pytest.mark.parametrize("others", [0, 1])
def test_pairs_leave_at_the_cutoff_without_a_jump(others):
    made = potential(lmax=3)
    numbers = torch.tensor([6, 1, 8])[: 2 + others]

    def at(distance):
        pos = torch.tensor([[0, 0, 0], [distance, 0.0, 0], [0, 1.2, 0.3]], dtype=torch.float64)
        return run(made, numbers, pos[: 2 + others])

    inside, outside = at(CUTOFF - 1e-6), at(CUTOFF + 1e-6)
    assert (inside["energy"] - outside["energy"]).abs() < 1e-14
    assert (inside["forces"] - outside["forces"]).abs().max() < 1e-12


def test_repeats_itself_bit_for_bit():
    made, (numbers, pos) = potential(lmax=4), atoms()
    first, second = run(made, numbers, pos), run(made, numbers, pos)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_batch_is_the_sum_of_its_graphs_atoms_alone_and_pairs_included():
    made = potential(lmax=3)
    cases = [atoms(7), (torch.tensor([6]), torch.zeros(1, 3)), (torch.tensor([1, 8]), torch.eye(3)[:2] * 0.9)]
    graphs = [AtomGraph.build(z, p, cutoff=CUTOFF, dtype=torch.float64) for z, p in cases]
    together, alone = made(AtomGraph.batch(graphs)), [made(g) for g in graphs]
    assert_same(together["energy"], torch.cat([out["energy"] for out in alone]), 1e-14)
    assert_same(together["forces"], torch.cat([out["forces"] for out in alone]), 1e-13)
    assert (alone[1]["forces"] == 0).all()


def test_learns_from_forces():
    """Their gradient by a weight equals finite differences."""
    made, (numbers, pos) = potential(), atoms(6)
    weight = made.model.blocks[0].attention.graph.conv1.real[0]

    def loss():
        return run(made, numbers, pos, create_graph=True)["forces"].square().sum()

    gradient, h = torch.autograd.grad(loss(), weight)[0][1, 2], 1e-5
    values = []
    for step in (h, -2 * h):
        with torch.no_grad():
            weight[1, 2] += step
        values.append(float(loss().detach()))
    assert float(gradient) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"edge_chunk": 20}, {"recompute": True}, {"edge_chunk": 1, "recompute": True}], ids=str
)
def test_computes_the_same_again_in_less_memory(options):
    (numbers, pos), found = atoms(), []
    for made in (potential(), potential(**options)):
        out = run(made, numbers, pos, create_graph=True)
        (out["energy"].sum() + out["forces"].square().sum()).backward()
        found.append([out["energy"], out["forces"], *[p.grad for p in made.model.parameters()]])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


def test_keeps_nothing_of_a_block_that_it_computes_again():
    def alive(made):
        numbers, pos = atoms(20)
        graph = AtomGraph.build(numbers, pos, cutoff=CUTOFF, dtype=torch.float64)
        out = made(numbers, graph.edge_index, graph.edge_vectors().requires_grad_(), graph.batch, 1)
        gc.collect()
        found = {t.data_ptr(): t.numel() for t in gc.get_objects() if type(t) is torch.Tensor}
        return sum(found.values()), out

    kept, _ = alive(model(layers=3, recompute=True))
    whole, _ = alive(model(layers=3))
    assert kept < whole


def test_drops_the_same_when_it_computes_again():
    rates = {"attention_drop": 0.3, "path_drop": 0.3, "feature_drop": 0.3}
    made, (numbers, pos) = potential(recompute=True, edge_chunk=20, **rates).train(), atoms()

    def at(pos):
        torch.manual_seed(3)
        return run(made, numbers, pos)

    out, h, energies = at(pos), 1e-4, []
    for step in (h, -h):
        moved = pos.clone()
        moved[2, 1] += step
        energies.append(float(at(moved)["energy"].detach()))
    assert float(out["forces"][2, 1].detach()) == pytest.approx(
        (energies[1] - energies[0]) / (2 * h), rel=1e-5
    )
    assert (run(made, numbers, pos)["energy"] - out["energy"]).abs() > 1e-4


@pytest.mark.parametrize("options", [{}, BOTH, {"mode": "compat", "direct_forces": True}], ids=str)
def test_a_saved_potential_is_the_same(options, tmp_path):
    made, (numbers, pos) = potential(**options), atoms()
    made.save(tmp_path / "a.eqt")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is not exact")
        again = Potential.load(tmp_path / "a.eqt")
    assert again.model.options == made.model.options
    before, after = run(made, numbers, pos), run(again, numbers, pos)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_direct_forces_are_scaled_but_never_taken_for_the_gradient():
    made, (numbers, pos) = potential(direct_forces=True), atoms()
    out = run(made, numbers, pos)
    graph = AtomGraph.build(numbers, pos, cutoff=CUTOFF, dtype=torch.float64)
    raw = made.model(numbers, graph.edge_index, graph.edge_vectors(), graph.batch, 1)["forces"].detach()
    assert_same(out["direct_forces"], 2.0 * raw, 1e-14)
    assert (out["forces"] - out["direct_forces"]).abs().max() > 1e-3
    assert "forces" not in run(made, numbers, pos, forces=False)


def test_keeps_the_nearest_neighbours_of_compat_mode():
    made, (numbers, pos) = model(mode="compat", max_neighbors=3), atoms()
    graph = AtomGraph.build(numbers, pos, cutoff=CUTOFF, dtype=torch.float64)
    vectors = graph.edge_vectors()
    kept = nearest(graph.edge_index[1], vectors, 10, 3)
    assert torch.bincount(graph.edge_index[1][kept], minlength=10).max() == 3
    for i in range(10):
        mine = (graph.edge_index[1] == i).nonzero().flatten()
        lengths = vectors[mine].norm(dim=-1)
        assert set(mine[lengths.argsort()[:3]].tolist()) == set(kept[graph.edge_index[1][kept] == i].tolist())
    whole = made(numbers, graph.edge_index, vectors, graph.batch, 1, edge_frames=edge_frames(vectors))
    some = made(numbers, graph.edge_index[:, kept], vectors[kept], graph.batch, 1)
    assert torch.equal(whole["energy"], some["energy"])
    assert nearest(graph.edge_index[1], vectors, 10, 100) is None


@pytest.mark.parametrize(("size", "count"), [("31M", 31_058_690), ("83M", 83_164_802), ("153M", 153_602_690)])
def test_published_sizes(size, count):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is not exact")
        made = getattr(EquiformerV2, f"base_{size}")()
    assert sum(p.numel() for p in made.parameters()) == count
    assert SIZES[size]["lmax"] == made.lmax


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_in_exact_mode(size):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        made = getattr(EquiformerV2, f"base_{size}")(mode="exact")
    assert (made.lmax, made.options["direct_forces"]) == (SIZES[size]["lmax"], False)
    with pytest.raises(ValueError, match="max_neighbors=20 makes energies jump"):
        getattr(EquiformerV2, f"base_{size}")(mode="exact", max_neighbors=20)


def test_options_win_over_published_sizes():
    made = EquiformerV2.base_31M(**SMALL, mode="exact")
    assert (made.settings["parity"], made.settings["norm"]) == ("natural", "layer_norm_sh")


def test_learns_from_a_config(tmp_path):
    frames = [load_shipped("ethanol").to_ase(k) for k in range(0, 1200, 60)]
    write(tmp_path / "few.xyz", frames, format="extxyz")
    small = {k: v for k, v in SMALL.items() if k not in ("average_neighbors", "max_z")}
    run = equitorch.train(
        {
            "data": {"train": str(tmp_path / "few.xyz"), "valid": 4},
            "model": {"name": "equiformer_v2", **small, "cutoff": 3.0},
            "train": {"epochs": 4, "batch": 4, "lr": 0.01, "warmup": 0, "ema": 0.0, "device": "cpu"},
            "output": str(tmp_path / "run"),
        }
    )
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert 4 < equitorch.load(run.path).model.options["average_neighbors"] < 8


def test_an_untrained_model_adds_nothing_to_isolated_atoms():
    from equitorch.training.isolated import silence_isolated_atoms

    made = potential()
    assert silence_isolated_atoms(made)
    alone = run(made, torch.tensor([6]), torch.zeros(1, 3, dtype=torch.float64))
    assert alone["energy"].abs() < 1e-12


def test_compiles_into_one_graph():
    made = model(layers=1, lmax=1, mmax=1).requires_grad_(False)
    graph = AtomGraph.from_ase(molecule("CH3OH"), CUTOFF, dtype=torch.float64)
    answers = []
    for call in (made, torch.compile(made, fullgraph=True, backend="eager")):
        vectors = graph.edge_vectors().detach().requires_grad_()
        out = call(graph.atomic_numbers, graph.edge_index, vectors, graph.batch, 1)
        answers.append((out["energy"].detach(), torch.autograd.grad(out["energy"].sum(), vectors)[0]))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-12, atol=1e-12)


def test_is_copied_with_its_weights():
    made, (numbers, pos) = potential(), atoms()
    assert torch.equal(run(copy.deepcopy(made), numbers, pos)["energy"], run(made, numbers, pos)["energy"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "fast"}, "expects mode to be one of exact, compat, got 'fast'"),
        ({"mmax": 3}, "expects mmax <= lmax, got mmax=3 and lmax=2"),
        ({"layers": 0}, "expects layers to be a whole number >= 1, got 0"),
        ({"heads": 2.5}, "expects heads to be a whole number >= 1, got 2.5"),
        ({"selfmix": 2}, "expects selfmix to be True or False, got 2"),
        ({"radial": 1}, "expects radial to be a whole number >= 2, got 1"),
        ({"cutoff": -1.0}, "expects cutoff to be a number > 0, got -1.0"),
        ({"average_neighbors": 0}, "expects average_neighbors to be a number > 0, got 0"),
        ({"force_scale": 0.0}, "expects force_scale to be a number > 0, got 0.0"),
        ({"path_drop": 1.0}, "expects path_drop to be a probability < 1, got 1.0"),
        ({"norm": "batch"}, "expects norm to be one of rms_norm_sh, layer_norm_sh, layer_norm, got 'batch'"),
        ({"channels": (4, 2)}, "with parity='natural' expects channels to be a whole number >= 1, got .*"),
        ({"parity": "both"}, "with parity='both' expects channels to be a pair of whole numbers >= 1, got 6"),
        ({"activation": "s2"}, r"is exact, but activation='s2' changes under rotations on every grid: .*"),
        ({"feed_forward": "grid"}, r"is exact, but feed_forward='grid' changes under rotations .*"),
        ({"envelope": False}, "is exact, but without an envelope energies jump .*"),
        ({"max_neighbors": 20}, "is exact, but max_neighbors=20 makes energies jump .*"),
    ],
)
def test_says_what_it_expected(options, words):
    with pytest.raises(ValueError, match=rf"^EquiformerV2(\(mode='exact'\))? {words}$"):
        EquiformerV2(**SMALL | options)


def test_names_a_norm_that_it_does_not_know():
    with pytest.raises(ValueError, match=r"^a norm of rows is one of rms_norm_sh, .*, got 'none'$"):
        row_norm("none", 2, 8)


def test_says_once_what_is_not_exact():
    with pytest.warns(UserWarning, match="is not exact") as caught:
        EquiformerV2(**SMALL, mode="compat", direct_forces=True)
    assert len(caught) == 1
    text = str(caught[0].message)
    for words in (
        "separable_s2",
        "separable_grid",
        "cutoff",
        "mirror images",
        "direct forces are no gradient",
    ):
        assert words in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EquiformerV2(**SMALL)
