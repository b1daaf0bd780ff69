"""Nonlinearities that respect parity: pointwise on scalars, by the norm on everything else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.norm import Norm
from equitorch.layers.rows import expect_rows, scale_irreps
from equitorch.reps import Irrep, Irreps

Function = Callable[[Tensor], Tensor]


class ShiftedSoftplus(nn.Module):
    r"""Softplus through the origin: :math:`\log(1 + e^x) - \log 2`.

    Args:
        shift: what is subtracted; torchmd-net checkpoints were trained with log 2 rounded to float32.

    Shape:
        x: (...) -> (...)

    Source:
        Schütt et al. 2017, arXiv:1706.08566 (SchNet).

    >>> ShiftedSoftplus()(torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.6201])
    """

    def __init__(self, shift: float = math.log(2.0)) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x) - self.shift


def ssp(x: Tensor) -> Tensor:
    """Shifted softplus as a function: see :class:`ShiftedSoftplus`.

    >>> ssp(torch.tensor(0.0))
    tensor(0.)
    """
    return F.softplus(x) - math.log(2.0)


ACTIVATIONS: dict[str, Function] = {
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "ssp": ssp,
    "ssp_float32": ShiftedSoftplus(0.6931471824645996),  # torchmd-net's: log 2 rounded to float32
    "abs": torch.abs,
}

# e3nn's estimates on the CPU, from a million samples of a fixed seed: its checkpoints were trained with them.
E3NN_CONSTANTS: dict[str, float] = {
    "silu": 1.6791767923989418,
    "tanh": 1.5937334472592695,
    "sigmoid": 1.8467055342154763,
    "relu": 1.4163393446331365,
    "softplus": 1.0426436590527184,
    "gelu": 1.5360642850770578,
    "ssp": 1.878204668541552,
    "abs": 1.001110600838467,
}


def activation_function(activation: str | Function) -> Function:
    """The function that a name stands for; a function stands for itself.

    Raises:
        ValueError: if the name is unknown, or there is nothing to call.

    >>> activation_function("tanh")(torch.tensor(0.0))
    tensor(0.)
    """
    found = ACTIVATIONS.get(activation) if isinstance(activation, str) else activation
    if not callable(found):
        raise ValueError(
            f"an activation is one of {', '.join(ACTIVATIONS)} or a function, got {activation!r}"
        )
    return found


class NormalizedActivation(nn.Module):
    """An activation times a constant; made by :func:`normalize2mom`.

    Shape:
        x: (...) -> (...)
    """

    def __init__(self, function: Function, constant: float) -> None:
        super().__init__()
        self.function, self.constant = function, constant

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x)
        return y if self.constant == 1.0 else y * self.constant

    def extra_repr(self) -> str:
        name = "" if isinstance(self.function, nn.Module) else getattr(self.function, "__name__", "function")
        return f"{name} x {self.constant:.6g}".strip()


def normalize2mom(activation: str | Function, *, exact: bool = False) -> NormalizedActivation:
    r"""An activation scaled to second moment one under standard normal arguments.

    .. math:: z \mapsto c f(z), \qquad c = \langle f(z)^2 \rangle_{z \sim N(0, 1)}^{-1/2}

    The constant is e3nn's, so that its weights can be loaded: an estimate, good to 1e-3, from a million
    samples of a fixed seed. ``exact`` integrates it to machine precision. Within 1e-4 of one it is one.

    Args:
        activation: a name or a function of a tensor.
        exact: the exact constant and not e3nn's; layers call this ``e3nn_compat=False``.

    Raises:
        ValueError: if the function vanishes, or its second moment is infinite.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.math.normalize2mom``).

    >>> round(normalize2mom("relu", exact=True).constant ** 2, 9)
    2.0
    """
    function = activation_function(activation)
    if isinstance(function, NormalizedActivation):
        return function
    known = None if exact else _known_constant(function)
    constant = known if known is not None else _positive(_second_moment(function, exact)) ** -0.5
    return NormalizedActivation(function, 1.0 if abs(constant - 1) < 1e-4 else constant)


def _evaluate(function: Function, x: np.ndarray | Sequence[float] | Tensor) -> Tensor:
    with torch.no_grad():
        x = torch.as_tensor(x, dtype=torch.float64, device="cpu")
        if isinstance(function, nn.Module):
            placed = next(itertools.chain(function.parameters(), function.buffers()), None)
            x = x if placed is None else x.to(placed.device)
        return function(x).to("cpu", torch.float64)


def _known_constant(function: Function) -> float | None:
    """e3nn's constant, if the function takes the values of one that is listed."""
    probe = [-7.0, -2.5, -1.0, -0.3, 0.0, 0.2, 0.9, 1.7, 4.0]
    values = _evaluate(function, probe)
    for name, known in ACTIVATIONS.items():
        if torch.allclose(values, _evaluate(known, probe), rtol=1e-9, atol=1e-9):
            return E3NN_CONSTANTS[name]
    return None


def _second_moment(function: Function, exact: bool) -> float:
    """The mean of f(z)^2 by Gauss-Legendre quadrature on each side of zero, where many have a kink.

    Otherwise the mean over e3nn's samples.
    """
    if not exact:
        generator = torch.Generator().manual_seed(0)
        sample = torch.randn(1_000_000, generator=generator, dtype=torch.float64, device="cpu")
        return float(_evaluate(function, sample).square().mean())
    node, weight = np.polynomial.legendre.leggauss(200)
    z = np.concatenate([-6 * (1 - node), 6 * (1 + node)])
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * 6 * np.concatenate([weight, weight])
    return float((_evaluate(function, z) ** 2 * torch.as_tensor(density, device="cpu")).sum())


