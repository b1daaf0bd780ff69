import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from equitorch.models import checkpoint
from equitorch.models.potential import Potential
from equitorch.training.config import Config, ConfigError
from equitorch.training.loop import train
from equitorch.training.run import Observer, Run
from equitorch.training.state import latest_state
from tests.training.toy import write

SETTINGS = {
    "model": {"name": "toy"},
    "train": {
        "epochs": 4,
        "batch": 3,
        "lr": 0.01,
        "warmup": 4,
        "precision": "float64",
        "ema": 0.9,
        "device": "cpu",
    },
}


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(checkpoint.MODELS, "toy", "tests.training.toy:Toy")


def settings(folder, output="run", overrides=()):
    data = folder / "train.xyz"
    if not data.exists():
        write(data, 14)
    values = {**SETTINGS, "data": {"train": str(data), "valid": 3}, "output": str(folder / output)}
    return Config.from_dict(values, overrides)


def same(a: Path, b: Path) -> None:
    """The two runs ended in the same state, bit for bit."""
    one, two = latest_state(a / "state"), latest_state(b / "state")
    assert one.tensors.keys() == two.tensors.keys()
    for name, value in one.tensors.items():
        assert torch.equal(value, two.tensors[name]), name
    for values in (one.values, two.values):
        values["config"] = None
    assert one.values == two.values
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()


def test_trains_writes_everything_and_tells_the_observers(tmp_path):
    heard = []

    class Listener(Observer):
        def on_start(self, summary):
            heard.append(("start", summary["frames"]))

        def on_batch(self, done, batches, loss):
            heard.append(("batch", done, batches))

        def on_epoch(self, metrics):
            heard.append(("epoch", metrics["epoch"]))

        def on_end(self, run):
            heard.append(("end", run.status))

    run = train(settings(tmp_path), observers=[Listener()])
    assert heard[0] == ("start", {"train": 11, "valid": 3, "test": 0})
    assert heard[1:6] == [*(("batch", i, 4) for i in range(1, 5)), ("epoch", 1)]
    assert heard[-1] == ("end", "finished")
    names = {path.name for path in run.path.iterdir()}
    assert names == {"model.eqt", "last.eqt", "metrics.csv", "run.json", "config.yaml", "train.log", "state"}
    loaded = Run.load(run.path)
    assert loaded.history == run.history
    assert loaded.metrics["valid"]["forces"]["count"] == run.metrics["valid"]["forces"]["count"]
    assert Config.from_file(run.path / "config.yaml").digest(without=["output"])
    assert len(list((run.path / "state").iterdir())) <= 2


def test_the_saved_model_is_the_one_that_was_validated(tmp_path):
    run = train(settings(tmp_path))
    assert run.metrics["valid"]["forces"]["mae"] == pytest.approx(run.best["valid_forces_mae"], rel=1e-12)
    assert run.metrics["valid"]["energy"]["rmse"] == pytest.approx(run.best["valid_energy_rmse"], rel=1e-12)
    header = checkpoint.read_header(run.path / "model.eqt")
    assert header["data_hash"] == run.summary["data_hash"]
    assert header["metadata"]["metrics"]["epoch"] == run.summary["best_epoch"]


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path):
    for name in ("a", "b"):
        train(settings(tmp_path, name))
    same(tmp_path / "a", tmp_path / "b")
    train(settings(tmp_path, "c", ["train.seed=2"]))
    with pytest.raises(AssertionError):
        same(tmp_path / "a", tmp_path / "c")


def test_resuming_continues_bit_for_bit(tmp_path):
    constant = ["train.schedule=plateau"]
    train(settings(tmp_path, "straight", constant))
    train(settings(tmp_path, "parts", [*constant, "train.epochs=2"]))
    run = train(settings(tmp_path, "parts", constant), resume=True)
    assert run.status == "finished"
    same(tmp_path / "straight", tmp_path / "parts")


SCRIPT = """
import sys, time
from equitorch.models import checkpoint
checkpoint.MODELS["toy"] = "tests.training.toy:Toy"
from equitorch.training.config import Config
from equitorch.training.loop import train
from equitorch.training.run import Observer
class Slow(Observer):
    def on_batch(self, done, batches, loss):
        print(done, flush=True)
        time.sleep(float(sys.argv[2]))
train(Config.from_file(sys.argv[1]), observers=[Slow()])
"""


