"""equitorch/models/checkpoint.py, equitorch/models/container.py"""

import json
import os
import pickle
import socket
import struct
from pathlib import Path

import pytest
import torch
from ase.build import molecule

from equitorch.graph import AtomGraph
from equitorch.models import checkpoint
from equitorch.models.container import peek_container, read_container, write_container
from equitorch.models.potential import Potential
from equitorch.models.tensornet import TensorNet
from tests.models.toy import Toy

# torch warns about itself at the first forward-mode derivative
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

E0 = {1: -13.6, 8: -2040.123456789}
OLD_FILES = Path(__file__).parents[1] / "data" / "models"


@pytest.fixture(autouse=True)
def _toy_is_a_model(monkeypatch):
    monkeypatch.setitem(checkpoint.MODELS, "toy", "tests.models.toy:Toy")


@pytest.fixture
def potential():
    return Potential(Toy(), reference_energies=E0, scale={1: 0.1, 8: 0.3}, shift=1 / 3, offset=0.5).eval()


def tensornet():
    torch.manual_seed(0)
    return Potential(
        TensorNet(channels=4, layers=1, radial=4, max_z=10), reference_energies=E0, scale=0.5
    ).eval()


def energy_and_forces(potential):
    out = potential(AtomGraph.from_ase(molecule("H2O"), potential.cutoff, dtype=potential.dtype))
    return out["energy"], out["forces"]


def write_old_file(path):
    """How the files in tests/data/models were made, once, each by the version it is named after."""
    old = tensornet().double()
    energy, forces = energy_and_forces(old)
    old.save(path, {"energy": energy.item(), "forces": forces.tolist()})


