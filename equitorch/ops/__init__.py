"""Functions on plain tensors. Each folder is one op: its meaning, its kernels, its wiring."""
