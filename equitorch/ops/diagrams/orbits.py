"""Equivariant linear maps of any group of permutations, by the orbits of pairs of rows."""

from __future__ import annotations

import torch
from torch import Tensor

_DENSE = 1 << 22  # entries of a matrix that is made anew in each call, at most


def orbit_map(x: Tensor, weight: Tensor, orbits: Tensor) -> Tensor:
    r"""The equivariant linear map of any permutation group: a weight for each orbit of pairs of rows.

    .. math:: y_i = \sum_j x_j W^{(o_{i j})}

    Args:
        x: the feature.
        weight: of each orbit.
        orbits: the number of the orbit of each pair: ``Automorphism.orbits(l + k)`` as a matrix.

    Shape:
        x: (batch, n**k, channels_in), weight: (orbits, channels_in, channels_out), orbits: (n**l, n**k)
        -> (batch, n**l, channels_out)

    Raises:
        ValueError: if the shapes do not belong together.

    >>> orbits = torch.tensor([[0, 1], [1, 0]])  # both points alike
    >>> orbit_map(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0]], [[10.0]]]), orbits).flatten()
    tensor([21., 12.])
    """
    if (
        x.ndim != 3
        or weight.ndim != 3
        or orbits.ndim != 2
        or x.shape[1:] != (orbits.shape[1], weight.shape[1])
    ):
        raise ValueError(
            f"orbit_map expects x of shape (batch, rows_in, channels_in), weights (orbits, channels_in, "
            f"channels_out) and orbits (rows_out, rows_in), got {tuple(x.shape)}, {tuple(weight.shape)} and "
            f"{tuple(orbits.shape)}"
        )
    rows_out, rows_in = orbits.shape
    channels_in, channels_out = weight.shape[1:]
    if orbits.numel() * channels_in * channels_out <= _DENSE:
        dense = weight[orbits].permute(1, 2, 0, 3).reshape(rows_in * channels_in, rows_out * channels_out)
        return (x.flatten(1) @ dense).unflatten(1, (rows_out, channels_out))
    return _by_segments(x, weight, orbits)


def _by_segments(x: Tensor, weight: Tensor, orbits: Tensor) -> Tensor:
    """Sum over the rows of each orbit, or mix before, whichever makes less; then one matrix product."""
    rows_out, rows_in = orbits.shape
    count, channels_in, channels_out = weight.shape
    batch = x.shape[0]
    if rows_out * channels_in <= rows_in * channels_out:
        row = torch.arange(rows_out, device=x.device)[:, None] * count
        columns = torch.arange(rows_in, device=x.device).expand(rows_out, rows_in)
        sums = x.new_zeros(batch, rows_out * count, channels_in)
        sums = sums.index_add(1, (row + orbits).flatten(), x.index_select(1, columns.flatten()))
        sums = sums.reshape(batch * rows_out, count * channels_in)
        return (sums @ weight.flatten(0, 1)).unflatten(0, (batch, rows_out))
    mixed = x.flatten(0, 1) @ weight.permute(1, 0, 2).flatten(1)
    mixed = mixed.reshape(batch, rows_in * count, channels_out)
    place = torch.arange(rows_in, device=x.device) * count + orbits
    return mixed.index_select(1, place.flatten()).unflatten(1, (rows_out, rows_in)).sum(2)
