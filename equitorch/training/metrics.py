"""Mean errors, gathered in float64 without waiting for the device, also by element, group and process."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.training.loss import Residuals

_SUMS = 5  # 1, |e|, e^2, y, y^2


class Moments:
    """Sums from which count, MAE, RMSE and R2 follow, in bins; sums of several processes can be added.

    Args:
        bins: how many tables are kept apart.
        device: where the sums are gathered.

    >>> moments = Moments()
    >>> moments.add(torch.tensor([3.0, -4.0]), torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    >>> moments.result()["mae"]
    3.5
    """

    def __init__(self, bins: int = 1, device: torch.device | str | None = None) -> None:
        self.sums = torch.zeros(bins, _SUMS, dtype=torch.float64, device=device)

    def add(self, error: Tensor, label: Tensor, mask: Tensor, bin: Tensor | None = None) -> None:
        """Add errors where the mask is True, to the bins given or to the only one.

        Shape:
            (values,) each
        """
        error, label, one = error.detach().double(), label.detach().double(), mask.double()
        error, label = error * one, label * one
        rows = torch.stack([one, error.abs(), error * error, label, label * label], dim=-1)
        if bin is None:
            self.sums[0] += rows.sum(0)
        else:
            self.sums.index_add_(0, bin, rows)

    def add_residuals(self, residuals: Residuals, bin: Tensor | None = None) -> None:
        """Add errors as :func:`equitorch.training.loss.residuals` gives them."""
        self.add(residuals.error, residuals.label, residuals.mask, bin)

    def result(self, bin: int | Sequence[int] | None = None) -> dict[str, float]:
        """Count, MAE, RMSE and R2 of one bin, of some or of all together; NaN where there is nothing."""
        if isinstance(bin, int):
            sums = self.sums[bin]
        else:
            sums = (self.sums if bin is None else self.sums[list(bin)]).sum(0)
        count, absolute, square, label, label_square = sums.tolist()
        if count == 0:
            return {"count": 0, "mae": math.nan, "rmse": math.nan, "r2": math.nan}
        variance = label_square - label * label / count
        r2 = 1 - square / variance if variance > 1e-12 * max(label_square, 1e-300) else math.nan
        return {"count": int(count), "mae": absolute / count, "rmse": math.sqrt(square / count), "r2": r2}
