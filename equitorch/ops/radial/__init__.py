"""Functions of a distance, read off a table."""

from equitorch.ops.radial.op import interpolate as interpolate
