"""Write an equivariant layer, and let the library say whether it is one.

``python examples/02_write_a_layer.py``
"""

import torch
from torch import Tensor, nn

from equitorch.layers import Linear
from equitorch.ops import Bilinear
from equitorch.reps import Coupling, Irreps
from equitorch.testing import assert_equivariant

VECTOR, TORQUE = Irreps("1o"), Irreps("1e")


class Torque(nn.Module):
    """The cross product of two mixtures of vectors: a pseudovector, which a mirror does not turn around."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lever, self.force = (Linear(VECTOR, channels, channels) for _ in range(2))
        self.cross = Bilinear(Coupling.between(VECTOR, VECTOR, TORQUE))

    def forward(self, x: Tensor) -> Tensor:
        return self.cross(self.lever(x), self.force(x))


layer = Torque(8).double()
assert_equivariant(layer, [VECTOR], TORQUE, channels=8)
print("a torque is a pseudovector (1e): the check passes")

try:
    assert_equivariant(layer, [VECTOR], VECTOR, channels=8)
except AssertionError as error:
    print("as a vector (1o) it does not:", error)

x = torch.randn(10, VECTOR.dim, 8, dtype=torch.float64)
print("features are plain tensors:", tuple(x.shape), "->", tuple(layer(x).shape))
