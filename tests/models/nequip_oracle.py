"""NequIP once more, from e3nn's own modules in its flat layout; slow."""

import math

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

_ACTS = {"silu": torch.nn.functional.silu}


def nequip(model, numbers, pos):
    """Energies of atoms that all see one another, with the weights of ``model``. float64, differentiable."""
    n, channels = len(pos), model.options["channels"]
    centre, neighbour = (~torch.eye(n, dtype=torch.bool)).nonzero().T
    vectors = pos[neighbour] - pos[centre]
    inside = vectors.norm(dim=-1) < model.options["cutoff"]
    centre, neighbour, vectors = centre[inside], neighbour[inside], vectors[inside]
    filters = o3.Irreps.spherical_harmonics(model.options["lmax"])
    y = o3.spherical_harmonics(filters, vectors, normalize=True, normalization="component")
    basis = _basis(vectors.norm(dim=-1), model.options)
    elements = model.embedding.weight[numbers]
    x = elements
    for layer in model.layers:
        x = _layer(layer, x, y, basis, elements, filters, (centre, neighbour), channels, model.options)
    first = [str(ir) for ir in model.irreps_out.copies].index("0e") * channels
    return x[:, first : first + channels] @ model.energy.layers[0].weight[0]


def _basis(d, options):
    c, p = options["cutoff"], options["power"]
    x = d / c
    u = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    n = torch.arange(1, options["radial"] + 1, dtype=d.dtype)
    return 2 / c * torch.sin(n * math.pi * d[:, None] / c) / d[:, None] * u[:, None]


def _times(irreps, channels):
    return o3.Irreps([(mul * channels, str(ir)) for mul, ir in irreps])


def _linear(linear, channels):
    theirs = o3.Linear(_times(linear.irreps_in, channels), _times(linear.irreps_out, channels)).double()
    theirs.weight = torch.nn.Parameter(linear.e3nn_weight())
    return theirs


def _layer(layer, x, y, basis, elements, filters, edges, channels, options):
    centre, neighbour = edges
    features, middle = (_times(irreps, channels) for irreps in (layer.irreps, layer.convolution.irreps_out))
    instructions = [
        (i, j, k, "uvu", True)
        for k, (a, b, _) in enumerate(layer.convolution.paths)
        for i, (_, ir) in enumerate(features)
        if str(ir) == str(a)
        for j, (_, ir_filter) in enumerate(filters)
        if str(ir_filter) == str(b)
    ]
    couple = o3.TensorProduct(
        features, filters, middle, instructions, shared_weights=False, internal_weights=False
    ).double()
    weight = basis
    for k, linear in enumerate(layer.radial.network.layers):
        weight = (torch.nn.functional.silu(weight) if k else weight) @ linear.weight.T
    messages = couple(_linear(layer.before, channels)(x)[neighbour], y, weight)
    total = x.new_zeros(len(x), messages.shape[1]).index_add(0, centre, messages)
    out = _linear(layer.after, channels)(total / (options["average_neighbors"] or 1.0) ** 0.5)
    inner = _times(layer.gate.irreps_in, channels)
    if layer.own is not None:
        attributes = o3.Irreps([(channels, "0e")])
        own = o3.FullyConnectedTensorProduct(features, attributes, inner).double()
        own.weight = torch.nn.Parameter(_flat(layer.own, channels))
        out = out + own(x, elements)
    return _gate(layer.gate, channels)(out)


def _flat(own, channels):
    """Weights (elements, channels in, copies, channels out) of every irrep as e3nn's (in, elements, out)."""
    parts, start = [], 0
    for group in own.layout.groups:
        size = channels * group.copies_out * channels
        block = own.weight[:, start : start + size].view(channels, channels, -1)
        parts.append(block.transpose(0, 1).flatten())
        start += size
    return torch.cat(parts).detach()


def _gate(gate, channels):
    scalars = _times(gate.irreps_out.filter(lmax=0), channels)
    gated = _times(gate.irreps_gated, channels)
    gates = o3.Irreps([(gated.num_irreps, "0e")]) if gated.num_irreps else o3.Irreps()
    acts = [torch.nn.functional.silu if ir.p == 1 else torch.tanh for _, ir in scalars]
    silu = [torch.nn.functional.silu] * len(gates)
    return e3nn_nn.Gate(scalars, acts, gates, silu, gated).double()
