"""Products of a feature with itself, up to a given order: MACE's many-body features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.rows import expect_dtype
from equitorch.ops.contraction import contraction
from equitorch.ops.contraction.program import paths
from equitorch.reps import Irrep, Irreps
from equitorch.reps.symmetric_power import from_coupled_powers


class SymmetricContraction(nn.Module):
    r"""Polynomials of a node's feature, channel by channel, with weights of the node's species.

    .. math:: B_{n k c} = \sum_{\nu=1}^{N} \sum_\eta W^\nu_{z_n \eta c}
        \sum_{i_1 \dots i_\nu} U^\nu_{\eta; k i_1 \dots i_\nu} \, x_{n i_1 c} \cdots x_{n i_\nu c}

    The columns U of one degree are an orthonormal basis of all symmetric equivariant tensors, so that no
    weight is spent twice: 49 in place of MACE's 159 for 0e+1o+2e+3o -> 0e+1o+2e with correlation 3.
    Weights are drawn from a normal distribution, divided by the number of columns that they sum.

    Args:
        irreps_in: how the rows of the feature transform.
        irreps_out: how the rows of the result transform.
        channels: channels of both.
        correlation: the highest degree N; one number, or one for each irrep of the output.
        species: the number of species.

    Attributes:
        weight: (species, paths, channels).
        paths: degree, copy of the output (as in ``irreps_out.copies``) and its irrep, for each path.

    Shape:
        x: (..., irreps_in.dim, channels), index: (...), int64 -> (..., irreps_out.dim, channels)

    Raises:
        ValueError: if the feature or the index has another shape, or an irrep lacks its correlation.

    Source:
        Batatia et al. 2022, arXiv:2206.07697, eqs. 10 and 11.

    >>> layer = SymmetricContraction("0e+1o+2e", "0e+1o", 16, correlation=3, species=2)
    >>> layer(torch.randn(10, 9, 16), torch.zeros(10, dtype=torch.int64)).shape
    torch.Size([10, 4, 16])
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_out: Irreps | str,
        channels: int,
        *,
        correlation: int | Mapping[str | Irrep, int] = 3,
        species: int = 1,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.channels, self.species = channels, species
        self.correlation = _highest(self.irreps_out, correlation)
        self.options = str(self.irreps_in), str(self.irreps_out), self.correlation
        copies = self.irreps_out.copies
        self.paths = tuple((degree, copy, copies[copy]) for degree, copy, _ in paths(*self.options))
        self.weight = nn.Parameter(torch.empty(species, len(self.paths), channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal numbers over the number of paths of the same degree and output."""
        kinds = [path[:2] for path in self.paths]
        count = torch.tensor([kinds.count(kind) for kind in kinds]).to(self.weight)
        with torch.no_grad():
            self.weight.normal_().div_(count[:, None])

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[-2:] != (self.irreps_in.dim, self.channels) or index.shape != x.shape[:-2]:
            raise ValueError(
                f"{self} expects x of shape (..., {self.irreps_in.dim}, {self.channels}) and an index of "
                f"shape (...), got {tuple(x.shape)} and {tuple(index.shape)}"
            )
        expect_dtype(self, x, self.weight)
        points = x.reshape(index.numel(), *x.shape[-2:])
        out = contraction(points, self.weight, index.reshape(-1), *self.options)
        return out.reshape(*x.shape[:-2], *out.shape[-2:])

    @torch.no_grad()
    def load_mace(self, weights: Sequence[Sequence[Tensor]]) -> None:
        """Take over weights of MACE's contraction between the same irreps, by what they mean.

        MACE couples the factors from the left with every intermediate irrep, and keeps one column for each
        way to do so, in the order of the intermediate irreps. These columns are neither symmetric nor
        independent: what they mean is projected on the columns here, :math:`w' = P w`, without any loss.

        Args:
            weights: for each irrep of the output, the weights of degree 1, 2, ... up to its correlation.
                In MACE's state, ``weights_max`` is that of the highest degree, ``weights.0`` that of the
                next lower one, and so on. Shapes (species, columns, channels).

        Raises:
            ValueError: if there are other numbers of weights than MACE has between these irreps.
        """
        if len(weights) != len(self.correlation) or list(map(len, weights)) != list(self.correlation):
            raise ValueError(
                f"{self} expects weights of degrees 1 to {list(self.correlation)} for the irreps of the "
                f"output, got {list(map(len, weights))} degrees"
            )
        kinds = [path[:2] for path in self.paths]
        for copy, (ir, parts) in enumerate(zip(self.irreps_out.copies, weights, strict=True)):
            for degree, part in enumerate(parts, 1):
                projection = torch.from_numpy(from_coupled_powers(self.irreps_in, ir, degree))
                wanted = (self.species, projection.shape[1], self.channels)
                if tuple(part.shape) != wanted:
                    raise ValueError(
                        f"{self} expects weights of shape {wanted} for degree {degree} of {ir}, "
                        f"got {tuple(part.shape)}"
                    )
                rows = [row for row, kind in enumerate(kinds) if kind == (degree, copy)]
                self.weight[:, rows] = (projection.to(part.device) @ part.double()).to(self.weight)

    def __repr__(self) -> str:
        degrees = sorted(set(self.correlation))
        shown = degrees[0] if len(degrees) == 1 else list(self.correlation)
        return (
            f"SymmetricContraction({self.irreps_in} -> {self.irreps_out}, channels={self.channels}, "
            f"correlation={shown}, species={self.species})"
        )


def _highest(irreps_out: Irreps, correlation: int | Mapping[str | Irrep, int]) -> tuple[int, ...]:
    """The highest degree for each copy."""
    if not isinstance(correlation, Mapping):
        degrees = [correlation] * irreps_out.num_irreps
    else:
        known = {Irrep(ir): degree for ir, degree in correlation.items()}
        missing = [ir for ir in irreps_out.copies if ir not in known]
        if missing:
            raise ValueError(
                f"SymmetricContraction expects a correlation for every irrep of '{irreps_out}', "
                f"got none for {missing[0]}"
            )
        degrees = [known[ir] for ir in irreps_out.copies]
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in degrees):
        raise ValueError(f"SymmetricContraction expects a correlation of 1 or more, got {correlation}")
    return tuple(degrees)
