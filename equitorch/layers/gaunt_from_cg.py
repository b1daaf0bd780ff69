"""Weights of a Clebsch-Gordan product as weights of Gaunt products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equitorch.layers.gaunt import GauntTensorProduct
from equitorch.reps import Irreps, wigner_3j
from equitorch.reps.convention import from_e3nn, to_e3nn
from equitorch.reps.gaunt import path_factors

_RESTARTS, _SWEEPS, _CHECK, _RIDGE = 8, 600, 25, 1e-9


def from_cg_weights(tp: Any, rank: int | None = None, tol: float = 1e-4) -> tuple[GauntTensorProduct, float]:
    r"""A sum of Gaunt products that does what a Clebsch-Gordan product of weighted paths does.

    The coefficient of each path is read off the module's responses to unit vectors, whatever its
    normalisation. A Gaunt product has coefficients :math:`f_{l_1 l_2 l_3} \sum_r a_{r l_1} b_{r l_2} c_{r
    l_3}`; a, b, c come from alternating least squares on all triples of degrees that the product reaches.
    Triples without a path aim at zero.

    Args:
        tp: a :class:`equitorch.layers.TensorProduct`, or ``e3nn.o3.TensorProduct``, with its own weights;
            paths "uuu", or "uvu" with one channel in the second operand. Each of its three irreps holds the
            degrees 0, 1, 2, ... once, with parities (-1)^l or all opposite.
        rank: how many products; as few as the tolerance needs unless given.
        tol: the largest relative error of a channel's coefficients.

    Returns:
        The layer, in the module's dtype and on its device, and its largest relative error. Features have
        rows and channels, whatever the layout of ``tp``.

    Raises:
        ValueError: if the irreps are others, or the tolerance is not reached.
        NotImplementedError: for other kinds of paths.

    Source:
        Kolda, Bader 2009, SIAM Rev. 51, 455 (alternating least squares for sums of products).

    >>> from equitorch.layers import TensorProduct
    >>> paths = [(0, 0, 0, "uuu", True), (0, 1, 1, "uuu", True), (1, 1, 0, "uuu", True)]
    >>> product = TensorProduct("8x0e+8x1o", "8x0e+8x1o", "8x0e+8x1o", paths)
    >>> layer, error = from_cg_weights(product)
    >>> layer.rank, error < 1e-4
    (2, True)
    """
    if not all(hasattr(tp, name) for name in ("irreps_in1", "irreps_in2", "irreps_out")):
        raise ValueError(
            f"from_cg_weights expects a tensor product with irreps_in1, irreps_in2 and irreps_out, got {tp!r}"
        )
    slots = [Irreps(str(irreps)) for irreps in (tp.irreps_in1, tp.irreps_in2, tp.irreps_out)]
    lmaxs, signs, channels = _read_irreps(slots, tp)
    parity = "even" if signs[0] * signs[1] * signs[2] > 0 else "odd"
    coefficients = _coefficients(tp, slots, lmaxs, channels)
    factors = path_factors(*lmaxs, parity)
    _expect_paths(coefficients, factors, parity)
    reached = (factors > 0)[..., None]
    target = torch.where(reached, coefficients / factors.clamp(min=1e-300)[..., None], 0)
    most = min((a + 1) * (b + 1) for a, b in ((lmaxs[0], lmaxs[1]), (lmaxs[0], lmaxs[2]), lmaxs[1:]))
    error = float("inf")
    for r in range(1, most + 1) if rank is None else (rank,):
        terms, error = _fit(target, factors.square(), r, tol)
        if error <= tol:
            break
    else:
        raise ValueError(
            f"from_cg_weights reaches the relative error {error:.1e} with rank {r}, above tol={tol:.1e}; "
            "give a higher rank, or a larger tol"
        )
    return _layer(tp, lmaxs, channels, parity, terms), error


def _read_irreps(slots: list[Irreps], tp: Any) -> tuple[tuple[int, int, int], list[int], int]:
    """Highest degrees, signs (1 for natural parities), and channels."""
    signs, widths = [], []
    for irreps in slots:
        kinds = [ir for _, ir in irreps]
        muls = {mul for mul, _ in irreps}
        sign = kinds[0].p if kinds else 0
        if (
            len(muls) != 1
            or not sign
            or [(ir.l, ir.p) for ir in kinds] != [(l, sign * (-1) ** l) for l in range(len(kinds))]
        ):
            raise ValueError(
                "from_cg_weights expects irreps such as '8x0e+8x1o+8x2e' or '8x0o+8x1e' in all three slots: "
                f"degrees from 0 on, one parity sign, equally many channels; got '{irreps}'"
            )
        signs.append(sign)
        widths.append(muls.pop())
    modes = {str(path.connection_mode) for path in tp.instructions}
    single = modes <= {"uvu"} and widths[1] == 1 and widths[0] == widths[2]
    if not (single or (modes <= {"uuu"} and len(set(widths)) == 1)):
        raise NotImplementedError(
            "from_cg_weights reads paths 'uuu', or 'uvu' with one channel in the second operand; got "
            f"{', '.join(sorted(modes))} between {widths[0]}, {widths[1]} and {widths[2]} channels"
        )
    first, second, last = (len(irreps) - 1 for irreps in slots)
    return (first, second, last), signs, widths[0]


@torch.no_grad()
def _coefficients(tp: Any, slots: list[Irreps], lmaxs: tuple[int, int, int], channels: int) -> Tensor:
    """What stands before the 3j symbol of each triple. Shape (degrees 1, 2, 3, channels), float64."""
    like = next(tp.parameters(), torch.empty(0))
    rows = [(lmax + 1) ** 2 for lmax in lmaxs]
    units = [torch.eye(n, dtype=like.dtype, device=like.device)[..., None] for n in rows[:2]]
    x, y = units[0][:, None], units[1][None]
    x = x.expand(rows[0], rows[1], -1, slots[0][0].mul).flatten(0, 1)
    y = y.expand(rows[0], rows[1], -1, slots[1][0].mul).flatten(0, 1)
    if getattr(tp, "layout", "e3nn") == "rows":
        z = tp(x, y)
    else:
        z = from_e3nn(tp(to_e3nn(x, slots[0]), to_e3nn(y, slots[1])), slots[2])
    response = z.double().cpu().reshape(rows[0], rows[1], rows[2], channels)
    found = torch.zeros(*(lmax + 1 for lmax in lmaxs), channels, dtype=torch.float64)
    explained = torch.zeros_like(response)
    for a in range(lmaxs[0] + 1):
        for b in range(lmaxs[1] + 1):
            for c in range(abs(a - b), min(a + b, lmaxs[2]) + 1):
                block = tuple(slice(l * l, (l + 1) ** 2) for l in (a, b, c))
                form = wigner_3j(a, b, c).double()
                found[a, b, c] = torch.einsum("ijk,ijkc->c", form, response[block])
                explained[block] = form[..., None] * found[a, b, c]
    assert (response - explained).norm() <= 1e-3 * response.norm(), "paths couple by 3j symbols"
    return found


def _expect_paths(coefficients: Tensor, factors: Tensor, parity: str) -> None:
    """Refuse paths that no Gaunt product of this parity has."""
    lost = coefficients[factors == 0].abs().max() if (factors == 0).any() else 0.0
    if lost > 1e-5 * coefficients.abs().max():
        raise ValueError(
            f"from_cg_weights expects paths with l1 + l2 + l3 {parity}, as the parities of the irreps say"
        )


def _fit(target: Tensor, importance: Tensor, rank: int, tol: float) -> tuple[list[Tensor], float]:
    """Factors (rank, degrees, channels) of every slot, and the largest relative error of a channel."""
    channels = target.shape[3]
    generator = torch.Generator().manual_seed(0)
    wanted = target.movedim(3, 0).repeat(_RESTARTS, 1, 1, 1)
    size = (wanted.square() * importance).flatten(1).sum(1)
    batch = wanted.shape[0]
    parts = [torch.randn(batch, n, rank, generator=generator, dtype=torch.float64) for n in target.shape[:3]]
    errors = torch.full((batch,), float("inf"), dtype=torch.float64)
    worst = torch.tensor(float("inf"))
    for sweep in range(1, _SWEEPS + 1):
        for slot in range(3):
            parts[slot] = _solved(slot, parts, wanted, importance)
            if slot < 2:  # what grows in one slot alone would drown the others
                parts[slot] = torch.nn.functional.normalize(parts[slot], dim=1)
        if sweep % _CHECK == 0 or sweep == _SWEEPS:
            found = torch.einsum("nar,nbr,ncr->nabc", *parts)
            off = ((found - wanted).square() * importance).flatten(1).sum(1)
            errors = torch.where(size > 0, (off / size.clamp(min=1e-300)).sqrt(), off.sqrt())
            worst, before = errors.view(_RESTARTS, channels).amin(0).max(), worst
            if worst < tol / 30 or (worst > 10 * tol and before - worst < 1e-3 * worst):
                break
    best = errors.view(_RESTARTS, channels).argmin(0) * channels + torch.arange(channels)
    return [part[best].permute(2, 1, 0) for part in parts], float(errors[best].max())


def _solved(slot: int, parts: list[Tensor], wanted: Tensor, importance: Tensor) -> Tensor:
    """The best factor of a slot for those of the others. Shape (batch, degrees, rank)."""
    first, second = (part for k, part in enumerate(parts) if k != slot)
    pairs = (first[:, :, None] * second[:, None]).flatten(1, 2)  # (batch, pairs of degrees, rank)
    weight = importance.movedim(slot, 0).flatten(1)
    values = wanted.movedim(slot + 1, 1).flatten(2)
    weighted = weight[:, :, None] * pairs[:, None]
    matrix = weighted.mT @ pairs[:, None]
    right = (weighted.mT @ values[..., None]).squeeze(-1)
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1e-12)
    ridge = _RIDGE * trace[..., None, None] * torch.eye(pairs.shape[2], dtype=torch.float64)
    return torch.linalg.solve(matrix + ridge, right)


@torch.no_grad()
def _layer(
    tp: Any, lmaxs: tuple[int, int, int], channels: int, parity: str, terms: list[Tensor]
) -> GauntTensorProduct:
    like = next(tp.parameters(), torch.empty(0))
    layer = GauntTensorProduct(*lmaxs, channels, parity, terms[0].shape[0])
    scale = layer.scale3.exact
    last = torch.where(scale > 0, terms[2] / scale.clamp(min=1e-300), 0)
    layer = layer.to(like.device, like.dtype)
    for weight, value in zip((layer.weight1, layer.weight2, layer.weight3), (*terms[:2], last), strict=True):
        weight.copy_(value)
    return layer
