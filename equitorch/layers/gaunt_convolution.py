"""Convolutions whose filter is a function on the sphere, of latitude alone in the frame of an edge."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.gaunt import KINDS
from equitorch.layers.rows import expect_dtype
from equitorch.ops.edges import EdgePlan
from equitorch.ops.pieces import by_pieces
from equitorch.ops.rotate import EdgeRotation, rotate_in, rotate_out
from equitorch.ops.so2 import Layout, so2_linear
from equitorch.ops.so2.reference import COMPLEX, ONCE, TWICE
from equitorch.reps.gaunt import gradient_scales, path_powers
from equitorch.reps.order import order_rows, order_sizes
from equitorch.reps.product_grid import polar_part
from equitorch.reps.sphere import SphereGrid

_PIECE = {"cpu": 1 << 17, "cuda": 1 << 25}  # numbers on latitudes at a time: the nearest large cache


class Latitudes(NamedTuple):
    """Values on the latitudes of an exact grid, float64.

    Attributes:
        polar: of rows of each order. Shapes (latitudes, lmax + 1 - m).
        filter: of the filter's degrees, of unit mean square. Shape (latitudes, lmax_filter + 1).
        slope: of its derivative by the angle from the pole, over the sine of this angle. The same shape.
        weight: of the latitudes in an integral. Shape (latitudes,).
    """

    polar: tuple[Tensor, ...]
    filter: Tensor
    slope: Tensor
    weight: Tensor

    @staticmethod
    def exact(lmax: int, lmax_filter: int, mmax: int) -> Latitudes:
        """Those on which products of two rows and a filter are integrated exactly."""
        grid = SphereGrid.exact(2 * lmax + lmax_filter, longitudes=1)
        sine = grid.beta.sin()[:, None]
        rows = polar_part(grid.beta, lmax, "value")
        axial = [l * l + l for l in range(lmax_filter + 1)]
        at_pole = (2 * torch.arange(lmax_filter + 1, dtype=torch.float64, device="cpu") + 1).sqrt()
        return Latitudes(
            tuple(rows[:, [l * l + l + m for l in range(m, lmax + 1)]] for m in range(mmax + 1)),
            at_pole * polar_part(grid.beta, lmax_filter, "value")[:, axial],
            at_pole * polar_part(grid.beta, lmax_filter, "polar")[:, axial] / sine,
            grid.weight,
        )


class GauntConvolution(nn.Module):
    r"""The sum over edges of products of a neighbour's feature with a filter of the edge's direction.

    .. math:: z_i = \sum_{e: j \to i} \text{product}\Big(x_j, \,
        \big(g_{e l c} \, Y_{l m}(\hat v_e)\big)_{l m c}\Big)

    where the product is that of :class:`GauntTensorProduct` with weights of one (times sqrt(2) if "full": a
    natural filter has half of the pairs), Y has unit mean square, and g comes from a radial network. In the
    edge's frame the filter depends on latitude alone: orders do not mix, a product is a multiplication on
    latitudes, and no matrix of an edge is formed.

    Args:
        lmax: highest degree of the feature and of the result.
        lmax_filter: highest degree of the filter.
        channels: of the feature, the filter and the result.
        parity: "even": the product; "odd": the bracket, pseudo where the feature is natural; "full": both,
            on natural and pseudo rows as in :class:`GauntTensorProduct`. The filter is natural.
        mmax: highest order in the frames of edges; all unless given. Lower ones are an approximation, which
            is equivariant, too.

    Shape:
        x: (nodes, (lmax + 1)^2, channels), "full": twice as many rows; g: (edges, lmax_filter + 1, channels)
        -> shape of x

    ``forward(x, g, rotation, plan)`` takes frames ``EdgeRotation.build(vectors, lmax, mmax)`` of the edges of
    the plan.

    Raises:
        ValueError: if an option makes no sense, or the operands have other shapes.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216 (sparse filters); Passaro, Zitnick 2023,
        arXiv:2302.03655 (frames of edges).

    >>> edge_index, vectors = torch.tensor([[1, 0], [0, 1]]), torch.randn(2, 3)
    >>> plan, rotation = EdgePlan.build(edge_index, 2), EdgeRotation.build(vectors, 2, 2)
    >>> GauntConvolution(2, 3, 8)(torch.randn(2, 9, 8), torch.randn(2, 4, 8), rotation, plan).shape
    torch.Size([2, 9, 8])
    """

    def __init__(
        self, lmax: int, lmax_filter: int, channels: int, *, parity: str = "even", mmax: int | None = None
    ) -> None:
        super().__init__()
        self.lmax, self.lmax_filter, self.channels, self.parity = lmax, lmax_filter, channels, parity
        self.mmax = lmax if mmax is None else mmax
        if parity not in KINDS:
            raise ValueError(f"GauntConvolution expects parity of even, odd or full, got {parity!r}")
        if min(lmax, lmax_filter, channels) < 0 or not 0 <= self.mmax <= lmax:
            raise ValueError(
                "GauntConvolution expects degrees and channels >= 0 and 0 <= mmax <= lmax, "
                f"got {lmax}, {lmax_filter}, {channels} and mmax={mmax}"
            )
        table = Latitudes.exact(lmax, lmax_filter, self.mmax)
        self.polar = nn.ModuleList(Constant(p) for p in table.polar)
        unit = parity == "odd"  # gradients of unit length
        self.filter = Constant(table.filter * table.weight[:, None])
        self.slope = Constant(
            table.slope * table.weight[:, None] * (gradient_scales(lmax_filter) if unit else 1)
        )
        self.scale_in = Constant(gradient_scales(lmax)[:, None]) if unit else None
        self.scale = Constant(_scales(lmax, lmax_filter, KINDS[parity])[:, :, None])
        degree = torch.tensor([l for l, _ in order_rows(lmax, self.mmax)])
        self.register_buffer("degree", degree, persistent=False)

    degree: Tensor

    def forward(self, x: Tensor, g: Tensor, rotation: EdgeRotation, plan: EdgePlan) -> Tensor:
        self._check(x, g, rotation, plan)
        for t in (x, g):
            expect_dtype(self, t, self.filter.value)
        stacks = 2 if self.parity == "full" else 1
        wide = torch.cat(x.chunk(2, dim=1), dim=2) if stacks == 2 else x
        y = rotate_in(wide, rotation, plan)
        node = self.filter.exact.shape[0] * (2 * self.mmax + 1) * stacks * max(self.channels, 1)
        size = max(1, _PIECE.get(y.device.type, 1 << 25) // node)
        z = rotate_out(by_pieces(self.aligned, [y, g], [], size), rotation, plan)
        return torch.cat(z.chunk(2, dim=2), dim=1) if stacks == 2 else z

    def aligned(self, y: Tensor, g: Tensor) -> Tensor:
        """The product in the frames of edges.

        Args:
            y: rows order-major; with parity "full" natural, then pseudo channels.
            g: coefficients of the filter.

        Shape:
            y: (edges, rows, channels), g: (edges, lmax_filter + 1, channels) -> shape of y
        """
        scale = self.scale.value[:, self.degree]
        if self.parity == "even":
            return self._product(y, g) * scale[0]
        if self.scale_in is not None:
            return self._bracket(y * self.scale_in.value[self.degree], g) * scale[0]
        natural, pseudo = y.chunk(2, dim=2)
        swapped = torch.cat([pseudo, natural], dim=2)
        both = torch.cat([g, g], dim=2)
        return self._product(y, both) * scale[0] + self._bracket(swapped, both) * scale[1]

    def _product(self, y: Tensor, g: Tensor) -> Tensor:
        values, out = self.filter.value @ g, []
        for m, (polar, block) in enumerate(zip(self._polar(), self._orders(y), strict=True)):
            found = polar.mT @ (values[:, None] * (polar @ block))
            out.append(found.flatten(1, 2) if m else found[:, 0])
        return torch.cat(out, dim=1)

    def _bracket(self, y: Tensor, g: Tensor) -> Tensor:
        """(x, -x_m, x_-m) on latitudes times m g' / sin, of which m = 0 has nothing."""
        slopes, out = self.slope.value @ g, [torch.zeros_like(y[:, : self.lmax + 1])]
        for m, (polar, block) in enumerate(zip(self._polar(), self._orders(y), strict=True)):
            if m:
                plus, minus = (m * (polar.mT @ (slopes[:, None] * (polar @ block)))).unbind(1)
                out += [-minus, plus]
        return torch.cat(out, dim=1)

    def _polar(self) -> list[Tensor]:
        return [table.value for table in self.polar if isinstance(table, Constant)]

    def _orders(self, y: Tensor) -> list[Tensor]:
        """Rows of each order: (edges, 1, degrees, channels) for m = 0, (edges, 2, degrees, channels) else."""
        sizes = order_sizes(self.lmax, self.mmax)
        runs = y.split([size * (2 if m else 1) for m, size in enumerate(sizes)], dim=1)
        return [run.unflatten(1, (2 if m else 1, sizes[m])) for m, run in enumerate(runs)]

    def _check(self, x: Tensor, g: Tensor, rotation: EdgeRotation, plan: EdgePlan) -> None:
        rows = (self.lmax + 1) ** 2 * (2 if self.parity == "full" else 1)
        edges, wanted = plan.source.shape[0], (plan.num_nodes, rows, self.channels)
        filters = (edges, self.lmax_filter + 1, self.channels)
        if tuple(x.shape) != wanted or tuple(g.shape) != filters:
            raise ValueError(
                f"{self} expects x of shape {wanted} and g of shape {filters} here, "
                f"got {tuple(x.shape)} and {tuple(g.shape)}"
            )
        if (rotation.lmax, rotation.mmax) != (self.lmax, self.mmax):
            raise ValueError(
                f"{self} expects frames built for lmax={self.lmax} and mmax={self.mmax}, "
                f"got {rotation.lmax} and {rotation.mmax}"
            )

    def __repr__(self) -> str:
        return (
            f"GauntConvolution({self.lmax}, {self.lmax_filter}, channels={self.channels}, "
            f"parity={self.parity}, mmax={self.mmax})"
        )


