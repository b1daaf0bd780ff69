"""Which way a program is evaluated."""

from __future__ import annotations

from torch import Tensor

from equitorch.ops.gaunt import grid
from equitorch.ops.gaunt.form import Form, Program
from equitorch.ops.gaunt.program import evaluate


def chosen(tensors: list[Tensor], program: Program, form: Form) -> list[Tensor]:
    """As the reference, by the backend of the form."""
    return evaluate(tensors, program, form, grid.transform(form, tensors[0]))
