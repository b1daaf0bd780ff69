"""The feed-forward block of a node: channels to wider channels, a nonlinearity, and back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.row_grid import RowGrid
from equitorch.layers.so2_activation import row_activation, row_grid
from equitorch.layers.stacks import Channels, degree_linear, stacks, uniform_linear

GRIDS = ("grid", "separable_grid")
KINDS = ("gate", "spectral", "product", "s2", "separable_s2", *GRIDS)


class FeedForward(nn.Module):
    r"""Linear, a nonlinearity of the rows, Linear: node by node.

    The extra scalars of the nonlinearity are linear in the invariant rows of the input.

    ===================  ==========================================================================
    kind                 nonlinearity
    ===================  ==========================================================================
    ``gate``             :class:`GatedRows` with gates ``gate(x_0)``
    ``spectral``         the same with gates ``silu(scalar(x_0))``, as in eSEN and UMA
    ``product``          :class:`SphereProduct` of scalars ``scalar(x_0)`` and gates ``gate(x_0)``
    ``s2``               :class:`SphereSiLU`
    ``separable_s2``     the same, invariants being ``silu(gate(x_0))``
    ``grid``             a perceptron on the values at the points of a grid
    ``separable_grid``   the same, invariants being ``silu(scalar(x_0))``
    ===================  ==========================================================================

    The first three commute with rotations and mirrors exactly.

    Args:
        lmax: highest degree.
        channels: of the input; with parity "both" a pair, as all channels.
        hidden: channels between the maps.
        channels_out: of the result; ``channels`` unless given.
        kind: the nonlinearity.
        parity: of the rows, see :func:`equitorch.layers.stacks.stacks`.
        exact: refuse what commutes with rotations only approximately, and use exact grids.
        **grid: ``resolution``, ``normalization`` of a published grid (see :class:`RowGrid`).

    Shape:
        x: (..., (lmax + 1)^2, channels) -> (..., (lmax + 1)^2, channels_out)

    Raises:
        ValueError: if ``x`` has another shape, or the kind is unknown, not exact, or has no parity.

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2); Fu et al. 2025, arXiv:2502.12147 (eSEN).

    >>> FeedForward(2, 8, 16, kind="product")(torch.randn(5, 9, 8)).shape
    torch.Size([5, 9, 8])
    """

    def __init__(
        self,
        lmax: int,
        channels: Channels,
        hidden: Channels,
        channels_out: Channels | None = None,
        *,
        kind: str = "gate",
        parity: str = "natural",
        exact: bool = True,
        **grid: Any,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"FeedForward expects a kind of {', '.join(KINDS)}, got {kind!r}")
        self.lmax, self.kind, self.hidden = lmax, kind, hidden
        self.invariants, pseudo = stacks(channels, parity)
        self.width = self.invariants + pseudo
        options = {"rows": "degree", "parity": parity, "exact": exact, **grid}
        if kind in GRIDS:
            self.act: nn.Module = GridMLP(lmax, hidden, separable=kind == "separable_grid", **options)
            inner = hidden
        else:
            rows = row_activation("gate" if kind == "spectral" else kind, lmax, lmax, hidden, **options)
            self.act, inner = rows, rows.channels_in
        out = channels if channels_out is None else channels_out
        self.linear1 = degree_linear(lmax, channels, inner, parity=parity)
        self.gate, self.scalar = self._scalar_maps()
        self.linear2 = degree_linear(lmax, hidden, out, parity=parity)

    def _scalar_maps(self) -> tuple[nn.Linear | None, nn.Linear | None]:
        """The maps to the nonlinearity's extra scalars: ``gate`` and ``scalar``."""
        extra = int(self.act.extra)  # type: ignore[arg-type]
        if self.kind == "product":
            swish = 2 * int(self.act.natural)  # type: ignore[arg-type]
            return uniform_linear(self.invariants, extra - swish), uniform_linear(self.invariants, swish)
        if not extra:
            return None, None
        one = uniform_linear(self.invariants, extra)
        return (None, one) if self.kind in ("spectral", "separable_grid") else (one, None)

    def forward(self, x: Tensor) -> Tensor:
        rows = (self.lmax + 1) ** 2
        if x.ndim < 2 or x.shape[-2:] != (rows, self.width):
            raise ValueError(
                f"{self._name()} expects x of shape (..., {rows}, {self.width}), got {tuple(x.shape)}"
            )
        invariant = x[..., 0, : self.invariants]
        parts = [m(invariant) for m in (self.scalar, self.gate) if m is not None]
        extra = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0] if parts else None
        if extra is not None and self.kind == "spectral":
            extra = F.silu(extra)
        y = self.linear1(x)
        return self.linear2(self.act(y) if extra is None else self.act(y, extra))

    def _name(self) -> str:
        return f"FeedForward(l<={self.lmax}, {self.kind})"


