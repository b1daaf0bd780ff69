import re

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from equitorch.datasets import cache, cached, open_dataset, read_ase


@pytest.fixture
def path(tmp_path):
    frames = [molecule("H2O") for _ in range(1100)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.01, seed=seed)
        atoms.info["REF_energy"] = float(seed)
    ase.io.write(tmp_path / "water.xyz", frames)
    return tmp_path / "water.xyz"


def test_gives_the_same_data(path, tmp_path):
    first = cached(path, read_ase, tmp_path / "cache")
    again = cached(path, read_ase, tmp_path / "cache")
    plain = read_ase(path)
    assert first.digest() == again.digest() == plain.digest()
    assert again.frames.keys == plain.frames.keys == {"energy": {"info['REF_energy']": 1100}}
    assert isinstance(again.frames.columns["pos"], np.memmap)
    assert not again.frames.columns["pos"].flags.writeable


def test_reads_the_file_once(path, tmp_path, monkeypatch):
    calls = []

    def reader(path, **options):
        calls.append(options)
        return read_ase(path, **options)

    for _ in range(2):
        cached(path, reader, tmp_path / "cache")
    assert len(calls) == 1
    cached(path, reader, tmp_path / "cache", group="config_type")
    assert len(calls) == 2
    path.write_text(path.read_text().replace("REF_energy=7.0", "REF_energy=8.0"))
    assert cached(path, reader, tmp_path / "cache").energies[7] == 8.0
    monkeypatch.setattr(cache, "READER_VERSION", 10**6)
    cached(path, reader, tmp_path / "cache")
    assert len(calls) == 4


def test_leaves_nothing_after_an_error(tmp_path):
    bad = tmp_path / "bad.xyz"
    bad.write_text("1\n\nH 0 0 0\n2\n\nH 0 0 0\n")
    with pytest.raises(ValueError, match=re.escape("bad.xyz, frame 1: ASE cannot read it")):
        cached(bad, read_ase, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unfinished_copy_is_made_anew(path, tmp_path):
    cached(path, read_ase, tmp_path / "cache")
    (place,) = (tmp_path / "cache").iterdir()
    (place / "complete").unlink()
    (place / "pos.bin").write_bytes(b"cut")
    assert cached(path, read_ase, tmp_path / "cache").digest() == read_ase(path).digest()


def test_is_used_by_open_dataset(path, tmp_path):
    data = open_dataset(path, cache=tmp_path / "cache", keys={"energy": "REF_energy"})
    assert isinstance(data.frames.columns["pos"], np.memmap)
    with pytest.raises(ValueError, match=r"file '.*wter\.xyz' not found; did you mean '.*water\.xyz'\?"):
        open_dataset(tmp_path / "wter.xyz")
    with pytest.raises(ValueError, match=re.escape("load_shipped expects one of ")):
        open_dataset("shipped:benzene")
