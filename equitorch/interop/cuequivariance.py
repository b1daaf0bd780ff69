"""cuEquivariance: its irreps, layouts, weight orders and rotations, in and out.

Its modules as drop-ins are in ``equitorch.interop.cuequivariance_modules``.

What it shares with e3nn: basis, 3j symbols, normalisation, and the weights of ``Linear`` and
``FullyConnectedTensorProduct``. What differs: it sorts the natural parity (-1)^l first (0e 0o 1o 1e 2e 2o,
unless the group is its ``O3_e3nn``); the weights of ``ChannelWiseTensorProduct`` follow its sorted outputs;
its ``Rotation`` takes gamma, beta, alpha; and a weight that all points share has a leading axis of one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from equitorch.reps import Irrep, Irreps, convention
from equitorch.reps.irreps import IrrepsLike, Sorted

__all__ = [
    "ChannelWise",
    "angles_to_cuequivariance",
    "channel_wise",
    "features_from_cuequivariance",
    "features_to_cuequivariance",
    "from_cuequivariance_irreps",
    "sort_irreps",
    "to_cuequivariance_irreps",
]


def from_cuequivariance_irreps(irreps: Any) -> Irreps:
    """Irreps of cuEquivariance, of its O3, O3_e3nn or SO3, as ours.

    Raises:
        ValueError: for another group.
    """
    entries = list(irreps)
    if any(not hasattr(ir, "l") for _, ir in entries):
        raise ValueError(
            f"irreps '{irreps}' of cuEquivariance are expected to be of O3 or SO3, got another group"
        )
    return Irreps([(mul, Irrep(ir.l, getattr(ir, "p", 0))) for mul, ir in entries])


def to_cuequivariance_irreps(irreps: IrrepsLike) -> Any:
    """Our irreps as cuEquivariance's: of its O3, or of its SO3 where they have no parity."""
    cue: Any = importlib.import_module("cuequivariance")
    ours = Irreps(irreps)
    if ours.group == "SO(3)":
        return cue.Irreps(cue.SO3, [cue.MulIrrep(mul, cue.SO3(ir.l)) for mul, ir in ours])
    return cue.Irreps(cue.O3, [cue.MulIrrep(mul, cue.O3(ir.l, ir.p)) for mul, ir in ours])


def sort_irreps(irreps: IrrepsLike, *, e3nn_order: bool = False) -> Sorted:
    """``Irreps.sort`` in cuEquivariance's order, which has the natural parity first.

    Args:
        irreps: what to sort.
        e3nn_order: as its group ``O3_e3nn`` sorts, and as we and e3nn do.

    >>> sort_irreps("1e + 1o + 0o + 0e").irreps, Irreps("1e + 1o + 0o + 0e").sort().irreps
    (1x0e+1x0o+1x1o+1x1e, 1x0o+1x0e+1x1o+1x1e)
    """
    irreps = Irreps(irreps)
    if e3nn_order:
        return irreps.sort()
    inv = sorted(range(len(irreps)), key=lambda i: (irreps[i].ir.l, -irreps[i].ir.p * (-1) ** irreps[i].ir.l))
    p = sorted(range(len(inv)), key=inv.__getitem__)
    return Sorted(Irreps([irreps[i] for i in inv]), tuple(p), tuple(inv))


def features_from_cuequivariance(
    x: Tensor, irreps: IrrepsLike, *, layout: str = "ir_mul", channels: int | None = None
) -> Tensor:
    """A flat feature of cuEquivariance as rows and channels; a view for ir_mul and equal multiplicities.

    Args:
        x: the feature. Shape (..., irreps.dim).
        irreps: of the feature, multiplicities included.
        layout: "ir_mul" or "mul_ir", which is e3nn's.
        channels: how many channels; as many as possible if not given.

    Shape:
        -> (..., rows_of(irreps, channels).dim, channels)

    Raises:
        ValueError: if the layout is unknown, or the shape does not fit.
    """
    if _is_rows_first(layout):
        return convention.from_cuequivariance(x, irreps, channels)
    return convention.from_e3nn(x, irreps, channels)


def features_to_cuequivariance(x: Tensor, irreps: IrrepsLike, *, layout: str = "ir_mul") -> Tensor:
    """Rows and channels as a flat feature of cuEquivariance: the inverse of the above.

    Shape:
        x: (..., rows_of(irreps, channels).dim, channels) -> (..., irreps.dim)

    Raises:
        ValueError: if the layout is unknown, or the shape does not fit.
    """
    return (convention.to_cuequivariance if _is_rows_first(layout) else convention.to_e3nn)(x, irreps)


def _is_rows_first(layout: str) -> bool:
    if layout not in ("ir_mul", "mul_ir"):
        raise ValueError(f"a layout of cuEquivariance is ir_mul or mul_ir, got {layout!r}")
    return layout == "ir_mul"


class ChannelWise(NamedTuple):
    """cuEquivariance's ``ChannelWiseTensorProduct`` in the words of ours.

    ``TensorProduct(irreps_in1, irreps_in2, irreps_out, instructions)`` has its numbers, with weights in its
    order: of the sorted outputs. e3nn's programs list paths by their inputs; ``to_input_order[new] = old``
    and ``from_input_order`` reorder the weights, ``weight[..., product.to_input_order]``.
    """

    irreps_out: Irreps
    instructions: tuple[tuple[int, int, int, str, bool], ...]
    input_order: tuple[tuple[int, int, int, str, bool], ...]
    to_input_order: Tensor
    from_input_order: Tensor


def channel_wise(
    irreps_in1: IrrepsLike,
    irreps_in2: IrrepsLike,
    filter_irreps_out: IrrepsLike | Sequence[Any] = None,
    *,
    e3nn_order: bool = False,
) -> ChannelWise:
    """The paths of cuEquivariance's ``ChannelWiseTensorProduct``, and the order of its weights.

    Args:
        irreps_in1: of the first operand.
        irreps_in2: of the second operand.
        filter_irreps_out: irreps that the result may have; all if not given.
        e3nn_order: its irreps are of the group ``O3_e3nn``, whose outputs sort as e3nn's do.

    >>> product = channel_wise("2x0e + 2x1o", "0e + 1o", "0e + 1o")
    >>> product.irreps_out, product.to_input_order.tolist()
    (2x0e+2x0e+2x1o+2x1o, [0, 1, 4, 5, 6, 7, 2, 3])
    """
    one, two = Irreps(irreps_in1), Irreps(irreps_in2)
    kept = None if filter_irreps_out is None else {ir for _, ir in Irreps(filter_irreps_out)}
    paths = [
        (i, j, mul * other, ir)
        for i, (mul, a) in enumerate(one)
        for j, (other, b) in enumerate(two)
        for ir in a * b
        if kept is None or ir in kept
    ]
    out, p, inv = sort_irreps([(count, ir) for _, _, count, ir in paths], e3nn_order=e3nn_order)
    by_input = tuple((i, j, p[k], "uvuv", True) for k, (i, j, _, _) in enumerate(paths))
    starts = [0]
    for mul, _ in out:
        starts.append(starts[-1] + mul)
    order = [w for k in range(len(paths)) for w in range(starts[p[k]], starts[p[k] + 1])]
    to_input = torch.tensor(order, dtype=torch.int64)
    return ChannelWise(out, tuple(by_input[k] for k in inv), by_input, to_input, to_input.argsort())


def angles_to_cuequivariance(alpha: Tensor, beta: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Euler angles in the order of its ``Rotation``: gamma, which turns first, then beta and alpha."""
    return gamma, beta, alpha
