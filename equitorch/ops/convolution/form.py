"""The lists in which a convolution keeps its coupling: filters first, then features."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from equitorch.reps import Coupling

LISTS = 7


def form_lists(coupling: Coupling) -> list[Tensor]:
    r"""A coupling of (features, filters, results) whose terms share the sum over the filter's rows.

    .. math:: z_{p k c} = \sum_i A_{p k i} \, x_{i c}, \qquad A_{p k i} = \sum_j c^p_{i j k} \, y_j

    A has no channels: one number per term, of which there are fewer than coefficients. Terms are listed
    cell by cell, a cell being a path p and a row k of the result.

    Returns:
        path and row of each cell, where its terms begin (cells + 1,), the row i of each term, where its
        coefficients begin (terms + 1,), the row j of each coefficient; all int32; the coefficients, float64.

    >>> [part.tolist() for part in form_lists(Coupling.from_paths("1o", "0e", "1o", [(0, 0, 0)]))[:4]]
    [[0, 0, 0], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2]]
    """
    (i, j, k), path = coupling.index, coupling.path
    shape = coupling.num_paths + 1, coupling.dims[2], coupling.dims[0], coupling.dims[1]
    flat = ((path * shape[1] + k) * shape[2] + i) * shape[3] + j
    order = torch.argsort(flat)
    path, i, j, k = path[order], i[order], j[order], k[order]
    cell, cell_of = torch.unique_consecutive(path * shape[1] + k, return_inverse=True)
    term, term_of = torch.unique_consecutive(cell_of * shape[2] + i, return_inverse=True)
    cell_start = torch.searchsorted(term // shape[2], torch.arange(cell.shape[0] + 1, device="cpu"))
    term_start = torch.searchsorted(term_of, torch.arange(term.shape[0] + 1, device="cpu"))
    integers = [cell // shape[1], cell % shape[1], cell_start, term % shape[2], term_start, j]
    return [part.int() for part in integers] + [coupling.value[order]]


def form_name(lists: Sequence[Tensor]) -> int:
    """A number that tells one coupling from another, by its contents: kernels that unroll it are kept by it.

    It reads the lists, so a layer computes it once, where they are made, and hands it on.
    """
    content = hashlib.sha256()
    for part in lists:
        content.update(part.numpy(force=True).tobytes())
    return int.from_bytes(content.digest()[:7], "big") + 1


def dense_form(lists: list[Tensor], rows: int, filters: int, like: Tensor) -> Tensor:
    """The same as a matrix for each cell. Shape (cells, rows, filters), in the type of ``like``."""
    _, _, cell_start, term_row, term_start, filter_row, value = lists
    cell = _repeated(cell_start, term_row.shape[0])
    term = _repeated(term_start, value.shape[0])
    form = like.new_zeros(cell_start.shape[0] - 1, rows, filters)
    return form.index_put((cell[term], term_row.long()[term], filter_row.long()), value.to(form))


def _repeated(start: Tensor, total: int) -> Tensor:
    """To which group each of ``total`` entries belongs, the groups beginning at ``start``."""
    count = start.diff().long()
    return count.new_ones(count.shape[0]).cumsum(0).sub(1).repeat_interleave(count, output_size=total)
