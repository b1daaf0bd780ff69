"""MACE's layer: a convolution gathers neighbours, powers of what it gathered make features of many bodies."""

from __future__ import annotations

from torch import Tensor, nn

from equitorch.layers.convolution import EquivariantConvolution
from equitorch.layers.gaunt_many_body import GauntManyBody
from equitorch.layers.linear import Linear
from equitorch.layers.nequip import NoEnvelope, SmoothBessel, scalar_network
from equitorch.layers.radial import RadialFunction
from equitorch.layers.symmetric_contraction import SymmetricContraction
from equitorch.ops.edges import EdgePlan
from equitorch.reps import Irreps

PRODUCTS = ("cg", "gaunt")


class ManyBodyConvolution(nn.Module):
    r"""One round of MACE's messages.

    .. math::
        A_i = L_2 \Big[\frac{1}{n} \sum_{j \to i} R(d_{ij}) \; Y(\hat r_{ij}) \otimes L_1 x_j\Big], \qquad
        x_i \leftarrow L_3 \, B_{z_i}(A_i) + S_{z_i} x_i

    Products of up to ``correlation`` neighbours come from one sum over them: B is an equivariant polynomial
    of A, channel by channel. Without ``residual`` there is no term :math:`S x`, and the linear map S of the
    element acts on A instead; features are then zero wherever no neighbour is.

    Args:
        lmax_in: degree of the features; they have one row for each harmonic up to it.
        lmax_out: degree of the result.
        channels: channels per row.
        max_ell: highest degree of the harmonics, and of A.
        basis: from the distance to the input of the radial network, zero at the cutoff.
        hidden: channels of the radial network's hidden layers.
        correlation: degree of the polynomial: one less than the number of bodies.
        elements: number of elements, each of which has weights S and B of its own.
        product: "cg", all polynomials (:class:`equitorch.layers.SymmetricContraction`); "gaunt", powers of
            functions on the sphere (:class:`equitorch.layers.GauntManyBody`).
        residual: add S x.
        average_neighbors: n.

    Shape:
        x: (atoms, (lmax_in + 1)**2, channels), harmonics: (edges, (max_ell + 1)**2), distance: (pairs,),
        kind: (atoms,), which element -> (atoms, (lmax_out + 1)**2, channels)

    Source:
        Batatia et al. 2022, arXiv:2206.07697; "gaunt": Luo et al. 2024, arXiv:2401.10216.

    >>> basis = SmoothBessel(4, 5.0)
    >>> ManyBodyConvolution(0, 1, 8, max_ell=2, basis=basis, hidden=[16], elements=3).product
    SymmetricContraction(1x0e+1x1o+1x2e -> 1x0e+1x1o, channels=8, correlation=3, species=3)
    """

    def __init__(
        self,
        lmax_in: int,
        lmax_out: int,
        channels: int,
        *,
        max_ell: int,
        basis: SmoothBessel,
        hidden: list[int],
        correlation: int = 3,
        elements: int = 1,
        product: str = "cg",
        residual: bool = True,
        average_neighbors: float = 1.0,
    ) -> None:
        super().__init__()
        irreps, gathered = Irreps.spherical_harmonics(lmax_in), Irreps.spherical_harmonics(max_ell)
        irreps_out = Irreps.spherical_harmonics(lmax_out)
        self.channels, self.residual = channels, residual
        self.average_neighbors = float(average_neighbors)
        self.before = Linear(irreps, channels, channels, bias=False)
        self.convolution = EquivariantConvolution(irreps, gathered, gathered, channels, separate_paths=True)
        self.after = Linear(self.convolution.irreps_out, channels, channels, irreps_out=gathered, bias=False)
        network = scalar_network([basis.bessel.count, *hidden, len(self.convolution.paths) * channels])
        self.radial = RadialFunction(basis, network, NoEnvelope(), cutoff=basis.bessel.cutoff)
        own = (irreps, irreps_out) if residual else (gathered, gathered)
        self.own = Linear(own[0], channels, channels, irreps_out=own[1], bias=False, species=elements)
        self.product = many_body_product(
            product, max_ell, lmax_out, channels, correlation=correlation, species=elements
        )
        self.mix = Linear(irreps_out, channels, channels, bias=False)

    def forward(self, x: Tensor, harmonics: Tensor, distance: Tensor, plan: EdgePlan, kind: Tensor) -> Tensor:
        weight = self.radial(distance).unflatten(-1, (-1, self.channels))
        sent = self.before(x) * (1 / self.average_neighbors)
        gathered = self.after(self.convolution(sent, harmonics, weight, plan))
        if not self.residual:
            out: Tensor = self.mix(self.product(self.own(gathered, kind), kind))
            return out
        out = self.mix(self.product(gathered, kind)) + self.own(x, kind)
        return out

    def extra_repr(self) -> str:
        return f"residual={self.residual}, average_neighbors={self.average_neighbors:g}"


def many_body_product(
    product: str, lmax_in: int, lmax_out: int, channels: int, *, correlation: int, species: int
) -> nn.Module:
    """The polynomial of a node's harmonics, by the name of its kind.

    Raises:
        ValueError: if there is no such kind.

    >>> many_body_product("cg", 1, 0, 4, correlation=2, species=2)
    SymmetricContraction(1x0e+1x1o -> 1x0e, channels=4, correlation=2, species=2)
    """
    if product == "cg":
        irreps, irreps_out = Irreps.spherical_harmonics(lmax_in), Irreps.spherical_harmonics(lmax_out)
        return SymmetricContraction(irreps, irreps_out, channels, correlation=correlation, species=species)
    if product == "gaunt":
        return GauntManyBody(lmax_in, lmax_out, channels, correlation=correlation, species=species)
    raise ValueError(f"many_body_product expects one of {', '.join(PRODUCTS)}, got {product!r}")
