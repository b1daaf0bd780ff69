import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from ase.io import write as write_file

from equitorch.graph import AtomGraph
from equitorch.models import checkpoint
from equitorch.models.potential import Potential
from equitorch.training.config import Config, ConfigError
from equitorch.training.evaluate import evaluate
from equitorch.training.initial import build_potential
from equitorch.training.prepare import loss_scales, prepare
from equitorch.training.splits import read_splits
from equitorch.training.trainer import Trainer
from tests.training.toy import Toy, frames, write


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(checkpoint.MODELS, "toy", "tests.training.toy:Toy")


def config(folder, *overrides):
    if not (folder / "train.xyz").exists():
        write(folder / "train.xyz", 12)
    values = {"data": {"train": str(folder / "train.xyz"), "valid": None}, "model": {"name": "toy"}}
    return Config.from_dict(values, overrides)


def build(folder, *overrides):
    return build_from(config(folder, *overrides))


def build_from(settings):
    return build_potential(settings, read_splits(settings.data, seed=0)[0])


def test_scale_is_the_force_rms_and_shift_what_the_references_leave(tmp_path):
    potential, notes = build(tmp_path, "model.reference_energies=none")
    forces = torch.cat([graph.forces for graph in frames(12)])
    assert potential.scale[8].item() == pytest.approx(forces.square().mean().sqrt().item(), rel=1e-6)
    rest = []
    for graph in frames(12):
        rest.append(graph.energy.item() / graph.num_atoms)
    assert potential.shift[1].item() == pytest.approx(np.mean(rest), rel=1e-6)
    assert potential.species == (1, 8)
    assert notes == ["reference energies: none"]


def binding(folder, *overrides, alone=True):
    """Frames bound by 4.7 eV per atom, with or without isolated atoms, for a small TensorNet."""
    images = read(write(folder / "train.xyz", 24), ":")
    for image in images:
        image.calc.results["energy"] -= 4.7 * len(image)
    single = [Atoms("H", info={"energy": -10.0}), Atoms("O", info={"energy": -80.0})] if alone else []
    write_file(folder / "train.xyz", [*images, *single])
    small = ["model.name=tensornet", "model.channels=8", "model.layers=1", "model.radial=8"]
    return config(folder, *small, *overrides)


def single_energies(potential):
    graphs = [AtomGraph.build(torch.tensor([z]), torch.zeros(1, 3), cutoff=potential.cutoff) for z in (1, 8)]
    return potential(AtomGraph.batch(graphs), forces=False)["energy"].tolist()


@pytest.mark.parametrize("override", [[], ["data.keys.forces=none"]])
def test_energies_of_isolated_atoms_are_kept(tmp_path, override):
    potential, notes = build_from(binding(tmp_path, *override))
    assert (potential.shift == 0).all()
    assert single_energies(potential) == pytest.approx([-10.0, -80.0], abs=1e-5)
    assert notes[1] == "shift 0: energies of isolated atoms are kept"
    if override:
        assert 4 < potential.scale[1].item() < 5
    potential, notes = build_from(
        binding(tmp_path, "model.reference_energies={H: -10, O: -80}", *override, alone=False)
    )
    assert single_energies(potential) == pytest.approx([-10.0, -80.0], abs=1e-5)
    assert notes[1].endswith("are kept at the start; no training frame holds that of H, O")
    shifted, _ = build_from(binding(tmp_path, "model.shift=-4.7"))
    assert shifted.shift[8].item() == -4.7
    assert single_energies(shifted) != pytest.approx([-10.0, -80.0], abs=1)


def test_the_binding_energy_is_learned_beside_isolated_atoms(tmp_path):
    settings = binding(tmp_path, "train.lr=0.01", "train.warmup=10", "train.ema=0", "train.batch=6")
    torch.manual_seed(0)
    prepared = prepare(settings, torch.device("cpu"))
    assert prepared.loss.scales["energy"] < 0.5
    trainer = Trainer(prepared.potential, prepared.loss, settings.train, steps=1000)
    table = evaluate(prepared.potential, prepared.splits["train"])
    assert table.overall()["energy"]["count"] == 24
    assert table.overall()["energy"]["mae"] == pytest.approx(4.7, abs=0.5)
    for epoch in range(30):
        trainer.epoch(prepared.train, epoch)
    table = evaluate(prepared.potential, prepared.splits["train"])
    assert table.overall()["energy"]["mae"] < 0.8
    assert single_energies(prepared.potential) == pytest.approx([-10.0, -80.0], abs=0.8)
    parts = {row["part"]: row["count"] for row in table.rows("train") if row["quantity"] == "energy"}
    assert parts["all"] == 24
    assert parts["group isolated atoms"] == 2


