"""The native ops on a CPU beside eager PyTorch, compiled PyTorch and NumPy loops."""
