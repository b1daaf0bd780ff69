"""Products of functions on the sphere."""

from equitorch.ops.gaunt.op import gaunt_product as gaunt_product
from equitorch.ops.gaunt.op import poisson_bracket as poisson_bracket
from equitorch.ops.gaunt.op import product_and_bracket as product_and_bracket
