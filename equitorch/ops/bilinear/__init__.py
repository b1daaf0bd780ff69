"""Two features, combined into a third through an equivariant coupling."""

from equitorch.ops.bilinear.op import Bilinear as Bilinear
from equitorch.ops.bilinear.op import bilinear as bilinear
