"""Linear maps that commute with rolls about an edge."""

from equitorch.ops.so2.op import so2_linear as so2_linear
from equitorch.ops.so2.reference import Block as Block
from equitorch.ops.so2.reference import Layout as Layout
from equitorch.ops.so2.scale import scale_orders as scale_orders
from equitorch.ops.so2.stacks import join_stacks as join_stacks
from equitorch.ops.so2.stacks import split_stacks as split_stacks