def rewrite(path, **changes):
    """The same file with another header, rightly hashed: what a newer library, or a villain, would write."""
    header, tensors = read_container(path)
    write_container(path, header | changes, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_comes_back_bit_for_bit(potential, tmp_path, dtype):
    potential.to(dtype).save(tmp_path / "a b.eqt")
    loaded = Potential.load(tmp_path / "a b.eqt")
    assert loaded.dtype == dtype
    assert not loaded.training
    assert loaded.species == (1, 8)
    for one, two in zip(energy_and_forces(potential), energy_and_forces(loaded), strict=True):
        assert torch.equal(one, two)
    state = loaded.state_dict()
    for name, value in potential.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.dtype == state[name].dtype
    assert all(p.requires_grad for p in loaded.parameters())


def test_holds_a_tensornet(tmp_path):
    one = tensornet()
    one.save(tmp_path / "model.eqt")
    two = Potential.load(tmp_path)
    for a, b in zip(energy_and_forces(one), energy_and_forces(two), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("path", sorted(OLD_FILES.glob("*.eqt")), ids=lambda p: p.stem)
def test_reads_files_of_earlier_versions(path):
    expected = checkpoint.read_header(path)["metadata"]
    energy, forces = energy_and_forces(Potential.load(path))
    torch.testing.assert_close(energy.item(), expected["energy"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(forces, torch.tensor(expected["forces"]).to(forces), atol=1e-6, rtol=1e-6)


def test_there_are_files_of_earlier_versions():
    assert list(OLD_FILES.glob("*.eqt"))


def test_converts_the_dtype_when_asked(potential, tmp_path):
    potential.save(tmp_path / "m.eqt")
    loaded = Potential.load(tmp_path / "m.eqt", device="cpu", dtype=torch.float64)
    assert loaded.dtype == torch.float64
    torch.testing.assert_close(
        energy_and_forces(loaded)[0], energy_and_forces(potential)[0], rtol=1e-7, atol=1e-5
    )


def test_header_says_all_without_building(potential, tmp_path, monkeypatch):
    potential.save(tmp_path / "model.eqt", {"rmse": 0.5, "bad": [float("nan")]}, data_hash="abc")
    monkeypatch.setattr(Toy, "__init__", None)
    header = checkpoint.read_header(tmp_path)  # a run's folder will do
    assert header["model"] == "toy"
    assert header["options"] == {"channels": 8, "cutoff": 4.0, "max_z": 20, "seed": 0}
    assert header["species"] == [1, 8]
    assert header["reference_energies"] == {"1": -13.6, "8": -2040.123456789}
    assert header["units"] == {"energy": "eV", "length": "Angstrom"}
    assert header["metadata"] == {"rmse": 0.5, "bad": [None]}
    assert header["data_hash"] == "abc"
    assert header["parameters"] == 20 * 8 + 8 + 24 * 8 + 8 + 20
    assert len(header["sha256"]) == 64


def test_writes_the_old_file_or_the_new_one(potential, tmp_path, monkeypatch):
    path = tmp_path / "m.eqt"
    potential.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        potential.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.eqt"]


def test_detects_every_flipped_bit(potential, tmp_path):
    path = tmp_path / "m.eqt"
    potential.save(path)
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    places = [*range(0, header, 37), *range(header, len(data), 211), len(data) - 1]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"m\.eqt"):
            Potential.load(path)


def test_safetensors_alone_would_not_see_it(potential, tmp_path):
    """The check above can fail: the same flipped bit passes the bare format."""
    from safetensors.torch import load_file

    potential.save(tmp_path / "m.eqt")
    data = bytearray((tmp_path / "m.eqt").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m.eqt").write_bytes(data)
    load_file(tmp_path / "m.eqt")
    with pytest.raises(ValueError, match=r"damaged: its contents do not match its sha256; copy it again"):
        Potential.load(tmp_path / "m.eqt")


@pytest.mark.parametrize("keep", [0, 1, 8, 100, -1])
def test_detects_truncation(potential, tmp_path, keep):
    path = tmp_path / "m.eqt"
    potential.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (Potential.load, checkpoint.read_header):
        with pytest.raises(ValueError, match=r"truncated|no equitorch file but (empty|another)"):
            read(path)


def bare(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"H 0 0 0\nO 1 0 0\n" * 9, "no equitorch file but another kind of file"),
        (pickle.dumps({"state_dict": 1}), "a PyTorch pickle, which can run code"),
        (b"PK\x03\x04" + bytes(60), "a PyTorch pickle, which can run code"),
        (struct.pack("<Q", 2**62) + b"{" + bytes(99), "another kind of file"),
        (struct.pack("<Q", 2**20) + b"{" + bytes(99), "truncated"),
        (bare(b'{"a":' * 100000), "its header is no JSON"),
        (bare(b"{" + bytes(9)), "its header is no JSON"),
        (bare({}), "without an equitorch header"),
        (bare({"__metadata__": {"equitorch": "{}", "sha256": ""}}), "do not match its sha256"),
        (
            bare(
                {
                    "__metadata__": {"equitorch": "{}", "sha256": ""},
                    "w": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4]},
                },
                bytes(4),
            ),
            "table of tensors makes no sense",
        ),
        (
            bare(
                {
                    "__metadata__": {"equitorch": "{}", "sha256": ""},
                    "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
                },
                bytes(4),
            ),
            "damaged",
        ),
        (
            bare({"__metadata__": {"equitorch": "{}", "sha256": ""}, "w": "evil"}),
            "table of tensors makes no sense",
        ),
    ],
)
def test_refuses_other_files(tmp_path, data, words):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        Potential.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 99}, r"has format 99, equitorch .* reads format 1; update with: pip install"),
        ({"model": "os:system"}, r"holds a model 'os:system', equitorch .* knows tensornet, .*toy; update"),
        ({"model": 3}, "without a usable 'model', got 3"),
        ({"units": {"energy": "kcal/mol", "length": "Angstrom"}}, "has the units"),
        ({"dtype": "complex64"}, "has the dtype 'complex64'"),
        ({"options": {"chanels": 8}}, "describes a toy that cannot be built: .*chanels"),
        ({"options": {"channels": 4}}, r"cannot be built: .* should be .*, is"),
        ({"options": {"channels": 10**6, "max_z": 10**6}}, "cannot be built: "),
        ({"options": {"channels": 9}}, "options ask for more weights than the 388 in the file"),
        ({"species": ["Xx"]}, "cannot be built"),
        ({"reduce": "max"}, "expects reduce to be one of"),
    ],
)
def test_refuses_other_headers(potential, tmp_path, changes, words):
    potential.save(tmp_path / "m.eqt")
    rewrite(tmp_path / "m.eqt", **changes)
    with pytest.raises(ValueError, match=words) as error:
        Potential.load(tmp_path / "m.eqt")
    assert "\n" not in str(error.value)


def test_says_where_there_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        Potential.load(tmp_path / "none.eqt")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.eqt"):
        Potential.load(tmp_path)


def test_refuses_models_outside_the_table(tmp_path, monkeypatch):
    monkeypatch.delitem(checkpoint.MODELS, "toy")
    with pytest.raises(ValueError, match=r"can hold tensornet.*, got Toy; keep another model's state_dict"):
        Potential(Toy()).save(tmp_path / "m.eqt")


def test_refuses_metadata_that_is_no_json(potential, tmp_path):
    with pytest.raises(ValueError, match="must be plain JSON"):
        potential.save(tmp_path / "m.eqt", {"model": potential})
    assert not list(tmp_path.iterdir())


def test_opens_no_socket(potential, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("load() went to the network")

    potential.save(tmp_path / "m.eqt")
    monkeypatch.setattr(socket, "socket", refuse)
    Potential.load(tmp_path / "m.eqt")
    checkpoint.read_header(tmp_path / "m.eqt")


def test_container_keeps_every_dtype(tmp_path):
    tensors = {
        "half": torch.randn(3).bfloat16(),
        "number": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "strided": torch.randn(4, 5).T,
        "flag": torch.tensor([True, False]),
    }
    write_container(tmp_path / "t", {"a": [1, 2.5, None]}, tensors)
    header, found = read_container(tmp_path / "t")
    assert header == {"a": [1, 2.5, None]}
    assert peek_container(tmp_path / "t").items() >= header.items()
    for name, value in tensors.items():
        assert torch.equal(found[name], value)
        assert found[name].dtype == value.dtype
