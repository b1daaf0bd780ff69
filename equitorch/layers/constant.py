"""Fixed tensors of a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class Constant(nn.Module):
    """A tensor that is no weight: never saved, and rounded once from float64 whatever dtypes came before.

    A plain float64 buffer would lose its digits in ``module.float().double()``, and equivariance with them.

    Args:
        exact: the value, in float64, on a device that holds data.
        wide: stay float64, whatever the module is converted to.

    >>> Constant(torch.tensor(1 / 3, dtype=torch.float64)).float().double().value.item()
    0.3333333333333333
    """

    value: Tensor

    def __init__(self, exact: Tensor, *, wide: bool = False) -> None:
        super().__init__()
        self.exact = exact.detach().to("cpu", torch.float64)
        self.wide = wide
        dtype = torch.float64 if wide else torch.get_default_dtype()
        value = self.exact.to(torch.get_default_device(), dtype)
        self.register_buffer("value", value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.value = self.exact.to(self.value.device, self.exact.dtype if self.wide else self.value.dtype)
        return self

    def extra_repr(self) -> str:
        return f"{tuple(self.exact.shape)}"


class Indices(nn.Module):
    """Whole numbers that are no weight: never saved, and there again when memory was given without data.

    Args:
        exact: the value, int64, on a device that holds data.

    >>> Indices(torch.tensor([2, 0])).to("meta").to_empty(device="cpu").value
    tensor([2, 0])
    """

    value: Tensor

    def __init__(self, exact: Tensor) -> None:
        super().__init__()
        self.exact = exact.detach().cpu()
        self.register_buffer("value", self.exact.to(torch.get_default_device()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.value = self.exact.to(self.value.device)
        return self

    def extra_repr(self) -> str:
        return f"{tuple(self.exact.shape)}"
