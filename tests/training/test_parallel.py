import os
import socket
import subprocess
import sys

import pytest
import torch

from equitorch.models import checkpoint
from equitorch.training.config import Config
from equitorch.training.loop import train
from equitorch.training.parallel import Processes
from equitorch.training.run import Run
from equitorch.training.state import latest_state
from tests.training.toy import write

SCRIPT = """
import sys
from equitorch.models import checkpoint
checkpoint.MODELS["toy"] = "tests.training.toy:Toy"
from equitorch.training.config import Config
from equitorch.training.loop import train
train(Config.from_file(sys.argv[1]))
"""


def config(folder, output, batch, data="train.xyz", **more):
    values = {
        "data": {
            "train": str(folder / data),
            "valid": 1,
        },  # 13 frames in steps of 6: the last has an empty share
        "model": {"name": "toy"},
        "train": {
            "epochs": 3,
            "batch": batch,
            "lr": 0.01,
            "warmup": 0,
            "precision": "float64",
            "device": "cpu",
        }
        | more,
        "output": str(folder / output),
    }
    return Config.from_dict(values)


def run_in_two(folder, settings):
    (folder / "job.yaml").write_text(settings.to_yaml())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", SCRIPT, str(folder / "job.yaml")]
    started = [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    return [(process.communicate(timeout=120)[1], process.returncode) for process in started]


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(checkpoint.MODELS, "toy", "tests.training.toy:Toy")


def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path):
    write(tmp_path / "train.xyz", 14)
    ended = run_in_two(tmp_path, config(tmp_path, "two", 3))
    assert [code for _, code in ended] == [0, 0], ended
    train(config(tmp_path, "one", 6))
    one, two = (latest_state(tmp_path / name / "state") for name in ("one", "two"))
    for name, value in one.tensors.items():
        if not name.startswith("random"):
            torch.testing.assert_close(two.tensors[name], value, rtol=1e-9, atol=1e-12, msg=name)
    for a, b in zip(Run.load(tmp_path / "one").history, Run.load(tmp_path / "two").history, strict=True):
        assert a == pytest.approx(b, rel=1e-9)
    a, b = (Run.load(tmp_path / name).metrics["valid"]["forces"] for name in ("one", "two"))
    assert a == pytest.approx(b, rel=1e-9)


def test_the_comparison_can_fail(tmp_path):
    write(tmp_path / "train.xyz", 14)
    train(config(tmp_path, "one", 6))
    train(config(tmp_path, "other", 3))
    one, other = (latest_state(tmp_path / name / "state") for name in ("one", "other"))
    assert not torch.allclose(
        one.tensors["model.model.first.weight"], other.tensors["model.model.first.weight"], rtol=1e-6
    )


def test_alone_nothing_happens():
    alone, parameter = Processes(), torch.nn.Parameter(torch.ones(2))
    assert alone.first
    assert alone.add(torch.ones(2)).tolist() == [1.0, 1.0]
    alone.add_gradients([parameter])
    assert parameter.grad is None
    assert alone.gather(["a"]) == ["a"]
    assert alone.any(True, torch.device("cpu"))
