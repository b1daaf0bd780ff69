import os
import re
from pathlib import Path

import numpy as np
import pytest

from equitorch.datasets import open_dataset, read_rmd17

SHARED = Path(os.environ.get("EQUITORCH_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "rmd17"


def write(path: Path, frames: int = 6, **changes) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "nuclear_charges": np.array([8, 1, 1], dtype=np.uint8),
        "coords": random.standard_normal((frames, 3, 3)),
        "energies": np.arange(float(frames)),
        "forces": np.ones((frames, 3, 3)),
    }
    np.savez(path, **{**arrays, **changes})


def test_reads_whole_and_cut_files(tmp_path):
    write(tmp_path / "rmd17_water.npz")
    np.savetxt(tmp_path / "index_train_02.csv", [4, 1], fmt="%d")
    data = read_rmd17(tmp_path, "water", split="train", fold=2)
    assert data.energies.tolist() == pytest.approx([4 * 0.0433641043, 0.0433641043])
    assert data[0].forces[0, 0].item() == pytest.approx(0.0433641043)
    assert len(read_rmd17(tmp_path, "water")) == len(open_dataset(tmp_path / "rmd17_water.npz")) == 6
    write(tmp_path / "rmd17_water_test_01.npz", frames=2)
    assert read_rmd17(tmp_path, "water", split="test").labels == {"energy": 2, "forces": 2, "stress": 0}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published files")
def test_reads_the_published_files():
    train, test = (read_rmd17(SHARED, "ethanol", split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.species) == (1000, 1000, (1, 6, 8))
    found = train.statistics()
    assert found.energy_mean * 9 == pytest.approx(-4209.5, abs=1.0)
    assert 0.5 < found.force_rms < 2
    assert found.net_force_max < 0.01


def test_says_what_it_expected(tmp_path):
    with pytest.raises(
        ValueError, match=re.escape("rMD17 expects rmd17_water.npz here, found no rmd17_*.npz")
    ):
        read_rmd17(tmp_path, "water")
    write(tmp_path / "rmd17_water.npz", forces=np.ones((6, 2, 3)))
    with pytest.raises(ValueError, match=re.escape("forces expects shape (6, 3, 3), got (6, 2, 3)")):
        read_rmd17(tmp_path, "water")
    (tmp_path / "rmd17_water.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match=r"rmd17_water\.npz: not a file of rMD17"):
        read_rmd17(tmp_path, "water")
    with pytest.raises(ValueError, match="split 'train', 'test' or None, got 'valid'"):
        read_rmd17(tmp_path, "water", split="valid")
    np.savez(tmp_path / "rmd17_water.npz", coords=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a file of rMD17"):
        read_rmd17(tmp_path, "water")
