"""The tensor product of several features with index symmetries."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from equitorch.layers.constant import Constant
from equitorch.ops.bilinear import Bilinear
from equitorch.reps import Irrep, reduced_tensor_products
from equitorch.reps.irreps import IrrepsLike


class ReducedTensorProducts(nn.Module):
    r"""The irreps in the tensor product of several features, of the part with given index symmetries.

    .. math:: z_a = \sum_{i j \dots} Q_{a i j \dots} \, x_i \, y_j \cdots

    The rows of Q are orthonormal tensors with the symmetries of the formula. Arguments, order and numbers are
    those of ``e3nn.o3.ReducedTensorProducts``. Nothing is learned.

    Args:
        formula: index letters, then equal permutations of them, with a minus where the sign changes, as in
            ``"ij=-ji"`` or ``"ijk=jki"``.
        filter_ir_out: the irreps wanted; all if not given.
        filter_ir_mid: the irreps allowed after each product of two; all if not given.
        eps: how far from symmetric a combination may be; matters only with ``filter_ir_mid``.
        layout: "rows": each feature is (..., irreps.dim, channels), and channels stay apart; "e3nn": it is
            (..., irreps.dim).
        **irreps: of each index; one is enough for those that the formula exchanges.

    Attributes:
        irreps_in: of each factor.
        irreps_out: of the result.
        change_of_basis: Q. Shape (irreps_out.dim, dim of the first factor, dim of the second, ...).

    Shape:
        One feature for each index: (..., irreps.dim, channels or 1) -> (..., irreps_out.dim, channels).
        Leading axes broadcast.

    Raises:
        ValueError: if the formula cannot be read, an index lacks its irreps, or another number of features
            comes.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn).

    >>> import torch
    >>> product = ReducedTensorProducts("ij=-ji", i="1o")
    >>> product, product(torch.randn(5, 3, 8), torch.randn(5, 3, 8)).shape
    (ReducedTensorProducts(ij=-ji: (1x1o) x (1x1o) -> 1x1e), torch.Size([5, 3, 8]))
    """

    def __init__(
        self,
        formula: str,
        filter_ir_out: Iterable[Irrep | str] | None = None,
        filter_ir_mid: Iterable[Irrep | str] | None = None,
        eps: float = 1e-9,
        *,
        layout: str = "rows",
        **irreps: IrrepsLike,
    ) -> None:
        super().__init__()
        if layout not in ("rows", "e3nn"):
            raise ValueError(f"ReducedTensorProducts expects layout of rows or e3nn, got {layout!r}")
        reduced = reduced_tensor_products(formula, filter_ir_out, filter_ir_mid, eps, **irreps)
        self.formula, self.layout = formula, layout
        self.irreps_in, self.irreps_out = reduced.irreps_in, reduced.irreps_out
        self.basis = Constant(reduced.change_of_basis)
        self.products = nn.ModuleList(map(Bilinear, reduced.couplings))

    @property
    def change_of_basis(self) -> Tensor:
        """The tensors Q, in the dtype and on the device of the module."""
        return self.basis.value

    def forward(self, *xs: Tensor) -> Tensor:
        self._check(xs)
        if self.layout == "e3nn":
            xs = tuple(x.unsqueeze(-1) for x in xs)
        out = xs[0] if self.products else self.change_of_basis.to(xs[0]) @ xs[0]
        for product, x in zip(self.products, xs[1:], strict=True):
            out = product(out, x)
        return out.squeeze(-1) if self.layout == "e3nn" else out

    def _check(self, xs: tuple[Tensor, ...]) -> None:
        axis, dims = (-1 if self.layout == "e3nn" else -2), [irreps.dim for irreps in self.irreps_in]
        if [x.shape[axis] if x.ndim >= -axis else None for x in xs] != dims:
            rest = "" if self.layout == "e3nn" else ", channels"
            wanted = ", ".join(f"(..., {dim}{rest})" for dim in dims)
            got = ", ".join(str(tuple(x.shape)) for x in xs) or "none"
            raise ValueError(f"{self} expects features of shapes {wanted}, got {got}")

    def __repr__(self) -> str:
        factors = " x ".join(f"({irreps})" for irreps in self.irreps_in)
        return f"ReducedTensorProducts({self.formula}: {factors} -> {self.irreps_out})"
