"""NequIP's layers: a convolution with learned radial weights, a self-connection by element, and a gate."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equitorch.layers.convolution import EquivariantConvolution
from equitorch.layers.cutoff import PolynomialCutoff
from equitorch.layers.gate import Gate
from equitorch.layers.jet import jet
from equitorch.layers.linear import Linear
from equitorch.layers.mlp import MLP
from equitorch.layers.radial import RadialFunction
from equitorch.layers.radial_basis import BesselBasis
from equitorch.layers.rows import expect_rows
from equitorch.ops.edges import EdgePlan
from equitorch.ops.jet import product
from equitorch.ops.linear import linear_by_index
from equitorch.ops.linear.reference import Group, Layout
from equitorch.reps import Irreps
from equitorch.reps.irreps import IrrepsLike


class SmoothBessel(nn.Module):
    r"""Bessel functions of the distance times a polynomial envelope: all vanish smoothly at the cutoff.

    .. math:: e_n(d) = \frac{2}{\text{cutoff}} \, \frac{\sin(n \pi d / \text{cutoff})}{d} \, u(d)

    Args:
        count: number of functions.
        cutoff: where all of them vanish, as its third power at least (Å).
        p: power of the envelope, see :class:`equitorch.layers.PolynomialCutoff`.
        trainable: learn the frequencies.

    Shape:
        d (Å): (...) -> (..., count)

    Source:
        Batzner et al. 2022, arXiv:2101.03164; prefactor as in nequip 0.19.

    >>> SmoothBessel(8, 5.0)(torch.tensor([1.0, 5.0])).shape
    torch.Size([2, 8])
    """

    def __init__(self, count: int, cutoff: float, *, p: int = 6, trainable: bool = False) -> None:
        super().__init__()
        self.bessel = BesselBasis(count, cutoff, trainable=trainable)
        self.envelope = PolynomialCutoff(cutoff, p)
        self.factor = math.sqrt(2 / cutoff)

    def forward(self, d: Tensor) -> Tensor:
        return (self.factor * self.envelope(d)).unsqueeze(-1) * self.bessel(d)

    def jet(self, x: Tensor) -> Tensor:
        """Derivatives along a curve, as :func:`equitorch.layers.jet.jet` wants them, in closed form.

        Shape:
            x: (orders, points) -> (orders, points, count)
        """
        if x.shape[0] > 4:
            return jet(self.forward, x)
        wave = self.bessel.frequency / self.bessel.cutoff
        curve = sinc_derivatives(x[0].unsqueeze(-1) * wave, x.shape[0] - 1)
        scaled = [wave ** (k + 1) * part for k, part in enumerate(curve)]
        return product(2 / self.bessel.cutoff * jet(self.envelope, x), torch.stack(_along(x, scaled)))


def sinc_derivatives(a: Tensor, order: int) -> list[Tensor]:
    """sin(a)/a and its derivatives up to the third, by its series near zero, where dividing loses digits.

    Shape:
        a: (...) -> order + 1 times (...)

    >>> sinc_derivatives(torch.tensor([torch.pi / 2]), 1)
    [tensor([0.6366]), tensor([-0.4053])]
    """
    near = a.abs() < 1
    small, large = torch.where(near, a, 0.0), torch.where(near, 1.0, a)
    square, waves = small * small, (large.sin(), large.cos())
    parts: list[Tensor] = []
    for k in range(order + 1):
        series = torch.zeros_like(a)
        for m in reversed(range((k + 1) // 2, 11)):
            series = series * square + (-1) ** m * math.perm(2 * m, k) / math.factorial(2 * m + 1)
        wave = waves[k % 2] if k < 2 else -waves[k % 2]
        rest = (wave - k * parts[-1] if k else wave) / large
        parts.append(torch.where(near, series * small if k % 2 else series, rest))
    return parts


def _along(x: Tensor, f: list[Tensor]) -> list[Tensor]:
    """Derivatives of f(x(t)) from those of f, up to the third, and of x."""
    d = [part.unsqueeze(-1) for part in x]
    out = f[:1]
    if len(f) > 1:
        out.append(f[1] * d[1])
    if len(f) > 2:
        out.append(f[2] * d[1] ** 2 + f[1] * d[2])
    if len(f) > 3:
        out.append(f[3] * d[1] ** 3 + 3 * f[2] * d[1] * d[2] + f[1] * d[3])
    return out


class NoEnvelope(nn.Module):
    """One at every distance: for radial networks without biases, whose basis vanishes at the cutoff itself.

    Shape:
        d (Å): (...) -> (...)

    >>> NoEnvelope()(torch.tensor([0.5, 7.0]))
    tensor([1., 1.])
    """

    def forward(self, d: Tensor) -> Tensor:
        return 1 + 0 * d

    def jet(self, x: Tensor) -> Tensor:
        """Derivatives along a curve: 1, 0, 0, ...

        Shape:
            x: (orders, points) -> (orders, points)
        """
        return torch.cat([self(x[:1]), 0 * x[1:]])


def scalar_network(sizes: list[int], activation: str = "silu") -> MLP:
    """A perceptron without biases, zero at zero, whose values keep their variance from layer to layer.

    Args:
        sizes: channels before, between and after the maps.
        activation: between the maps, by name.

    Source:
        nequip 0.19 (``ScalarMLPFunction``): uniform weights, with a rectifier's gain after the first map.

    >>> scalar_network([8, 64, 3])(torch.zeros(1, 8))
    tensor([[0., 0., 0.]], grad_fn=<MmBackward0>)
    """
    network = MLP(sizes, activation, bias=False)
    for k, layer in enumerate(network.layers):
        assert isinstance(layer, nn.Linear), "an MLP is made of linear maps"
        bound = math.sqrt(3 * (2 if k else 1) / layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound)
    return network


class SelfConnection(nn.Module):
    r"""A linear map of an atom's features that depends on its element, through a vector of the element.

    .. math:: y_{q m o} = (C E)^{-1/2} \sum_{e i} W_{e i q o} \, a_{z e} \, x_{m i}

    where q counts the copies of an irrep in the result and m its rows, with C channels and element vectors a
    of E numbers. One matrix is made for each element, not for each atom.

    Args:
        irreps: how the rows of the features transform, each irrep once.
        channels: channels per row.
        elements: numbers E in the vector of an element.
        irreps_out: how the rows of the result transform, one entry for each irrep; rows whose irrep is not
            in ``irreps`` are zero.

    Shape:
        x: (atoms, irreps.dim, channels), vectors: (kinds, elements), kind: (atoms,) int64
        -> (atoms, irreps_out.dim, channels)

    Raises:
        ValueError: if an irrep has several entries, or ``x`` or ``vectors`` another shape.

    Source:
        Batzner et al. 2022, arXiv:2101.03164; a vector instead of a one-hot code as in nequip 0.19.

    >>> layer = SelfConnection("0e + 1o", 8, 4, irreps_out="2x0e + 1o")
    >>> layer(torch.randn(3, 4, 8), torch.randn(2, 4), torch.tensor([0, 1, 1])).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, irreps: IrrepsLike, channels: int, elements: int, *, irreps_out: IrrepsLike) -> None:
        super().__init__()
        self.irreps, self.irreps_out = Irreps(irreps), Irreps(irreps_out)
        self.channels, self.elements = channels, elements
        self.layout = _layout(self.irreps, self.irreps_out, channels)
        self.scale = (channels * elements) ** -0.5
        self.weight = nn.Parameter(torch.randn(elements, self.layout.weights))

    def forward(self, x: Tensor, vectors: Tensor, kind: Tensor) -> Tensor:
        expect_rows("SelfConnection", self.irreps, x, self.channels)
        if vectors.ndim != 2 or vectors.shape[1] != self.elements:
            raise ValueError(
                f"SelfConnection expects vectors of shape (kinds, {self.elements}), "
                f"got {tuple(vectors.shape)}"
            )
        return linear_by_index(x, (self.scale * vectors) @ self.weight, kind, self.layout)

    def extra_repr(self) -> str:
        return f"{self.irreps} -> {self.irreps_out}, {self.channels} channels, {self.elements} per element"


