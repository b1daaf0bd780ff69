import pytest
import torch
from torch import nn

from equitorch.models.container import write_container
from equitorch.training.state import (
    State,
    latest_state,
    load_optimizer,
    load_random_state,
    optimizer_tensors,
    random_state,
    read_state,
    save_state,
)


def state(value):
    values = {"best": float("inf"), "history": [{"b": 1, "a": float("nan")}], "n": value}
    return State({"model.x": torch.tensor([value]), "model.y.z": torch.ones(2, 3).T}, values)


def test_keeps_the_last_two_and_reads_the_newest(tmp_path):
    assert latest_state(tmp_path) is None
    for epoch in (8, 9, 10):
        save_state(tmp_path, epoch, state(epoch))
    assert sorted(path.name[6:12] for path in tmp_path.iterdir()) == ["000009", "000010"]
    found = latest_state(tmp_path)
    assert found.values["n"] == 10
    assert found.values["best"] == float("inf")
    assert list(found.values["history"][0]) == ["b", "a"]
    assert found.part("model").keys() == {"x", "y.z"}
    assert found.part("model")["y.z"].shape == (3, 2)


def test_equal_states_are_equal_files(tmp_path):
    one, two = (save_state(tmp_path / name, 1, state(3)) for name in "ab")
    assert read_state(one).values["n"] == read_state(two).values["n"]
    assert torch.equal(read_state(one).tensors["model.x"], read_state(two).tensors["model.x"])


def test_passes_over_a_damaged_file_and_says_so_when_none_is_left(tmp_path):
    for epoch in (1, 2):
        save_state(tmp_path, epoch, state(epoch))
    newest = tmp_path / "epoch-000002.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert latest_state(tmp_path).values["n"] == 1
    (tmp_path / "epoch-000001.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        latest_state(tmp_path)


def test_says_what_it_expected(tmp_path):
    write_container(tmp_path / "other", {"a": 1}, {"x": torch.ones(1)})
    with pytest.raises(ValueError, match="should hold a training state of version 1, has none"):
        read_state(tmp_path / "other")


def test_an_optimizer_goes_on_as_if_nothing_had_happened():
    torch.manual_seed(0)
    models = [nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1) for model in models]
    x = torch.randn(4, 3)

    def step(i):
        optimizers[i].zero_grad()
        models[i](x).square().sum().backward()
        optimizers[i].step()

    step(0)
    load_optimizer(optimizers[1], optimizer_tensors(optimizers[0]))
    models[1].load_state_dict(models[0].state_dict())
    for i in (0, 1):
        step(i)
    assert torch.equal(models[0].weight, models[1].weight)


def test_random_numbers_continue():
    saved = random_state()
    expected = torch.rand(3)
    torch.rand(7)
    load_random_state(saved)
    assert torch.equal(torch.rand(3), expected)
