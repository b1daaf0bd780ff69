"""The tensor product of a feature with itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch  # noqa: F401 (for the example)
from torch import Tensor

from equitorch.layers.tensor_product import TensorProduct, Weights
from equitorch.layers.tensor_products import kept_irreps
from equitorch.reps import Irrep, Irreps


class TensorSquare(TensorProduct):
    r"""The tensor product of a feature with itself, each independent component once.

    Pairs of different irreps are counted once, and an irrep with itself gives even degrees only. Without
    ``irreps_out`` every product is kept and there are no weights; with it, weights connect them all.

    Args:
        irreps_in: of the feature, multiplicities included; simplified first.
        irreps_out: of the result; simplified first.
        filter_ir_out: the irreps to keep, where ``irreps_out`` is not given.
        irrep_normalization: "component" (default), "norm" or "none". It takes into account that the two
            operands are the same, so the factors of ``TensorProduct`` itself are off.
        layout: "rows" (default) or "e3nn": the shape of features, as in ``TensorProduct``; by name only.
        **options: the other options of ``TensorProduct``.

    Shape:
        x: (..., rows_of(irreps_in).dim, common_channels(irreps_in)), or (..., irreps_in.dim) with layout
        "e3nn"; the result as in ``TensorProduct``

    Raises:
        ValueError: if both ``irreps_out`` and ``filter_ir_out`` are given, or the normalisation is unknown.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn); conventions as in e3nn 0.6.

    >>> TensorSquare("2x1o").irreps_out, TensorSquare("2x1o")(torch.randn(10, 3, 2)).shape
    (1x0e+2x0e+1x1e+1x2e+2x2e, torch.Size([10, 21, 1]))
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_out: Irreps | str | None = None,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        *,
        layout: str = "rows",
        **options: Any,
    ) -> None:
        own = Irreps(irreps_in).simplify()
        kept, rule = kept_irreps(filter_ir_out), irrep_normalization or "component"
        if rule not in ("component", "norm", "none"):
            raise ValueError(
                f"TensorSquare expects irrep_normalization of component, norm or none, got {rule!r}"
            )
        if irreps_out is None:
            products = [path for path in _products(own, rule) if kept is None or path[3] in kept]
            muls = [_multiplicity(own, i, j, mode) for i, j, mode, _, _ in products]
            found = Irreps([(mul, path[3]) for mul, path in zip(muls, products, strict=True)])
            out, place, _ = found.sort()
            paths = [
                (i, j, place[k], mode, False, factor) for k, (i, j, mode, _, factor) in enumerate(products)
            ]
        else:
            if kept is not None:
                raise ValueError("TensorSquare expects irreps_out or filter_ir_out, got both")
            out = Irreps(irreps_out).simplify()
            paths = _fully_connected(own, out, rule)
        self.square_normalization = rule
        super().__init__(own, own, out, paths, irrep_normalization="none", layout=layout, **options)
        self.irreps_in = own

    def forward(self, x: Tensor, weight: Weights = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, weight)

    def _title(self) -> str:
        return f"{self.irreps_in1.simplify()} -> {self.irreps_out.simplify()}"

    def _rules(self) -> str:
        return f"{self.square_normalization}, {self.path_normalization}"


Product = tuple[int, int, str, Irrep, float]  # blocks, mode, irrep of the result, factor A


def _products(irreps: Irreps, rule: str) -> Iterator[Product]:
    """All products that are kept, in e3nn's order."""
    for i, (mul, a) in enumerate(irreps):
        for j, (_, b) in enumerate(irreps):
            for c in a * b:
                if i < j:
                    yield i, j, "uvuv", c, _distinct(a, b, c, rule)
                if i == j and mul > 1:
                    yield i, i, "uvu<v", c, _distinct(a, a, c, rule)
                if i == j and c.l % 2 == 0:
                    yield i, i, "uuu", c, _same(a, c, rule)


def _multiplicity(irreps: Irreps, i: int, j: int, mode: str) -> int:
    u, v = irreps[i].mul, irreps[j].mul
    return {"uvuv": u * v, "uvu<v": u * (u - 1) // 2, "uuu": u}[mode]


def _fully_connected(irreps: Irreps, out: Irreps, rule: str) -> list[tuple[Any, ...]]:
    """The same products with weights, in e3nn's order: block by block of the result."""
    modes = {"uvuv": "uvw", "uvu<v": "u<vw", "uuu": "uuw"}
    paths = []
    products = list(_products(irreps, rule))
    for i in range(len(irreps)):
        for j in range(i, len(irreps)):
            for k, (_, c) in enumerate(out):
                paths += [
                    (i, j, k, modes[mode], True, factor)
                    for a, b, mode, ir, factor in products
                    if (a, b) == (i, j) and ir == c
                ]
    return paths


def _distinct(a: Irrep, b: Irrep, c: Irrep, rule: str) -> float:
    return {"component": float(c.dim), "norm": float(a.dim * b.dim), "none": 1.0}[rule]


def _same(a: Irrep, c: Irrep, rule: str) -> float:
    """The factor of an irrep times itself, whose square has another variance."""
    if rule == "component":
        return c.dim / (a.dim + 2) if c.l == 0 else c.dim / 2
    if rule == "norm":
        return float(c.dim * a.dim) if c.l == 0 else a.dim * (a.dim + 2) / 2
    return 1.0
