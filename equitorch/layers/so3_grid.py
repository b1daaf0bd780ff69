"""Functions on the rotation group: from rows to a grid of rotations, pointwise maps there, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equitorch.layers.activation import Function, normalize2mom
from equitorch.layers.constant import Constant
from equitorch.reps import matrix_x, so3_generators, wigner_D
from equitorch.reps.sphere import SphereGrid


class SO3Grid(nn.Module):
    r"""A function on SO(3) by the coefficients of its Wigner matrices, and by its values on a grid of angles.

    .. math:: f(\alpha, \beta, \gamma) = \frac{1}{\sqrt N} \sum_{lij} \sqrt{2l + 1} \, D^l_{ij}(\alpha, \beta,
              \gamma) \, x^l_{ij}, \qquad N = \sum_l (2l + 1)^2

    Rows of unit variance give a function of mean square one. The rows are 2 l + 1 copies of each degree:
    copy i, component j. A rotation is a wave in alpha and in gamma around a matrix of beta, and the three are
    applied one after another: no table of the size of grid times rows.

    Args:
        lmax: highest degree.
        resolution: half the number of angles beta.
        normalization: "component", the only one.
        aspect_ratio: angles alpha, and gamma, for each angle beta.

    Raises:
        ValueError: for another normalization, a negative degree, or no resolution.

    Source:
        Kostelec and Rockmore 2008, J. Fourier Anal. Appl. 14, 145; e3nn's ``o3.SO3Grid``.

    >>> grid = SO3Grid(2, 3)
    >>> x = torch.randn(4, 35, 8)
    >>> torch.allclose(grid.from_grid(grid.to_grid(x)), x, atol=1e-5)
    True
    """

    def __init__(
        self, lmax: int, resolution: int, *, normalization: str = "component", aspect_ratio: float = 2
    ) -> None:
        super().__init__()
        if normalization != "component" or lmax < 0 or resolution < 1:
            raise ValueError(
                "SO3Grid expects lmax >= 0, resolution >= 1 and normalization='component', "
                f"got lmax={lmax}, resolution={resolution}, normalization={normalization!r}"
            )
        self.lmax, self.dim = lmax, sum((2 * l + 1) ** 2 for l in range(lmax + 1))
        self.res_beta, around = 2 * resolution, round(2 * aspect_ratio * resolution)
        self.res_alpha = self.res_gamma = around
        self._grid = SphereGrid.e3nn(self.res_beta, around)
        self.middle = Constant(_middle(lmax, self._grid.beta) / math.sqrt(self.dim))
        self.waves = Constant(_waves(lmax, self._grid.alpha))
        self.weight = Constant(self._grid.weight * (self.dim / (4 * math.pi * around)))

    @property
    def alpha(self) -> Tensor:
        """Angles about y, applied last, float64. Shape (res_alpha,)."""
        return self._grid.alpha

    @property
    def beta(self) -> Tensor:
        """Angles about x, float64. Shape (res_beta,)."""
        return self._grid.beta

    @property
    def gamma(self) -> Tensor:
        """Angles about y, applied first, float64. Shape (res_gamma,)."""
        return self._grid.alpha

    def to_grid(self, x: Tensor) -> Tensor:
        """Values from rows: (..., dim, channels) -> (..., res_alpha, res_beta, res_gamma, channels)."""
        if x.ndim < 2 or x.shape[-2] != self.dim:
            raise ValueError(
                f"{self}.to_grid expects x of shape (..., {self.dim}, channels), got {tuple(x.shape)}"
            )
        waves, lead = self.waves.value, (*x.shape[:-2], x.shape[-1])
        points, (around, orders) = math.prod(lead), waves.shape
        y = self.middle.value @ x.movedim(-2, 0).reshape(self.dim, points)  # (mu beta nu, points)
        y = waves @ y.view(orders, self.res_beta * orders * points)
        y = torch.matmul(waves, y.view(around * self.res_beta, orders, points))
        return y.view(around, self.res_beta, around, *lead).movedim((0, 1, 2), (-4, -3, -2))

    def from_grid(self, f: Tensor) -> Tensor:
        """Rows from values: (..., res_alpha, res_beta, res_gamma, channels) -> (..., dim, channels)."""
        shape = (self.res_alpha, self.res_beta, self.res_gamma)
        if f.ndim < 4 or f.shape[-4:-1] != shape:
            raise ValueError(
                f"{self}.from_grid expects values of shape (..., {', '.join(map(str, shape))}, channels), "
                f"got {tuple(f.shape)}"
            )
        waves, lead = self.waves.value, (*f.shape[:-4], f.shape[-1])
        points, (around, orders) = math.prod(lead), waves.shape
        y = f.movedim((-4, -3, -2), (0, 1, 2)).reshape(around * self.res_beta, around, points)
        y = torch.matmul(waves.mT, y).view(around, self.res_beta * orders * points)
        y = (waves.mT @ y).view(orders, self.res_beta, orders * points) * self.weight.value[:, None]
        rows = self.middle.value.mT @ y.view(orders * self.res_beta * orders, points)
        return rows.view(self.dim, *lead).movedim(0, -2)

    def extra_repr(self) -> str:
        return f"{self.lmax}, {self.res_alpha}x{self.res_beta}x{self.res_gamma}"


class SO3Activation(nn.Module):
    """A pointwise nonlinearity on the function on SO(3) whose coefficients the rows are.

    Args:
        lmax_in: highest degree of the feature.
        lmax_out: highest degree of the result.
        act: the function, by name or as a callable; scaled to second moment one.
        resolution: half the number of angles beta: the finer, the closer to equivariant.
        normalization: "component", the only one.
        aspect_ratio: angles alpha, and gamma, for each angle beta.
        e3nn_compat: scale the function by e3nn's constant, an estimate, and not by the exact one.

    Shape:
        x: (..., sum of (2 l + 1)^2 to lmax_in, channels) -> (..., the same to lmax_out, channels)

    Source:
        Cohen et al. 2018, arXiv:1801.10130; e3nn's ``nn.SO3Activation``.

    >>> SO3Activation(2, 1, "tanh", 3)(torch.randn(5, 35, 8)).shape
    torch.Size([5, 10, 8])
    """

    def __init__(
        self,
        lmax_in: int,
        lmax_out: int,
        act: str | Function,
        resolution: int,
        *,
        normalization: str = "component",
        aspect_ratio: float = 2,
        e3nn_compat: bool = True,
    ) -> None:
        super().__init__()
        options = {"normalization": normalization, "aspect_ratio": aspect_ratio}
        self.grid_in = SO3Grid(lmax_in, resolution, **options)  # type: ignore[arg-type]
        self.grid_out = SO3Grid(lmax_out, resolution, **options)  # type: ignore[arg-type]
        self.act = normalize2mom(act, exact=not e3nn_compat)
        self.lmax_in, self.lmax_out = lmax_in, lmax_out

    def forward(self, x: Tensor) -> Tensor:
        values = self.act.function(self.grid_in.to_grid(x))
        return self.grid_out.from_grid(values) * self.act.constant  # there are fewer rows than points

    def extra_repr(self) -> str:
        return f"{self.lmax_in} -> {self.lmax_out}"


def _waves(lmax: int, angle: Tensor) -> Tensor:
    """cos(m angle) for m = 0..lmax, then sin(m angle) for m = 1..lmax: shape (angles, 2 lmax + 1)."""
    m = torch.arange(lmax + 1, dtype=torch.float64, device="cpu")
    return torch.cat([torch.cos(angle[:, None] * m), torch.sin(angle[:, None] * m[1:])], dim=1)


def _middle(lmax: int, beta: Tensor) -> Tensor:
    """The part of sqrt(2 l + 1) D(alpha, beta, gamma) between two waves: (mu beta nu, rows)."""
    blocks = []
    for l in range(lmax + 1):
        turn, about_y = wigner_D(l, matrix_x(beta)), _about_y(l, lmax)
        block = torch.einsum("uij,bjk,vkn->ubvin", about_y, turn, about_y) * math.sqrt(2 * l + 1)
        blocks.append(block.flatten(3))
    return torch.cat(blocks, dim=-1).flatten(0, 2)


def _about_y(l: int, lmax: int) -> Tensor:
    """The coefficients of the waves in a rotation about the polar axis: (2 lmax + 1, 2 l + 1, 2 l + 1)."""
    m = torch.arange(-l, l + 1, device="cpu").abs()
    generator, out = (
        so3_generators(l)[1],
        torch.zeros(2 * lmax + 1, 2 * l + 1, 2 * l + 1, dtype=torch.float64),
    )
    for order in range(l + 1):
        out[order] = torch.diag((m == order).double())
        if order:
            out[lmax + order] = generator * (m == order).double()[:, None] / order
    return out
