"""Kernels in C, compiled once for the processor at hand; where that cannot be, PyTorch's operators do it."""
