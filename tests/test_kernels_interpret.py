"""A whole model on its Triton kernels, against the definitions: without a GPU in Triton's interpreter."""

import importlib

import pytest
import torch

from equitorch.layers.radial import tables
from equitorch.models import TensorNet
from equitorch.ops.backend import use_reference

FORMS = {"message": "message", "density": "density", "radial": "blend", "bilinear": "bilinear"}
FUNCTIONS = {"harmonics": "_implementation", "squash": "_kernel", "jet": "_kernel"}


@pytest.fixture
def ran(monkeypatch):
    """The ops whose Triton kernels have run since; CPU tensors go there, too."""
    pytest.importorskip("triton", reason="Triton is not installed")
    seen = set()

    def send_on(name, original):
        def kernels(*operands):
            found = original(*operands)
            if found is None or found.__name__.endswith("reference"):
                return found
            seen.add(name)
            return importlib.import_module(f"equitorch.ops.{name}.triton")

        return kernels

    def load(name, function):
        kernel = getattr(importlib.import_module(f"equitorch.ops.{name}.triton"), function)
        return lambda: lambda *arguments: seen.add(name) or kernel(*arguments)

    for name, function in FORMS.items():
        form = getattr(importlib.import_module(f"equitorch.ops.{name}.op"), f"_{function}")
        monkeypatch.setattr(form, "_kernels", dict.fromkeys(("cpu", "cuda"), load(name, function)))
        monkeypatch.setattr(form, "_loaded", {})
    for name, chooser in FUNCTIONS.items():
        op = importlib.import_module(f"equitorch.ops.{name}.op")
        monkeypatch.setattr(op, chooser, send_on(name, getattr(op, chooser)))
    return seen


def molecule():
    """Three atoms that all see one another: edges sorted by target, and the way back of each."""
    pos = torch.tensor([[0.0, 0.0, 0.0], [1.1, 0.2, 0.0], [-0.3, 0.9, 0.7]], dtype=torch.float64)
    index = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])
    return pos, index, torch.tensor([2, 4, 0, 5, 1, 3])


def energy_forces_and_training_gradients(model, device):
    pos, index, reverse = (t.to(device) for t in molecule())
    pos.requires_grad_()
    species, batch = torch.tensor([8, 1, 1], device=device), torch.zeros(3, dtype=torch.int64, device=device)
    vectors = pos[index[0]] - pos[index[1]]
    energy = model(species, index, vectors, batch, 1, edge_reverse=reverse)["energy"]
    (forces,) = torch.autograd.grad(-energy.sum(), pos, create_graph=True)
    loss = energy.square().sum() + forces.square().sum()
    return [energy, forces, *torch.autograd.grad(loss, model.parameters(), allow_unused=True)]


@pytest.mark.parametrize("knots", [None, 5])
def test_tensornet_has_the_energy_forces_and_gradients_of_the_definitions(knots, ran):
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = TensorNet(channels=4, layers=1, radial=4, max_z=9).double().to(device)
    with tables(model, knots):
        got = energy_forces_and_training_gradients(model, device)
        assert ran == ({*FORMS, *FUNCTIONS} if knots else {*FORMS, *FUNCTIONS} - {"radial"})
        with use_reference():
            want = energy_forces_and_training_gradients(model, device)
    assert want[1].abs().max() > 1e-4
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
