"""Symmetric contractions: equivariant polynomials of the rows of a node, with weights of its species."""

from equitorch.ops.contraction.op import contraction as contraction
