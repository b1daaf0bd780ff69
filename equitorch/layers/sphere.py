"""Functions on the sphere: from rows to a grid, pointwise maps there, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.activation import Function, activation_function, normalize2mom, parity_of
from equitorch.layers.constant import Constant
from equitorch.layers.rows import expect_dtype, expect_rows
from equitorch.reps import Irrep, Irreps, legendre, rand_angles, waves
from equitorch.reps.s2_grid import degree_shares
from equitorch.reps.sphere import SphereGrid

Resolution = int | Sequence[int | None] | None


class ToS2Grid(nn.Module):
    r"""The values on a grid of the function whose harmonics have the rows as coefficients.

    .. math:: f_{bac} = \sum_{lm} n_l \, P_{lm}(\cos \beta_b) \, T_m(\alpha_a) \, x_{lm,c}

    on the points :math:`\beta_b = (b + 1/2) \pi / \text{res}_\beta`, :math:`\alpha_a = 2 \pi a /
    \text{res}_\alpha`. One small matrix product for each order m leads to the latitudes, one for all orders
    to the longitudes. Pointwise functions and :class:`FromS2Grid` read the result where it lies.

    Args:
        lmax: highest degree; the highest that ``res`` allows if not given.
        res: number of latitudes (even), or of latitudes and longitudes; 2 (lmax + 1) and as many longitudes
            less one if not given.
        normalization: "component": rows of unit variance give a function of mean square one to which every
            degree contributes alike; "norm": the same for degrees of unit norm; "integral": orthonormal
            harmonics; or a factor for each of these, shape (lmax + 1,).
        dtype: of the constants.
        device: where they lie.

    Shape:
        x: (..., (lmax + 1)^2, channels) -> (..., res_beta, res_alpha, channels)

    Raises:
        ValueError: if the grid is too coarse for the degree, has an odd number of latitudes, or is not given.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.o3.ToS2Grid``).

    >>> ToS2Grid(2, (6, 5))(torch.randn(3, 9, 8)).shape
    torch.Size([3, 6, 5, 8])
    """

    place: Tensor

    def __init__(
        self,
        lmax: int | None = None,
        res: Resolution = None,
        normalization: str | Tensor = "component",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.lmax, self.res_beta, self.res_alpha = _completed("ToS2Grid", lmax, res)
        self._grid = SphereGrid.e3nn(self.res_beta, self.res_alpha)
        factors = _factors("ToS2Grid", self.lmax, normalization)
        table = legendre(self.lmax, self._grid.beta) * factors
        self.polar, self.waves, place = _tables(table, self._grid, self.lmax)
        self.register_buffer("place", place, persistent=False)
        self.to(dtype=dtype, device=device)

    @property
    def grid(self) -> Tensor:
        """The points, unit vectors. Shape (res_beta, res_alpha, 3)."""
        return self._grid.points.to(self.waves.value)

    def forward(self, x: Tensor) -> Tensor:
        count = (self.lmax + 1) ** 2
        if x.ndim < 2 or x.shape[-2] != count:
            raise ValueError(f"{self} expects x of shape (..., {count}, channels), got {tuple(x.shape)}")
        lead, polar = (*x.shape[:-2], x.shape[-1]), self.polar.value
        rows = x.movedim(-2, 0).reshape(count, math.prod(lead))
        by_order = rows.new_zeros(polar.shape[0] * polar.shape[1], rows.shape[1])
        by_order = by_order.index_copy(0, self.place, rows).unflatten(0, polar.shape[:2])
        latitudes = torch.bmm(polar.mT, by_order)  # (orders, res_beta, points)
        values = (self.waves.value @ latitudes.flatten(1)).view(self.res_alpha, self.res_beta, *lead)
        return values.movedim((1, 0), (-3, -2))

    def extra_repr(self) -> str:
        return f"lmax={self.lmax} res={self.res_beta}x{self.res_alpha} (beta x alpha)"


class FromS2Grid(nn.Module):
    r"""The coefficients of a function in harmonics, from its values on a grid.

    .. math:: x_{lm,c} = n_l \sum_{ba} w_b \, P_{lm}(\cos \beta_b) \, T_m(\alpha_a) \, f_{bac}

    with the weights of an integral over the sphere; the inverse of :class:`ToS2Grid` for functions that have
    no higher degrees.

    Args:
        res: number of latitudes (even), or of latitudes and longitudes.
        lmax: highest degree; the highest that ``res`` allows if not given.
        normalization: as in ``ToS2Grid``; factors of one's own, shape (lmax + 1,), multiply the mean over the
            sphere of f times the orthonormal harmonic.
        lmax_in: ``lmax`` of the ``ToS2Grid`` to be inverted, if it differs.
        dtype: of the constants.
        device: where they lie.

    Shape:
        f: (..., res_beta, res_alpha, channels) -> (..., (lmax + 1)^2, channels)

    Raises:
        ValueError: if the grid is too coarse for the degree, has an odd number of latitudes, or is not given.

    Source:
        Kostelec and Rockmore 2008, J. Fourier Anal. Appl. 14, 145 (weights); e3nn's ``o3.FromS2Grid``.

    >>> x = torch.randn(3, 9, 8)
    >>> torch.allclose(FromS2Grid((6, 5), 2)(ToS2Grid(2, (6, 5))(x)), x, atol=1e-5)
    True
    """

    place: Tensor

    def __init__(
        self,
        res: Resolution = None,
        lmax: int | None = None,
        normalization: str | Tensor = "component",
        lmax_in: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.lmax, self.res_beta, self.res_alpha = _completed("FromS2Grid", lmax, res)
        self._grid = SphereGrid.e3nn(self.res_beta, self.res_alpha)
        factors = _factors("FromS2Grid", self.lmax, normalization, self.lmax if lmax_in is None else lmax_in)
        weight = self._grid.weight[:, None] / (4 * math.pi)
        table = legendre(self.lmax, self._grid.beta) * weight * factors
        self.polar, self.waves, place = _tables(table, self._grid, self.lmax)
        self.register_buffer("place", place, persistent=False)
        self.to(dtype=dtype, device=device)

    @property
    def grid(self) -> Tensor:
        """The points, unit vectors. Shape (res_beta, res_alpha, 3)."""
        return self._grid.points.to(self.waves.value)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[-3:-1] != (self.res_beta, self.res_alpha):
            raise ValueError(
                f"{self} expects values of shape (..., {self.res_beta}, {self.res_alpha}, channels), "
                f"got {tuple(x.shape)}"
            )
        lead, polar = (*x.shape[:-3], x.shape[-1]), self.polar.value
        points = math.prod(lead)
        values = x.movedim((-3, -2), (1, 0)).reshape(self.res_alpha, self.res_beta * points)
        latitudes = (self.waves.value.mT @ values).view(polar.shape[0], self.res_beta, points)
        by_order = torch.bmm(polar, latitudes)  # (orders, degrees, points)
        rows = by_order.flatten(0, 1).index_select(0, self.place)
        return rows.view((self.lmax + 1) ** 2, *lead).movedim(0, -2)

    def extra_repr(self) -> str:
        return f"lmax={self.lmax} res={self.res_beta}x{self.res_alpha} (beta x alpha)"


class S2Activation(nn.Module):
    r"""A pointwise nonlinearity on the function on the sphere whose coefficients the rows are.

    .. math:: x \mapsto \Big\{ \int \phi\big(\textstyle\sum_l x^l \cdot Y^l(r)\big) \, Y^j(r) \, dr \Big\}_j

    Args:
        irreps: one of each degree 0..lmax, of parities ``p_val * p_arg^l``; or of SO(3), without parity.
        act: the function :math:`\phi`, by name or as a callable; scaled to second moment one.
        res: number of latitudes, or of latitudes and longitudes: the finer, the closer to equivariant.
        normalization: "component" or "norm": what the rows are like, see :class:`ToS2Grid`.
        lmax_out: highest degree of the result; that of ``irreps`` unless given.
        random_rot: turn the grid at random at each call.
        e3nn_compat: scale the function by e3nn's constant, an estimate, and not by the exact one.

    Shape:
        x: (..., irreps_in.dim, channels) -> (..., irreps_out.dim, channels)

    Raises:
        ValueError: if the irreps are not those of a function on the sphere, or its values are odd and
            ``act`` is neither odd nor even.

    Source:
        Cohen et al. 2018, arXiv:1801.10130 (nonlinearities on the sphere); e3nn's ``nn.S2Activation``.

    >>> S2Activation("0e+1o+2e", "tanh", 20)(torch.randn(5, 9, 8)).shape
    torch.Size([5, 9, 8])
    """

    def __init__(
        self,
        irreps: Irreps | str,
        act: str | Function,
        res: Resolution,
        normalization: str | Tensor = "component",
        lmax_out: int | None = None,
        random_rot: bool = False,
        *,
        e3nn_compat: bool = True,
    ) -> None:
        super().__init__()
        self.irreps_in = Irreps(irreps).simplify()
        p_val, p_arg = _parities(self.irreps_in)
        lmax = self.irreps_in.lmax
        top = lmax if lmax_out is None else lmax_out
        parity = p_val if p_val != -1 else parity_of(activation_function(act))
        if p_val == -1 and parity == 0:
            raise ValueError(
                f"S2Activation({self.irreps_in}) on odd values expects an odd function such as tanh, or an "
                "even one such as abs, got one that is neither: the result would have no parity"
            )
        self.irreps_out = Irreps([(1, Irrep(l, parity * p_arg**l)) for l in range(top + 1)])
        self.to_s2 = ToS2Grid(lmax, res, normalization)
        self.from_s2 = FromS2Grid(res, top, normalization, lmax_in=lmax)
        self.act, self.random_rot = normalize2mom(act, exact=not e3nn_compat), random_rot

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("S2Activation", self.irreps_in, x)
        expect_dtype(f"S2Activation({self.irreps_in})", x, self.to_s2.polar.value)
        angles = rand_angles(dtype=x.dtype, device=x.device) if self.random_rot else None
        x = x if angles is None else self.irreps_in.D_from_angles(*angles) @ x
        values = self.act.function(self.to_s2(x))
        y = self.from_s2(values) * self.act.constant  # there are fewer rows than points
        return y if angles is None else self.irreps_out.D_from_angles(*angles).mT @ y

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


def _parities(irreps: Irreps) -> tuple[int, int]:
    """What inversion does to the values and to the arguments of the function with these coefficients."""
    if irreps.num_irreps and irreps.ls == list(range(len(irreps))):
        p_val = irreps[0].ir.p
        for p_arg in (1, -1):
            if all(ir.p == p_val * p_arg**ir.l for _, ir in irreps):
                return p_val, p_arg
    raise ValueError(
        "S2Activation expects one irrep of each degree from 0, with parities p_val * p_arg^l, such as "
        f"0e+1o+2e, got {irreps}; multiplicity belongs in the channels"
    )


def _tables(table: Tensor, grid: SphereGrid, lmax: int) -> tuple[Constant, Constant, Tensor]:
    """Polar factors (res_beta, (lmax + 1)^2) by order and degree, the waves, and where each row goes."""
    place = torch.tensor(
        [(m + lmax) * (lmax + 1) + l for l in range(lmax + 1) for m in range(-l, l + 1)], device="cpu"
    )
    polar = table.new_zeros((2 * lmax + 1) * (lmax + 1), table.shape[0]).index_copy(0, place, table.mT)
    by_order = polar.unflatten(0, (2 * lmax + 1, lmax + 1))
    return (
        Constant(by_order),
        Constant(waves(lmax, grid.alpha)),
        place.to(torch.get_default_device()),
    )


def _factors(name: str, lmax: int, normalization: str | Tensor, lmax_in: int | None = None) -> Tensor:
    """One factor for each row, to the grid or, with ``lmax_in``, from it."""
    if isinstance(normalization, Tensor):
        share = normalization.detach().to("cpu", torch.float64)
        if tuple(share.shape) != (lmax + 1,):
            raise ValueError(
                f"{name} expects one factor for each of {lmax + 1} degrees, got {tuple(share.shape)}"
            )
    else:
        share = degree_shares(lmax, normalization)
        if lmax_in is not None:
            count = (lmax_in + 1) / (lmax + 1) if normalization != "integral" else 1.0
            share = 4 * math.pi / share * math.sqrt(count)
    return share.repeat_interleave(torch.arange(1, 2 * lmax + 2, 2, device="cpu"))


def _completed(name: str, lmax: int | None, res: Resolution) -> tuple[int, int, int]:
    """The degree and the numbers of latitudes and longitudes, those not given chosen as e3nn does."""
    beta, alpha = (res, None) if res is None or isinstance(res, int) else res
    if beta is None and lmax is not None:
        beta = 2 * (lmax + 1)
    elif beta is None and alpha is not None:
        beta = 2 * ((alpha + 1) // 2)
    elif beta is None:
        raise ValueError(f"{name} expects a degree or a resolution, got neither")
    if alpha is None:
        alpha = beta - 1 if lmax is None else max(2 * lmax + 1, beta - 1)
    if lmax is None:
        lmax = min(beta // 2 - 1, (alpha - 1) // 2)
    if beta % 2 or lmax < 0 or beta < 2 * (lmax + 1):
        raise ValueError(
            f"{name} expects an even number of latitudes, at least 2 (lmax + 1), got {beta} for lmax={lmax}"
        )
    return lmax, beta, alpha
