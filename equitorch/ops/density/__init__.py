"""The density of neighbours, projected on radial and angular functions."""

from equitorch.ops.density.op import density as density
