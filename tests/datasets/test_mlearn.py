import json
import re

import numpy as np
import pytest

from equitorch.datasets import open_dataset, read_mlearn


def entry() -> dict:
    sites = [
        {"species": [{"element": "Cu", "occu": 1}], "abc": [0, 0, 0]},
        {"species": [{"element": "Cu", "occu": 1}], "abc": [0.5, 0.5, 0]},
    ]
    structure = {"lattice": {"matrix": (np.eye(3) * 4).tolist()}, "sites": sites}
    outputs = {"energy": -8.0, "forces": [[0, 0, 1.0], [0, 0, -1.0]], "virial_stress": [0.0] * 6}
    return {"structure": structure, "outputs": outputs, "group": "AIMD"}


def test_reads_the_published_form(tmp_path):
    path = tmp_path / "training.json"
    path.write_text(json.dumps([entry(), entry()]))
    data = open_dataset(path)
    assert (len(data), data.species, data.groups) == (2, (29,), ("AIMD", "AIMD"))
    assert data.labels == {"energy": 2, "forces": 2, "stress": 0}
    assert data[0].pos[1].tolist() == [2.0, 2.0, 0.0]
    assert data.frames.notes == ("virial_stress is not read: its unit and order are undocumented",)


def test_says_what_it_expected(tmp_path):
    path = tmp_path / "training.json"
    broken = entry()
    del broken["outputs"]["energy"]
    path.write_text(json.dumps([entry(), broken]))
    with pytest.raises(
        ValueError, match=re.escape("json, frame 1: mlearn expects a structure, lacks 'energy'")
    ):
        read_mlearn(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="a list of structures, got a dict"):
        read_mlearn(path)
    path.write_text("[")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_mlearn(path)
