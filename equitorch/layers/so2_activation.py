"""Nonlinearities of rows of harmonics: in the frames of edges (by order) and on nodes (by degree).

Each takes the rows and extra scalars, and says how many channels and scalars it wants: ``channels_in`` and
``extra``. Gates and products commute with rotations and mirrors exactly; pointwise functions on a grid do so
only as well as the grid is fine.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equitorch.layers.row_grid import Resolution, RowGrid, kept_index
from equitorch.layers.stacks import Channels, stacks

EXACT = ("gate", "product")
PUBLISHED = ("gate", "product", "s2", "separable_s2")


class GatedRows(nn.Module):
    r"""Invariants through SiLU, every other degree times a gate of its own for each channel.

    .. math:: y_0 = \text{silu}(x_0), \qquad y_{lmc} = \sigma(g_{lc}) \, x_{lmc}

    Gates are invariant and turn no parity; of pseudo channels the row l = 0 is gated like the others.

    Args:
        lmax: highest degree.
        mmax: highest order.
        channels: of the rows; with parity "both" a pair.
        rows: "order" for messages in the frames of edges, "degree" for nodes.
        parity: of the rows, see :func:`equitorch.layers.stacks.stacks`.

    Shape:
        x: (..., rows, channels), gates: (..., extra) -> (..., rows, channels). ``extra`` is lmax * channels,
        by degree and then by channel; pseudo channels want one more for l = 0, after all others.

    Raises:
        ValueError: if the shapes are not these.

    Source:
        Weiler et al. 2018, arXiv:1807.02547; as in EquiformerV2, arXiv:2306.12059.

    >>> act = GatedRows(4, 2, 8)
    >>> act.extra, act(torch.randn(5, 19, 8), torch.randn(5, 32)).shape
    (32, torch.Size([5, 19, 8]))
    """

    degree: Tensor

    def __init__(
        self, lmax: int, mmax: int, channels: Channels, *, rows: str = "order", parity: str = "natural"
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.parity = lmax, mmax, parity
        self.natural, self.pseudo = stacks(channels, parity)
        self.channels_in = self.channels_out = channels
        self.width = self.natural + self.pseudo
        self.extra = lmax * self.width + self.pseudo
        degrees = torch.tensor([int(i**0.5) for i in kept_index(lmax, mmax, rows)])
        self.register_buffer("degree", degrees, persistent=False)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        _check(self, x, self.degree.shape[0], self.width, gates)
        above, last = gates.split([self.lmax * self.width, self.pseudo], dim=-1)
        first = torch.cat([x[..., 0, : self.natural], last], dim=-1).unsqueeze(-2)
        factor = torch.sigmoid(torch.cat([first, above.unflatten(-1, (self.lmax, self.width))], dim=-2))
        return x * factor.index_select(-2, self.degree)  # silu(x) = x sigmoid(x)

    def __repr__(self) -> str:
        return f"GatedRows(l<={self.lmax}, |m|<={self.mmax}, {self.channels_in} channels)"


class SphereSiLU(nn.Module):
    r"""SiLU of the function on the sphere whose coefficients the rows are; approximate on any grid.

    .. math:: y = B \, \text{silu}(T x), \qquad \text{separable: } y_0 = \text{silu}(s)

    Args:
        grid: the points, with the rows' degrees and orders.
        channels: of the rows.
        separable: take the invariant rows from extra scalars instead.

    Shape:
        x: (..., rows, channels), scalars: (..., extra) -> (..., rows, channels); ``extra`` is ``channels`` if
        separable, else 0, and then ``scalars`` is None.

    Raises:
        ValueError: if the shapes are not these.

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2: separable S2 activation).

    >>> act = SphereSiLU(RowGrid.published(4, 2, resolution=18), 8, separable=True)
    >>> act(torch.randn(5, 19, 8), torch.randn(5, 8)).shape
    torch.Size([5, 19, 8])
    """

    def __init__(self, grid: RowGrid, channels: int, *, separable: bool = False) -> None:
        super().__init__()
        self.grid, self.separable = grid, separable
        self.channels_in = self.channels_out = self.width = channels
        self.extra = channels if separable else 0

    def forward(self, x: Tensor, scalars: Tensor | None = None) -> Tensor:
        _check(self, x, self.grid.to_rows.value.shape[0], self.width, scalars)
        if scalars is None:
            return self.grid(F.silu, x)
        return self.grid.combine(F.silu, x, shift=F.silu(scalars), replace=True)

    def __repr__(self) -> str:
        return f"SphereSiLU({self.grid}, {self.width} channels, separable={self.separable})"


class SphereProduct(nn.Module):
    r"""The product of two functions on the sphere, gated, and a gated linear unit of extra scalars.

    .. math:: y_{lm} = \sigma(g) \, B (T u \cdot T v) + \text{silu}(s_1) \, s_2 \, [l = 0]

    A polynomial of degree two has finitely many degrees: on an exact grid this is the exact product. Natural
    times natural and pseudo times pseudo is natural, mixed products are pseudo.

    Args:
        grid: the points, with the rows' degrees and orders.
        channels: h, of the result; with parity "both" a pair, not more pseudo than natural ones.
        parity: of the rows, see :func:`equitorch.layers.stacks.stacks`.

    Shape:
        x: (..., rows, 2 h): [u | v], in each stack. scalars: (..., extra): [s1 | s2 | g], where s has the
        natural channels only. -> (..., rows, h)

    Raises:
        ValueError: if the shapes are not these.

    Source:
        EquiformerV3 (product of functions on the sphere, "gates2"); Shazeer 2020, arXiv:2002.05202 (SwiGLU).

    >>> act = SphereProduct(RowGrid.exact(4, 2), 8)
    >>> act.channels_in, act.extra, act(torch.randn(5, 19, 16), torch.randn(5, 24)).shape
    (16, 24, torch.Size([5, 19, 8]))
    """

    def __init__(self, grid: RowGrid, channels: Channels, *, parity: str = "natural") -> None:
        super().__init__()
        self.grid, self.parity, self.channels_out = grid, parity, channels
        self.natural, self.pseudo = stacks(channels, parity)
        if self.pseudo > self.natural:
            raise ValueError(
                "SphereProduct expects no more pseudo channels than natural ones, which multiply them, "
                f"got {channels}"
            )
        self.channels_in = (2 * self.natural, 2 * self.pseudo) if parity == "both" else 2 * self.natural
        self.width = 2 * (self.natural + self.pseudo)
        self.extra = 3 * self.natural + self.pseudo

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        _check(self, x, self.grid.to_rows.value.shape[0], self.width, scalars)
        s1, s2, gate = scalars.split([self.natural, self.natural, self.natural + self.pseudo], dim=-1)
        split = [n for n in (self.natural, self.pseudo) if n for _ in range(2)]
        shift = F.pad(F.silu(s1) * s2, (0, self.pseudo))
        return self.grid.combine(self._product, x, split=split, scale=torch.sigmoid(gate), shift=shift)

    def _product(self, u: Tensor, v: Tensor, p: Tensor | None = None, q: Tensor | None = None) -> Tensor:
        if p is None or q is None:
            return u * v
        both = F.pad(p * q, (0, self.natural - self.pseudo))
        return torch.cat([u * v + both, u[..., : self.pseudo] * q + p * v[..., : self.pseudo]], dim=-1)

    def __repr__(self) -> str:
        return f"SphereProduct({self.grid}, {self.channels_out} channels)"


Activation = GatedRows | SphereSiLU | SphereProduct


def row_activation(
    kind: str,
    lmax: int,
    mmax: int,
    channels: Channels,
    *,
    rows: str = "order",
    parity: str = "natural",
    exact: bool = True,
    **grid: Any,
) -> Activation:
    """The nonlinearity of this name.

    Args:
        kind: "gate", "product", "s2" (SiLU on a grid) or "separable_s2".
        lmax: highest degree.
        mmax: highest order.
        channels: of the result; with parity "both" a pair.
        rows: "order" for messages in the frames of edges, "degree" for nodes.
        parity: of the rows.
        exact: refuse what commutes with rotations only approximately, and use exact grids; otherwise those
            of published models.
        **grid: ``latitudes`` of an exact grid; ``resolution``, ``normalization``, ``rescale`` of a published
            one (see :class:`RowGrid`).

    Raises:
        ValueError: if the name is unknown, or what it stands for is not exact, or has no parity.

    >>> row_activation("product", 6, 2, 8)
    SphereProduct(RowGrid(l<=6, |m|<=2, 10x7 points), 8 channels)
    """
    if kind not in PUBLISHED:
        raise ValueError(f"an activation of rows is one of {', '.join(PUBLISHED)}, got {kind!r}")
    if kind == "gate":
        return GatedRows(lmax, mmax, channels, rows=rows, parity=parity)
    if exact and kind not in EXACT:
        raise ValueError(
            f"activation {kind!r} commutes with rotations on no finite grid; exact ones are "
            f"{' and '.join(EXACT)}, and exact=False takes it as it is"
        )
    points = row_grid(lmax, mmax, rows=rows, exact=exact, **grid)
    if kind == "product":
        return SphereProduct(points, channels, parity=parity)
    return SphereSiLU(points, _single(kind, channels, parity), separable=kind == "separable_s2")


def row_grid(
    lmax: int,
    mmax: int,
    *,
    rows: str = "order",
    exact: bool = True,
    latitudes: int | None = None,
    resolution: Resolution = None,
    normalization: str = "component",
    rescale: bool = True,
) -> RowGrid:
    """An exact grid, or one of those of published models; see :class:`RowGrid` for the arguments.

    >>> row_grid(4, 2, latitudes=5), row_grid(4, 2, exact=False, resolution=14)
    (RowGrid(l<=4, |m|<=2, 5x7 points), RowGrid(l<=4, |m|<=2, 14x14 points))
    """
    if exact:
        return RowGrid.exact(lmax, mmax, rows=rows, latitudes=latitudes)
    return RowGrid.published(
        lmax, mmax, rows=rows, resolution=resolution, normalization=normalization, rescale=rescale
    )


def _single(kind: str, channels: Channels, parity: str) -> int:
    if parity == "both":
        raise ValueError(f"activation {kind!r} has no parity on pseudo channels; 'gate' and 'product' have")
    return stacks(channels, parity)[0]


def _check(layer: Activation, x: Tensor, rows: int, width: int, extra: Tensor | None) -> None:
    if x.ndim < 2 or x.shape[-2:] != (rows, width):
        raise ValueError(f"{layer} expects x of shape (..., {rows}, {width}), got {tuple(x.shape)}")
    shape = None if extra is None else tuple(extra.shape)
    if shape != ((*x.shape[:-2], layer.extra) if layer.extra else None):
        wanted = f"shape (..., {layer.extra}), the batch as in x," if layer.extra else "none"
        raise ValueError(f"{layer} expects extra scalars: {wanted} got {shape}")
