"""Tensor products whose paths follow from their irreps: fully connected, full, elementwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch  # noqa: F401 (for the examples)

from equitorch.layers.tensor_product import TensorProduct
from equitorch.reps import Irrep, Irreps, MulIr


class FullyConnectedTensorProduct(TensorProduct):
    r"""Every pair of blocks into every block that they couple to, with weights between all multiplicities.

    .. math:: z_w = \sum_{u v} W_{u v w} \, x_u \otimes y_v + \text{other paths}

    Args:
        irreps_in1: of the first operand, multiplicities included.
        irreps_in2: of the second operand.
        irreps_out: of the result.
        irrep_normalization: as in ``TensorProduct``.
        path_normalization: as in ``TensorProduct``.
        layout: "rows" (default) or "e3nn": the shape of features, as in ``TensorProduct``; by name only.
        **options: the other options of ``TensorProduct``.

    Shape:
        as in ``TensorProduct``

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn); paths in the order of e3nn's.

    >>> product = FullyConnectedTensorProduct("32x0e+32x1o", "0e+1o", "32x0e+32x1o")
    >>> product(torch.randn(10, 4, 32), torch.randn(10, 4, 1)).shape, product.weight_numel
    (torch.Size([10, 4, 32]), 4096)
    """

    def __init__(
        self,
        irreps_in1: Irreps | str,
        irreps_in2: Irreps | str,
        irreps_out: Irreps | str,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        *,
        layout: str = "rows",
        **options: Any,
    ) -> None:
        one, two, out = Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out)
        paths = [
            (i, j, k, "uvw", True)
            for i, (_, a) in enumerate(one)
            for j, (_, b) in enumerate(two)
            for k, (_, c) in enumerate(out)
            if c in a * b
        ]
        options |= {"irrep_normalization": irrep_normalization, "path_normalization": path_normalization}
        super().__init__(one, two, out, paths, layout=layout, **options)


class FullTensorProduct(TensorProduct):
    r"""Every pair of irreps into all that they couple to, each kept: no weights.

    .. math:: z_{u v} = x_u \otimes y_v

    Args:
        irreps_in1: of the first operand, multiplicities included; simplified first.
        irreps_in2: of the second operand; simplified first.
        filter_ir_out: the irreps to keep; all if not given.
        irrep_normalization: as in ``TensorProduct``.
        layout: "rows" (default) or "e3nn": the shape of features, as in ``TensorProduct``; by name only.
        **options: the other options of ``TensorProduct``.

    Shape:
        as in ``TensorProduct``; ``irreps_out`` is sorted

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn).

    >>> FullTensorProduct("2x1o", "0e + 1o").irreps_out
    2x0e+2x1o+2x1e+2x2e
    """

    def __init__(
        self,
        irreps_in1: Irreps | str,
        irreps_in2: Irreps | str,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        *,
        layout: str = "rows",
        **options: Any,
    ) -> None:
        one, two = Irreps(irreps_in1).simplify(), Irreps(irreps_in2).simplify()
        kept = kept_irreps(filter_ir_out)
        found = [
            (i, j, m1 * m2, c)
            for i, (m1, a) in enumerate(one)
            for j, (m2, b) in enumerate(two)
            for c in a * b
            if kept is None or c in kept
        ]
        out, place, _ = Irreps([(mul, c) for _, _, mul, c in found]).sort()
        paths = [(i, j, place[k], "uvuv", False) for k, (i, j, _, _) in enumerate(found)]
        super().__init__(
            one, two, out, paths, irrep_normalization=irrep_normalization, layout=layout, **options
        )


class ElementwiseTensorProduct(TensorProduct):
    r"""The irreps of two operands in pairs, one by one: no weights.

    .. math:: z_u = x_u \otimes y_u

    where u counts all copies of the irreps of either operand.

    Args:
        irreps_in1: of the first operand; simplified, and split where multiplicities differ.
        irreps_in2: of the second operand, with as many irreps.
        filter_ir_out: the irreps to keep; all if not given.
        irrep_normalization: as in ``TensorProduct``.
        layout: "rows" (default) or "e3nn": the shape of features, as in ``TensorProduct``; by name only.
        **options: the other options of ``TensorProduct``.

    Shape:
        as in ``TensorProduct``, with the channels of ``irreps_in1`` and ``irreps_in2`` as they are after
        splitting

    Raises:
        ValueError: if the operands do not have equally many irreps.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn).

    >>> ElementwiseTensorProduct("5x1o + 5x1e", "10x1e", ["0e", "0o"])
    ElementwiseTensorProduct(5x1o+5x1e x 10x1e -> 5x0o+5x0e | 10 paths | 0 weights | component, element)
    """

    def __init__(
        self,
        irreps_in1: Irreps | str,
        irreps_in2: Irreps | str,
        filter_ir_out: Iterable[Any] | None = None,
        irrep_normalization: str | None = None,
        *,
        layout: str = "rows",
        **options: Any,
    ) -> None:
        one, two = _paired(Irreps(irreps_in1).simplify(), Irreps(irreps_in2).simplify())
        kept = kept_irreps(filter_ir_out)
        out: list[MulIr] = []
        paths = []
        for i, ((mul, a), (_, b)) in enumerate(zip(one, two, strict=True)):
            for c in a * b:
                if kept is None or c in kept:
                    paths.append((i, i, len(out), "uuu", False))
                    out.append(MulIr(mul, c))
        super().__init__(
            one, two, Irreps(out), paths, irrep_normalization=irrep_normalization, layout=layout, **options
        )


def kept_irreps(given: Iterable[Any] | None) -> list[Irrep] | None:
    """The irreps that a filter names, one by one or as irreps; None keeps all.

    >>> kept_irreps(["0e", "1o"]), kept_irreps("0e + 1o")
    ([0e, 1o], [0e, 1o])
    """
    if given is None:
        return None
    return [ir for _, ir in Irreps(given)] if isinstance(given, str | Irreps) else [Irrep(ir) for ir in given]


def _paired(one: Irreps, two: Irreps) -> tuple[Irreps, Irreps]:
    """Both split so that their multiplicities agree block by block."""
    if one.num_irreps != two.num_irreps:
        raise ValueError(
            f"ElementwiseTensorProduct expects equally many irreps, got {one.num_irreps} of '{one}' and "
            f"{two.num_irreps} of '{two}'"
        )
    ends = [list(_ends(irreps)) for irreps in (one, two)]
    cuts = sorted({end for own in ends for end in own})
    split: list[list[MulIr]] = [[], []]
    for before, cut in zip([0, *cuts], cuts, strict=False):
        for irreps, own, into in zip((one, two), ends, split, strict=True):
            block = next(n for n, end in enumerate(own) if end >= cut)
            into.append(MulIr(cut - before, irreps[block].ir))
    return Irreps(split[0]), Irreps(split[1])


def _ends(irreps: Irreps) -> Iterable[int]:
    total = 0
    for mul, _ in irreps:
        total += mul
        yield total
