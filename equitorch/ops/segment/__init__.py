"""Sums over the edges of each node, and what belongs to a node given to its edges."""

from equitorch.ops.segment.op import segment_sum as segment_sum
from equitorch.ops.segment.op import spread as spread
