"""Linear maps between the channels and copies of irreps."""

from equitorch.ops.linear.op import linear as linear
