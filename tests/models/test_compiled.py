"""equitorch/models/compiled.py"""

import pytest
import torch
from ase.build import molecule

from equitorch.graph import AtomGraph
from equitorch.layers import EquivariantConvolution, pool
from equitorch.models.compiled import compile_with_gradient
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics


class Toy(torch.nn.Module):
    """Two of our operators that are no function of PyTorch's, and weights behind them."""

    def __init__(self):
        super().__init__()
        self.conv = EquivariantConvolution("0e", "0e + 1o", "0e + 1o", 2)
        self.radial, self.head = torch.nn.Linear(1, 4), torch.nn.Linear(2, 1)

    def forward(self, atomic_numbers, edge_index, edge_vectors, batch, num_graphs, *, edge_reverse=None):
        plan = EdgePlan.build(edge_index, batch.shape[0], edge_reverse=edge_reverse)
        distance = edge_vectors[plan.pair_edge[:, :1]].norm(dim=-1)
        weight = self.radial(distance).sin().unflatten(-1, (2, 2))
        x = atomic_numbers[:, None, None].to(distance).expand(-1, 1, 2)
        x = self.conv(x, spherical_harmonics(1, edge_vectors), weight, plan)
        energy = self.head((x * x).sum(1)).squeeze(-1)
        return {"energy": pool(energy, batch, num_graphs)}


def inputs(*names, reverse=True):
    graphs = [AtomGraph.from_ase(molecule(name), 5.0, dtype=torch.float64) for name in names]
    graph = AtomGraph.batch(graphs)
    given = (
        graph.atomic_numbers,
        graph.edge_index,
        graph.edge_vectors().detach(),
        graph.batch,
        graph.num_graphs,
    )
    return (*given, graph.edge_reverse) if reverse else given


def eager(model, z, edges, vectors, batch, num_graphs, back=None):
    vectors = vectors.clone().requires_grad_()
    energy = model(z, edges, vectors, batch, num_graphs, edge_reverse=back)["energy"]
    return energy, torch.autograd.grad(energy.sum(), vectors, create_graph=True)[0]


def learned(model, call, given):
    """Energy, gradient, and what a loss on both asks of every weight."""
    model.zero_grad()
    energy, gradient = call(*given)
    (energy.square().sum() + gradient.square().sum()).backward()
    return [energy.detach(), gradient.detach(), *[w.grad.clone() for w in model.parameters()]]


@pytest.mark.parametrize(("reverse", "backend"), [(True, "aot_eager"), (False, "eager")])
def test_trains_on_forces_as_eager_code_does(reverse, backend):
    """Gradients of weights, through the gradient; batches of other sizes than the first, an atom alone."""
    torch.manual_seed(0)
    model = Toy().double()
    program = compile_with_gradient(model, backend=backend)
    for names in (["CH3CH2OH"], ["H", "NH3", "CO"]):
        given = inputs(*names, reverse=reverse)
        ours = learned(model, program, given)
        wanted = learned(model, lambda *given: eager(model, *given), given)
        for got, want in zip(ours, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_the_check_can_fail():
    """The force part of the loss is what eager and compiled would differ in, and it is not small."""
    torch.manual_seed(0)
    model = Toy().double()
    given = inputs("H2O")

    def without_second_derivative(*given):
        energy, gradient = eager(model, *given)
        return energy, gradient.detach().requires_grad_()

    full = learned(model, lambda *given: eager(model, *given), given)
    part = learned(model, without_second_derivative, given)
    assert max(float((a - b).abs().max()) for a, b in zip(full, part, strict=True)) > 1e-3


def test_says_what_the_first_batch_needs():
    program = compile_with_gradient(Toy(), backend="eager")
    with pytest.raises(ValueError, match="at least two atoms and two edges in the first batch, got 1 and 0"):
        program(*inputs("H"))
