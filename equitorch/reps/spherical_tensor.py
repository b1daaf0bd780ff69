"""Functions on the sphere by their coefficients: where their peaks are, and what has such peaks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equitorch.reps.irreps import Irreps
from equitorch.reps.rotation import angles_to_matrix
from equitorch.reps.s2_grid import degree_shares
from equitorch.reps.sphere import SphereGrid, from_grid, harmonics_at, to_grid


class Signal(NamedTuple):
    """Values of a function and where they are taken: shapes (res_beta, res_alpha, 3), (..., the same)."""

    grid: Tensor
    values: Tensor


class SphericalTensor(Irreps):
    r"""The irreps of a function on the sphere: one of each degree, with parities by how inversion acts on it.

    .. math:: f(x) = \sum_{l \le l_\max} A^l \cdot Y^l(x), \qquad (P f)(x) = p_v \, f(p_a x)

    with orthonormal harmonics. A function is a tensor (..., dim), without channels.

    Args:
        lmax: highest degree.
        p_val: what inversion does to the values, 1 or -1.
        p_arg: what it does to the arguments, 1 or -1.

    Raises:
        ValueError: unless lmax >= 0 and both signs are 1 or -1.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn, ``e3nn.io.SphericalTensor``).

    >>> SphericalTensor(3, 1, -1), SphericalTensor(2, -1, 1)
    (1x0e+1x1o+1x2e+1x3o, 1x0o+1x1o+1x2o)
    """

    def __init__(self, lmax: int, p_val: int, p_arg: int) -> None:
        if lmax < 0 or p_val not in (1, -1) or p_arg not in (1, -1):
            raise ValueError(
                "SphericalTensor expects lmax >= 0 and p_val and p_arg of 1 or -1, "
                f"got lmax={lmax}, p_val={p_val}, p_arg={p_arg}"
            )
        super().__init__([(1, (l, p_val * p_arg**l)) for l in range(lmax + 1)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Irreps) and self.entries == other.entries

    __hash__ = Irreps.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        p_val = self[0].ir.p
        return SphericalTensor, (self.lmax, p_val, p_val * self[1].ir.p if self.lmax else 1)

    def with_peaks_at(self, vectors: Tensor, values: Tensor | None = None) -> Tensor:
        """The smallest combination of harmonics that takes given values in given directions.

        Args:
            vectors: directions of the peaks. Shape (n, 3).
            values: one for each; their lengths if not given. Shape (n,), or whatever broadcasts.

        Shape:
            -> (dim,)

        Raises:
            ValueError: if inversion changes the sign of values, or no combination has those values: too many
                peaks for the highest degree, or two values in one direction.

        >>> s = SphericalTensor(4, 1, -1)
        >>> at = torch.tensor([[1.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
        >>> s.signal_xyz(s.with_peaks_at(at), at)
        tensor([1., 5.])
        """
        if values is not None:
            vectors, values = _broadcast(vectors, values)
        if vectors.numel() == 0:
            return vectors.new_zeros(*vectors.shape[:-2], self.dim)
        if self[0].ir.p != 1 or vectors.ndim != 2 or vectors.shape[1] != 3:
            raise ValueError(
                f"SphericalTensor({self}).with_peaks_at expects even values (p_val=1) and vectors of shape "
                f"(n, 3), got vectors of shape {tuple(vectors.shape)}"
            )
        values = vectors.norm(dim=1) if values is None else values
        vectors, values = vectors[values != 0], values[values != 0]
        if values.numel() == 0:
            return vectors.new_zeros(self.dim)
        rows = self._harmonics(vectors)
        overlap = rows @ rows.T
        weight = torch.linalg.lstsq(overlap, values[:, None]).solution[:, 0]
        if not (values - overlap @ weight).abs().max() < 1e-5 * values.abs().max():
            raise ValueError(
                f"SphericalTensor({self}).with_peaks_at expects values that degrees up to {self.lmax} "
                f"can take, got {len(values)} peaks that they cannot; raise lmax, or merge equal directions"
            )
        return weight @ rows

    def sum_of_diracs(self, positions: Tensor, values: Tensor) -> Tensor:
        r"""Bumps in some directions, added: the nearest thing to delta functions at this degree.

        .. math:: A^l = \frac{4 \pi}{(l_\max + 1)^2} \sum_i v_i \, Y^l(r_i)

        so that one bump has height v_i at its centre.

        Shape:
            positions: (..., n, 3), values: (..., n) -> (..., dim)

        >>> s = SphericalTensor(7, 1, -1)
        >>> x = s.sum_of_diracs(torch.eye(3)[:2], torch.tensor([-1.0, 1.0]))
        >>> s.signal_xyz(x, torch.eye(3)).mul(10).round() + 0
        tensor([-10.,  10.,   0.])
        """
        positions, values = _broadcast(positions, values)
        rows = self._harmonics(positions) * values[..., None]
        return rows.sum(-2) * (4 * math.pi / (self.lmax + 1) ** 2)

    def from_samples_on_s2(self, positions: Tensor, values: Tensor, res: int = 100) -> Tensor:
        """The function that has, everywhere, the value of the nearest sample; projected onto these degrees.

        Args:
            positions: directions of the samples. Shape (..., n, 3).
            values: one for each. Shape (..., n).
            res: number of latitudes of the grid, even.

        Shape:
            -> (..., dim)

        >>> s = SphericalTensor(1, 1, 1)
        >>> poles = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
        >>> s.from_samples_on_s2(poles, torch.tensor([1.0, -1.0])).round()[2]
        tensor(3.)
        """
        positions, values = _broadcast(positions, values)
        if positions.numel() == 0:
            return values.new_zeros(*values.shape[:-1], self.dim)
        grid = self._grid(res)
        directions = _directions(positions)
        points = grid.points.to(directions).reshape(-1, 3)
        nearest = torch.cdist(points, directions).argmin(-1)  # (..., points)
        matrix = from_grid(grid, self.lmax, normalization="integral").to(values)
        return values.gather(-1, nearest) @ matrix.reshape(-1, self.dim)

    def norms(self, signal: Tensor) -> Tensor:
        """The norm of each degree: (..., dim) -> (..., lmax + 1).

        >>> SphericalTensor(1, 1, -1).norms(torch.tensor([1.5, 0.0, 3.0, 4.0]))
        tensor([1.5000, 5.0000])
        """
        parts = signal.split([ir.dim for ir in self.copies], dim=-1)
        return torch.stack([part.norm(dim=-1) for part in parts], dim=-1)

    def signal_xyz(self, signal: Tensor, r: Tensor) -> Tensor:
        r"""The function in the directions of some vectors.

        Shape:
            signal: (\*A, dim), r: (\*B, 3) -> (\*A, \*B)

        >>> s = SphericalTensor(3, 1, -1)
        >>> s.signal_xyz(s.randn(2, 1, 3, -1), torch.randn(2, 4, 3)).shape
        torch.Size([2, 1, 3, 2, 4])
        """
        return torch.tensordot(signal, self._harmonics(r).movedim(-1, 0), dims=1)

    def signal_on_grid(self, signal: Tensor, res: int = 100, normalization: str = "integral") -> Signal:
        """The function on e3nn's grid.

        Args:
            signal: the coefficients. Shape (..., dim).
            res: number of latitudes, even; there are max(2 lmax + 1, res - 1) longitudes.
            normalization: "integral" as elsewhere, or "component" and "norm", which give every degree the
                same share for coefficients of unit variance, or unit norm.

        Returns:
            grid (res_beta, res_alpha, 3) and values (..., res_beta, res_alpha).

        >>> s = SphericalTensor(2, 1, 1)
        >>> s.signal_on_grid(s.randn(4, -1), res=6).values.shape
        torch.Size([4, 6, 5])
        """
        grid = self._grid(res)
        matrix = to_grid(
            grid, self.lmax, normalization="integral", scale=degree_shares(self.lmax, normalization)
        ).to(signal)
        return Signal(grid.points.to(signal), torch.tensordot(signal, matrix.movedim(-1, 0), dims=1))

    def find_peaks(self, signal: Tensor, res: int = 100) -> tuple[Tensor, Tensor]:
        """Directions and heights of the local maxima, as fine as the grid.

        Two grids with different poles are searched, because a maximum at a pole has no neighbours in
        longitude; of maxima that both show, one is kept.

        Args:
            signal: the coefficients. Shape (dim,).
            res: number of latitudes, even.

        Shape:
            -> (peaks, 3) and (peaks,)

        >>> s = SphericalTensor(4, 1, -1)
        >>> at, height = s.find_peaks(s.with_peaks_at(torch.tensor([[0.0, 5.0, 0.0]])))
        >>> at[height > 4].round().abs()
        tensor([[0., 1., 0.]])
        """
        quarter = torch.full((), math.pi / 2, dtype=signal.dtype, device=signal.device)
        R = angles_to_matrix(quarter, quarter, quarter)
        grid, first = self.signal_on_grid(signal, res)
        _, other = self.signal_on_grid(self.matrix(R) @ signal, res)
        x1, f1 = _maxima(grid, first)
        x2, f2 = _maxima(grid @ R, other)  # rows times R: R^T applied to each point
        new = (torch.cdist(x1, x2) >= 2 * math.pi / res).all(dim=1)
        return torch.cat([x1[new], x2]), torch.cat([f1[new], f2])

    def _harmonics(self, vectors: Tensor) -> Tensor:
        unit = _directions(vectors)
        rows = harmonics_at(self.lmax, unit)
        no_direction = (unit == 0).all(-1, keepdim=True)
        return torch.cat([rows[..., :1], torch.where(no_direction, 0.0, rows[..., 1:])], dim=-1)

    def _grid(self, res: int) -> SphereGrid:
        if res < 2 * (self.lmax + 1):
            raise ValueError(
                f"SphericalTensor({self}) expects res >= {2 * (self.lmax + 1)} latitudes, got {res}"
            )
        return SphereGrid.e3nn(res, max(2 * self.lmax + 1, res - 1))


def _broadcast(vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    vectors, spread = torch.broadcast_tensors(vectors, values[..., None])
    return vectors, spread[..., 0]


def _directions(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _maxima(points: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Points higher than their neighbours in latitude and in longitude; not those at the edge of the grid."""
    f = values.detach().cpu().numpy()
    peak = np.stack([_peaks(row) for row in f]) & np.stack([_peaks(column) for column in f.T], axis=1)
    where = torch.as_tensor(peak, device=values.device)
    return points[where], values[where]


def _peaks(f: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Whether each sample is the middle of a run of equal ones that is higher than what is beside it."""
    start = np.concatenate([[0], 1 + np.flatnonzero(f[1:] != f[:-1])])
    end = np.append(start[1:], len(f)) - 1
    level = f[start]
    inner = np.zeros(len(start), dtype=bool)
    inner[1:-1] = (level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])
    found = np.zeros(len(f), dtype=bool)
    found[(start[inner] + end[inner]) // 2] = True
    return found
