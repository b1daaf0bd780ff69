"""Weighted sums over neighbours."""

from equitorch.ops.message.op import message as message
