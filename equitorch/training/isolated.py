"""Nothing is added to the energy of an isolated atom, by a model that is not yet trained."""

import torch
from torch import Tensor, nn

from equitorch.graph import AtomGraph
from equitorch.models.potential import Potential


def silence_isolated_atoms(potential: Potential) -> bool:
    r"""Change the last layer as little as possible so that it gives zero for every element alone.

    .. math:: w \cdot h_Z = 0

    where :math:`h_Z` (with 1 for the bias) is what the last layer reads of an isolated atom.

    Args:
        potential: whose model is new.

    Returns:
        whether the model ends with a layer that could be set: ``model.energy.layers[-1]``.
    """
    layers = getattr(getattr(potential.model, "energy", None), "layers", None)
    last = layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None
    if not isinstance(last, nn.Linear) or last.bias is None or last.out_features != 1:
        return False
    found: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0].detach().double()))
    try:
        for z in potential.species:
            potential(_alone(z, potential), forces=False, create_graph=False)
    finally:
        hook.remove()
    table = nn.functional.pad(torch.cat(found), (0, 1), value=1.0)
    with torch.no_grad():
        weights = torch.cat([last.weight[0], last.bias]).double()
        weights -= torch.linalg.pinv(table) @ (table @ weights)
        last.weight[0].copy_(weights[:-1])
        last.bias.copy_(weights[-1:])
    return True


def _alone(z: int, potential: Potential) -> AtomGraph:
    numbers, pos = torch.tensor([z]), torch.zeros(1, 3)
    return AtomGraph.build(numbers, pos, cutoff=potential.cutoff, dtype=potential.dtype)
