"""The gated nonlinearity: scalars pass through a function, everything else is multiplied by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from equitorch.layers.activation import Activation, Function
from equitorch.layers.rows import expect_rows, scale_irreps
from equitorch.reps import Irrep, Irreps

Block = tuple[int, int]  # first row, number of rows


class Gate(nn.Module):
    r"""Scalars through functions, and other irreps times gates: scalars of their own through functions.

    .. math:: \bigoplus_i \phi_i(s_i) \;\oplus\; \bigoplus_j \psi_j(g_j) \, v_j

    The input's blocks are sorted, with the scalars before the gates of the same irrep; the output is
    the scalars and then the gated irreps, in the order given. ``0o`` gates flip the parity of their partners.
    Irreps name rows: every channel has gates of its own, so nothing of the multiplicity is written here.

    Args:
        irreps_scalars: scalars that are kept.
        act_scalars: one function, name or None for each block of them.
        irreps_gates: scalars that become factors, one for each gated irrep.
        act_gates: one function, name or None for each block of them.
        irreps_gated: what they multiply.
        e3nn_compat: scale the functions by e3nn's constants, which are estimates, and not by the exact ones.

    Shape:
        x: (..., irreps_in.dim, channels) -> (..., irreps_out.dim, channels)

    Raises:
        ValueError: if scalars or gates are no scalars, or there is not one gate for each gated irrep.

    Source:
        Weiler et al. 2018, arXiv:1807.02547 (gated nonlinearity); order as in e3nn's ``Gate``.

    >>> gate = Gate("0e", ["silu"], "2x0e", ["sigmoid"], "1o+2e")
    >>> gate.irreps_in, gate.irreps_out
    (3x0e+1x1o+1x2e, 1x0e+1x1o+1x2e)
    >>> gate(torch.randn(10, 11, 16)).shape  # 3 + 3 + 5 rows of 16 channels; two gates are used up
    torch.Size([10, 9, 16])
    """

    def __init__(
        self,
        irreps_scalars: Irreps | str,
        act_scalars: Sequence[str | Function | None],
        irreps_gates: Irreps | str,
        act_gates: Sequence[str | Function | None],
        irreps_gated: Irreps | str,
        *,
        e3nn_compat: bool = True,
    ) -> None:
        super().__init__()
        scalars, gates, gated = Irreps(irreps_scalars), Irreps(irreps_gates), Irreps(irreps_gated)
        for name, group in (("irreps_scalars", scalars), ("irreps_gates", gates)):
            if any(mul and ir.l for mul, ir in group):
                raise ValueError(f"Gate expects {name} to hold scalars (0e, 0o) only, got {group}")
        if gates.num_irreps != gated.num_irreps:
            raise ValueError(
                f"Gate expects one gate for each gated irrep, got {gates.num_irreps} gates ({gates}) for "
                f"{gated.num_irreps} gated irreps ({gated})"
            )
        self.act_scalars = Activation(scalars, act_scalars, e3nn_compat=e3nn_compat)
        self.act_gates = Activation(gates, act_gates, e3nn_compat=e3nn_compat)
        self.irreps_in, (self._scalars, self._gates, self._gated) = _sorted_input(scalars, gates, gated)
        self.irreps_gated = gated
        self.irreps_out = self.act_scalars.irreps_out + Irreps(
            [(n, Irrep(ir.l, ir.p * gate.p)) for n, ir, gate in _runs(gated, self.act_gates.irreps_out)]
        )

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("Gate", self.irreps_in, x)
        parts = [self.act_scalars(_rows(x, self._scalars))] if self._scalars else []
        if self._gated:
            gates = self.act_gates(_rows(x, self._gates))
            parts.append(scale_irreps(self.irreps_gated, _rows(x, self._gated), gates))
        return torch.cat(parts, dim=-2) if parts else x

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"


def _rows(x: Tensor, blocks: list[Block]) -> Tensor:
    """The rows of some blocks, one after another; a view where they follow one another anyhow."""
    parts = [x.narrow(-2, first, count) for first, count in blocks]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _sorted_input(*groups: Irreps) -> tuple[Irreps, list[list[Block]]]:
    """The sorted sum of some irreps, and which of its rows each of them became."""
    blocks = [(ir, mul, g) for g, group in enumerate(groups) for mul, ir in group.simplify()]
    order = sorted(range(len(blocks)), key=lambda i: blocks[i][0])  # stable
    first, row = {}, 0
    for i in order:
        ir, mul, _ = blocks[i]
        first[i], row = row, row + mul * ir.dim
    places: list[list[Block]] = [[] for _ in groups]
    for i, (ir, mul, g) in enumerate(blocks):
        count, place = mul * ir.dim, places[g]
        if place and sum(place[-1]) == first[i]:
            place[-1] = (place[-1][0], place[-1][1] + count)
        else:
            place.append((first[i], count))
    return Irreps([(blocks[i][1], blocks[i][0]) for i in order]).simplify(), places


def _runs(gated: Irreps, gates: Irreps) -> list[tuple[int, Irrep, Irrep]]:
    """Pairs of gated irrep and gate, one by one, as (how many in a row, gated, gate)."""
    one = [ir for mul, ir in gated for _ in range(mul)]
    other = [ir for mul, ir in gates for _ in range(mul)]
    return [(len(list(same)), *pair) for pair, same in groupby(zip(one, other, strict=True))]
