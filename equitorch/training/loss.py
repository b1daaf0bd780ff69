"""Energy, force and stress losses in which a missing label (NaN) weighs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

LABELS = ("energy", "forces", "stress")
Kind = Literal["mse", "mae", "huber"]


@dataclass(frozen=True)
class Residuals:
    """Errors and labels of one kind, flat, where there is a label.

    Attributes:
        error: (values,) prediction minus label; 0 where the label is missing.
        label: (values,) energies per atom, force or stress components; 0 where missing.
        mask: (values,) True where there is a label.
    """

    error: Tensor
    label: Tensor
    mask: Tensor


def residuals(name: str, prediction: Tensor, label: Tensor, atoms: Tensor) -> Residuals:
    """Compare predictions with labels; energies are per atom.

    Args:
        name: energy, forces or stress.
        prediction: what the potential says.
        label: what the data say; NaN means missing.
        atoms: (graphs,) number of atoms.

    Shape:
        (graphs,), (atoms, 3) or (graphs, 3, 3) -> flat; forces and stress in rows of 3 and 9 values
    """
    mask = ~torch.isnan(label)
    kept = torch.where(
        mask, label.to(prediction.dtype), torch.zeros((), dtype=prediction.dtype, device=label.device)
    )
    error = torch.where(mask, prediction - kept, torch.zeros_like(kept))
    if name == "energy":
        error, kept = error / atoms, kept / atoms
    return Residuals(error.reshape(-1), kept.reshape(-1), mask.reshape(-1))


@dataclass(frozen=True)
class Loss:
    r"""Weighted sum of the mean losses of the labels that are there.

    .. math:: L = \sum_k w_k \frac{1}{n_k} \sum_{i=1}^{n_k} \ell\left(\frac{\hat y_{ki} - y_{ki}}{s_k}\right)

    where k runs over energy per atom, force components and stress components; :math:`n_k` counts
    the labels that are there; :math:`\ell(x)` is x² (mse), \|x\| (mae), or Huber's function, which
    is x² up to delta and :math:`2 \delta \|x\| - \delta^2` beyond.

    Args:
        weights: w, by label.
        scales: s, by label, in eV/atom, eV/Å and eV/Å^3; 1 where not given.
        kind: mse, mae or huber.
        delta: where Huber's function becomes linear, in units of s.

    >>> loss = Loss({"energy": 1.0})
    >>> errors = {"energy": Residuals(torch.tensor([3.0, 0.0]), torch.zeros(2), torch.tensor([True, False]))}
    >>> sums = loss.sums(errors)
    >>> loss.total(sums, loss.counts(errors)).item()
    9.0
    """

    weights: Mapping[str, float]
    scales: Mapping[str, float] = field(default_factory=dict)
    kind: Kind = "mse"
    delta: float = 0.1

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that have a weight."""
        return tuple(name for name in LABELS if self.weights.get(name, 0.0) > 0)

    def pointwise(self, error: Tensor) -> Tensor:
        """The loss of each error."""
        if self.kind == "mae":
            return error.abs()
        square = error * error
        if self.kind == "huber":
            size = error.abs()
            return torch.where(size > self.delta, 2 * self.delta * size - self.delta**2, square)
        return square

    def sums(self, errors: Mapping[str, Residuals]) -> Tensor:
        """(labels,) float64 sums over the labels that are there."""
        parts = [
            self.pointwise(errors[name].error / self.scales.get(name, 1.0)).double().sum()
            for name in self.labels
        ]
        return torch.stack(parts)

    def counts(self, errors: Mapping[str, Residuals]) -> Tensor:
        """(labels,) numbers of the labels that are there, to be added up over processes."""
        return torch.stack([errors[name].mask.sum() for name in self.labels])

    def total(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The weighted sum of the means; a label that no frame has adds 0."""
        means = sums / counts.clamp(min=1)
        return torch.stack([self.weights[name] * means[i] for i, name in enumerate(self.labels)]).sum()