def _layout(irreps: Irreps, irreps_out: Irreps, channels: int) -> Layout:
    """Which rows mix where each irrep has one entry."""
    if len(set(irreps.copies)) < irreps.num_irreps or len({ir for _, ir in irreps_out}) < len(irreps_out):
        raise ValueError(
            "SelfConnection expects each irrep once, and one entry for each irrep of the result, "
            f"got {irreps} -> {irreps_out}"
        )
    places = {ir: (mul, rows.start) for (mul, ir), rows in zip(irreps_out, irreps_out.slices(), strict=True)}
    groups = [
        Group(rows.start, mul, places[ir][1], places[ir][0], ir.dim)
        for (mul, ir), rows in zip(irreps, irreps.slices(), strict=True)
        if ir in places
    ]
    return Layout(irreps.dim, channels, irreps_out.dim, channels, groups)


class GatedConvolution(nn.Module):
    r"""One round of NequIP's messages.

    .. math::
        x_i \leftarrow \text{gate}\Big(S_{z_i} x_i
            + L_2 \Big[\frac{1}{\sqrt{n}} \sum_{j \to i} R(d_{ij}) \; Y(\hat r_{ij}) \otimes L_1 x_j\Big]\Big)

    The harmonics Y couple with the features on every path that the irreps allow, and each path has radial
    weights R of its own, the same for the two directions of a pair. Directions point from the atom to its
    neighbour; with the opposite ones the signs of odd rows change, no invariant does.

    Args:
        irreps: how the rows of the features transform, each irrep once.
        channels: channels per row.
        irreps_out: how the rows of the result transform, each irrep once, sorted.
        lmax: highest degree of the harmonics.
        basis: from the distance to the input of the radial network, zero at the cutoff.
        hidden: channels of the radial network's hidden layers.
        elements: numbers in the vector of an element; None for no self-connection.
        activation: of even scalars, of gates and of the radial network; odd scalars go through tanh.
        average_neighbors: n.

    Shape:
        x: (atoms, irreps.dim, channels), harmonics: (edges, (lmax + 1)**2), distance: (pairs,),
        vectors: (kinds, elements), kind: (atoms,) -> (atoms, irreps_out.dim, channels)

    Source:
        Batzner et al. 2022, arXiv:2101.03164; every detail as in nequip 0.19.

    >>> basis = SmoothBessel(4, 5.0)
    >>> GatedConvolution("0e", 8, "0e + 1o", lmax=1, basis=basis, hidden=[16], elements=None).gate.irreps_in
    2x0e+1x1o
    """

    def __init__(
        self,
        irreps: IrrepsLike,
        channels: int,
        irreps_out: IrrepsLike,
        *,
        lmax: int,
        basis: SmoothBessel,
        hidden: list[int],
        elements: int | None,
        activation: str = "silu",
        average_neighbors: float = 1.0,
    ) -> None:
        super().__init__()
        self.irreps, self.irreps_out, self.channels = Irreps(irreps), Irreps(irreps_out), channels
        self.average_neighbors = float(average_neighbors)
        self.gate = gate_into(self.irreps_out, activation)
        inner = self.gate.irreps_in
        self.before = Linear(self.irreps, channels, channels, bias=False)
        self.convolution = EquivariantConvolution(
            self.irreps,
            Irreps.spherical_harmonics(lmax),
            Irreps([(1, ir) for _, ir in inner]),
            channels,
            separate_paths=True,
        )
        self.after = Linear(self.convolution.irreps_out, channels, channels, irreps_out=inner, bias=False)
        network = scalar_network(
            [basis.bessel.count, *hidden, len(self.convolution.paths) * channels], activation
        )
        self.radial = RadialFunction(basis, network, NoEnvelope(), cutoff=basis.bessel.cutoff)
        self.own = None if elements is None else SelfConnection(irreps, channels, elements, irreps_out=inner)

    def forward(
        self, x: Tensor, harmonics: Tensor, distance: Tensor, plan: EdgePlan, vectors: Tensor, kind: Tensor
    ) -> Tensor:
        weight = self.radial(distance).unflatten(-1, (-1, self.channels))
        sent = self.before(x) * self.average_neighbors**-0.5
        y = self.after(self.convolution(sent, harmonics, weight, plan))
        out: Tensor = self.gate(y if self.own is None else y + self.own(x, vectors, kind))
        return out

    def extra_repr(self) -> str:
        return f"{self.irreps} -> {self.irreps_out}, average_neighbors={self.average_neighbors:g}"


def gate_into(irreps: Irreps, activation: str) -> Gate:
    """The gate whose result has the irreps: even scalars and gates by one function, odd scalars by tanh.

    >>> gate_into(Irreps("0e + 0o + 1o + 2e"), "silu").irreps_in
    1x0o+3x0e+1x1o+1x2e
    """
    scalars = [ir for ir in irreps.copies if ir.l == 0]
    gated = [ir for ir in irreps.copies if ir.l > 0]
    return Gate(
        Irreps([(1, ir) for ir in scalars]),
        [activation if ir.p == 1 else "tanh" for ir in scalars],
        Irreps([(len(gated), "0e")]) if gated else Irreps(),
        [activation] if gated else [],
        Irreps([(1, ir) for ir in gated]),
    )
