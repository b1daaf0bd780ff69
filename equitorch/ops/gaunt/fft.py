"""Over Fourier series: harmonics are short ones in both angles, and values come by fast Fourier transforms.

Kept as a cross-check of the paper; it visits the sphere twice, and is nowhere the fastest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.ops.gaunt.form import Form
from equitorch.ops.gaunt.program import made_once
from equitorch.reps.product_grid import polar_part


class FourierTransform:
    r"""Series in both angles on the torus :math:`0 \le \alpha, \beta < 2 \pi`, where products do not alias.

    With :math:`X_{lm} = (x_{l,m} - i x_{l,-m}) / \sqrt2` (:math:`x_{l0}` for m = 0), the coefficient of
    :math:`e^{i u \beta + i m \alpha}` is the sum over l of X times that of P in :math:`e^{i u \beta}`. Back,
    each coefficient is met by :math:`\int_0^\pi P\, e^{i u \beta} \sin\beta\, d\beta`. The parts of gradients
    have P' or P / sin(beta) in the place of P, and the azimuthal one a factor i m.

    Args:
        form: the degrees.
        like: a tensor of the dtype and on the device of what is transformed.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216 (2D Fourier basis).
    """

    def __init__(self, form: Form, like: Tensor) -> None:
        self.size = 2 * sum(sorted(form.lmaxs)[1:]) + 1  # resolves the product of any two slots
        self.points = self.size**2
        kind = torch.complex64 if like.dtype == torch.float32 else torch.complex128
        self._to: dict[int, Tensor] = {}  # (components, u, m, l), sizes (size, lmax + 1, lmax + 1)
        self._from: dict[int, Tensor] = {}
        for slot in range(4):
            names, lmax = form.components(slot), form.lmax(slot)
            if names:
                series = torch.stack([polar_series(lmax, name, self.size) for name in names])
                meets = torch.stack([polar_integrals(lmax, name, self.size) for name in names])
                m = torch.arange(lmax + 1, dtype=torch.float64, device="cpu")
                turn = torch.stack([1j * m if name == "azimuthal" else m**0 for name in names])
                turn = turn.to(series)[:, None, :, None]
                wave = math.sqrt(0.5) ** m.clamp(max=1)[:, None]
                self._to[slot] = (turn * wave * series).to(like.device, kind)
                self._from[slot] = (turn.conj() * (2 * math.pi / wave) * meets).to(like.device, kind)

    def values(self, slot: int, x: Tensor) -> Sequence[Tensor]:
        table, whole = self._to[slot], x.unsqueeze(-1) if x.ndim == 2 else x
        held = torch.einsum("kuml,nmlc->knumc", table, _paired(whole, table.dtype))
        series = held.new_zeros(*held.shape[:3], self.size // 2 + 1, held.shape[-1])
        series[:, :, :, : table.shape[2]] = held
        values = torch.fft.irfft2(series, s=(self.size, self.size), dim=(2, 3), norm="forward")
        return values.flatten(2, 3).reshape(len(table), x.shape[0], self.points, *x.shape[2:]).unbind()

    def rows(self, slot: int, values: Sequence[Tensor]) -> Tensor:
        table, whole = self._from[slot], torch.stack(list(values))
        torus = whole.reshape(len(table), whole.shape[1], self.size, self.size, -1)
        series = torch.fft.rfft2(torus, dim=(2, 3), norm="forward")[:, :, :, : table.shape[2]]
        found = _unpaired(torch.einsum("kuml,knumc->nmlc", table, series))
        return found.squeeze(-1) if whole.ndim == 3 else found


def polar_series(lmax: int, component: str, size: int) -> Tensor:
    """Coefficients of e^{i u beta} in the polar parts, u = 0, 1, ..., -1. Shape (size, m, l), complex128."""
    beta = (torch.arange(size, dtype=torch.float64, device="cpu") + 0.25) * (2 * math.pi / size)  # not a pole
    wave = torch.exp(-1j * _frequencies(size)[:, None] * beta)
    return _by_order(wave @ polar_part(beta, lmax, component).to(wave) / size, lmax)


def polar_integrals(lmax: int, component: str, size: int) -> Tensor:
    r"""The integrals :math:`\int_0^\pi P\, e^{i u \beta} \sin\beta\, d\beta`. Shape (size, m, l)."""
    series = polar_series(lmax, component, size)
    total = _frequencies(size)[:, None] + _frequencies(size)
    return torch.einsum("uk,kml->uml", (_half_period(total + 1) - _half_period(total - 1)) / 2j, series)


def _half_period(u: Tensor) -> Tensor:
    r"""The integral of e^{i u beta} from 0 to pi."""
    odd = u.remainder(2)
    return torch.complex(torch.where(u == 0, math.pi, 0 * u), 2 * odd / (u + 1 - odd))


def _frequencies(size: int) -> Tensor:
    """0, 1, ..., -2, -1 for an odd size."""
    return (torch.arange(size, dtype=torch.float64, device="cpu") + size // 2) % size - size // 2


def _by_order(rows: Tensor, lmax: int) -> Tensor:
    """Rows (..., (lmax + 1)^2) as (..., m >= 0, l), zero where l < m."""
    l = torch.arange(lmax + 1, device="cpu")
    m = l[:, None]
    return rows[..., l * l + l + torch.minimum(m, l)] * (l >= m)


def _paired(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x_lm - i x_l,-m, shape (items, m >= 0, l, channels); real for m = 0."""
    lmax = math.isqrt(x.shape[1]) - 1
    l = torch.arange(lmax + 1, device=x.device)
    m = torch.minimum(l[:, None], l)  # where l < m, the table is zero
    place = l * l + l
    imaginary = x[:, place - m] * (m > 0).unsqueeze(-1)
    return torch.complex(x[:, place + m], -imaginary).to(dtype)


def _unpaired(pairs: Tensor) -> Tensor:
    """The inverse: rows (items, (lmax + 1)^2, channels) from (items, m >= 0, l, channels)."""
    lmax = pairs.shape[1] - 1
    rows = [(l, m) for l in range(lmax + 1) for m in range(-l, l + 1)]
    l, m = torch.tensor(rows, device=pairs.device).T
    held = torch.view_as_real(pairs)[:, m.abs(), l]
    return torch.where((m < 0)[:, None], -held[..., 1], held[..., 0])


transform = made_once(FourierTransform)
