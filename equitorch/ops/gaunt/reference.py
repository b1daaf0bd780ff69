"""What products on the sphere mean: contractions with Gaunt coefficients, even and odd."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from equitorch.ops.backend import lasting
from equitorch.ops.gaunt.form import BRACKET, PRODUCT, Form, Program
from equitorch.reps.gaunt import gaunt_coupling


def gaunt(tensors: list[Tensor], program: Program, form: Form) -> list[Tensor]:
    """Sums of derivatives of the form. Any device, any dtype, differentiable to any order.

    Args:
        tensors: arguments, each in its slot. Shapes (points, rows of the slot, channels).
        program: what to compute from them.
        form: the degrees.

    Returns:
        For each request, shape (points, rows of its slot, channels).
    """
    return [
        functools.reduce(torch.add, [_derivative(slot, pair, tensors, program, form) for pair in pairs])
        for slot, pairs in program.requests
    ]


def _derivative(
    slot: int, pair: tuple[int, int], tensors: list[Tensor], program: Program, form: Form
) -> Tensor:
    i, j = pair
    held = {program.slots[i]: tensors[i], program.slots[j]: tensors[j]}
    kind = BRACKET if BRACKET in (slot, *held) else PRODUCT
    coefficients = _coefficients(form.lmaxs, kind).to(tensors[i])
    (a, first), (b, second) = ((min(s, 2), x) for s, x in sorted(held.items()))
    matrix = coefficients.movedim(min(slot, 2), 0).flatten(1)  # (open rows, rows of a * rows of b)
    assert a < b, "the slots of a pair are those of the form's other two factors"
    outer = (first.unsqueeze(2) * second.unsqueeze(1)).flatten(1, 2)
    return matrix @ outer


@functools.lru_cache(maxsize=32)
@lasting
def _coefficients(lmaxs: tuple[int, int, int], kind: int) -> Tensor:
    """Gaunt coefficients of the slots x, y and the product or the bracket. Float64."""
    return gaunt_coupling(*lmaxs, "even" if kind == PRODUCT else "odd").dense()
