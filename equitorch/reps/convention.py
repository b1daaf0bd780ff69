"""The borders of the house: other libraries' layouts and axes, in and out.

Inside, a feature is (..., rows, channels). e3nn keeps one flat axis, entry after entry, each as
(mul, 2 l + 1) (``mul_ir``); cuEquivariance also writes (2 l + 1, mul) (``ir_mul``). With C channels, an entry
``mul x ir`` becomes mul / C copies of ir, and e3nn's copy u is our copy u // C in channel u % C. C defaults
to the greatest common divisor of the multiplicities: equal ones all become channels, and ``16x0e+8x1o``
becomes ``2x0e+1x1o`` with 8.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equitorch.reps.irreps import Irreps, IrrepsLike


def common_channels(irreps: IrrepsLike) -> int:
    """The most channels that flat irreps can have: the greatest common divisor of their multiplicities.

    >>> common_channels("16x0e + 8x1o")
    8
    """
    return math.gcd(*(mul for mul, _ in Irreps(irreps))) or 1


def rows_of(irreps: IrrepsLike, channels: int | None = None) -> Irreps:
    """The irreps of the rows that flat irreps become with so many channels (default: as many as possible).

    Raises:
        ValueError: if ``channels`` does not divide every multiplicity.

    >>> rows_of("16x0e + 8x1o")
    2x0e+1x1o
    """
    irreps = Irreps(irreps)
    channels = common_channels(irreps) if channels is None else channels
    if channels < 1 or any(mul % channels for mul, _ in irreps):
        raise ValueError(
            f"irreps '{irreps}' cannot be laid out in {channels} channels: each multiplicity must divide"
        )
    return Irreps([(mul // channels, ir) for mul, ir in irreps])


def from_e3nn(x: Tensor, irreps: IrrepsLike, channels: int | None = None) -> Tensor:
    """A flat feature of e3nn (``mul_ir``) as rows and channels.

    Args:
        x: the feature. Shape (..., irreps.dim).
        irreps: what e3nn calls its irreps, multiplicities included.
        channels: how many channels; as many as possible if not given.

    Shape:
        -> (..., rows_of(irreps, channels).dim, channels)

    Raises:
        ValueError: if ``x`` does not have ``irreps.dim`` components, or ``channels`` does not divide.

    >>> from_e3nn(torch.arange(8.0), "2x0e + 2x1o")  # two scalars, then two vectors one after the other
    tensor([[0., 1.],
            [2., 5.],
            [3., 6.],
            [4., 7.]])
    """
    return _from_flat(x, Irreps(irreps), channels, "e3nn")


def to_e3nn(x: Tensor, irreps: IrrepsLike) -> Tensor:
    """Rows and channels as a flat feature of e3nn: the inverse of ``from_e3nn``.

    Args:
        x: the feature. Shape (..., rows_of(irreps, channels).dim, channels).
        irreps: the flat irreps, multiplicities included.

    Shape:
        -> (..., irreps.dim)

    >>> to_e3nn(from_e3nn(torch.arange(8.0), "2x0e + 2x1o"), "2x0e + 2x1o")
    tensor([0., 1., 2., 3., 4., 5., 6., 7.])
    """
    return _to_flat(x, Irreps(irreps), "e3nn")


def from_cuequivariance(x: Tensor, irreps: IrrepsLike, channels: int | None = None) -> Tensor:
    """A flat feature of cuEquivariance (``ir_mul``) as rows and channels; see ``from_e3nn``.

    With equal multiplicities this is a view: that layout is ours.

    >>> from_cuequivariance(torch.arange(8.0), "2x0e + 2x1o")
    tensor([[0., 1.],
            [2., 3.],
            [4., 5.],
            [6., 7.]])
    """
    return _from_flat(x, Irreps(irreps), channels, "cuEquivariance")


def to_cuequivariance(x: Tensor, irreps: IrrepsLike) -> Tensor:
    """Rows and channels as a flat feature of cuEquivariance: the inverse of ``from_cuequivariance``."""
    return _to_flat(x, Irreps(irreps), "cuEquivariance")


def linear_blocks(
    weight: Tensor,
    irreps_in: IrrepsLike,
    irreps_out: IrrepsLike,
    *,
    channels_in: int | None = None,
    channels_out: int | None = None,
) -> dict[tuple[int, int], Tensor]:
    """The flat weight of e3nn's (and cuEquivariance's) ``Linear``, as what mixes our copies and channels.

    The flat vector holds one matrix (mul_in, mul_out) for every pair of entries of one irrep, the pairs of
    the first input entry first. Neither library's normalisation, 1 / sqrt(sum of mul_in) in e3nn, is applied.

    Args:
        weight: the flat vector. Shape (..., sum of mul_in * mul_out).
        irreps_in: flat irreps of the input.
        irreps_out: flat irreps of the output.
        channels_in: channels of the input; as many as possible if not given.
        channels_out: channels of the output; as many as possible if not given.

    Returns:
        For each pair (i_in, i_out) of entries: shape (..., copies in, channels in, copies out, channels out).

    Raises:
        ValueError: if the vector does not have as many components as the irreps ask for.

    >>> {pair: tuple(w.shape) for pair, w in linear_blocks(torch.randn(36), "2x0e+4x1o", "2x0e+8x1o").items()}
    {(0, 0): (1, 2, 1, 2), (1, 1): (2, 2, 4, 2)}
    """
    flat_in, flat_out = Irreps(irreps_in), Irreps(irreps_out)
    rows_in, rows_out = rows_of(flat_in, channels_in), rows_of(flat_out, channels_out)
    pairs = [
        (i, o)
        for i, (mul_in, ir_in) in enumerate(flat_in)
        for o, (mul_out, ir_out) in enumerate(flat_out)
        if ir_in == ir_out and mul_in and mul_out
    ]
    sizes = [flat_in[i].mul * flat_out[o].mul for i, o in pairs]
    if weight.shape[-1] != sum(sizes):
        raise ValueError(
            f"a linear map '{flat_in}' -> '{flat_out}' expects {sum(sizes)} weights, got {weight.shape[-1]}"
        )
    blocks = weight.split(sizes, dim=-1)
    shapes = [
        (
            rows_in[i].mul,
            flat_in[i].mul // rows_in[i].mul,
            rows_out[o].mul,
            flat_out[o].mul // rows_out[o].mul,
        )
        for i, o in pairs
    ]
    return {pair: w.unflatten(-1, shape) for pair, w, shape in zip(pairs, blocks, shapes, strict=True)}


def to_zpolar(x: Tensor, irreps: IrrepsLike) -> Tensor:
    r"""Rows in the order of the usual tables, whose polar axis is z: l = 1 becomes (y, z, x).

    ::

            y  polar axis here                 z  polar axis there
            |                                  |
            |____ x                            |____ y
           /                                  /
          z   rows of 1o: (x, y, z)          x   rows m = -1, 0, 1: (y, z, x)

    Both count m = -l..l about their polar axis, without the Condon-Shortley sign. Space and its axes stay;
    only which axis is polar changes, so the rows of a vector are the same three numbers in another order.

    Args:
        x: a feature. Shape (..., irreps.dim, channels).
        irreps: of its rows.

    Shape:
        -> (..., irreps.dim, channels)

    >>> to_zpolar(torch.tensor([1.0, 2.0, 3.0])[:, None], "1o").flatten()
    tensor([2., 3., 1.])
    """
    return Irreps(irreps).matrix(_cycle().to(x)) @ x


def from_zpolar(x: Tensor, irreps: IrrepsLike) -> Tensor:
    """Rows of the usual tables in our order: the inverse of ``to_zpolar``."""
    return Irreps(irreps).matrix(_cycle().T.to(x)) @ x


def _cycle() -> Tensor:
    """The matrix that makes (y, z, x) of (x, y, z)."""
    return torch.eye(3, dtype=torch.float64, device="cpu")[[1, 2, 0]]


def _from_flat(x: Tensor, irreps: Irreps, channels: int | None, library: str) -> Tensor:
    channels = common_channels(irreps) if channels is None else channels
    rows = rows_of(irreps, channels)
    if x.shape[-1] != irreps.dim:
        raise ValueError(
            f"a flat feature of irreps '{irreps}' has {irreps.dim} components, got {x.shape[-1]}"
        )
    if library == "cuEquivariance" and all(mul <= 1 for mul, _ in rows):
        return x.unflatten(-1, (rows.dim, channels))
    blocks = []
    for part, (copies, ir) in zip(x.split([e.dim for e in irreps], dim=-1), rows, strict=True):
        if library == "e3nn":
            block = part.unflatten(-1, (copies, channels, ir.dim)).transpose(-1, -2)
        else:
            block = part.unflatten(-1, (ir.dim, copies, channels)).transpose(-2, -3)
        blocks.append(block.flatten(-3, -2))
    return torch.cat(blocks, dim=-2) if blocks else x.new_zeros(*x.shape[:-1], 0, channels)


def _to_flat(x: Tensor, irreps: Irreps, library: str) -> Tensor:
    channels = x.shape[-1]
    rows = rows_of(irreps, channels)
    if x.ndim < 2 or x.shape[-2] != rows.dim:
        raise ValueError(
            f"irreps '{irreps}' with {channels} channels are rows of shape (..., {rows.dim}, {channels}), "
            f"got {tuple(x.shape)}"
        )
    if library == "cuEquivariance" and all(mul <= 1 for mul, _ in rows):
        return x.flatten(-2)
    blocks = []
    for part, (copies, ir) in zip(x.split([e.dim for e in rows], dim=-2), rows, strict=True):
        block = part.unflatten(-2, (copies, ir.dim))
        block = block.transpose(-1, -2) if library == "e3nn" else block.transpose(-2, -3)
        blocks.append(block.flatten(-3))
    return torch.cat(blocks, dim=-1) if blocks else x.new_zeros(*x.shape[:-2], 0)
