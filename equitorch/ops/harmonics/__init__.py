"""Real spherical harmonics of any degree, with derivatives of any order."""

from equitorch.ops.harmonics.op import spherical_harmonics as spherical_harmonics
