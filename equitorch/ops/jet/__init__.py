"""Value and derivatives along a curve, pushed forward through the parts of a network."""

from equitorch.ops.jet.op import linear as linear
from equitorch.ops.jet.op import product as product
from equitorch.ops.jet.op import silu as silu
