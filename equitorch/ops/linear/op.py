"""``linear`` as layers call it."""

from __future__ import annotations

from torch import Tensor

from equitorch.ops.linear.reference import OUTPUT, Layout, fake
from equitorch.ops.linear.reference import linear as reference
from equitorch.ops.multilinear import Kernel, Multilinear


def _strided() -> Kernel:
    from equitorch.ops.linear.strided import linear as kernel

    return kernel


_linear = Multilinear("linear", reference=reference, fake=fake, cpu=_strided, cuda=_strided)


def linear(x: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    r"""Mix the channels and the copies of each irrep: a block-diagonal matrix on the rows of a feature.

    .. math:: y_{n q m o} = \sum_{p i} w^{(g)}_{p i q o} \, x_{n p m i}

    for each group g of rows, with p, q counting copies, m components, and i, o channels. Rows of the result
    that belong to no group are zero.

    Args:
        x: the feature. Shape (points, rows_in, channels_in).
        weight: the weights of all groups, one after another, each of shape
            (copies_in, channels_in, copies_out, channels_out).
        layout: which rows mix.

    Shape:
        (points, rows_out, channels_out)

    Raises:
        ValueError: if the shapes do not belong together.
    """
    wanted = (layout.rows_in, layout.channels_in)
    if x.ndim != 3 or x.shape[1:] != wanted or weight.shape != (layout.weights,):
        raise ValueError(
            f"linear expects x of shape (points, {wanted[0]}, {wanted[1]}) and {layout.weights} weights, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    return _linear(OUTPUT, [x, weight], [], layout.sizes())
