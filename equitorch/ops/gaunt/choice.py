"""Which way a program is evaluated."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from torch import Tensor

from equitorch.ops.gaunt import fft, grid, separable
from equitorch.ops.gaunt.form import Form, Program
from equitorch.ops.gaunt.program import Transform, Values, evaluate

_SEPARABLE_FROM = {"even": 21, "odd": 19, "both": 19}  # degrees of the integrand, x + y + result
_FEW = 512  # columns, with which it takes 6 degrees more

_MAKERS: dict[str, Callable[[Form, Tensor], Transform]] = {
    "grid": grid.transform,
    "separable": separable.transform,
    "fft": fft.transform,
}


def chosen(
    tensors: list[Tensor], program: Program, form: Form, known: Sequence[Values] = ()
) -> tuple[list[Tensor], list[Values]]:
    """As ``evaluate``, by the backend of the form."""
    if (found := _cuda(tensors, program, form)) is not None:
        return found, []
    x = tensors[0]
    backend = fastest(form, x.shape[0] * x.shape[2]) if form.backend == "auto" else form.backend
    return evaluate(tensors, program, form, _MAKERS[backend](form, x), known)


def fastest(form: Form, columns: int) -> str:
    """The backend that ``python -m benchmarks gaunt`` finds fastest for so many points times channels."""
    needed = _SEPARABLE_FROM[form.parity] + (6 if columns < _FEW else 0)
    return "separable" if sum(form.lmaxs) >= needed else "grid"


def _cuda(tensors: list[Tensor], program: Program, form: Form) -> list[Tensor] | None:
    """By the fused kernel, where the choice is free and the kernel takes these."""
    if form.backend != "auto" or not tensors[0].is_cuda:
        return None
    kernel = importlib.import_module("equitorch.ops.gaunt.triton")
    return kernel.gaunt(tensors, program, form) if kernel.supported(form, tensors) else None
