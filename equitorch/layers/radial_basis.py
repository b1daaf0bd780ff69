"""Distances as vectors: families of functions of one distance, smooth to any order."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from equitorch.layers.cutoff import CosineCutoff


class ExpNormBasis(nn.Module):
    r"""Gaussians in :math:`e^{-\alpha d}`, dense at short distances, times a cosine cutoff.

    .. math::
        e_k(d) = C(d) \exp\big(-\beta_k (e^{\alpha (\text{lower} - d)} - \mu_k)^2\big),
        \qquad \alpha = \frac{5}{\text{cutoff} - \text{lower}}

    with :math:`\mu_k` evenly spaced from :math:`a = e^{\text{lower} - \text{cutoff}}` to 1 and
    :math:`\beta_k = \big(\tfrac{2}{K} (1 - a)\big)^{-2}`. The cutoff function C starts at zero
    distance whatever ``lower`` is. ``means`` and ``betas`` are saved with a model, and loading them keeps a
    foreign model's digits: torchmd-net rounds them to float32 even in float64.

    Args:
        count: number of functions K.
        cutoff: where every function has died out (Å).
        lower: where the spacing starts (Å).
        trainable: make ``means`` and ``betas`` parameters.

    Shape:
        d (Å): (...) -> (..., count)

    Raises:
        ValueError: unless ``count >= 1`` and ``0 <= lower < cutoff``.

    Source:
        Unke, Meuwly 2019, arXiv:1902.08408 (PhysNet); start values and cutoff as in torchmd-net 3.1.

    >>> ExpNormBasis(8, 5.0)(torch.tensor([0.0, 1.0, 5.0])).shape
    torch.Size([3, 8])
    """

    means: Tensor
    betas: Tensor

    def __init__(self, count: int, cutoff: float, *, lower: float = 0.0, trainable: bool = False) -> None:
        super().__init__()
        _check("ExpNormBasis", count, lower, cutoff)
        self.count, self.lower = count, float(lower)
        self.alpha = 5.0 / (cutoff - lower)
        self.cutoff = CosineCutoff(cutoff)
        start = math.exp(lower - cutoff)
        means = torch.linspace(start, 1, count, dtype=torch.float64)
        betas = torch.full_like(means, (2 / count * (1 - start)) ** -2)
        _keep(self, trainable, means=means, betas=betas)

    def forward(self, d: Tensor) -> Tensor:
        d = d.unsqueeze(-1)
        away = torch.exp(self.alpha * (self.lower - d)) - self.means
        return self.cutoff(d) * torch.exp(-self.betas * away * away)

    def extra_repr(self) -> str:
        return f"{self.count}, lower={self.lower:g}"


class GaussianBasis(nn.Module):
    r"""Evenly spaced Gaussians, each one spacing wide; no cutoff factor.

    .. math:: e_k(d) = \exp\big(c\,(d - o_k)^2\big), \qquad c = -\tfrac12 (o_2 - o_1)^{-2}

    Args:
        count: number of functions, at least 2.
        cutoff: centre of the last Gaussian (Å).
        lower: centre of the first one (Å).
        trainable: make ``offset`` and ``coeff`` parameters.

    Shape:
        d (Å): (...) -> (..., count)

    Raises:
        ValueError: unless ``count >= 2`` and ``0 <= lower < cutoff``.

    Source:
        Schütt et al. 2017, arXiv:1706.08566 (SchNet); the width as in torchmd-net 3.1.

    >>> GaussianBasis(3, 2.0)(torch.tensor(1.0))
    tensor([0.6065, 1.0000, 0.6065])
    """

    offset: Tensor
    coeff: Tensor

    def __init__(self, count: int, cutoff: float, *, lower: float = 0.0, trainable: bool = False) -> None:
        super().__init__()
        _check("GaussianBasis", count, lower, cutoff, least=2)
        self.count = count
        offset = torch.linspace(lower, cutoff, count, dtype=torch.float64)
        _keep(self, trainable, offset=offset, coeff=-0.5 / (offset[1] - offset[0]) ** 2)

    def forward(self, d: Tensor) -> Tensor:
        away = d.unsqueeze(-1) - self.offset
        return torch.exp(self.coeff * away * away)

    def extra_repr(self) -> str:
        return f"{self.count}"


class BesselBasis(nn.Module):
    r"""The standing waves of a sphere: radial solutions that vanish at the cutoff; no further cutoff factor.

    .. math:: e_n(d) = \sqrt{2/\text{cutoff}} \; \frac{\sin(n \pi d / \text{cutoff})}{d}

    finite with all its derivatives at d = 0. It is continuous at the cutoff only after a factor from
    :mod:`equitorch.layers.cutoff`.

    Args:
        count: number of functions.
        cutoff: where all of them vanish (Å).
        trainable: make ``frequency`` (n π at the start) a parameter.

    Shape:
        d (Å): (...) -> (..., count)

    Raises:
        ValueError: unless ``count >= 1`` and ``cutoff > 0``.

    Source:
        Gasteiger, Groß, Günnemann 2020, arXiv:2003.03123 (DimeNet).

    >>> BesselBasis(2, 2.0)(torch.tensor([0.0, 0.5]))
    tensor([[1.5708, 3.1416],
            [1.4142, 2.0000]])
    """

    frequency: Tensor

    def __init__(self, count: int, cutoff: float, *, trainable: bool = False) -> None:
        super().__init__()
        _check("BesselBasis", count, 0.0, cutoff)
        self.count, self.cutoff = count, float(cutoff)
        _keep(self, trainable, frequency=math.pi * torch.arange(1, count + 1, dtype=torch.float64))

    def forward(self, d: Tensor) -> Tensor:
        wave = self.frequency / self.cutoff
        return (2 / self.cutoff) ** 0.5 * wave * _sinc(d.unsqueeze(-1) * wave)

    def extra_repr(self) -> str:
        return f"{self.count}, {self.cutoff:g}"


def soft_unit_step(x: Tensor) -> Tensor:
    """``exp(-1/x)`` for positive x and 0 elsewhere: a step with all derivatives, of any order, everywhere.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.math.soft_unit_step``).

    >>> soft_unit_step(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.0000, 0.0000, 0.3679])
    """
    positive = x > -1 / math.log(torch.finfo(x.dtype).tiny)  # below, the value underflows and 1/x^2 overflows
    return torch.where(positive, torch.exp(-1 / torch.where(positive, x, 1.0)), 0.0)


def bessel(x: Tensor, n: int, x_max: float = 1.0) -> Tensor:
    r"""The standing waves of a sphere as a function: see :class:`BesselBasis`.

    .. math:: B_k(x) = \sqrt{2 / c} \, \sin(k \pi x / c) / x, \qquad \int_0^c x^2 B_k B_j \, dx = \delta_{kj}

    Args:
        x: distances.
        n: how many functions.
        x_max: the radius c.

    Shape:
        x: (...) -> (..., n)

    Raises:
        ValueError: unless ``n >= 1`` and ``x_max > 0``.

    >>> bessel(torch.tensor([0.0, 0.5]), 2, 2.0)
    tensor([[1.5708, 3.1416],
            [1.4142, 2.0000]])
    """
    _check("bessel", n, 0.0, x_max)
    wave = math.pi / x_max * torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
    return math.sqrt(2 / x_max) * wave * _sinc(x[..., None] * wave)


def soft_one_hot_linspace(
    x: Tensor, start: float, end: float, number: int, basis: str = "smooth_finite", cutoff: bool = True
) -> Tensor:
    r"""Spread a number over functions placed along an interval, so that the sum of their squares is about 1.

    Args:
        x: the numbers, e.g. distances (Å).
        start: where the interval begins.
        end: where it ends.
        number: how many functions.
        basis: "gaussian", "cosine", "smooth_finite", "fourier" or "bessel" (this one is not normalised).
        cutoff: leave the ends free, so that all functions vanish (nearly so for "gaussian") outside.

    Shape:
        x: (...) -> (..., number)

    Raises:
        ValueError: if ``basis`` is unknown, or the interval or the number of functions is too small.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.math.soft_one_hot_linspace``).

    >>> soft_one_hot_linspace(torch.tensor([0.5]), 0.0, 1.0, 3, "cosine", True)
    tensor([[0., 1., 0.]])
    """
    if basis not in _SOFT:
        raise ValueError(
            f"soft_one_hot_linspace expects basis to be one of {', '.join(_SOFT)}, got {basis!r}"
        )
    least = 1 if cutoff or basis in ("fourier", "bessel") else 2
    if number < least or not end > start:
        raise ValueError(
            f"soft_one_hot_linspace expects start < end and at least {least} functions for {basis!r}, "
            f"got start={start}, end={end}, number={number}"
        )
    return _SOFT[basis](x.unsqueeze(-1), start, end, number, cutoff)


def _in_steps(x: Tensor, start: float, end: float, number: int, cutoff: bool) -> Tensor:
    """Distance from each of the evenly spaced centres, in units of their spacing."""
    step = (end - start) / (number + 1 if cutoff else number - 1)
    centre = torch.arange(number, dtype=x.dtype, device=x.device) + (1 if cutoff else 0)
    return (x - start) / step - centre


def _gaussian(x: Tensor, start: float, end: float, number: int, cutoff: bool) -> Tensor:
    return torch.exp(-(_in_steps(x, start, end, number, cutoff) ** 2)) / 1.12


def _cosine(x: Tensor, start: float, end: float, number: int, cutoff: bool) -> Tensor:
    away = _in_steps(x, start, end, number, cutoff)
    return torch.where(away.abs() < 1, torch.cos(math.pi / 2 * away), 0.0)


def _smooth_finite(x: Tensor, start: float, end: float, number: int, cutoff: bool) -> Tensor:
    away = _in_steps(x, start, end, number, cutoff)
    return 1.14136 * math.exp(2) * soft_unit_step(away + 1) * soft_unit_step(1 - away)


def _fourier(x: Tensor, start: float, end: float, number: int, cutoff: bool) -> Tensor:
    x = (x - start) / (end - start)
    order = torch.arange(number, dtype=x.dtype, device=x.device)
    if not cutoff:
        return torch.cos(math.pi * order * x) / math.sqrt(0.25 + number / 2)
    inside = (x > 0) & (x < 1)
    return torch.where(inside, torch.sin(math.pi * (order + 1) * x), 0.0) / math.sqrt(0.25 + number / 2)


def _bessel(x: Tensor, start: float, end: float, number: int, cutoff: bool) -> Tensor:
    width = end - start
    wave = math.pi / width * torch.arange(1, number + 1, dtype=x.dtype, device=x.device)
    y = math.sqrt(2 / width) * wave * _sinc((x - start) * wave)
    return torch.where((x >= start) & (x < end), y, 0.0) if cutoff else y


_SOFT: dict[str, Callable[[Tensor, float, float, int, bool], Tensor]] = {
    "gaussian": _gaussian,
    "cosine": _cosine,
    "smooth_finite": _smooth_finite,
    "fourier": _fourier,
    "bessel": _bessel,
}


def _sinc(a: Tensor) -> Tensor:
    """sin(a)/a; by its series near zero, so that no derivative of any order divides by zero."""
    near = a.abs() < 0.5
    square = torch.where(near, a * a, 0.0)
    series = torch.ones_like(a)
    for k in reversed(range(1, 10)):
        series = 1 - square * series / (2 * k * (2 * k + 1))
    far = torch.where(near, 1.0, a)
    return torch.where(near, series, torch.sin(far) / far)


def _check(name: str, count: int, lower: float, cutoff: float, *, least: int = 1) -> None:
    if count < least or not 0 <= lower < cutoff:
        raise ValueError(
            f"{name} expects count >= {least} and 0 <= lower < cutoff, "
            f"got count={count}, lower={lower}, cutoff={cutoff}"
        )


def _keep(module: nn.Module, trainable: bool, **values: Tensor) -> None:
    """Store constants in the default dtype, saved with the module: as parameters or as buffers."""
    for name, value in values.items():
        value = value.to(torch.get_default_dtype())
        if trainable:
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)
