"""Linear maps between the channels and copies of irreps."""

from equitorch.ops.linear.choice import linear_by_index as linear_by_index
from equitorch.ops.linear.op import linear as linear
