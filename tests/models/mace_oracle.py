"""MACE once more, from e3nn's own modules in its flat layout and dense products; slow."""

import math

import numpy as np
import torch
from e3nn import o3

from tests.layers.test_symmetric_contraction import couplings, mace
from tests.models.nequip_oracle import _basis, _linear, _times


def energies(model, numbers, pos, weights=None):
    """Energies of atoms that all see one another, with the weights of ``model``. float64, differentiable.

    Args:
        weights: MACE's of each layer's product, which that has taken over; None with the product "gaunt".
    """
    options = model.options
    channels = options["channels"]
    centre, neighbour = (~torch.eye(len(pos), dtype=torch.bool)).nonzero().T
    vectors = pos[neighbour] - pos[centre]
    inside = vectors.norm(dim=-1) < options["cutoff"]
    centre, neighbour, vectors = centre[inside], neighbour[inside], vectors[inside]
    filters = o3.Irreps.spherical_harmonics(options["max_ell"])
    y = o3.spherical_harmonics(filters, vectors, normalize=True, normalization="component")
    kind = torch.tensor([options["elements"].index(z) for z in numbers.tolist()])
    x, total = model.embedding.weight[kind], 0
    for k, layer in enumerate(model.layers):
        radial = _basis(vectors.norm(dim=-1), options)
        for n, linear in enumerate(layer.radial.network.layers):
            radial = (torch.nn.functional.silu(radial) if n else radial) @ linear.weight.T
        messages = _couple(layer.convolution, filters, channels)(
            _linear(layer.before, channels)(x)[neighbour], y, radial
        )
        summed = messages.new_zeros(len(pos), messages.shape[1]).index_add(0, centre, messages)
        gathered = _linear(layer.after, channels)(summed / options["average_neighbors"])
        if k == 0:
            gathered = _by_element(layer.own, gathered, kind, channels)
        rows = _rows(gathered, filters, channels)
        bodies = (
            _powers(layer.product, rows, kind)
            if weights is None
            else mace(layer.product.irreps_in, layer.product.irreps_out, weights[k], rows, kind)
        )
        out = _linear(layer.mix, channels)(_flat(bodies, layer.mix.irreps_in, channels))
        x = out + _by_element(layer.own, x, kind, channels) if k else out
        part = x[:, :channels]
        for n, linear in enumerate(model.readouts[k].layers):
            part = (torch.nn.functional.silu(part) if n else part) @ linear.weight.T
        total = total + part[:, 0]
    return total


def random_weights(layer):
    """Random weights as MACE has them for the product of a layer, which takes them over."""
    product = layer.product
    weights = [
        [
            torch.randn(
                product.species,
                sum(own == ir for own, _ in couplings(product.irreps_in, degree)),
                product.channels,
            ).double()
            for degree in range(1, highest + 1)
        ]
        for ir, highest in zip(product.irreps_out.copies, product.correlation, strict=True)
    ]
    product.load_mace(weights)
    return weights


def _couple(convolution, filters, channels):
    features, middle = (
        _times(irreps, channels) for irreps in (convolution.irreps_in, convolution.irreps_out)
    )
    instructions = [
        (i, j, k, "uvu", True)
        for k, (a, b, _) in enumerate(convolution.paths)
        for i, (_, ir) in enumerate(features)
        for j, (_, ir_filter) in enumerate(filters)
        if (str(ir), str(ir_filter)) == (str(a), str(b))
    ]
    return o3.TensorProduct(
        features, filters, middle, instructions, shared_weights=False, internal_weights=False
    ).double()


def _by_element(linear, x, kind, channels):
    irreps, irreps_out = (_times(irreps, channels) for irreps in (linear.irreps_in, linear.irreps_out))
    theirs = o3.Linear(irreps, irreps_out, shared_weights=False, internal_weights=False).double()
    return theirs(x, linear.e3nn_weight()[kind])


def _rows(x, irreps, channels):
    parts = x.split([channels * ir.dim for _, ir in irreps], dim=1)
    return torch.cat([part.unflatten(1, (channels, -1)).mT for part in parts], dim=1)


def _flat(rows, irreps, channels):
    parts = rows.split([ir.dim for ir in irreps.copies], dim=1)
    return torch.cat([part.mT.flatten(1) for part in parts], dim=1)


def _powers(product, x, kind):
    """Integrals of harmonics and powers of a function, on many more points than are needed."""
    height, weight = np.polynomial.legendre.leggauss(24)
    angle = 2 * math.pi * np.arange(48) / 48
    ring = np.sqrt(1 - height**2)[:, None]
    points = np.stack([ring * np.cos(angle), ring * np.sin(angle), np.tile(height[:, None], 48)], -1)
    values = [
        o3.spherical_harmonics(list(range(lmax + 1)), torch.tensor(points).flatten(0, 1), True, "integral")
        for lmax in (product.lmax_in, product.lmax_out)
    ]
    weight = torch.tensor(weight).repeat_interleave(48) * 2 * math.pi / 48
    field = values[0] @ x
    degree = [l for l in range(product.lmax_out + 1) for _ in range(2 * l + 1)]
    factors = (product.weight * product.scale.value)[kind][:, :, degree]
    return sum(
        factors[:, n] * (values[1].mT @ (weight[:, None] * field ** (n + 1)))
        for n in range(product.correlation)
    )
