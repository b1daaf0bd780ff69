"""Functions on plain tensors. Each folder is one op: its meaning, its kernels, its wiring.

A function named like its folder is imported from there: ``from equitorch.ops.message import message``.
"""

from equitorch.ops.backend import use_reference as use_reference
from equitorch.ops.bilinear import Bilinear as Bilinear
from equitorch.ops.edges import EdgePlan as EdgePlan
from equitorch.ops.gaunt import gaunt_product as gaunt_product
from equitorch.ops.gaunt import poisson_bracket as poisson_bracket
from equitorch.ops.gaunt import product_and_bracket as product_and_bracket
from equitorch.ops.harmonics import spherical_harmonics as spherical_harmonics