def launch(folder, config, pause=0.1, **options):
    (folder / "job.yaml").write_text(config.to_yaml())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(folder / "job.yaml"), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def test_resuming_after_a_kill_in_mid_epoch_continues_bit_for_bit(tmp_path):
    train(settings(tmp_path, "straight"))
    process = launch(tmp_path, settings(tmp_path, "killed"))
    for _ in range(10):  # two epochs of four steps, and two steps
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / "killed" / "metrics.csv").exists()
    with open(tmp_path / "killed" / "metrics.csv", "a") as file:
        file.write("9,half a li")
    train(settings(tmp_path, "killed"), resume=True)
    same(tmp_path / "straight", tmp_path / "killed")


def test_control_c_finishes_the_epoch_and_saves(tmp_path):
    process = launch(tmp_path, settings(tmp_path, "stopped"))
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    run = Run.load(tmp_path / "stopped")
    assert (run.status, run.interrupted, len(run.history)) == ("interrupted", True, 1)
    train(settings(tmp_path, "stopped"), resume=True)
    train(settings(tmp_path, "straight"))
    same(tmp_path / "straight", tmp_path / "stopped")


def test_a_damaged_state_is_replaced_by_the_one_before(tmp_path):
    train(settings(tmp_path, "straight"))
    train(settings(tmp_path, "parts"))
    newest = max((tmp_path / "parts" / "state").iterdir())
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    if len(list(newest.parent.iterdir())) == 2:
        train(settings(tmp_path, "parts"), resume=True)
        same(tmp_path / "straight", tmp_path / "parts")
    else:
        with pytest.raises(ValueError, match="damaged"):
            train(settings(tmp_path, "parts"), resume=True)


def test_stops_early_and_in_time(tmp_path):
    run = train(
        settings(tmp_path, "early", ["train.patience=2", "train.lr=1e-30", "train.epochs=50", "train.ema=0"])
    )
    assert run.status == "early"
    assert len(run.history) < 50
    run = train(settings(tmp_path, "time", ["train.epochs=1000000", "train.max_minutes=0.01"]))
    assert run.status == "time"
    assert run.summary["seconds"] < 0.7


def test_fine_tuning_starts_with_the_model_it_was_given(tmp_path):
    first = train(settings(tmp_path, "first"))
    found = []

    class Look(Observer):
        def on_start(self, summary):
            found.append(summary)

    config = settings(
        tmp_path, "second", [f"model.from={first.path / 'model.eqt'}", "train.lr=1e-30", "train.epochs=1"]
    )
    second = train(config, observers=[Look()])
    assert second.best["valid_forces_mae"] == pytest.approx(first.best["valid_forces_mae"], rel=1e-12)
    one, two = Potential.load(first.path), Potential.load(second.path)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=0, atol=1e-25)


def test_never_overwrites_a_run_and_never_resumes_another(tmp_path):
    train(settings(tmp_path))
    with pytest.raises(ConfigError, match="holds a run already"):
        train(settings(tmp_path))
    with pytest.raises(ConfigError, match=r"train\.lr: was 0\.01 in the run to resume, is 0\.02"):
        train(settings(tmp_path, overrides=["train.lr=0.02"]), resume=True)
    with pytest.raises(ConfigError, match="no run to resume"):
        train(settings(tmp_path, "other"), resume=True)
    write(tmp_path / "train.xyz", 14, seed=5)
    with pytest.raises(ConfigError, match="not those of the run to resume"):
        train(settings(tmp_path), resume=True)


def test_a_weight_without_a_label_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.loss\.stress: no training frame has stress"):
        train(settings(tmp_path, overrides=["train.loss.stress=1"]))
    assert not (tmp_path / "run").exists()


def test_numbers_in_run_json_are_json(tmp_path):
    run = train(settings(tmp_path, overrides=["train.epochs=1"]))
    summary = json.loads((run.path / "run.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert summary["status"] == "finished"
    assert math.isfinite(summary["scale"])
    assert time.strftime("%Y") in (run.path / "train.log").read_text()
