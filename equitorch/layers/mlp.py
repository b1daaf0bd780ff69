"""Multilayer perceptrons on invariant features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from equitorch.layers.activation import Function, activation_function, normalize2mom


class MLP(nn.Module):
    """Affine maps with an activation in between.

    Args:
        sizes: channels before, between and after the maps.
        activation: name or function, e.g. "silu" or ``torch.tanh``.
        activate_last: apply the activation after the last map too.
        bias: give the maps a bias.

    Shape:
        x: (..., sizes[0]) -> (..., sizes[-1])

    Raises:
        ValueError: if there are fewer than two sizes, or ``x`` does not have ``sizes[0]`` channels.

    >>> MLP([8, 32, 1])(torch.randn(10, 8)).shape
    torch.Size([10, 1])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Function = "silu",
        *,
        activate_last: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"MLP expects at least two sizes, input and output, got {list(sizes)}")
        self.sizes, self.activate_last = list(sizes), activate_last
        self.activation = activation_function(activation)
        self.layers = nn.ModuleList([nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes)])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.sizes[0]:
            raise ValueError(
                f"MLP({self.sizes}) expects x of shape (..., {self.sizes[0]}), got {tuple(x.shape)}"
            )
        for k, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if k < len(self.layers) or self.activate_last:
                x = self.activation(x)
        return x


class FullyConnectedNet(nn.Module):
    r"""A perceptron without biases whose activations keep unit variance; e3nn's weights can be loaded.

    .. math:: x \leftarrow \sqrt{v_\text{out}} \; \phi\big(x W / \sqrt{h_\text{in} v_\text{in}}\big)

    with weights from N(0, 1) and φ scaled to second moment one; the last map is linear without ``out_act``.

    Args:
        hs: channels before, between and after the maps.
        act: name, function, or None for linear maps only.
        variance_in: mean square of the input.
        variance_out: wanted mean square of the output.
        out_act: apply the activation after the last map too.
        e3nn_compat: scale φ by e3nn's constant, which is an estimate, and not by the exact one.

    Shape:
        x: (..., hs[0]) -> (..., hs[-1])

    Raises:
        ValueError: if ``x`` does not have ``hs[0]`` channels.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.nn.FullyConnectedNet``).

    >>> FullyConnectedNet([8, 64, 3], "silu")(torch.randn(10, 8)).shape
    torch.Size([10, 3])
    """

    def __init__(
        self,
        hs: Sequence[int],
        act: str | Function | None = None,
        variance_in: float = 1.0,
        variance_out: float = 1.0,
        out_act: bool = False,
        *,
        e3nn_compat: bool = True,
    ) -> None:
        super().__init__()
        self.hs = list(hs)
        self.count = len(self.hs) - 1
        scaled = None if act is None else normalize2mom(act, exact=not e3nn_compat)
        for i, (h_in, h_out) in enumerate(pairwise(self.hs)):
            last = i == self.count - 1
            layer = _Layer(
                h_in,
                h_out,
                act=scaled if out_act or not last else None,
                var_in=variance_in if i == 0 else 1.0,
                var_out=variance_out if last else 1.0,
            )
            setattr(self, f"layer{i}", layer)  # e3nn's names: layer0.weight, layer1.weight, ...

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.hs[0]:
            raise ValueError(
                f"FullyConnectedNet({self.hs}) expects x of shape (..., {self.hs[0]}), got {tuple(x.shape)}"
            )
        for i in range(self.count):
            x = getattr(self, f"layer{i}")(x)
        return x


class _Layer(nn.Module):
    def __init__(self, h_in: int, h_out: int, *, act: Function | None, var_in: float, var_out: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(h_in, h_out))
        self.act = act
        self.before = (h_in * var_in) ** -0.5 * (1.0 if act else var_out**0.5)
        self.after = var_out**0.5 if act else 1.0

    def forward(self, x: Tensor) -> Tensor:
        y = x @ (self.weight * self.before)
        if self.act is None:
            return y
        return self.act(y) if self.after == 1.0 else self.act(y) * self.after
