"""equitorch/layers/tensor_product.py"""

import pytest
import torch

from equitorch.layers import TensorProduct
from equitorch.reps import Irreps, rows_of
from equitorch.testing import assert_equivariant

CROSS = ("4x1o", "4x1o", "4x1e", [(0, 0, 0, "uuu", False)])
DOT = ("4x1o", "4x1o", "4x0e", [(0, 0, 0, "uuu", False)])


@pytest.mark.parametrize("layout", ["rows", "e3nn"])
def test_means_the_cross_and_the_dot_product(layout):
    """Answers known without this library: the norms are those of component normalisation."""
    x, y = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    flat = (t.mT.flatten(1) if layout == "e3nn" else t for t in (x, y))
    x_in, y_in = flat
    cross, dot = (TensorProduct(*case, layout=layout)(x_in, y_in) for case in (CROSS, DOT))
    cross = cross.unflatten(1, (4, 3)).mT if layout == "e3nn" else cross
    torch.testing.assert_close(cross, torch.linalg.cross(x, y, dim=1) / 2**0.5)
    torch.testing.assert_close(dot.flatten(1), (x * y).sum(1) / 3**0.5)


def test_commutes_with_every_rotation_and_mirror():
    irreps = Irreps("2x0e+2x1o+2x1e")
    paths = [
        (i, j, k, "uvw", True)
        for i, a in enumerate(irreps)
        for j, b in enumerate(irreps)
        for k, c in enumerate(irreps)
        if c.ir in a.ir * b.ir
    ]
    product = TensorProduct(irreps, irreps, irreps, paths).double()
    rows = rows_of(irreps)
    assert_equivariant(product, [rows, rows], rows, channels=2)
