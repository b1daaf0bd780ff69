"""Rows as a function on points of the sphere, a pointwise function there, and rows again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.ops.pieces import by_pieces
from equitorch.reps.order import order_rows
from equitorch.reps.sphere import SphereGrid, from_grid, to_grid

Resolution = int | Sequence[int] | None
_PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}  # numbers on points at a time: the nearest large cache


def kept_index(lmax: int, mmax: int, rows: str) -> list[int]:
    """Which of the (lmax + 1)^2 degree-major rows are kept: orders up to mmax, sorted as ``rows`` says.

    Args:
        lmax: highest degree.
        mmax: highest order.
        rows: "degree" or "order": what the rows are sorted by first.

    >>> kept_index(2, 1, "degree"), kept_index(2, 1, "order")
    ([0, 1, 2, 3, 5, 6, 7], [0, 2, 6, 3, 7, 1, 5])
    """
    if rows not in ("degree", "order"):
        raise ValueError(f"rows expects 'degree' or 'order', got {rows!r}")
    index = [l * l + l + m for l, m in order_rows(lmax, mmax)]
    return sorted(index) if rows == "degree" else index


class RowGrid(nn.Module):
    r"""A pointwise function of the function on the sphere whose coefficients are the rows.

    .. math:: y_{lm} = \sum_p B_{lm,p} \, \phi\big(\textstyle\sum_{l'm'} T_{p,l'm'} \, x_{l'm'}\big)

    Rows of unit variance are a function of unit variance ("component"), or coefficients of orthonormal
    harmonics ("integral"). A few points of a batch are treated at a time, in the nearest cache, and again
    for each derivative, so that no tensor (batch, grid points, channels) is ever whole.

    Args:
        grid: the points.
        lmax: highest degree.
        mmax: highest order of the rows.
        rows: "order" for messages in the frames of edges, "degree" for nodes.
        normalization: "component" or "integral".
        rescale: multiply degrees l > mmax by sqrt((2 l + 1) / (2 mmax + 1)), both to the grid and from it.

    Shape:
        x: (..., rows, channels) -> (..., rows, channels)

    Source:
        Zitnick et al. 2022, arXiv:2206.14331 (pointwise functions on a grid); Liao et al. 2023,
        arXiv:2306.12059 (EquiformerV2: normalisation, rescaling).

    >>> grid = RowGrid.exact(4, 2)
    >>> grid(torch.square, torch.randn(5, 19, 8)).shape, grid
    (torch.Size([5, 19, 8]), RowGrid(l<=4, |m|<=2, 7x7 points))
    """

    def __init__(
        self,
        grid: SphereGrid,
        lmax: int,
        mmax: int,
        *,
        rows: str = "order",
        normalization: str = "component",
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.shape = lmax, mmax, (len(grid.beta), len(grid.alpha))
        index = kept_index(lmax, mmax, rows)
        norm, scale = _scales(lmax, mmax, normalization, rescale)
        inverse = scale / _rescale(lmax, mmax, rescale) ** 2
        self.to_points = Constant(
            to_grid(grid, lmax, normalization=norm, scale=scale).flatten(0, 1)[:, index]
        )
        self.to_rows = Constant(
            from_grid(grid, lmax, normalization=norm, scale=inverse).flatten(0, 1)[:, index].mT.contiguous()
        )

    @classmethod
    def exact(
        cls, lmax: int, mmax: int | None = None, *, rows: str = "order", latitudes: int | None = None
    ) -> RowGrid:
        """The smallest grid on which a product of two functions has exactly the rows that it should.

        Args:
            lmax: highest degree.
            mmax: highest order; all unless given.
            rows: as above.
            latitudes: fewer of them still commute with rolls about the axis, and with its mirrors: enough in
                the frame of an edge.
        """
        mmax = lmax if mmax is None else mmax
        grid = SphereGrid.exact(3 * lmax, latitudes=latitudes, longitudes=3 * mmax + 1)
        return cls(grid, lmax, mmax, rows=rows)

    @classmethod
    def published(
        cls,
        lmax: int,
        mmax: int | None = None,
        *,
        rows: str = "order",
        resolution: Resolution = None,
        normalization: str = "component",
        rescale: bool = True,
    ) -> RowGrid:
        """The grids of published models: e3nn's, exact for no product of degree lmax with itself.

        Args:
            lmax: highest degree.
            mmax: highest order; all unless given.
            rows: as above.
            resolution: number of latitudes (even) and longitudes, or one number for both; the fewest that
                hold the rows unless given.
            normalization: as above.
            rescale: as above.
        """
        mmax = lmax if mmax is None else mmax
        if resolution is None:
            resolution = (2 * (lmax + 1), 2 * (mmax + 1) + 1 if mmax == lmax else 2 * mmax + 1)
        beta, alpha = (resolution, resolution) if isinstance(resolution, int) else resolution
        grid = SphereGrid.e3nn(beta, alpha)
        return cls(grid, lmax, mmax, rows=rows, normalization=normalization, rescale=rescale)

    def forward(self, function: Callable[..., Tensor], x: Tensor, *weights: Tensor) -> Tensor:
        """Rows of ``function(values, *weights)``, where values have shape (n, points, channels)."""
        return self.combine(function, x, weights=weights)

    def combine(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        *,
        split: Sequence[int] | None = None,
        weights: Sequence[Tensor] = (),
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        replace: bool = False,
    ) -> Tensor:
        """Rows of ``function(*values, *weights)``, scaled and shifted piece by piece.

        Args:
            function: of the values of one or several functions on the sphere.
            x: the rows of all of them.
            split: channels of each; all belong to one unless given.
            weights: other arguments of ``function``.
            scale: a factor for each channel of the result. Shape (..., channels).
            shift: added to the invariant row of the result. Shape (..., channels).
            replace: let ``shift`` be the whole invariant row.
        """
        points, rows = self.to_points.value.shape
        if x.ndim < 2 or x.shape[-2] != rows:
            raise ValueError(f"{self} expects x of shape (..., {rows}, channels), got {tuple(x.shape)}")
        there, back = self.to_points.value.to(x.dtype), self.to_rows.value.to(x.dtype)
        back = torch.cat([torch.zeros_like(back[:1]), back[1:]]) if replace else back
        lead, extras = x.shape[:-2], [t for t in (scale, shift) if t is not None]

        def through(x: Tensor, *tensors: Tensor) -> Tensor:
            parts = [x] if split is None else x.split(list(split), dim=-1)
            values = [torch.bmm(there.expand(x.shape[0], points, rows), part) for part in parts]
            y = torch.bmm(back.expand(x.shape[0], rows, points), function(*values, *tensors[len(extras) :]))
            y = y if scale is None else y * tensors[0].unsqueeze(1)
            first = torch.zeros(1, dtype=torch.long, device=x.device)
            return y if shift is None else y.index_add(1, first, tensors[len(extras) - 1].unsqueeze(1))

        flat = [x.reshape(math.prod(lead), rows, x.shape[-1])]
        flat += [t.reshape(math.prod(lead), t.shape[-1]) for t in extras]
        size = _PIECE.get(x.device.type, _PIECE["cpu"]) // max(points * x.shape[-1], 1)
        y = by_pieces(through, flat, weights, max(size, 1))
        return y.reshape(*lead, *y.shape[1:])

    def __repr__(self) -> str:
        return f"RowGrid(l<={self.lmax}, |m|<={self.mmax}, {self.shape[0]}x{self.shape[1]} points)"


def _rescale(lmax: int, mmax: int, rescale: bool) -> Tensor:
    factors = [
        math.sqrt((2 * l + 1) / (2 * mmax + 1)) if rescale and l > mmax else 1.0 for l in range(lmax + 1)
    ]
    return torch.tensor(factors, dtype=torch.float64, device="cpu")


def _scales(lmax: int, mmax: int, normalization: str, rescale: bool) -> tuple[str, Tensor]:
    """The kind of harmonics, and their factor for each degree on the way to the points."""
    extra = _rescale(lmax, mmax, rescale)
    if normalization == "integral":
        return "integral", extra
    if normalization != "component":
        raise ValueError(f"RowGrid expects normalization 'component' or 'integral', got {normalization!r}")
    return "norm", extra / math.sqrt(lmax + 1)
