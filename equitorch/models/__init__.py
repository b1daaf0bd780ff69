"""Models: plain tensors in, energies and tensor properties out."""
