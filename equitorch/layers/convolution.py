"""The equivariant convolution: messages of neighbours, coupled with filters of the edges."""

from __future__ import annotations

import math

import torch  # noqa: F401 (for the example)
from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.layers.rows import expect_rows
from equitorch.ops.convolution import convolution, form_lists, form_name
from equitorch.ops.edges import EdgePlan
from equitorch.reps import Coupling, Irrep, Irreps
from equitorch.reps.irreps import IrrepsLike


class EquivariantConvolution(nn.Module):
    r"""Sum over neighbours of their features, coupled channel by channel with a filter of each edge.

    .. math::
        g_{i k c} = \sum_{e: j \to i} \sum_p w_{e p c} \, a_p
                    \sum_{i' j'} C^p_{i' j' k} \, x_{j i' c} \, y_{e j'},
        \qquad a_p = \sqrt{(2 l_3 + 1) / n_p}

    A path p couples an irrep of the features and one of the filter into one of the result; C are 3j symbols
    and n counts the paths that are added into the irrep of p. The numbers are those of e3nn's ``uvu`` tensor
    product with its default normalisations. One fused walk over the edges stores no message and keeps nothing
    for the backward pass but the operands; so do its derivatives of any order. Sums have a fixed order.

    Args:
        irreps_in: how the rows of the features transform.
        irreps_filter: how the rows of the filters transform, mostly ``Irreps.spherical_harmonics(lmax)``.
        irreps_out: irreps of the result, each named once; those that no path reaches are zero.
        channels: channels of the features.
        separate_paths: keep the result of every path, in the order of ``paths``, instead of the sum of those
            into one irrep; ``irreps_out`` then has an entry for each path.

    Attributes:
        paths: the irreps that each path couples, in the order of the weights.
        path_copies: the positions of the same irreps in ``irreps_in.copies`` and so on.

    Shape:
        x: (nodes, irreps_in.dim, channels), y: (edges, irreps_filter.dim), weight: (edges, paths, channels),
        edge_index: (2, edges), source and target, in any order -> (nodes, irreps_out.dim, channels).
        With an ``equitorch.ops.edges.EdgePlan`` in place of ``edge_index`` the weights are those of its
        undirected pairs; ``EdgePlan.build(edge_index, nodes, edge_reverse=...)`` makes one for a graph.
        With projection: (H, paths, channels), the last layer of a radial network, weight is its input
        (edges, H), and the weights themselves are never stored.

    Raises:
        ValueError: if an irrep of the result is named twice, the operands do not belong together, or an edge
            on the CPU joins nodes that do not exist.

    Source:
        Thomas et al. 2018, arXiv:1802.08219; Batzner et al. 2022, arXiv:2101.03164 (NequIP).

    >>> conv = EquivariantConvolution("0e + 1o", "0e + 1o", "0e + 1o", 8)
    >>> x, y, edges = torch.randn(3, 4, 8), torch.randn(5, 4), torch.randint(3, (2, 5))
    >>> conv(x, y, torch.randn(5, len(conv.paths), 8), edges).shape, conv.paths[1]
    (torch.Size([3, 4, 8]), (0e, 1o, 1o))
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_filter: IrrepsLike,
        irreps_out: IrrepsLike,
        channels: int,
        *,
        separate_paths: bool = False,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_filter = Irreps(irreps_in), Irreps(irreps_filter)
        self.channels, self.separate_paths = channels, separate_paths
        wanted = Irreps(irreps_out)
        if len(set(wanted.copies)) != wanted.num_irreps:
            raise ValueError(
                f"EquivariantConvolution expects each irrep of irreps_out once, got {wanted}; "
                "write separate_paths=True to keep several paths into one irrep apart"
            )
        self.path_copies = Coupling.paths(self.irreps_in, self.irreps_filter, wanted)
        slots = self.irreps_in.copies, self.irreps_filter.copies, wanted.copies
        self.paths: list[tuple[Irrep, Irrep, Irrep]] = [
            (slots[0][i], slots[1][j], slots[2][k]) for i, j, k in self.path_copies
        ]
        self.irreps_out = Irreps([(1, path[2]) for path in self.paths]) if separate_paths else wanted
        coupling = self._coupling()
        self.dims = (*coupling.dims, len(self.paths))
        form = _both_ways(coupling)
        self.form_name = form_name(form)
        for name, tensor in zip(_FORM, form, strict=True):
            if tensor.is_floating_point():
                self.add_module(name, Constant(tensor, wide=True))
            else:
                self.register_buffer(name, tensor, persistent=False)

    def _coupling(self) -> Coupling:
        into = [k for _, _, k in self.path_copies]
        scaled = [
            (
                i,
                j,
                n if self.separate_paths else k,
                math.sqrt(ir.dim / (1 if self.separate_paths else into.count(k))),
            )
            for n, ((i, j, k), (_, _, ir)) in enumerate(zip(self.path_copies, self.paths, strict=True))
        ]
        return Coupling.from_paths(self.irreps_in, self.irreps_filter, self.irreps_out, scaled)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        weight: Tensor,
        edge_index: Tensor | EdgePlan,
        *,
        projection: Tensor | None = None,
    ) -> Tensor:
        expect_rows("EquivariantConvolution", self.irreps_in, x, self.channels)
        return convolution(
            x, y, weight, edge_index, self.form, self.dims, projection=projection, name=self.form_name
        )

    @property
    def form(self) -> list[Tensor]:
        """The coupling as the op ``convolution`` takes it, on the module's device."""
        lists = [getattr(self, name) for name in _FORM]
        return [part.value if isinstance(part, Constant) else part for part in lists]

    def extra_repr(self) -> str:
        return (
            f"{self.irreps_in} x {self.irreps_filter} -> {self.irreps_out}, {self.channels} channels, "
            f"{len(self.paths)} paths"
        )


_FORM = [
    f"{what}_{way}"
    for way in ("forward", "transposed")
    for what in ("path", "row", "cell_start", "term_row", "term_start", "filter_row", "value")
]


def _both_ways(coupling: Coupling) -> list[Tensor]:
    return form_lists(coupling) + form_lists(coupling.permuted((2, 1, 0)))
