"""Parts of a feature: some of its blocks, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.rows import expect_rows
from equitorch.reps import Irrep, Irreps


class Extract(nn.Module):
    """Several features cut out of one, each a list of its blocks.

    Args:
        irreps_in: how the rows of the feature transform.
        irreps_outs: the irreps of each part.
        instructions: for each part, which blocks of ``irreps_in`` it is made of, in order.
        squeeze_out: if there is one part only, return it and not a tuple.

    Shape:
        x: (..., irreps_in.dim, channels) -> tuple of (..., irreps_outs[i].dim, channels)

    Raises:
        ValueError: if an instruction names a block that does not exist or differs from the one announced.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.nn.Extract``).

    >>> parts = Extract("1e+0e+0e", ["0e", "0e"], [(1,), (2,)])(torch.tensor([0.0, 0, 0, 1, 2])[:, None])
    >>> [part.item() for part in parts]
    [1.0, 2.0]
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_outs: Sequence[Irreps | str],
        instructions: Sequence[Sequence[int]],
        squeeze_out: bool = False,
    ) -> None:
        super().__init__()
        self.squeeze_out = squeeze_out
        self.irreps_in = Irreps(irreps_in)
        self.irreps_outs = tuple(Irreps(irreps) for irreps in irreps_outs)
        if len(self.irreps_outs) != len(instructions):
            raise ValueError(
                f"Extract expects one instruction for each output, {len(self.irreps_outs)}, "
                f"got {len(instructions)}"
            )
        blocks = list(self.irreps_in)
        for irreps, chosen in zip(self.irreps_outs, instructions, strict=True):
            if any(not 0 <= i < len(blocks) for i in chosen) or [blocks[i] for i in chosen] != list(irreps):
                raise ValueError(
                    f"Extract({self.irreps_in}) expects blocks that make up {irreps}, got {list(chosen)}"
                )
        self.instructions = tuple(tuple(chosen) for chosen in instructions)
        self._sizes = [mul * ir.dim for mul, ir in blocks]

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        expect_rows("Extract", self.irreps_in, x)
        blocks = x.split(self._sizes, dim=-2)
        parts = tuple(
            torch.cat([blocks[i] for i in chosen], dim=-2) if chosen else x[..., :0, :]
            for chosen in self.instructions
        )
        return parts[0] if self.squeeze_out and len(parts) == 1 else parts

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {', '.join(map(str, self.irreps_outs))}"


class ExtractIr(Extract):
    """All blocks of one irrep.

    Args:
        irreps_in: how the rows of the feature transform.
        ir: the irrep to keep.

    Shape:
        x: (..., irreps_in.dim, channels) -> (..., count * ir.dim, channels)

    >>> ExtractIr("2x0e+1o+0e", "0e")(torch.arange(6.0)[:, None]).flatten()
    tensor([0., 1., 5.])
    """

    def __init__(self, irreps_in: Irreps | str, ir: Irrep | str) -> None:
        irreps, wanted = Irreps(irreps_in), Irrep(ir)
        chosen = [i for i, (_, found) in enumerate(irreps) if found == wanted]
        self_out = Irreps([list(irreps)[i] for i in chosen])
        super().__init__(irreps, [self_out], [chosen], squeeze_out=True)
        self.irreps_out = self_out
