"""A rotation for each edge that turns it onto the polar axis y."""

from __future__ import annotations

import torch
from torch import Tensor


def edge_frames(vectors: Tensor) -> Tensor:
    r"""Rotation matrices R with R v / |v| = (0, 1, 0): a gauge in two charts, one for each hemisphere.

    .. math::
        R = \begin{pmatrix} 1 - x^2 / s & -q x & -x z / s \\ x & y & z \\
            -q x z / s & -z & q (1 - z^2 / s) \end{pmatrix}, \qquad s = 1 + q y, \; q = \pm 1 \text{ with } y

    No angles and no poles; it jumps where y = 0, as every frame must somewhere. What is built on it should be
    of the kind that no roll about the edge changes.

    Args:
        vectors: need not have unit length. A zero vector is taken for (0, 1, 0).

    Shape:
        (edges, 3) -> (edges, 3, 3)

    >>> v = torch.tensor([[0.0, -2.0, 0.0]])
    >>> edge_frames(v) @ v[..., None]
    tensor([[[0.],
             [2.],
             [0.]]])
    """
    length = vectors.norm(dim=-1, keepdim=True)
    pole = vectors.new_tensor([0.0, 1.0, 0.0])
    x, y, z = torch.where(length > 0, vectors / torch.where(length > 0, length, 1.0), pole).unbind(-1)
    q = torch.where(y >= 0, 1.0, -1.0).to(vectors)
    s = 1 + q * y
    rows = [1 - x * x / s, -q * x, -x * z / s, x, y, z, -q * x * z / s, -z, q * (1 - z * z / s)]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
