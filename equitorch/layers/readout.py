"""From features to properties: numbers, vectors and tensors, of each atom or of each graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.layers.activation import Function
from equitorch.layers.constant import Constant
from equitorch.layers.linear import Linear
from equitorch.layers.mlp import MLP
from equitorch.layers.rows import expect_rows
from equitorch.reps import CartesianTensor, Irrep, Irreps


def pool(values: Tensor, batch: Tensor, num_graphs: int, *, reduce: str = "sum") -> Tensor:
    """Values of atoms to values of graphs; a graph without atoms gets zeros.

    Args:
        values: shape (atoms, ...).
        batch: the graph of each atom. Shape (atoms,), int64.
        num_graphs: number of graphs.
        reduce: "sum" for extensive properties (energy, dipole, polarisability), "mean" for intensive ones
            (elastic moduli, dielectric constants).

    Shape:
        (graphs, ...)

    Raises:
        ValueError: if ``reduce`` is neither.

    >>> pool(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1]), 2)
    tensor([1., 6.])
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"pool expects reduce to be sum or mean, got {reduce!r}")
    total = values.new_zeros(num_graphs, *values.shape[1:]).index_add(0, batch, values)
    if reduce == "sum":
        return total
    count = values.new_zeros(num_graphs).index_add(0, batch, torch.ones_like(batch, dtype=values.dtype))
    return total / count.clamp(min=1).view(-1, *[1] * (values.ndim - 1))


class ScalarReadout(nn.Module):
    """Numbers from the invariant rows of a feature, by a perceptron.

    Args:
        irreps: how the rows of the feature transform; only its invariant rows (0e, in SO(3) 0) are read.
        channels: channels of the feature.
        outputs: how many numbers.
        hidden: channels of the hidden layers; none for a linear readout.
        activation: between the layers, by name or as a function.
        reduce: how atoms make a graph, see :func:`pool`.

    Shape:
        x: (atoms, irreps.dim, channels) -> (atoms, outputs), or with ``batch`` (graphs, outputs)

    Raises:
        ValueError: if there are no invariant rows, or ``x`` has another shape.

    >>> ScalarReadout("0e+1o", 8, hidden=(4,))(torch.randn(10, 4, 8)).shape
    torch.Size([10, 1])
    """

    def __init__(
        self,
        irreps: Irreps | str,
        channels: int,
        *,
        outputs: int = 1,
        hidden: Sequence[int] = (),
        activation: str | Function = "silu",
        reduce: str = "sum",
    ) -> None:
        super().__init__()
        self.irreps, self.channels, self.reduce = Irreps(irreps), channels, reduce
        invariant = Irrep(0, int(self.irreps.group == "O(3)"))
        count = self.irreps.count(invariant)
        if not count:
            raise ValueError(f"ScalarReadout expects a feature with rows of {invariant}, got {self.irreps}")
        rows = self.irreps.rows(invariant)
        contiguous = bool((rows == torch.arange(count) + rows[0]).all())
        self.first, self.count = int(rows[0]), count
        self.register_buffer("rows", None if contiguous else rows, persistent=False)
        self.network = MLP([count * channels, *hidden, outputs], activation)

    rows: Tensor | None

    def forward(self, x: Tensor, batch: Tensor | None = None, num_graphs: int = 0) -> Tensor:
        expect_rows("ScalarReadout", self.irreps, x, self.channels)
        rows = x.narrow(-2, self.first, self.count) if self.rows is None else x.index_select(-2, self.rows)
        y = self.network(rows.flatten(-2))
        return y if batch is None else pool(y, batch, num_graphs, reduce=self.reduce)


