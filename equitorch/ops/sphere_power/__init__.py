"""Polynomials of functions on the sphere."""

from equitorch.ops.sphere_power.op import sphere_polynomial as sphere_polynomial
