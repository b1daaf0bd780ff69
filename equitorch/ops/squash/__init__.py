"""Features of bounded size."""

from equitorch.ops.squash.op import squash as squash