class TensorReadout(nn.Module):
    r"""A Cartesian tensor, or its irreps, from the rows of a feature that transform alike.

    Each irrep of the tensor is a linear combination of the copies and channels of that irrep in the feature.

    ======================  ====================  ===========
    property                formula               irreps
    ======================  ====================  ===========
    dipole, force           ``"i"``               1o
    polarisability, stress  ``"ij=ji"``           0e+2e
    hyperpolarisability     ``"ijk=jik=ikj"``     1o+3o
    elastic tensor          ``"ijkl=jikl=klij"``  2x0e+2x2e+4e
    ======================  ====================  ===========

    Args:
        irreps: how the rows of the feature transform.
        channels: channels of the feature.
        formula: indices and their symmetries, see :class:`equitorch.reps.CartesianTensor`.
        form: "cartesian" for a tensor of 3 x ... x 3 numbers, "irreps" for the rows of ``tensor.irreps``.
        pseudo: the tensor changes sign once more under inversion, e.g. a magnetic moment (``"i"``, 1e).
        reduce: how atoms make a graph, see :func:`pool`.

    Shape:
        x: (atoms, irreps.dim, channels) -> (atoms, 3, ..., 3) or (atoms, tensor.dim); with ``batch``,
        graphs in the place of atoms

    Raises:
        ValueError: if the feature lacks an irrep of the tensor, or ``x`` has another shape.

    >>> TensorReadout("0e+1o+2e", 8, "ij=ji")(torch.randn(10, 9, 8)).shape
    torch.Size([10, 3, 3])
    >>> TensorReadout("0e+1o+2e", 8, "ij=ji", form="irreps").tensor.irreps
    1x0e+1x2e
    """

    def __init__(
        self,
        irreps: Irreps | str,
        channels: int,
        formula: str,
        *,
        form: str = "cartesian",
        pseudo: bool = False,
        reduce: str = "sum",
    ) -> None:
        super().__init__()
        if form not in ("cartesian", "irreps"):
            raise ValueError(f"TensorReadout expects form to be cartesian or irreps, got {form!r}")
        self.irreps, self.form, self.reduce = Irreps(irreps), form, reduce
        self.tensor = CartesianTensor(formula, pseudo=pseudo, group=self.irreps.group)
        _require(self.irreps, channels, self.tensor)
        self.linear = Linear(self.irreps, channels, 1, irreps_out=self.tensor.irreps, bias=False)
        self.rank = self.tensor.rank
        self.basis = Constant(self.tensor.irreps_basis.flatten(1))

    def forward(self, x: Tensor, batch: Tensor | None = None, num_graphs: int = 0) -> Tensor:
        rows = self.linear(x).squeeze(-1)
        rows = rows if batch is None else pool(rows, batch, num_graphs, reduce=self.reduce)
        if self.form == "irreps":
            return rows
        return (rows @ self.basis.value).unflatten(-1, (3,) * self.rank)


class VectorReadout(nn.Module):
    """A polar vector, e.g. a dipole moment, from the 1o rows of a feature (in SO(3): from the 1 rows).

    Args:
        irreps: how the rows of the feature transform.
        channels: channels of the feature.
        pseudo: an axial vector instead, e.g. a magnetic moment, from the 1e rows.
        reduce: how atoms make a graph, see :func:`pool`.

    Shape:
        x: (atoms, irreps.dim, channels) -> (atoms, 3), or with ``batch`` (graphs, 3)

    Raises:
        ValueError: if the feature has no such rows, or ``x`` has another shape.

    >>> VectorReadout("0e+1o", 8)(torch.randn(10, 4, 8), torch.zeros(10, dtype=torch.long), 1).shape
    torch.Size([1, 3])
    """

    def __init__(
        self, irreps: Irreps | str, channels: int, *, pseudo: bool = False, reduce: str = "sum"
    ) -> None:
        super().__init__()
        self.readout = TensorReadout(irreps, channels, "i", form="irreps", pseudo=pseudo, reduce=reduce)

    def forward(self, x: Tensor, batch: Tensor | None = None, num_graphs: int = 0) -> Tensor:
        return self.readout(x, batch, num_graphs)


def _require(irreps: Irreps, channels: int, tensor: CartesianTensor) -> None:
    """Refuse tensors that no equivariant map can make of the feature, and say why."""
    for count, wanted in tensor.irreps:
        have = irreps.count(wanted) * channels
        if have >= count:
            continue
        message = (
            f"TensorReadout({tensor.formula!r}) is made of {tensor.irreps} and expects {count} x {wanted} "
            f"of the feature, got {irreps} with {channels} channels: {have} x {wanted}"
        )
        twin = Irrep(wanted.l, -wanted.p)
        if wanted.p and irreps.count(twin):
            message += (
                f". Its {twin} rows cannot stand in: inversion gives them the opposite sign. Ask for fewer "
                f"components (e.g. 'ij=ji', the symmetric part), give the feature {wanted} rows, or leave "
                f"parity out (irreps of SO(3), e.g. '0+1+2')"
            )
        else:
            message += f"; give the feature {wanted} rows, or ask for fewer components"
        raise ValueError(message)
