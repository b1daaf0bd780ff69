"""Products of features as functions on the sphere, with weights for each degree."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.rows import expect_dtype
from equitorch.ops.backend import autocasting
from equitorch.ops.gaunt import gaunt_product, product_and_bracket
from equitorch.ops.gaunt.form import BACKENDS, Form
from equitorch.ops.gaunt.weighted import Weight, weighted_product
from equitorch.reps import Irreps
from equitorch.reps.gaunt import gradient_scales, path_powers

KINDS = {"even": ("even",), "odd": ("odd",), "full": ("even", "raw")}
"""For each parity the kinds of ``path_factors`` that it sums."""


class GauntTensorProduct(nn.Module):
    r"""The product of two features as functions on the sphere, with weights for the degrees of all three.

    .. math:: z_{l_3} = \sum_r \frac{w^3_{r l_3}}{\sigma_{l_3}} \sum_{l_1 l_2} f_{l_1 l_2 l_3} \,
        C^{l_3}_{l_1 l_2} \big(w^1_{r l_1} x_{l_1}, \, w^2_{r l_2} y_{l_2}\big)

    channel by channel, with the unit-norm coupling C = ``wigner_3j``. These are Clebsch-Gordan products whose
    path weights have rank R, for the price of R products of functions.

    - "even": f = ``gaunt_factor``, the pointwise product: l1 + l2 + l3 even.
    - "odd": f = ``bracket_factor`` / sqrt(l1 (l1 + 1) l2 (l2 + 1)), the bracket r . (grad x cross grad y):
      l1 + l2 + l3 odd. The result is pseudo where both operands are natural. The bracket of a feature with
      itself is zero.
    - "full": features of natural rows (degree l of parity (-1)^l), then as many pseudo rows (the opposite
      parities); all products and brackets between them that O(3) allows, f being the two factors as they are.

    Independent operands of unit variance give a result of unit variance at the start, for every degree and
    channel: sigma is the exact deviation. With R = 1 all weights begin at one; otherwise at normal numbers,
    those of the result rescaled.

    Args:
        lmax1: highest degree of the first operand.
        lmax2: highest degree of the second operand.
        lmax_out: highest degree of the result; higher ones are dropped exactly.
        channels: of all three.
        parity: "even", "odd" or "full".
        rank: number R of products that are summed.
        backend: as in :func:`equitorch.ops.gaunt.gaunt_product`.

    Attributes:
        weight1: (rank, degrees, channels); "full": degrees of the natural, then of the pseudo rows.
        weight2: the same.
        weight3: the same; "full": (rank, 2, degrees, channels), of products and of brackets.

    Shape:
        x: (..., (lmax1 + 1)^2, channels), y: (..., (lmax2 + 1)^2, channels)
        -> (..., (lmax_out + 1)^2, channels); "full": twice as many rows everywhere. Leading axes broadcast,
        and so does a single channel.

    Raises:
        ValueError: if an option makes no sense, or the operands have other shapes.

    Source:
        Luo, Chen, Krishnapriyan 2024, arXiv:2401.10216.

    >>> product = GauntTensorProduct(2, 2, 2, 16)
    >>> product(torch.randn(10, 9, 16), torch.randn(10, 9, 16)).shape
    torch.Size([10, 9, 16])
    """

    def __init__(
        self,
        lmax1: int,
        lmax2: int,
        lmax_out: int,
        channels: int,
        parity: str = "even",
        rank: int = 1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.lmax1, self.lmax2, self.lmax_out = lmax1, lmax2, lmax_out
        self.channels, self.parity, self.rank, self.backend = channels, parity, rank, backend
        if parity not in KINDS:
            raise ValueError(f"GauntTensorProduct expects parity of even, odd or full, got {parity!r}")
        if backend not in BACKENDS:
            raise ValueError(f"GauntTensorProduct expects backend of {', '.join(BACKENDS)}, got {backend!r}")
        least = {"lmax1": 0, "lmax2": 0, "lmax_out": 0, "channels": 0, "rank": 1}
        for name, low in least.items():
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < low:
                raise ValueError(
                    f"GauntTensorProduct expects {name} to be a whole number >= {low}, got {given!r}"
                )
        stacks = 2 if parity == "full" else 1
        first, second, last = ((stacks * (lmax + 1), channels) for lmax in self.lmaxs)
        self.weight1 = nn.Parameter(torch.empty(rank, *first))
        self.weight2 = nn.Parameter(torch.empty(rank, *second))
        kinds = (2,) if parity == "full" else ()
        self.weight3 = nn.Parameter(torch.empty(rank, *kinds, *last))
        for slot, lmax in enumerate((lmax1, lmax2), 1):
            scale = gradient_scales(lmax) if parity == "odd" else torch.ones(stacks * (lmax + 1))
            setattr(self, f"spread{slot}", Constant(_spread(lmax, stacks, scale)))
        sigma = torch.stack([path_powers(*self.lmaxs, kind).sum((0, 1)).sqrt() for kind in KINDS[parity]])
        inverse = torch.where(sigma > 0, 1 / sigma, 0)
        if parity == "full":  # two products and two brackets, as far as there are any
            inverse = (inverse / (2 * (sigma > 0).sum(0).clamp(min=1).double()).sqrt()).repeat(1, 2)
        self.scale3 = Constant(inverse[..., None] if parity == "full" else inverse[0][:, None])
        halved = inverse / 2 if parity == "full" else inverse[0]  # half of each sum and difference of stacks
        self.spread3 = Constant(_spread(lmax_out, stacks, halved))
        self.reset_parameters()

    spread1: Constant
    spread2: Constant

    @property
    def lmaxs(self) -> tuple[int, int, int]:
        """Highest degrees of the operands and of the result."""
        return self.lmax1, self.lmax2, self.lmax_out

    def reset_parameters(self) -> None:
        """Unit variance in, unit variance out, for every degree and channel alike."""
        with torch.no_grad():
            for weight in (self.weight1, self.weight2, self.weight3):
                weight.fill_(1) if self.rank == 1 else weight.normal_()
            if self.rank > 1:
                self.weight3.div_(deviation(self.variance()))

    def variance(self, correlation: Tensor | None = None) -> Tensor:
        """Variance of the result over that of sigma, in the present state, for operands of unit variance.

        Args:
            correlation: between equal rows of both operands. Shape (degrees, channels); none unless given.

        Returns:
            Shape of ``weight3`` without its first axis.
        """
        one, two, three = (
            w.detach().to("cpu", torch.float64) for w in (self.weight1, self.weight2, self.weight3)
        )
        found = []
        for number, kind in enumerate(KINDS[self.parity]):
            powers = path_powers(*self.lmaxs, kind)
            share = powers / powers.sum((0, 1)).clamp(min=1e-300)
            pairs = _stacked(share, kind) if self.parity == "full" else share
            last = three[:, number] if self.parity == "full" else three
            path = torch.einsum("rac,rbc,rkc->abkc", one, two, last)
            square = path.square()
            if correlation is not None:
                rho = correlation.to("cpu", torch.float64)
                sign = 1 if kind == "even" else -1
                square = square + sign * path * path.transpose(0, 1) * rho[:, None, None] * rho[:, None]
            found.append(torch.einsum("abk,abkc->kc", pairs, square))
        return torch.stack(found) if self.parity == "full" else found[0]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self._check(x, y)
        if autocasting(x):  # lowers nothing: it would round the weights
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x.to(self.weight1.dtype), y.to(self.weight1.dtype))
        if self.rank == 1 and x.ndim == 3 and x.shape[::2] == y.shape[::2]:
            form = Form(*self.lmaxs, "both" if self.parity == "full" else self.parity, self.backend)
            z = weighted_product(x, y, self._weights(), form) if x.shape[2] == self.channels else None
            if z is not None:
                return z
        x, y = x[(None,) * (y.ndim - x.ndim)], y[(None,) * (x.ndim - y.ndim)]
        several = self.rank > 1  # then the operands of each product, one behind the other on a new first axis
        a = x * self._rows(self.weight1, self.spread1.value, x.ndim + several)
        b = y * self._rows(self.weight2, self.spread2.value, y.ndim + several)
        if self.parity == "full":
            z = self._full(a, b)
        else:
            z = gaunt_product(a, b, self.lmax_out, parity=self.parity, backend=self.backend)
            z = z * self._rows(self.weight3, self.spread3.value, z.ndim)
        return z if self.rank == 1 else z.sum(0)

    def _weights(self) -> list[Weight]:
        values = self.weight1, self.weight2, self.weight3
        spreads = self.spread1, self.spread2, self.spread3
        return [Weight(value, spread.value) for value, spread in zip(values, spreads, strict=True)]

    def _rows(self, weight: Tensor, spread: Tensor, ndim: int) -> Tensor:
        """Weights of degrees as weights of rows, with as many axes as a feature."""
        rows = spread @ weight
        if self.rank == 1:
            return rows[0]
        return rows.reshape(self.rank, *[1] * (ndim - 3), *rows.shape[-2:])

    def _full(self, x: Tensor, y: Tensor) -> Tensor:
        """Products and brackets of sums and of differences of the two stacks contain those of all pairs."""
        even, odd = product_and_bracket(_mixed(x), _mixed(y), self.lmax_out, backend=self.backend)
        kinds = zip(self.weight3.unbind(1), self.spread3.value.unbind(), strict=True)
        rows = [self._rows(weight, spread, even.ndim - 1) for weight, spread in kinds]
        product = torch.cat([even[0] + even[1], even[0] - even[1]], dim=-2)
        bracket = torch.cat([odd[0] - odd[1], odd[0] + odd[1]], dim=-2)
        return product * rows[0] + bracket * rows[1]

    def _check(self, x: Tensor, y: Tensor) -> None:
        rows = self.spread1.exact.shape[0], self.spread2.exact.shape[0]
        wanted = zip((x, y), rows, strict=True)
        if any(t.ndim < 2 or t.shape[-2] != n or t.shape[-1] not in (1, self.channels) for t, n in wanted):
            raise ValueError(
                f"{self} expects x and y of shapes (..., {rows[0]}, {self.channels}) and "
                f"(..., {rows[1]}, {self.channels}), got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        for t in (x, y):
            expect_dtype(self, t, self.weight1)

    def __repr__(self) -> str:
        rank = "" if self.rank == 1 else f", rank={self.rank}"
        return (
            f"GauntTensorProduct({self.lmax1} x {self.lmax2} -> {self.lmax_out}, channels={self.channels}, "
            f"parity={self.parity}{rank})"
        )


def sphere_irreps(lmax: int, parity: str = "even") -> Irreps:
    """Irreps of a function on the sphere, or with parity "full" of a natural and a pseudo one.

    >>> sphere_irreps(2), sphere_irreps(1, "full")
    (1x0e+1x1o+1x2e, 1x0e+1x1o+1x0o+1x1e)
    """
    signs = (1, -1) if parity == "full" else (1,)
    return Irreps([(1, (l, sign * (-1) ** l)) for sign in signs for l in range(lmax + 1)])


def _stacked(share: Tensor, kind: str) -> Tensor:
    """Shares of all pairs of stacks in each stack of the result, of which two are its own."""
    a, b, c = share.shape
    full = share.new_zeros(2, a, 2, b, 2, c)
    for i in range(2):
        for j in range(2):
            full[i, :, j, :, (i + j + (kind != "even")) % 2] = share / 2
    return full.reshape(2 * a, 2 * b, 2 * c)


def deviation(variance: Tensor) -> Tensor:
    """The root, and one where there is nothing."""
    return torch.where(variance > 0, variance, 1).sqrt()


def _mixed(x: Tensor) -> Tensor:
    """Sum and difference of the natural and the pseudo rows, along a new first axis."""
    natural, pseudo = x.chunk(2, dim=-2)
    return torch.stack([natural + pseudo, natural - pseudo])


def _spread(lmax: int, stacks: int, scale: Tensor) -> Tensor:
    """The matrix from weights of degrees, times a scale each, to weights of rows: (..., rows, degrees)."""
    sizes = torch.arange(1, 2 * lmax + 2, 2).repeat(stacks)
    degree = torch.arange(stacks * (lmax + 1)).repeat_interleave(sizes)
    return torch.eye(stacks * (lmax + 1), dtype=torch.float64)[degree] * scale.unsqueeze(-2)