def test_without_forces_scale_is_the_spread_of_the_energies(tmp_path):
    potential, _ = build(tmp_path, "data.keys.forces=none", "model.reference_energies=none")
    rest = np.array([g.energy.item() / g.num_atoms for g in frames(12)])
    assert potential.scale[1].item() == pytest.approx(rest.std(), rel=1e-6)


def test_numbers_of_the_config_win(tmp_path):
    potential, _ = build(tmp_path, "model.scale=2", "model.shift=-1")
    assert (potential.scale[8].item(), potential.shift[8].item()) == (2.0, -1.0)


def test_what_is_learned_starts_with_errors_of_about_one(tmp_path):
    prepared = prepare(config(tmp_path), torch.device("cpu"))
    data = read_splits(config(tmp_path).data, seed=0)[0]["train"]
    scales = loss_scales(prepared.potential, data)
    assert scales["forces"] == pytest.approx(prepared.potential.scale[1].item())
    assert scales["stress"] == 1.0
    assert prepared.loss.scales == scales
    assert prepared.loss.weights == {"energy": 1.0, "forces": 10.0}
    assert prepared.summary["frames"] == {"train": 12, "valid": 0, "test": 0}
    raw = prepare(config(tmp_path, "train.loss.normalize=false"), torch.device("cpu"))
    assert raw.loss.scales == {}


def test_tells_what_does_not_fit(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model\.max_z: the data have element 8, the table of the model ends at 4"
    ):
        build(tmp_path, "model.max_z=5")
    Potential(Toy(channels=4), species=[1]).save(tmp_path / "old.eqt")
    with pytest.raises(ConfigError) as error:
        build(tmp_path, f"model.from={tmp_path / 'old.eqt'}", "model.channels=8")
    assert "model.channels: is 4 in" in str(error.value)
    assert "does not know the elements [8]" in str(error.value)


def test_a_label_without_weight_is_worth_a_note(tmp_path):
    prepared = prepare(config(tmp_path, "train.loss.energy=0"), torch.device("cpu"))
    assert "energy of 12 training frames have no weight and are not learned" in prepared.notes
    with pytest.raises(ConfigError, match="no training frame has energy, forces or stress to learn from"):
        prepare(config(tmp_path, "data.keys={energy: none, forces: none}"), torch.device("cpu"))


def test_charges_are_worth_a_note(tmp_path):
    images = read(write(tmp_path / "train.xyz", 6), ":")
    for charge, image in enumerate(images):
        image.info["charge"] = charge % 2
    write_file(tmp_path / "train.xyz", images)
    notes = prepare(config(tmp_path), torch.device("cpu")).notes
    assert "3 training frames are charged: the model is given the charge, in info['charge'] of atoms" in notes
    write(tmp_path / "train.xyz", 6)
    assert not any("charge" in note for note in prepare(config(tmp_path), torch.device("cpu")).notes)


def test_training_starts_well_from_given_energies_of_atoms():
    references = {"H": -30.0, "C": -30.0, "O": -30.0}  # 4.4 eV per atom above what a fit gives
    values = {
        "data": {"train": "shipped:ethanol", "valid": 40},
        "model": {"channels": 8, "layers": 1, "radial": 8, "reference_energies": references},
        "train": {"batch": 8, "lr": 0.002, "warmup": 50, "ema": 0.9, "device": "cpu"},
    }
    settings = Config.from_dict(values)
    torch.manual_seed(1)
    prepared = prepare(settings, torch.device("cpu"))
    trainer = Trainer(prepared.potential, prepared.loss, settings.train, steps=1000)
    before = trainer.validate(prepared.valid)
    assert before["valid_energy_mae"] > 1
    for epoch in range(3):
        trainer.epoch(prepared.train, epoch)
    after = trainer.validate(prepared.valid)
    assert after["valid_energy_mae"] < 0.03
    assert after["valid_forces_mae"] < 0.9 * before["valid_forces_mae"]
