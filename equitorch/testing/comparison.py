"""A layer held against one of e3nn that has the same weights: results, gradients, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equitorch.reps.convention import from_e3nn, to_e3nn
from equitorch.reps.irreps import Irreps


@dataclass(frozen=True)
class Comparison:
    """How a layer fares beside one of e3nn; ``print`` shows it as a table in Markdown.

    Attributes:
        error: largest difference of the results, relative to max(1, largest component).
        gradient_error: the same of the gradients of the inputs, for the sum of sines of the results.
        forward: milliseconds without gradients, ours and theirs.
        backward: milliseconds for results and gradients of inputs and weights, ours and theirs.
    """

    error: float
    gradient_error: float
    forward: tuple[float, float]
    backward: tuple[float, float]

    def __str__(self) -> str:
        rows = [("forward", self.error, self.forward), ("+ backward", self.gradient_error, self.backward)]
        lines = ["| | difference | ours, ms | e3nn, ms | speed-up |", "|---|---|---|---|---|"]
        for name, error, (a, b) in rows:
            lines.append(f"| {name} | {error:.1e} | {a:.3f} | {b:.3f} | {b / a:.2f}x |")
        return "\n".join(lines)


def check_against(
    ours: nn.Module,
    e3nn_module: nn.Module,
    *,
    layout: str = "rows",
    inputs: Sequence[str] | None = None,
    batch: tuple[int, ...] = (64,),
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    atol: float = 1e-10,
    seed: int = 0,
    repeats: int = 5,
) -> Comparison:
    """Require that a layer computes what a module of e3nn does, with its gradients; and time them both.

    Both must have the same weights already, and are moved to ``dtype`` and ``device``. Processor seconds on a
    CPU, those of the clock elsewhere; the best of ``repeats``.

    Args:
        ours: the layer.
        e3nn_module: what it stands for; its ``irreps_in``, ``irreps_out`` or ``irreps`` are read.
        layout: "rows": ours takes rows and channels, as layers here do; "e3nn": flat features.
        inputs: irreps of the flat inputs; those that ``e3nn_module`` names, if not given.
        batch: the leading axes.
        dtype: of everything.
        device: where it runs.
        atol: largest difference allowed, relative to max(1, largest component).
        seed: of the random inputs.
        repeats: how often each is timed; 0 for not at all.

    Raises:
        AssertionError: if results or gradients differ.
        ValueError: if ``layout`` is unknown, or the module does not say what its inputs are.

    >>> class Twice(nn.Module):
    ...     irreps = irreps_out = "2x0e+1o"
    ...     def forward(self, x):
    ...         return 2 * x
    >>> check_against(Twice(), Twice(), repeats=0).error
    0.0
    """
    if layout not in ("rows", "e3nn"):
        raise ValueError(f"check_against expects layout to be rows or e3nn, got {layout!r}")
    irreps = [Irreps(spec) for spec in (_inputs_of(e3nn_module) if inputs is None else inputs)]
    generator = torch.Generator().manual_seed(seed)
    flat = [
        torch.randn(*batch, spec.dim, generator=generator, dtype=torch.float64, device="cpu").to(
            device, dtype
        )
        for spec in irreps
    ]
    ours, theirs = ours.to(device, dtype), e3nn_module.to(device, dtype)
    own = [from_e3nn(x, spec) for x, spec in zip(flat, irreps, strict=True)] if layout == "rows" else flat
    sides = [(ours, [x.requires_grad_() for x in own]), (theirs, [x.requires_grad_() for x in flat])]
    (y, dy), (z, dz) = (_with_gradients(module, xs) for module, xs in sides)
    if layout == "rows":
        out = getattr(e3nn_module, "irreps_out", irreps[0])
        y, dy = to_e3nn(y, out), [to_e3nn(d, spec) for d, spec in zip(dy, irreps, strict=True)]
    error, gradient_error = _difference([y], [z]), _difference(dy, dz)
    if not (error <= atol and gradient_error <= atol):  # a NaN must fail
        raise AssertionError(
            f"{ours} differs from {theirs} by {error:.1e}, its gradients by {gradient_error:.1e} "
            f"(atol {atol:.0e})"
        )
    forward = [_milliseconds(module, xs, repeats, backward=False) for module, xs in sides]
    backward = [_milliseconds(module, xs, repeats, backward=True) for module, xs in sides]
    return Comparison(error, gradient_error, (forward[0], forward[1]), (backward[0], backward[1]))


def _inputs_of(module: nn.Module) -> list[str]:
    for names in (("irreps_in1", "irreps_in2"), ("irreps_in",), ("irreps",)):
        found = [getattr(module, name, None) for name in names]
        if all(irreps is not None for irreps in found):
            return [str(irreps) for irreps in found]
    raise ValueError(
        f"check_against finds no irreps_in, irreps_in1 and irreps_in2, or irreps in {module}; give inputs"
    )


def _with_gradients(module: nn.Module, xs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    y = module(*xs)
    return y.detach(), list(torch.autograd.grad(y.sin().sum(), xs, materialize_grads=True))


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    worst = 0.0
    for x, y in zip(ours, theirs, strict=True):
        if x.shape != y.shape:
            return float("inf")
        if x.numel():
            error = ((x - y).abs().max() / y.abs().max().clamp(min=1)).item()
            worst = error if not error <= worst else worst
    return worst


def _milliseconds(module: nn.Module, xs: list[Tensor], repeats: int, *, backward: bool) -> float:
    """The best of some runs; one more before them is not counted."""
    on_cpu = xs[0].device.type == "cpu"
    clock, times = time.process_time if on_cpu else time.perf_counter, []
    wanted = [*xs, *(p for p in module.parameters() if p.requires_grad)]
    for _ in range(repeats + 1 if repeats else 0):
        start = clock()
        with torch.set_grad_enabled(backward):
            y = module(*xs)
            if backward:
                torch.autograd.grad(y.sum(), wanted, allow_unused=True)
        if not on_cpu:
            torch.accelerator.synchronize()
        times.append(clock() - start)
    return 1e3 * min(times[1:], default=float("nan"))
