"""Into the frame of an edge and back, by block-diagonal Wigner matrices."""

from equitorch.ops.rotate.frames import edge_frames as edge_frames
from equitorch.ops.rotate.op import EdgeRotation as EdgeRotation
from equitorch.ops.rotate.op import rotate_back as rotate_back
from equitorch.ops.rotate.op import rotate_in as rotate_in
from equitorch.ops.rotate.op import rotate_out as rotate_out
