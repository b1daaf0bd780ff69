"""The layer that does nothing, between irreps that are written in two ways."""

from __future__ import annotations

from torch import Tensor, nn

from equitorch.layers.rows import expect_rows
from equitorch.reps import Irreps


class Identity(nn.Module):
    """The feature itself; holds that two sides of a model agree on its irreps.

    Args:
        irreps_in: how the rows of the feature transform.
        irreps_out: the same, up to ``simplify``.

    Shape:
        x: (..., irreps_in.dim, channels) -> the same

    Raises:
        ValueError: if the two differ.

    >>> Identity("0e+0e+1o", "2x0e+1o").irreps_out
    2x0e+1x1o
    """

    def __init__(self, irreps_in: Irreps | str, irreps_out: Irreps | str) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in).simplify(), Irreps(irreps_out).simplify()
        if self.irreps_in != self.irreps_out:
            raise ValueError(
                f"Identity expects two ways to write the same irreps, got {self.irreps_in} and "
                f"{self.irreps_out}; a Linear leads from one to the other"
            )

    def forward(self, x: Tensor) -> Tensor:
        expect_rows("Identity", self.irreps_in, x)
        return x

    def extra_repr(self) -> str:
        return f"{self.irreps_in} -> {self.irreps_out}"
