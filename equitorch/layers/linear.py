"""The equivariant linear map between channels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.rows import expect_dtype, shift_scalars
from equitorch.ops.linear import linear, linear_by_index
from equitorch.ops.linear.reference import Group, Layout
from equitorch.reps import Irrep, Irreps


class Linear(nn.Module):
    r"""Mix the channels, and the copies, of each irrep; shift the invariant ones.

    .. math:: y_{q m o} = f^{-1/2} \sum_{p i} W_{p i q o} \, x_{p m i} + b_{q o} \, [0e]

    where p and q count the copies of an irrep, m its rows, and f the terms of the sum. By Schur's lemma every
    linear map that commutes with O(3) has this form, so nothing is lost by the block structure. Irreps of the
    output that the input does not have are zero.

    Weights are drawn from N(0, 1), so a map keeps unit variance. They are one vector in e3nn's order whenever
    no irrep occurs in two entries: a state of ``e3nn.o3.Linear`` can then be loaded as it is, and by
    :meth:`load_e3nn` always.

    Args:
        irreps: how the rows of the feature transform.
        channels_in: channels per row of the input.
        channels_out: channels per row of the output.
        irreps_out: how the rows of the result transform; ``irreps`` unless given.
        bias: add a learned constant to the invariant rows.
        species: learn as many separate maps, and choose one for each point by its index.
        path_normalization: "element": f counts all terms; "path": every pair of entries gets the same share.

    Shape:
        x: (..., irreps.dim, channels_in) -> (..., irreps_out.dim, channels_out)
        index: (...), int64, only with ``species``

    Raises:
        ValueError: if the channels are no whole numbers >= 0, if ``x`` does not have ``irreps.dim`` rows and
            ``channels_in`` channels or has another dtype, or ``index`` is missing or superfluous.

    Source:
        Thomas et al. 2018, arXiv:1802.08219 ("self-interaction"); scale and order as in e3nn's ``o3.Linear``.

    >>> Linear("0e+1o", 8, 16)(torch.randn(10, 4, 8)).shape
    torch.Size([10, 4, 16])
    >>> Linear("0e+1o", 8, 16, irreps_out="2x1o+0e+2e")(torch.randn(10, 4, 8)).shape
    torch.Size([10, 12, 16])
    """

    rows_in: Tensor | None
    rows_out: Tensor | None

    def __init__(
        self,
        irreps: Irreps | str,
        channels_in: int,
        channels_out: int = None,  # type: ignore[assignment]  # noqa: RUF013 - to answer e3nn's call
        *,
        irreps_out: Irreps | str | None = None,
        bias: bool = True,
        species: int | None = None,
        path_normalization: str = "element",
    ) -> None:
        super().__init__()
        if path_normalization not in ("element", "path"):
            raise ValueError(
                f"Linear expects path_normalization of element or path, got {path_normalization!r}"
            )
        _expect_channels(channels_in, channels_out)
        self.irreps_in = Irreps(irreps)
        self.irreps_out = self.irreps_in if irreps_out is None else Irreps(irreps_out)
        self.channels_in, self.channels_out, self.species = channels_in, channels_out, species
        self.layout, rows_in, rows_out = _grouped(self.irreps_in, self.irreps_out, channels_in, channels_out)
        self.register_buffer("rows_in", rows_in, persistent=False)
        self.register_buffer("rows_out", rows_out, persistent=False)
        scale = self._fan_in(path_normalization) ** -0.5
        uniform = bool((scale == scale[:1]).all())
        self.uniform_scale = float(scale[0]) if uniform and scale.numel() else 1.0
        self.scale = None if uniform else Constant(scale)
        maps = () if species is None else (species,)
        self.weight = nn.Parameter(torch.empty(*maps, self.layout.weights))
        scalars = sum(mul for mul, ir in self.irreps_out if ir.is_scalar()) if bias else 0
        self.bias = nn.Parameter(torch.empty(*maps, scalars * channels_out)) if scalars else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit variance in, unit variance out, for every irrep alike."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        self._check(x, index)
        weight = self.weight * (self.uniform_scale if self.scale is None else self.scale.value)
        x = x if self.rows_in is None else x.index_select(-2, self.rows_in)
        points = x.reshape(-1, *x.shape[-2:])
        if index is None:
            y = linear(points, weight, self.layout)
        else:
            y = linear_by_index(points, weight, index.reshape(-1), self.layout)
        y = y.reshape(*x.shape[:-2], *y.shape[-2:])
        y = y if self.rows_out is None else y.index_select(-2, self.rows_out)
        if self.bias is None:
            return y
        bias = self.bias if index is None else self.bias[index]
        return shift_scalars(self.irreps_out, y, bias.unflatten(-1, (-1, self.channels_out)))

    def _check(self, x: Tensor, index: Tensor | None) -> None:
        wanted = (self.irreps_in.dim, self.channels_in)
        if x.ndim < 2 or x.shape[-2:] != wanted:
            raise ValueError(
                f"{self} expects x of shape (..., {wanted[0]}, {wanted[1]}), got {tuple(x.shape)}"
            )
        expect_dtype(self, x, self.weight)
        if (index is None) != (self.species is None) or (index is not None and index.shape != x.shape[:-2]):
            expected = "no index" if self.species is None else f"an index of shape {tuple(x.shape[:-2])}"
            got = "none" if index is None else f"one of shape {tuple(index.shape)}"
            raise ValueError(f"{self} expects {expected}, got {got}")

    def _blocks(self) -> Iterator[tuple[int, int, tuple[slice, slice], int]]:
        """Pairs of entries of one irrep in e3nn's order: (entry in, entry out, their copies, group)."""
        seen_in: dict[Irrep, int] = {}
        groups = _common(self.irreps_in, self.irreps_out)
        for i, (mul, ir) in enumerate(self.irreps_in):
            a = slice(seen_in.get(ir, 0), seen_in.get(ir, 0) + mul)
            seen_in[ir], before = a.stop, 0
            for j, (mul_out, ir_out) in enumerate(self.irreps_out):
                if ir_out == ir and mul and mul_out:
                    yield i, j, (a, slice(before, before + mul_out)), groups.index(ir)
                    before += mul_out

    def _fan_in(self, path_normalization: str) -> Tensor:
        """For each weight, the number f by whose root it is divided."""
        fan_in = torch.ones(self.layout.weights, dtype=torch.float64, device="cpu")
        views = [view for _, view in self.layout.with_weights(fan_in)]
        for i, j, (a, b), group in self._blocks():
            partners = [mul for mul, ir in self.irreps_in if ir == self.irreps_out[j].ir]
            terms = self.irreps_in[i].mul * len(partners) if path_normalization == "path" else sum(partners)
            views[group][a, :, b] = max(terms * self.channels_in, 1)
        return fan_in

    @torch.no_grad()
    def load_e3nn(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take over the flat weights (and biases) of an ``e3nn.o3.Linear`` between the same irreps.

        Args:
            weight: e3nn's ``weight``; its multiplicities are our copies times channels. Shape (..., weights).
            bias: e3nn's ``bias``, if both have one.

        Raises:
            ValueError: if the numbers of weights differ.
        """
        if weight.shape != self.weight.shape:
            raise ValueError(
                f"{self} expects weights of shape {tuple(self.weight.shape)}, got {tuple(weight.shape)}"
            )
        used, maps = 0, self.weight.shape[:-1]
        for ours, (a, b) in self._views(self.weight):
            shape = (*maps, a.stop - a.start, self.channels_in, b.stop - b.start, self.channels_out)
            count = shape[-4] * shape[-3] * shape[-2] * shape[-1]
            ours[..., a, :, b, :] = weight[..., used : used + count].reshape(shape).to(ours)
            used += count
        if self.bias is not None and bias is not None and bias.numel():
            self.bias.copy_(bias)

    @torch.no_grad()
    def e3nn_weight(self) -> Tensor:
        """The weights in the order of ``e3nn.o3.Linear``. Shape (..., weights)."""
        parts = [ours[..., a, :, b, :].flatten(-4) for ours, (a, b) in self._views(self.weight)]
        return torch.cat(parts, dim=-1) if parts else self.weight.detach().clone()

    def _views(self, weight: Tensor) -> Iterator[tuple[Tensor, tuple[slice, slice]]]:
        starts = [0]
        for group in self.layout.groups:
            a, c, b, d = self.layout.shape(group)
            starts.append(starts[-1] + a * c * b * d)
        for _, _, copies, g in self._blocks():
            view = weight[..., starts[g] : starts[g + 1]].unflatten(
                -1, self.layout.shape(self.layout.groups[g])
            )
            yield view, copies

    def __repr__(self) -> str:
        irreps = (
            f"{self.irreps_in}"
            if self.irreps_in == self.irreps_out
            else f"{self.irreps_in} -> {self.irreps_out}"
        )
        species = "" if self.species is None else f", species={self.species}"
        return f"Linear({irreps}, {self.channels_in} -> {self.channels_out}{species})"


def _expect_channels(channels_in: object, channels_out: object) -> None:
    """Refuse what is no number of channels, irreps first of all."""
    for name, given in (("channels_in", channels_in), ("channels_out", channels_out)):
        if given is None or isinstance(given, str | Irreps):
            raise ValueError(
                f"Linear expects {name} to be a number of channels, got {given!r}; irreps of the result are "
                'irreps_out, and channels stand beside irreps: e3nn\'s Linear("16x0e", "8x0e") is '
                'Linear("0e", 16, 8)'
            )
        if isinstance(given, bool) or not isinstance(given, int | torch.SymInt) or given < 0:
            raise ValueError(f"Linear expects {name} to be a whole number >= 0, got {given!r}")


def _common(irreps_in: Irreps, irreps_out: Irreps) -> list[Irrep]:
    """The irreps that both have, in the order of the input."""
    return [ir for ir in dict.fromkeys(irreps_in.copies) if irreps_out.count(ir)]


def _grouped(
    irreps_in: Irreps, irreps_out: Irreps, channels_in: int, channels_out: int
) -> tuple[Layout, Tensor | None, Tensor | None]:
    """Groups of rows that mix, and the row permutations that make groups contiguous, where they are not."""
    common = _common(irreps_in, irreps_out)
    order_in, first_in = _ordered(irreps_in)
    order_out, first_out = _ordered(irreps_out)
    groups = [
        Group(first_in[ir], irreps_in.count(ir), first_out[ir], irreps_out.count(ir), ir.dim) for ir in common
    ]
    layout = Layout(irreps_in.dim, channels_in, irreps_out.dim, channels_out, groups)
    return layout, order_in, None if order_out is None else order_out.argsort()


def _ordered(irreps: Irreps) -> tuple[Tensor | None, dict[Irrep, int]]:
    """The rows of each irrep one after another, None if they are so already, and where each irrep starts."""
    kinds = list(dict.fromkeys(irreps.copies))
    first, row = {}, 0
    for ir in kinds:
        first[ir], row = row, row + irreps.count(ir) * ir.dim
    if len(irreps.simplify()) == len(kinds):
        return None, first
    return torch.cat([irreps.rows(ir) for ir in kinds]), first
