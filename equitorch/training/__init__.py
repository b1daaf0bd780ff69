"""Training in plain PyTorch: configuration, loss, loop."""