class GauntSO2Convolution(nn.Module):
    r"""Mix degrees and channels of messages by one filter on the sphere that all edges share.

    .. math:: W_m = P_m^T \, \text{diag}(q f) \, P_m, \qquad
        M_m = P_m^T \, \text{diag}\Big(q \frac{m f'}{\sin \beta}\Big) \, P_m

    are the real and imaginary weights of an SO(2) convolution: products with the function f and brackets with
    it. It has (lmax_filter + 1) weights for each pair of channels, in place of about lmax^3 / 3.

    Args:
        lmax: highest degree of messages.
        lmax_filter: highest degree of the filter.
        channels_in: of the message.
        channels_out: of the result.
        mmax: highest order; all unless given.
        parity: "natural": products only, which commute with mirrors; "so3": brackets, too, with a filter of
            their own.

    Attributes:
        weight: (1 or 2, lmax_filter + 1, channels_out, channels_in).

    Shape:
        y: (..., rows, channels_in), order-major -> (..., rows, channels_out)

    Raises:
        ValueError: if an option makes no sense, or y has another shape.

    Source:
        Passaro, Zitnick 2023, arXiv:2302.03655 (eSCN); Luo et al. 2024, arXiv:2401.10216.

    >>> GauntSO2Convolution(2, 4, 8, 16)(torch.randn(10, 9, 8)).shape
    torch.Size([10, 9, 16])
    """

    def __init__(
        self,
        lmax: int,
        lmax_filter: int,
        channels_in: int,
        channels_out: int,
        *,
        mmax: int | None = None,
        parity: str = "natural",
    ) -> None:
        super().__init__()
        if parity not in ("natural", "so3"):
            raise ValueError(f"GauntSO2Convolution expects parity of natural or so3, got {parity!r}")
        self.lmax, self.lmax_filter, self.mmax = lmax, lmax_filter, lmax if mmax is None else mmax
        if min(lmax, lmax_filter, channels_in, channels_out) < 0 or not 0 <= self.mmax <= lmax:
            raise ValueError(
                "GauntSO2Convolution expects degrees and channels >= 0 and 0 <= mmax <= lmax, "
                f"got {lmax}, {lmax_filter}, {channels_in}, {channels_out} and mmax={mmax}"
            )
        self.channels_in, self.channels_out, self.parity = channels_in, channels_out, parity
        self.rows = len(order_rows(lmax, self.mmax))
        table = Latitudes.exact(lmax, lmax_filter, self.mmax)
        kinds = ("even", "raw") if parity == "so3" else ("even",)
        scale = _scales(lmax, lmax_filter, kinds) / max(channels_in, 1) ** 0.5
        self.blocks = nn.ModuleList(Constant(block) for block in _blocks(table, scale))
        kind = COMPLEX if parity == "so3" else TWICE
        sizes = order_sizes(lmax, self.mmax)
        self.layout = Layout.build(
            [(kind if m else ONCE, k * channels_in, k * channels_out) for m, k in enumerate(sizes)]
        )
        self.weight = nn.Parameter(torch.empty(len(kinds), lmax_filter + 1, channels_out, channels_in))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit variance in, unit variance out, averaged over the rows of each degree."""
        nn.init.normal_(self.weight)

    def forward(self, y: Tensor) -> Tensor:
        if y.ndim < 2 or y.shape[-2:] != (self.rows, self.channels_in):
            raise ValueError(
                f"{self} expects y of shape (..., {self.rows}, {self.channels_in}), got {tuple(y.shape)}"
            )
        expect_dtype(self, y, self.weight)
        columns = y.reshape(math.prod(y.shape[:-2]), self.layout.width_in)
        out = so2_linear(columns, self.matrices(), None, self.layout)[0]
        return out.reshape(*y.shape[:-2], self.rows, self.channels_out)

    def matrices(self) -> list[Tensor]:
        """The weights of :func:`equitorch.ops.so2.so2_linear`, one for each order."""
        found = []
        for m, block in enumerate(self.blocks):
            full = torch.einsum("pklf,pfoi->pkoli", block.value, self.weight).flatten(3).flatten(1, 2)
            found.append(full if m and self.parity == "so3" else full[0])
        return found

    def __repr__(self) -> str:
        return (
            f"GauntSO2Convolution({self.lmax}, {self.lmax_filter}, {self.channels_in} -> "
            f"{self.channels_out}, mmax={self.mmax}, {self.parity})"
        )


def _blocks(table: Latitudes, scale: Tensor) -> list[Tensor]:
    """W and M of every order and degree of the filter. Shapes (1 or 2, degrees, degrees, lmax_filter + 1)."""
    found: list[Tensor] = []
    for m, polar in enumerate(table.polar):
        both = (table.filter, m * table.slope)
        parts = [
            torch.einsum("t,tk,tl,tf->klf", table.weight, polar, polar, values) * own[m:, None, None]
            for values, own in zip(both, scale, strict=False)
        ]
        found.append(torch.stack(parts))
    return found


def _scales(lmax: int, lmax_filter: int, kinds: tuple[str, ...]) -> Tensor:
    """One over the deviation of each degree of the result, for each kind. Shape (kinds, degrees)."""
    power = torch.stack([path_powers(lmax, lmax_filter, lmax, kind).sum((0, 1)) for kind in kinds])
    power = power * (power > 0).sum(0)
    return torch.where(power > 0, power, 1).rsqrt() * (power > 0)
