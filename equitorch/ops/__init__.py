"""Functions on plain tensors. Each folder is one op: its meaning, its kernels, its wiring."""

from equitorch.ops.bilinear import Bilinear as Bilinear
from equitorch.ops.harmonics import spherical_harmonics as spherical_harmonics
