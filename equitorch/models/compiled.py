"""A model's energy and its gradient as one compiled program that can be trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

Program = Callable[..., tuple[Tensor, Tensor]]


def compile_with_gradient(model: nn.Module, **options: Any) -> Program:
    r"""The energies of a model and their gradient by edge vectors, compiled together.

    ``torch.compile`` alone cannot be trained on forces: what it makes has no second derivative. Here energy
    and gradient are traced into one program first, at the first call, for any sizes; the backward pass of
    that is an ordinary one.

    Args:
        model: called as every model of this library; its weights stay its own.
        options: of ``torch.compile``.

    Returns:
        A function of (atomic_numbers, edge_index, edge_vectors, batch, num_graphs, edge_reverse=None) that
        gives the energies (graphs,) and their gradient (edges, 3), both differentiable by the weights.

    Raises:
        ValueError: at the first call, if it has fewer than two atoms or edges: sizes of one are not general.

    Source:
        PyTorch issue 91469 (the second derivative that is missing).

    >>> from equitorch.models import TensorNet
    >>> program = compile_with_gradient(TensorNet(channels=4, layers=1), backend="eager")
    >>> edges, vectors = torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> energy, gradient = program(torch.tensor([1, 1]), edges, vectors, torch.tensor([0, 0]), 1)
    >>> energy.shape, gradient.shape
    (torch.Size([1]), torch.Size([2, 3]))
    """
    programs: dict[bool, Callable[..., tuple[Tensor, Tensor]]] = {}

    def run(
        atomic_numbers: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        batch: Tensor,
        num_graphs: int,
        edge_reverse: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        inputs = [atomic_numbers, edge_index, edge_vectors, batch]
        inputs += [] if edge_reverse is None else [edge_reverse]
        # Sizes of tensors stay variable, if they are not one: hence a tensor, and an empty graph more.
        arguments = edge_vectors.new_empty(num_graphs + 1), *inputs
        both_ways = edge_reverse is not None
        if both_ways not in programs:
            if min(atomic_numbers.shape[0], edge_index.shape[1]) < 2:
                raise ValueError(
                    "compile_with_gradient expects at least two atoms and two edges in the first batch, "
                    f"got {atomic_numbers.shape[0]} and {edge_index.shape[1]}"
                )
            programs[both_ways] = torch.compile(_traced(model, arguments), **{"dynamic": True, **options})
        energy, gradient = programs[both_ways](*arguments)
        return energy[:-1], gradient

    return run


def _traced(model: nn.Module, arguments: tuple[Tensor, ...]) -> fx.GraphModule:
    """Energies and gradient as one program of PyTorch's own operators and ours."""
    import torch.fx.experimental._config as config
    from torch.fx.experimental.proxy_tensor import make_fx

    def both(graphs: Tensor, z: Tensor, edges: Tensor, vectors: Tensor, *rest: Tensor) -> Any:
        vectors = vectors.detach().requires_grad_()
        batch, *back = rest
        out = model(z, edges, vectors, batch, graphs.shape[0], edge_reverse=back[0] if back else None)
        energy = out["energy"]
        (gradient,) = torch.autograd.grad(energy.sum(), vectors, create_graph=True)
        return energy, gradient

    # Two sizes that happen to be equal are two sizes.
    with config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        program = make_fx(both, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
    for node in list(program.graph.nodes):
        # Tracing leaves a detach behind each saved tensor: with them, gradients of weights would be wrong.
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.recompile()
    return program
