"""Which way a program is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from equitorch.ops.gaunt import grid
from equitorch.ops.gaunt.form import Form, Program
from equitorch.ops.gaunt.program import Values, evaluate


def chosen(
    tensors: list[Tensor], program: Program, form: Form, known: Sequence[Values] = ()
) -> tuple[list[Tensor], list[Values]]:
    """As ``evaluate``, by the backend of the form."""
    return evaluate(tensors, program, form, grid.transform(form, tensors[0]), known)