class GridMLP(nn.Module):
    r"""A perceptron on the values of the rows' function at the points of a grid: approximate on any grid.

    .. math:: y = B \, W_3 \, \text{silu}(W_2 \, \text{silu}(W_1 \, T x))

    without biases, channels being mixed and points not.

    Args:
        lmax: highest degree.
        channels: of the rows, and after the last map.
        hidden: between the maps; ``channels`` unless given.
        separable: take silu of extra scalars for the invariant rows.
        parity: of the rows.
        exact: must be False: no finite grid is exact.
        rows: "degree".
        **grid: ``resolution``, ``normalization`` (see :class:`RowGrid`).

    Shape:
        x: (..., (lmax + 1)^2, channels), scalars: (..., extra) -> (..., (lmax + 1)^2, channels); ``extra`` is
        ``channels`` if separable, else 0, and then ``scalars`` is None.

    Raises:
        ValueError: if it is to be exact, or to have pseudo channels, or the shapes are not these.

    Source:
        Zitnick et al. 2022, arXiv:2206.14331 (SCN); as in EquiformerV2, arXiv:2306.12059, and eSEN,
        arXiv:2502.12147.

    >>> GridMLP(2, 8, 16, exact=False, resolution=14, normalization="integral")(torch.randn(5, 9, 8)).shape
    torch.Size([5, 9, 8])
    """

    def __init__(
        self,
        lmax: int,
        channels: Channels,
        hidden: int | None = None,
        *,
        separable: bool = False,
        parity: str = "natural",
        exact: bool = True,
        rows: str = "degree",
        **grid: Any,
    ) -> None:
        super().__init__()
        if exact or parity == "both" or not isinstance(channels, int):
            raise ValueError(
                "a perceptron on a grid commutes with rotations on no finite grid, and has no parity on "
                f"pseudo channels: GridMLP expects exact=False and one stack, got exact={exact}, "
                f"parity={parity!r}; exact kinds are gate, spectral and product"
            )
        wide = channels if hidden is None else hidden
        self.channels, self.extra = channels, channels if separable else 0
        self.points: RowGrid = row_grid(lmax, lmax, rows=rows, exact=False, **grid)
        sizes = [channels, wide, wide, channels]
        maps = [uniform_linear(a, b, bias=False) for a, b in pairwise(sizes)]
        self.grid = nn.Sequential(maps[0], nn.SiLU(), maps[1], nn.SiLU(), maps[2])

    def forward(self, x: Tensor, scalars: Tensor | None = None) -> Tensor:
        rows = self.points.to_rows.value.shape[0]
        shape = None if scalars is None else tuple(scalars.shape)
        wanted = (*x.shape[:-2], self.extra) if self.extra else None
        if x.ndim < 2 or x.shape[-2:] != (rows, self.channels) or shape != wanted:
            raise ValueError(
                f"{self} expects x of shape (..., {rows}, {self.channels}) and scalars of shape {wanted}, "
                f"got {tuple(x.shape)} and {shape}"
            )
        shift = None if scalars is None else F.silu(scalars)
        weights = list(self.grid.parameters())
        return self.points.combine(_perceptron, x, weights=weights, shift=shift, replace=shift is not None)

    def __repr__(self) -> str:
        return f"GridMLP({self.points}, {self.channels} channels)"


def _perceptron(values: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(F.silu(F.linear(values, w1)), w2)), w3)