def _positive(moment: float) -> float:
    if not (math.isfinite(moment) and moment > 0):
        raise ValueError(
            f"normalize2mom expects a function with a finite, positive second moment, got {moment}"
        )
    return moment


def parity_of(function: Function) -> int:
    """+1 for an even function, -1 for an odd one, 0 for neither.

    >>> parity_of(torch.abs), parity_of(torch.tanh), parity_of(torch.sigmoid)
    (1, -1, 0)
    """
    x = np.linspace(0, 10, 256)
    right, left = _evaluate(function, x), _evaluate(function, -x)
    if (right - left).abs().max() < 1e-5:
        return 1
    return -1 if (right + left).abs().max() < 1e-5 else 0


class Activation(nn.Module):
    """Pointwise functions on the scalar blocks of a feature, scaled to second moment one.

    A ``0o`` block changes sign under inversion: an odd function keeps it ``0o``, an even one makes it ``0e``.

    Args:
        irreps_in: how the rows of the feature transform.
        acts: one function, name or None for each block of ``irreps_in``; None leaves a block as it is.
        e3nn_compat: scale the functions by e3nn's constants, which are estimates, and not by the exact ones.

    Shape:
        x: (..., irreps_in.dim, channels) -> (..., irreps_out.dim, channels)

    Raises:
        ValueError: if a function meets a block that is no scalar, or is neither odd nor even on ``0o``.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.nn.Activation``).

    >>> Activation("16x0e+2x0o+1o", ["silu", torch.abs, None]).irreps_out
    16x0e+2x0e+1x1o
    """

    def __init__(
        self, irreps_in: Irreps | str, acts: Sequence[str | Function | None], *, e3nn_compat: bool = True
    ) -> None:
        super().__init__()
        self.irreps_in = Irreps(irreps_in)
        if len(acts) != len(self.irreps_in):
            raise ValueError(
                f"Activation({self.irreps_in}) expects one function a block, "
                f"{len(self.irreps_in)}, got {len(acts)}"
            )
        scaled = [None if act is None else normalize2mom(act, exact=not e3nn_compat) for act in acts]
        self.acts = nn.ModuleList([nn.Identity() if act is None else act for act in scaled])
        self.sizes = [mul * ir.dim for mul, ir in self.irreps_in]
        self.irreps_out = Irreps(
            [
                (mul, ir if act is None else _parity_after(ir, act))
                for (mul, ir), act in zip(self.irreps_in, scaled, strict=True)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("Activation", self.irreps_in, x)
        if len(self.acts) < 2:
            return self.acts[0](x) if self.acts else x
        blocks = x.split(self.sizes, dim=-2)
        return torch.cat([act(block) for act, block in zip(self.acts, blocks, strict=True)], dim=-2)

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


def _parity_after(irrep: Irrep, act: NormalizedActivation) -> Irrep:
    if irrep.l != 0:
        raise ValueError(
            f"Activation cannot apply a function to the rows of {irrep}: they would mix under rotations; "
            "use Gate or NormActivation, or None to leave the block as it is"
        )
    if irrep.p != -1:
        return irrep
    parity = parity_of(act)
    if parity == 0:
        raise ValueError(
            f"Activation on {irrep} expects an odd function such as tanh, or an even one such as abs, "
            f"got {act}, which is neither: the result would have no parity"
        )
    return Irrep(0, parity)


class NormActivation(nn.Module):
    r"""Rescale each irrep by a function of its norm, channel by channel.

    .. math:: y = \phi(|x| + b) \, x / |x| \quad (\text{or } \phi(|x| + b) \, x \text{ without normalize})

    where the norm is not below ``epsilon`` with ``normalize``, so the gradient is finite at x = 0.

    Args:
        irreps_in: how the rows of the feature transform.
        scalar_nonlinearity: the function of the norm, by name or as a callable; used as it is, not rescaled.
        normalize: divide by the norm, so that the result has the function of the norm as its norm.
        epsilon: smallest norm; 1e-8 unless given. Only with ``normalize``.
        bias: learn a shift of the norm for each irrep and channel.
        channels: with a bias: channels of the feature.

    Shape:
        x: (..., irreps.dim, channels) -> (..., irreps.dim, channels)

    Raises:
        ValueError: if ``epsilon`` is not positive or given without ``normalize``, or ``channels`` is missing.

    Source:
        Thomas et al. 2018, arXiv:1802.08219 (norm nonlinearity); e3nn's ``NormActivation``.

    >>> NormActivation("0e+1o", torch.sigmoid)(torch.zeros(2, 4, 8)).shape
    torch.Size([2, 4, 8])
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        scalar_nonlinearity: str | Function,
        normalize: bool = True,
        epsilon: float | None = None,
        bias: bool = False,
        *,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if epsilon is not None and not (normalize and epsilon > 0):
            raise ValueError(
                f"NormActivation expects epsilon > 0, and only with normalize=True, got epsilon={epsilon}, "
                f"normalize={normalize}"
            )
        if bias and channels is None:
            raise ValueError("NormActivation(bias=True) expects the number of channels, got channels=None")
        self.irreps = self.irreps_in = self.irreps_out = Irreps(irreps_in)
        self.normalize, self.epsilon = normalize, 1e-8 if epsilon is None else epsilon
        self.function = activation_function(scalar_nonlinearity)
        self.norm = Norm(self.irreps_in, squared=normalize)
        shape = (self.irreps_in.num_irreps, channels or 0)
        self.biases = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm(x)
        if self.normalize:
            norm = norm.clamp(min=self.epsilon**2).sqrt()
        scale = self.function(norm if self.biases is None else norm + self.biases)
        return scale_irreps(self.irreps_in, x, scale / norm if self.normalize else scale)

    def extra_repr(self) -> str:
        return f"{self.irreps_in}, normalize={self.normalize}"
