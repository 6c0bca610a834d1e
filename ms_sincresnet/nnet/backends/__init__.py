"""Faster ways to the same maps: PyTorch's FFT, compiled loops, tensor cores."""
